// How a question and its answers are drawn. Answers are text, whatever is in them.

import { counted, fill, make, seconds, short } from "./dom.js";
import { differences } from "./differences.js";
import { settled, sides, votable } from "./talk.js";

// What the two are called: on a narrow screen one stands below the other.
const SIDES = [
  ["Left", "Upper"],
  ["Right", "Lower"],
];
const sideName = (side) =>
  ["beside", "below"].map((className, place) => make("span", { className, textContent: SIDES[side][place] }));
const HIDDEN = { state: "hidden", text: "" }; // of an answer that is not shown yet, whatever is known of it

// The element of a turn. `actions`: edit(turn, question), again(turn, place), vote(turn, better), reveal(turn).
export function element(turn, number, actions) {
  const title = make("h3", { textContent: `Question ${number}` });
  const asked = make("p", { className: "said", dir: "auto", textContent: turn.question });
  const edit = make("button", { className: "quiet edit", type: "button", textContent: "Edit" });
  edit.setAttribute("aria-label", `Edit question ${number} and send it again`);
  const question = make("div", { className: "question" }, title, asked, edit);
  edit.addEventListener("click", () => editing(question, turn, number, actions));
  const answers = make("div", { className: "answers" });
  const vote = make("div", { className: "vote" });
  const found = make("li", {}, make("article", {}, question, answers, vote));
  return { found, answers, vote, number, actions, kept: new Map() };
}

function editing(question, turn, number, actions) {
  const before = [...question.childNodes];
  const text = make("textarea", { value: turn.question, rows: 3, dir: "auto", "aria-label": `Question ${number}` });
  const back = () => {
    fill(question, ...before);
    question.querySelector(".edit").focus();
  };
  const send = () => text.value.trim() && actions.edit(turn, text.value);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Escape") back();
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const buttons = [
    make("button", { type: "button", textContent: "Send again", onclick: send }),
    make("button", { type: "button", textContent: "Cancel", onclick: back }),
    make("span", { className: "text", textContent: "What follows this question goes." }),
  ];
  fill(question, before[0], text, make("p", { className: "buttons" }, ...buttons));
  text.focus();
}

// Brings what is drawn of a turn up to what is known of it.
export function draw(drawn, turn, marked) {
  const all = sides(turn);
  const secret = turn.blind;
  const complete = all.every(([, answer]) => settled(answer));
  drawn.answers.classList.toggle("two", all.length === 2);
  const texts = all.map(([, answer]) => answer.text);
  const marks = marked && complete && texts.length === 2 && texts.every(Boolean) ? differences(...texts) : null;
  const sections = all.map(([place, answer], side) => {
    const shown = secret && !complete ? HIDDEN : answer;
    const what = { place, side, answer: shown, secret, marks: marks?.[side] };
    return kept(drawn, side, what, () => section(drawn, turn, what));
  });
  if (sections.some((one, side) => drawn.answers.children[side] !== one)) fill(drawn.answers, ...sections);
  drawVote(drawn, turn, secret);
}

// What has not changed stays the same element, so that a selection or the focus in it stays, too.
function kept(drawn, name, what, made) {
  const key = JSON.stringify(what);
  if (drawn.kept.get(name)?.key !== key) drawn.kept.set(name, { key, element: made() });
  return drawn.kept.get(name).element;
}

function section(drawn, turn, { place, side, answer, secret, marks }) {
  const label = secret ? SIDES[side][0] : answer.variant;
  const said = make("p", { className: "said", dir: "auto" });
  if (marks) fill(said, ...marks.map(([text, own]) => (own ? make("mark", {}, text) : text)));
  else said.textContent = answer.text;
  const title = make("h4", {}, ...(secret ? sideName(side) : [label]));
  const parts = [title, said, state(answer)];
  if (answer.state === "failed") {
    const click = () => drawn.actions.again(turn, place);
    parts.push(make("p", {}, make("button", { type: "button", textContent: "Ask again", onclick: click })));
  }
  if (!secret) parts.push(costs(answer), filling(answer));
  return make("section", { className: `answer ${answer.state}`, "aria-label": `Answer: ${label}` }, ...parts);
}

const REASONS = {
  length: (answer) => `Cut at ${counted(answer.tokens, "token")}, the most that an answer may have.`,
  time: () => "Cut: it took too long.",
};

// What is to be said of an answer that is not simply there.
function state(answer) {
  const words = {
    hidden: "Shown when both are complete.",
    waiting: "Waits for the other answer.",
    asked: "Asked; a model that is not loaded yet is loaded now.",
    queued: answer.place === 1 ? "Next in the queue." : `Place ${answer.place} in the queue.`,
    begun: "Reads.",
    writing: "",
    done: answer.text ? "" : "(an empty answer)",
    stopped: answer.text ? "Stopped." : "Stopped before it began.",
    failed: answer.error,
  }[answer.state];
  const cut = answer.state === "done" ? REASONS[answer.reason]?.(answer) : "";
  const text = [words, cut].filter(Boolean).join(" ");
  if (!text) return null;
  return make("p", { className: answer.state === "failed" ? "careful" : "text state", textContent: text });
}

// Time to the first token, speed, tokens, memory: as the server has measured them, and until then by this page's clock.
function costs(answer) {
  const { ended } = answer;
  if (!answer.first && !ended) return null;
  const first = ended ? ended.seconds_to_first : (answer.first - answer.asked) / 1000;
  const all = ended ? ended.seconds : (performance.now() - answer.asked) / 1000;
  // Steps of the model after the first token: what ends an answer takes one, too.
  const steps = answer.tokens - (answer.reason === "stop" ? 0 : 1);
  const speed = answer.tokens && steps > 0 && all > first ? steps / (all - first) : null;
  const waited = ended?.seconds_waited ?? 0;
  const items = [
    answer.tokens ? ["first", ...seconds(first), "to first token"] : null,
    speed === null ? null : ["speed", short(speed), "tokens/s"],
    ["tokens", answer.tokens.toLocaleString("en-US"), answer.tokens === 1 ? "token" : "tokens"],
    ended ? ["memory", short(ended.memory_mb), "MB memory"] : null,
    waited >= 0.1 ? ["waited", ...seconds(waited), "of waiting"] : null,
  ];
  const item = ([name, value, ...unit]) =>
    make("li", { className: name }, make("b", { textContent: value }), ` ${unit.join(" ")}`);
  return make("ul", { className: "costs" }, ...items.filter(Boolean).map(item));
}

// How much of the context the conversation and the longest answer take, and what had to go.
function filling(answer) {
  const { begun, cut } = answer;
  if (!begun) return null;
  const left = (begun.left_out ?? 0) + cut;
  const gone = left ? make("p", { className: "careful gone", textContent: `${counted(left, "question")} left out` }) : null;
  const known = begun.cached_tokens ? ` (${begun.cached_tokens} kept)` : "";
  const read = `${begun.prompt_tokens} read${known}`;
  const most = begun.max_tokens ?? 0;
  const words = begun.context ? `${read} + ${most} reserved of ${begun.context} tokens` : `${counted(begun.prompt_tokens, "token")} read`;
  const shown = make("p", { className: "text", textContent: words });
  if (!begun.context) return make("div", { className: "window" }, shown, gone);
  const bar = make("div", {
    ...{ className: "bar", role: "meter", "aria-label": "Window" },
    ...{ "aria-valuemin": 0, "aria-valuemax": begun.context, "aria-valuetext": words },
    "aria-valuenow": Math.min(begun.context, begun.prompt_tokens + most),
  });
  for (const [name, tokens] of [["read", begun.prompt_tokens], ["reserved", most]]) {
    const part = make("span", { className: name });
    part.style.width = `${Math.min(100, (100 * tokens) / begun.context)}%`;
    bar.append(part);
  }
  return make("div", { className: "window" }, bar, shown, gone);
}

function drawVote(drawn, turn, secret) {
  drawn.vote.hidden = !votable(turn);
  if (drawn.vote.hidden) return;
  const inside = kept(drawn, "vote", [secret, turn.vote, turn.trouble], () => votes(drawn, turn, secret));
  if (drawn.vote.firstChild !== inside) fill(drawn.vote, inside);
}

function votes(drawn, turn, secret) {
  const same = new Set(sides(turn).map(([, answer]) => answer.text)).size === 1;
  const button = (better, ...name) => {
    const properties = { type: "button", className: better, disabled: turn.vote !== null };
    const onclick = () => drawn.actions.vote(turn, better);
    return make("button", { ...properties, "aria-pressed": String(turn.vote === better), onclick }, ...name);
  };
  const inside = [
    make("span", { className: "text", textContent: same ? "Both answers are the same. Better:" : "Better:" }),
    button("left", ...sideName(0)),
    button("tie", "Tie"),
    button("right", ...sideName(1)),
  ];
  if (secret && turn.vote === null) {
    const onclick = () => drawn.actions.reveal(turn);
    inside.push(make("button", { type: "button", className: "quiet reveal", textContent: "Show names", onclick }));
  }
  if (turn.vote !== null) inside.push(make("span", { className: "text", textContent: "Kept." }));
  if (turn.trouble) inside.push(make("span", { className: "careful", textContent: turn.trouble }));
  const label = `Which answer to question ${drawn.number} is better?`;
  return make("p", { className: "buttons", role: "group", "aria-label": label }, ...inside);
}
