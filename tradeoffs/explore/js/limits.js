// Limits as sliders, each with a field for the exact number.

const LOSS = "max_loss_of.";
const LIMITS = {
  max_size_mb: ["Size", "at most", "MB"],
  max_memory_mb: ["Memory", "at most", "MB"],
  min_tokens_per_second: ["Speed", "at least", "tokens/s"],
};
const table = () => state.pair.table;
const lossOf = (name) => name.slice(LOSS.length);
const isLoss = (name) => name.startsWith(LOSS);
const labelOfMeasure = (name) => measure(name)?.label ?? name;
// Where lower is better, a loss is a part of the value that it is held against.
const partOf = (name) => (measure(lossOf(name))?.better === "lower" ? " (as a part of it)" : "");
const subjectOf = (name) => (isLoss(name) ? `Loss of ${labelOfMeasure(lossOf(name))}${partOf(name)}` : LIMITS[name][0]);
const labelOf = (name) => `${subjectOf(name)}, ${isLoss(name) ? "at most" : LIMITS[name][1]}`;
const unitOf = (name) => (isLoss(name) ? "" : LIMITS[name][2]);

// Numbers worth trying, from none fits to all fit: each variant's own, rounded so that it still fits.
function steps(name) {
  const round = (value) => {
    const unit = 10 ** (Math.floor(Math.log10(value)) - 2);
    const whole = MINIMA.includes(name) ? Math.floor(value / unit + 1e-9) : Math.ceil(value / unit - 1e-9);
    return Number((whole * unit).toPrecision(3));
  };
  const known = table().limited[name].filter((value) => value !== null && value > 0);
  return [...new Set(known.map(round))].sort((one, other) => one - other);
}

// One limit: its slider runs over the steps, at the loose end there is none; its field takes any number.
function slider(name) {
  const values = steps(name);
  const minimum = MINIMA.includes(name);
  const spots = minimum ? [null, ...values] : [...values, null];
  const id = `limit-${name}`;
  const field = make("input", {
    id,
    type: "number",
    step: "any",
    min: "0",
    placeholder: "no limit",
    inputMode: "decimal",
    "aria-describedby": `${id}-wrong`,
  });
  const wrong = make("p", { id: `${id}-wrong`, className: "wrong", "aria-live": "polite" });
  const range = make("input", {
    type: "range",
    min: "0",
    max: String(spots.length - 1),
    step: "1",
    "aria-label": labelOf(name),
  });
  const show = (typing) => {
    const limit = state.limits[name] ?? null;
    const place =
      limit === null
        ? spots.indexOf(null)
        : minimum
          ? spots.findLastIndex((one) => one === null || one <= limit)
          : spots.findIndex((one) => one === null || one >= limit);
    range.value = String(place);
    range.setAttribute("aria-valuetext", limit === null ? "no limit" : `${limit} ${unitOf(name)}`.trim());
    if (!typing) field.value = limit === null ? "" : String(limit);
    complain("");
  };
  const complain = (text) => {
    field.setCustomValidity(text);
    field.setAttribute("aria-invalid", String(text !== ""));
    wrong.textContent = text;
  };
  const set = (limit, typing) => {
    if (limit === null) delete state.limits[name];
    else state.limits[name] = limit;
    show(typing);
    changed("limits");
  };
  // What is no number above 0 is no limit, here as in the command; the one before stays.
  const typed = () => {
    const empty = field.value === "" && !field.validity.badInput;
    const limit = Number(field.value);
    if (empty || (limit > 0 && Number.isFinite(limit))) return set(empty ? null : limit, true);
    const kept = state.limits[name] ? `${state.limits[name]} ${unitOf(name)}`.trim() : "no limit";
    complain(`Not a number above 0; still ${kept}.`);
  };
  range.addEventListener("input", () => set(spots[Number(range.value)]));
  field.addEventListener("input", typed);
  show();
  const unit = unitOf(name) ? make("span", { className: "unit", textContent: unitOf(name) }) : null;
  return make(
    "div",
    { className: "limit" },
    make("label", { for: id, textContent: labelOf(name) }),
    make("span", { className: "field" }, field, unit),
    wrong,
    range,
  );
}

function chooser(id, label, some, chosen, set) {
  const select = make("select", { id, onchange: () => set(select.value) });
  options(select, some, chosen);
  return make("div", { className: "limit" }, make("label", { for: id, textContent: label }), select);
}

function drawLimits() {
  const pair = state.pair;
  const names = Object.keys(table().limited);
  const isGuard = (name) => isLoss(name) && pair.guards.includes(lossOf(name));
  const first = [
    ...names.filter((name) => !isGuard(name) && (!isLoss(name) || lossOf(name) === pair.metric || name in pair.limits)),
    ...names.filter(isGuard),
  ];
  const runtimes = [...new Set(table().runtime)].sort();
  const costs = Object.keys(table().cheaper).map((name) => [name, COSTS[name] ?? labelOfMeasure(name)]);
  fill(
    by("limits"),
    ...first.map(slider),
    chooser(
      "limit-runtime",
      "Runs on",
      [["", "any runtime"], ...runtimes.map((one) => [one, one])],
      state.limits[RUNTIME] ?? "",
      (value) => {
        if (value) state.limits[RUNTIME] = value;
        else delete state.limits[RUNTIME];
        changed("limits");
      },
    ),
    chooser("cost", "Of what is good enough, take", costs, state.cost, (value) => {
      state.cost = value;
      changed("limits");
    }),
  );
  fill(by("more-limits"), ...names.filter((name) => !first.includes(name)).map(slider));
  by("more-limits").parentElement.hidden = names.length === first.length;
}

function setLimits(limits) {
  state.limits = { ...limits };
  state.cost = state.pair.cost;
  drawLimits();
}

on("pair", () => setLimits(state.pair.limits));
for (const [id, limits] of [
  ["committed", () => state.pair.limits],
  ["unlimited", () => ({})],
]) {
  by(id).addEventListener("click", () => {
    setLimits(limits());
    changed("limits");
  });
}
