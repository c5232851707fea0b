// A conversation: what was asked, and what one or two variants have answered. Nothing is drawn here.

import * as api from "./api.js";

const BYTES = 600_000; // of what is sent at most; the server takes 1 MB, and no context holds that
const QUESTIONS = 900; // that are sent at most; the server takes 2000 messages
const sizer = new TextEncoder();

export const talk = {
  picks: ["", ""], // names of the first and the second variant; "": none
  alone: new Set(), // names of those that know of no conversation: each question by itself
  plain: new Set(), // of these the ones that were evaluated on plain text, with which they go on as it is
  turns: [],
  asking: null, // an AbortController while answers come
  changed: () => {}, // called with a turn that has changed
};

export const settled = (answer) => ["done", "stopped", "failed"].includes(answer.state);

// What stands left and right of a turn: [place among the picks, answer].
export function sides(turn) {
  const found = turn.answers.flatMap((answer, place) => (answer ? [[place, answer]] : []));
  return turn.swapped ? found.reverse() : found;
}

// Two whole answers of two variants can be compared; the longest that one may be is whole, too.
export function votable(turn) {
  const found = sides(turn).map(([, answer]) => answer);
  const whole = found.every((one) => one.state === "done" && ["stop", "length"].includes(one.reason));
  return found.length === 2 && whole && found[0].variant !== found[1].variant;
}

// Asks what was typed; `settings` as the page has them. Returns when all answers have ended.
export async function ask(question, settings) {
  const picks = talk.picks.map((name, place) => [place, name]).filter(([, name]) => name);
  const two = picks.length === 2;
  const blind = two && settings.blind;
  const turn = { question, blind, swapped: blind && Math.random() < 0.5, answers: [null, null], vote: null, settings };
  for (const [place, name] of picks) turn.answers[place] = fresh(name);
  talk.turns.push(turn);
  await answered(turn, blind && Math.random() < 0.5 ? [1, 0] : picks.map(([place]) => place));
}

// Once more, where there was no answer.
export async function again(turn, place) {
  turn.answers[place] = fresh(turn.answers[place].variant);
  await answered(turn, [place]);
}

const fresh = (variant) => ({
  ...{ variant, state: "waiting", text: "", tokens: 0, place: null, begun: null, ended: null, reason: null, error: "" },
  ...{ asked: 0, first: 0, cut: 0, messages: [] },
});

async function answered(turn, places) {
  const mine = new AbortController();
  const { signal } = mine;
  talk.asking = mine;
  talk.changed(turn);
  try {
    if (turn.settings.together) await Promise.all(places.map((place) => one(turn, place, signal)));
    else for (const place of places) await one(turn, place, signal);
  } finally {
    if (!votable(turn)) turn.blind = false; // names are shown where there is no vote, and no later vote is blind then
    if (talk.asking === mine) talk.asking = null; // unless it was stopped, and something else is asked
    talk.changed(turn);
  }
}

export function stop() {
  talk.asking?.abort();
  talk.asking = null;
}

async function one(turn, place, signal) {
  const answer = turn.answers[place];
  const { settings } = turn;
  [answer.messages, answer.cut] = conversation(turn, place);
  const asked = talk.plain.has(answer.variant)
    ? { prompt: turn.question }
    : { messages: answer.messages, tradeoffs: { window: settings.window } };
  const body = { model: answer.variant, ...asked, ...settings.sampling };
  answer.asked = performance.now();
  answer.state = "asked";
  try {
    signal.throwIfAborted();
    for await (const event of api.answer(body, signal)) take(turn, answer, event);
    answer.state = "done";
  } catch (error) {
    if (error.name === "AbortError") answer.state = "stopped";
    else [answer.state, answer.error] = ["failed", error instanceof api.Refused ? error.message : String(error)];
  }
  talk.changed(turn);
}

function take(turn, answer, event) {
  if (event.queued) [answer.state, answer.place] = ["queued", event.queued];
  if (event.begun) [answer.state, answer.begun] = ["begun", event.begun];
  if (event.text) {
    if (!answer.first) answer.first = performance.now();
    answer.state = "writing";
    answer.text += event.text;
    answer.tokens = event.tokens ?? answer.tokens + 1;
  }
  if (event.reason) answer.reason = event.reason;
  if (event.ended) {
    answer.ended = event.ended;
    answer.text = event.ended.text ?? answer.text;
    answer.tokens = event.ended.tokens;
    answer.reason = event.ended.reason;
  }
  talk.changed(turn);
}

// The messages of one of two conversations up to a turn, and how many of its oldest questions are not among them
// because that would be too much to send. A question that this place has not answered is not part of it.
function conversation(turn, place) {
  const { system, stateless } = turn.settings;
  const head = system.trim() ? [{ role: "system", content: system }] : [];
  const last = { role: "user", content: turn.question };
  const { variant } = turn.answers[place];
  if (talk.plain.has(variant)) return [[last], 0];
  if (stateless || talk.alone.has(variant)) return [[...head, last], 0];
  const before = talk.turns
    .slice(0, talk.turns.indexOf(turn))
    .filter((one) => one.answers[place]?.text)
    .map((one) => [
      { role: "user", content: one.question },
      { role: "assistant", content: one.answers[place].text },
    ]);
  const kept = [];
  let left = BYTES - size([...head, last]);
  for (const pair of before.toReversed()) {
    left -= size(pair);
    if (left < 0 || kept.length === QUESTIONS) break;
    kept.unshift(pair);
  }
  return [[...head, ...kept.flat(), last], before.length - kept.length];
}

const size = (messages) => sizer.encode(JSON.stringify(messages)).length;

// What a vote says, as the server keeps it.
export function ballot(turn, better) {
  const [left, right] = sides(turn).map(([, answer]) => answer);
  const same = JSON.stringify(left.messages) === JSON.stringify(right.messages);
  return {
    ...{ left: left.variant, right: right.variant, better, blind: turn.blind },
    ...{ messages: left.messages, ...(same ? {} : { messages_right: right.messages }) },
    answers: [left.text, right.text],
  };
}
