// The page: what is picked and set, what is typed, and what happens then.

import * as api from "./api.js";
import { by, fill, make, short } from "./dom.js";
import { again, ask, ballot, settled, sides, stop, talk } from "./talk.js";
import { draw, element } from "./turns.js";
import { drawVotes } from "./votes.js";

const drawn = new Map(); // what is drawn of each turn
let known = []; // what /v1/models says

// Variants

const UNITS = {
  size_mb: "MB",
  model_memory_mb: "MB of memory",
  peak_memory_mb: "MB of memory",
  decode_tokens_per_second: "tokens/s alone",
};

function facts(model) {
  const { label, text, recommended, runtime, numbers, metric, cost } = model.tradeoffs;
  const found = [make("span", { className: "label", textContent: label })];
  if (recommended) found.push(make("span", { className: "label recommended", textContent: "recommended" }));
  const words = [runtime];
  if (numbers[metric] !== undefined) {
    const ends = [numbers[`${metric}_low`], numbers[`${metric}_high`]];
    const interval = ends.includes(undefined) ? "" : ` [${ends.map((end) => short(end)).join(", ")}]`;
    words.push(`${metric.replace(/^test_/, "").replaceAll("_", " ")} ${short(numbers[metric])}${interval}`);
  }
  if (numbers[cost] !== undefined) words.push(`${short(numbers[cost])} ${UNITS[cost] ?? cost.replaceAll("_", " ")}`);
  if (!Object.keys(numbers).length) words.push("not measured");
  if (text) words.push("goes on with plain text: no conversation, no system message");
  else if (label === "completion") words.push("not tuned: each question stands alone");
  const parts = words.map((word, place) => make("span", { className: "fact", textContent: word + (place < words.length - 1 ? " ·" : "") }));
  return [...found, ...parts].flatMap((part) => [part, " "]);
}

function drawPicks() {
  for (const place of [0, 1]) {
    const model = known.find((one) => one.id === talk.picks[place]);
    by(`pick-${place}`).value = talk.picks[place];
    fill(by(`facts-${place}`), ...(model ? facts(model) : []));
  }
  by("of-two").disabled = !talk.picks[1];
}

function option(model) {
  const { recommended, label } = model.tradeoffs;
  const more = [recommended ? "recommended" : "", label === "completion" ? label : ""].filter(Boolean).join(", ");
  return make("option", { value: model.id, textContent: model.id + (more ? ` (${more})` : "") });
}

async function start() {
  try {
    known = await api.models();
  } catch (error) {
    trouble(error.message);
    by("key").hidden = error.status !== 401;
    by("token").focus();
    return;
  }
  trouble("");
  by("key").hidden = true;
  const names = (wanted) => new Set(known.filter(({ tradeoffs }) => wanted(tradeoffs)).map((one) => one.id));
  talk.alone = names((one) => one.label === "completion");
  talk.plain = names((one) => one.text);
  const there = (name) => known.some((one) => one.id === name);
  const place = (one) => one.tradeoffs.picked;
  const picked = known.filter(place).sort((one, other) => place(one) - place(other)).map((one) => one.id);
  const first = [picked[0] ?? known[0]?.id ?? "", picked[1] ?? ""];
  talk.picks = talk.picks.map((name, place) => (there(name) ? name : first[place]));
  for (const place of [0, 1]) {
    const none = place ? [make("option", { value: "", textContent: "none" })] : [];
    fill(by(`pick-${place}`), ...none, ...known.map(option));
  }
  drawPicks();
}

function trouble(text) {
  by("trouble").hidden = !text;
  by("trouble").textContent = text;
}

// Settings

const number = (id) => (by(id).value === "" ? null : Number(by(id).value));

// As they are when something is asked; null where one is wrong, which the browser then says beside it.
function settings() {
  const wrong = document.querySelector("#settings input:invalid");
  if (wrong) {
    for (let box = wrong.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    wrong.reportValidity();
    return null;
  }
  const sampling = { temperature: number("temperature"), top_p: number("top-p") };
  if (number("seed") !== null) sampling.seed = number("seed");
  if (number("most") !== null) sampling.max_tokens = number("most");
  return {
    system: by("system").value,
    stateless: by("stateless").checked,
    window: number("window"),
    together: by("together").checked,
    blind: by("blind").checked,
    sampling,
  };
}

// The conversation

const atEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 80;
let due = new Set();

// Drawn at most once per frame, however fast tokens come.
talk.changed = (turn) => {
  if (!due.size) requestAnimationFrame(drawDue);
  due.add(turn);
};

function drawDue() {
  const follow = atEnd();
  const some = due;
  due = new Set();
  for (const turn of some) if (talk.turns.includes(turn)) drawTurn(turn);
  drawBusy();
  if (follow) scrollTo(0, document.documentElement.scrollHeight);
}

function drawTurn(turn) {
  if (!drawn.has(turn)) {
    const found = element(turn, talk.turns.indexOf(turn) + 1, actions);
    drawn.set(turn, found);
    by("turns").append(found.found);
  }
  draw(drawn.get(turn), turn, by("marked").checked);
}

function drawBusy() {
  const busy = Boolean(talk.asking);
  if (!busy && document.activeElement === by("stop")) by("question").focus();
  by("send").hidden = busy;
  by("stop").hidden = !busy;
  by("nothing").hidden = talk.turns.length > 0;
  for (const one of document.querySelectorAll("#turns .edit, #picks select")) one.disabled = busy;
  say(status());
}

// Said once, not with each token.
function say(text) {
  if (by("status").textContent !== text) by("status").textContent = text;
}

function status() {
  const open = (turn) => turn.answers.some((answer) => answer && !settled(answer));
  const turn = talk.turns.findLast(open) ?? talk.turns.at(-1);
  if (!turn) return "";
  const all = sides(turn).map(([, answer]) => answer);
  const secret = turn.blind;
  if (secret && !all.every(settled)) return "Both answers are being written.";
  const name = (answer) => (secret ? "An answer" : answer.variant);
  const words = { asked: "is asked", queued: "waits in the queue", begun: "reads", writing: "answers" };
  const now = all.filter((answer) => words[answer.state]);
  if (now.length) return `${now.map((answer) => `${name(answer)} ${words[answer.state]}`).join("; ")}.`;
  const failed = all.find((answer) => answer.state === "failed");
  if (failed) return `${failed.variant} has not answered; why stands in its place.`;
  if (all.some((answer) => answer.state === "stopped")) return "Stopped.";
  return all.length === 2 ? "Both have answered." : `${name(all[0])} has answered.`;
}

function forget(from) {
  for (const turn of talk.turns.splice(from)) {
    drawn.get(turn)?.found.remove();
    drawn.delete(turn);
  }
}

async function send(question) {
  const found = settings();
  if (talk.asking || !question.trim() || !found || !talk.picks[0]) return false;
  const asked = ask(question, found);
  scrollTo(0, document.documentElement.scrollHeight);
  await asked;
  return true;
}

const actions = {
  edit(turn, question) {
    if (talk.asking || !settings()) return;
    forget(talk.turns.indexOf(turn));
    send(question);
    by("question").focus();
  },
  again(turn, place) {
    if (!talk.asking) again(turn, place);
  },
  reveal(turn) {
    turn.blind = false;
    talk.changed(turn);
  },
  async vote(turn, better) {
    if (turn.voting || turn.vote) return; // a second click before the first one is kept
    [turn.voting, turn.trouble] = [true, ""];
    try {
      await api.vote(ballot(turn, better));
      turn.vote = better;
      turn.blind = false;
      drawVotes();
      by("question").focus({ preventScroll: true });
    } catch (error) {
      turn.trouble = error.message;
    }
    turn.voting = false;
    talk.changed(turn);
  },
};

// What is typed and clicked

function submit() {
  const box = by("question");
  const text = box.value;
  if (talk.asking || !text.trim() || !settings()) return;
  box.value = "";
  box.focus();
  send(text);
}

by("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
by("question").addEventListener("keydown", (event) => {
  // While a word is composed (Japanese, Chinese), Enter takes the word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) stop();
});
by("stop").addEventListener("click", () => {
  stop();
  by("question").focus();
});
by("reset").addEventListener("click", () => {
  stop();
  forget(0);
  drawBusy();
  by("question").focus();
});
for (const place of [0, 1])
  by(`pick-${place}`).addEventListener("change", (event) => {
    talk.picks[place] = event.target.value;
    drawPicks();
  });
by("marked").addEventListener("change", () => talk.turns.forEach(talk.changed));
by("votes").addEventListener("toggle", drawVotes);
by("key").addEventListener("submit", async (event) => {
  event.preventDefault();
  api.use(by("token").value);
  by("token").value = "";
  await start();
  if (by("key").hidden) by("question").focus();
});
addEventListener("hashchange", () => {
  api.adopt();
  start();
});

api.adopt();
by("settings").open = !matchMedia("(max-width: 60rem)").matches;
await start();
document.querySelector("main").removeAttribute("aria-busy");
