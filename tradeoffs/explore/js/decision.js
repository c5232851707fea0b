// The decision that follows from the limits, in words.

const COSTS = {
  size_mb: "the smallest",
  decode_tokens_per_second: "the fastest",
  model_memory_mb: "the lightest in memory",
};
const UNITS = { size_mb: "MB", decode_tokens_per_second: "tokens/s", model_memory_mb: "MB of memory" };
// Why something that could be taken was not.
const WHY = {
  [GUARDS]: "loses more guards",
  [RANK]: "costs the same, and is no better",
  size_mb: "larger",
  decode_tokens_per_second: "slower",
  model_memory_mb: "heavier in memory",
};

const inTable = (place) => named(table().names[place]);
const placeOf = (variant) => table().names.indexOf(variant.name);
const fits = (variant) => state.choice.fits[placeOf(variant)];
const onFrontier = () => (state.choice.judged ? state.choice.frontier.map(inTable) : []);

// How a variant stands under these limits.
function standing(variant) {
  const found = state.choice;
  const place = placeOf(variant);
  if (!found.fits[place]) return `left out: ${missed(place)}`;
  if (place === found.recommended) return "ship";
  const verdict = found.judged.words[place] === ONE ? "undecided, as trained once" : found.judged.words[place];
  if (found.frontier.includes(place)) return `frontier: cheaper, ${verdict}`;
  const why = found.passedOver[place];
  return why ? `${verdict}, ${WHY[why] ?? why}` : verdict;
}

const percent = (part) => (part >= 0.095 ? (100 * part).toFixed(0) : short(Number((100 * part).toPrecision(1))));

// The limits that a variant is beyond, and how far.
function missed(place) {
  const beyond = ([name, part]) => {
    if (name === RUNTIME) return "another runtime";
    if (name === DEVICE) return "does not run on the device that is decided for";
    const subject = subjectOf(name).toLowerCase();
    return Number.isFinite(part) ? `${subject} beyond by ${percent(part)} %` : `${subject} not measured`;
  };
  return Object.entries(state.choice.missed[place]).map(beyond).join(", ");
}

// What a variant is worth, and what it costs.
function inShort(variant) {
  const headline = measure(state.pair.metric);
  const costs = Object.entries(UNITS).flatMap(([name, unit]) => {
    const found = valueOf(variant, name);
    return found ? [`${written(found, measure(name))[0]} ${unit}`] : [];
  });
  return `${headline.label} ${withInterval(valueOf(variant, headline.name), headline)}; ${costs.join(", ")}`;
}

const line = (text, className = "") => make("p", { className, textContent: text });
const code = (variant) => make("code", { textContent: called(variant) });

function nothing() {
  const { nearest } = state.choice;
  return [
    line("Nothing fits these limits.", "ship"),
    make("p", {}, "Nearest: ", code(inTable(nearest)), `, ${missed(nearest)}.`),
  ];
}

function something() {
  const { judged, recommended } = state.choice;
  const ours = inTable(recommended);
  const best = inTable(judged.best);
  let why = `Of what is good enough it is ${COSTS[state.cost] ?? "the cheapest"}. The best found is ${called(best)}.`;
  if (ours === best) why = "It is the best found of what fits.";
  if (judged.words[recommended] === BEST) why += " It is not shown to be within the margin of whichever is truly best.";
  return [
    make("p", { className: "ship" }, "Ship ", code(ours), ` on ${ours.runtime}`),
    line(`${inShort(ours)}.`),
    ours === best ? line(why) : make("p", {}, why, make("br"), `${called(best)}: ${inShort(best)}.`),
    careful(ours),
    line(howMany(), "text"),
  ];
}

function howMany() {
  const { judged, fits: fit } = state.choice;
  const count = (...words) => judged.words.filter((one) => words.includes(one)).length;
  const margin = short(table().margin[judged.best]);
  const once = count(ONE) ? `, ${count(ONE)} undecided as their methods were trained once` : "";
  return (
    `${fit.filter(Boolean).length} of ${counted(fit.length, "variant")} fit: ${count(GOOD, BEST)} can be taken (the ` +
    `best found, or within the margin of ${margin}), ${count(WORSE)} too much worse, ` +
    `${count(UNDECIDED)} undecided${once}.`
  );
}

// What stands against it although it can be taken.
function careful(variant) {
  const { best } = state.choice.judged;
  const lost = table().guards.filter((one) => one.lost[placeOf(variant)][best]);
  const found = [...variant.warnings];
  if (lost.length) found.unshift(`worse beyond its margin: ${lost.map((one) => one.guard).join(", ")}`);
  return found.length ? line(`Careful: ${found.join("; ")}.`, "careful") : null;
}

function drawDecision() {
  by("answer").dataset.recommended = state.choice.judged ? table().names[state.choice.recommended] : "";
  fill(by("answer"), ...(state.choice.judged ? something() : nothing()));
  const further = onFrontier().slice(1);
  const none = make("li", { textContent: "nothing that fits" });
  fill(
    by("frontier"),
    ...further.map((one) => make("li", {}, code(one), `: ${inShort(one)}`)),
    further.length ? null : none,
  );
}

// The same question to `python -m tradeoffs.decide`.
function drawCommand() {
  const words = [`python -m tradeoffs.decide --pair ${state.pair.name}`];
  for (const name of new Set([...Object.keys(state.pair.limits), ...Object.keys(state.limits)])) {
    const limit = state.limits[name] ?? "none";
    words.push(isLoss(name) ? `--max-loss-of ${lossOf(name)}=${limit}` : `--${name.replaceAll("_", "-")} ${limit}`);
  }
  const other = `\n# with this in params.yaml, under decide:\n#   cost: ${state.cost}`;
  by("command").textContent = words.join(" \\\n  ") + (state.cost === state.pair.cost ? "" : other);
}

function decide() {
  state.choice = choose(table(), state.limits, state.cost);
  drawDecision();
  drawCommand();
}

on("pair", decide);
on("limits", decide);
