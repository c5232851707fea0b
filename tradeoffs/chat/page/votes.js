// How votes have counted until now.

import * as api from "./api.js";
import { by, counted, fill, make, percent } from "./dom.js";

export async function drawVotes() {
  if (!by("votes").open) return;
  try {
    const all = await api.votes();
    fill(by("counted"), ...(all.length ? all.map(line) : [text("None yet.")]));
  } catch (error) {
    fill(by("counted"), make("p", { className: "careful", textContent: error.message }));
  }
}

const text = (words) => make("p", { className: "text", textContent: words });

function line(pair) {
  const counts = `${pair.wins} better, ${pair.losses} worse, ${counted(pair.ties, "tie")}`;
  const interval = `[${percent(pair.win_rate_low)}, ${percent(pair.win_rate_high)}]`;
  const rate = pair.win_rate === undefined ? "" : `; wins ${percent(pair.win_rate)} ${interval}`;
  const names = make("p", { className: "name" }, pair.variant, make("span", { className: "text" }, " against "), pair.other);
  return make("div", { className: "counted" }, names, text(counts + rate));
}
