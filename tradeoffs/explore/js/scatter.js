// Any quality against any cost: what fits, what lies on the frontier, and a part of it selected by dragging.

let view = null; // of Vega

const axis = (id) => measure(by(id).value);

function points() {
  const up = axis("up");
  const across = axis("across");
  return besideEachOther(
    state.pair.variants.flatMap((variant) => {
      const y = valueOf(variant, up.name);
      const x = valueOf(variant, across.name);
      if (!x || !y || (by("logarithmic").checked && !(x[0] > 0))) return [];
      const front = onFrontier().indexOf(variant);
      return [
        {
          x: x[0],
          value: x[0],
          xl: x[1] ?? x[0],
          xh: x[2] ?? x[0],
          y: y[0],
          yl: y[1] ?? y[0],
          yh: y[2] ?? y[0],
          method: variant.method,
          format: variant.format,
          front,
          seen: fits(variant) && selected(variant),
          ship: front === 0 ? `ship: ${called(variant)}` : "",
          tip: [
            variant.name,
            `${up.label}: ${withInterval(y, up)}`,
            `${across.label}: ${withInterval(x, across)}`,
            standing(variant),
          ].join("\n"),
        },
      ];
    }),
  );
}

// What costs about the same stands side by side where a point would lie on another or on its interval, the frontier at
// its cost.
function besideEachOther(some) {
  const log = by("logarithmic").checked;
  const scale = (value) => (log ? Math.log(value) : value);
  const reach = (values) => Math.max(...values) - Math.min(...values) || 1;
  const step = reach(some.map((one) => scale(one.value))) * (narrow() ? 0.02 : 0.009);
  const height = reach(some.flatMap((one) => [one.yl, one.yh])) * (narrow() ? 0.04 : 0.03); // of a point
  const placed = [];
  const within = (y, other) => other.yl - height < y && y < other.yh + height;
  const hides = (one, shift) => (other) =>
    Math.abs(scale(one.value) + shift - other.at) < 0.99 * step &&
    (within(one.y, other) || within(other.y, one));
  const inOrder = [...some].sort((one, other) => (other.front >= 0) - (one.front >= 0));
  for (const one of inOrder) {
    let turn = 0;
    const shift = () => step * Math.ceil(turn / 2) * (turn % 2 ? 1 : -1);
    while (placed.some(hides(one, shift()))) turn += 1;
    placed.push({ at: scale(one.value) + shift(), y: one.y, yl: one.yl, yh: one.yh });
    for (const end of ["x", "xl", "xh"]) one[end] = log ? one[end] * Math.exp(shift()) : one[end] + shift();
  }
  return some;
}

function specification() {
  const up = axis("up");
  const across = axis("across");
  const log = by("logarithmic").checked;
  const scale = log ? { type: "log", nice: false, padding: 24 } : { zero: false, nice: false, padding: 24 };
  const x = {
    field: "x",
    type: "quantitative",
    title: `${across.label}${hint(across)}`,
    scale,
    axis: { labelOverlap: true, tickCount: narrow() ? 4 : 8, format: "~s" },
  };
  const y = { field: "y", type: "quantitative", title: `${up.label}${hint(up)}`, scale: { zero: false } };
  const seen = { condition: { test: "datum.seen", value: 1 }, value: 0.18 };
  const method = {
    field: "method",
    type: "nominal",
    scale: { domain: state.pair.methods, range: colours() },
    title: "method",
  };
  const shape = {
    field: "format",
    type: "nominal",
    scale: { domain: state.pair.formats, range: shapes() },
    title: "format",
    legend: { symbolFillColor: fromStyle("--text"), symbolStrokeColor: fromStyle("--text") },
  };
  const text = fromStyle("--text");
  const ring = [{ filter: "datum.front >= 0" }];
  return {
    data: { name: "points", values: points() },
    height: narrow() ? 300 : 360,
    encoding: { x, y },
    layer: [
      ...floor(up, y),
      {
        mark: { type: "rule", strokeWidth: 1 },
        encoding: { y: { ...y, field: "yl" }, y2: { field: "yh" }, color: method, opacity: seen },
      },
      {
        mark: { type: "rule", strokeWidth: 1 },
        encoding: { x: { ...x, field: "xl" }, x2: { field: "xh" }, color: method, opacity: seen },
      },
      {
        transform: ring,
        mark: { type: "line", strokeDash: [4, 4], color: text, strokeWidth: 1 },
        encoding: { order: { field: "front", type: "quantitative" } },
      },
      {
        params: [
          { name: "brush", select: { type: "interval", mark: { fill: text, fillOpacity: 0.08, stroke: text } } },
        ],
        mark: { type: "point", filled: true, size: 90, strokeWidth: 1 },
        encoding: { color: method, shape, opacity: seen, tooltip: { field: "tip", type: "nominal" } },
      },
      {
        transform: ring,
        mark: {
          type: "point",
          filled: false,
          size: 260,
          shape: "circle",
          stroke: text,
          strokeWidth: 1.5,
          tooltip: false,
        },
      },
      {
        transform: [{ filter: "datum.ship !== ''" }],
        mark: { type: "text", dy: -18, fontWeight: "bold", fontSize: 13, color: text },
        encoding: { text: { field: "ship", type: "nominal" } },
      },
    ],
  };
}

// What copying the most similar training answer comes to: who is below has learnt nothing.
function floor(up, y) {
  const found = state.pair.copying[up.name];
  if (!found) return [];
  const values = [{ y: found[0], text: "copying training answers" }];
  const data = { values };
  const x = null;
  return [
    { data, mark: { type: "rule", strokeDash: [2, 3] }, encoding: { x, y } },
    {
      data,
      mark: { type: "text", align: "left", dx: 4, dy: -6, fontSize: 11 },
      encoding: { x: { value: 0 }, y, text: { field: "text" } },
    },
  ];
}

const hint = (one) => (one.better ? ` (${least(one.better)})` : "");

async function drawScatter() {
  view = await draw(by("scatter"), specification());
  view?.addSignalListener("brush", (_, found) => {
    const limits = { up: found.y, across: found.x };
    state.window = Object.fromEntries(
      Object.entries(limits)
        .filter(([, range]) => range)
        .map(([name, range]) => [name, [...range].sort((a, b) => a - b)]),
    );
    showWindow();
    changed("window");
  });
  describe();
}

// The points again, where only what they look like has changed.
function refresh() {
  describe();
  return view?.data("points", points()).runAsync();
}

// What the picture says, for those who do not see it.
function describe() {
  const up = axis("up");
  const across = axis("across");
  const one = (variant, by) => written(valueOf(variant, by.name), by)[0] || "unknown";
  const front = onFrontier().map((variant) => `${called(variant)} (${one(variant, across)}, ${one(variant, up)})`);
  const weighed = [state.pair.metric, state.cost].map(labelOfMeasure).join(" and ");
  by("scatter").setAttribute("aria-label", `Scatter plot: ${up.label}, up, against ${across.label}, across.`);
  by("scatter-text").textContent =
    `${counted(points().length, "variant")} by ${across.label}, across, and ${up.label}, up, with 95 % intervals; ` +
    `pale: outside the limits or the selection. Where points would hide each other, those of about the same cost ` +
    `stand side by side: a point gives its exact cost when it is pointed at. ` +
    (front.length ? `Ringed, the frontier of ${weighed}: ${front.join("; ")}.` : "Nothing fits.") +
    (up.about ? ` ${up.label}: ${up.about}.` : "");
}

// Four fields for the selected part, which follow the picture and do the same as dragging over it.
function showWindow() {
  for (const field of by("window-fields").querySelectorAll("input")) {
    const range = state.window[field.dataset.axis];
    if (field !== document.activeElement)
      field.value = range ? String(Number(range[field.dataset.end].toPrecision(4))) : "";
  }
  by("whole").disabled = !Object.keys(state.window).length;
}

function drawWindow() {
  const field = (name, end, text) => {
    const id = `window-${name}-${end}`;
    const input = make("input", { id, type: "number", step: "any", inputMode: "decimal", oninput: fromFields });
    Object.assign(input.dataset, { axis: name, end: String(end) });
    return make("span", { className: "choice" }, make("label", { for: id, textContent: text }), input);
  };
  fill(
    by("window-fields"),
    ...["up", "across"].flatMap((name) => [field(name, 0, `${axis(name).label} from`), field(name, 1, "to")]),
  );
}

function fromFields() {
  const ends = {};
  for (const field of by("window-fields").querySelectorAll("input")) {
    (ends[field.dataset.axis] ??= [-Infinity, Infinity])[field.dataset.end] =
      field.value === "" ? [-Infinity, Infinity][field.dataset.end] : Number(field.value);
  }
  state.window = Object.fromEntries(Object.entries(ends).filter(([, range]) => range.some(Number.isFinite)));
  by("whole").disabled = !Object.keys(state.window).length;
  changed("window");
}

function drawAxes() {
  const some = (kind) =>
    state.pair.measures.filter((one) => one.kind === kind && one.better).map((one) => [one.name, one.label]);
  options(by("up"), some("quality"), state.pair.metric);
  options(by("across"), some("cost"), state.pair.cost);
}

function clear() {
  state.window = {};
  drawWindow();
  showWindow();
}

// All of the picture, by whatever is up and across now.
function whole() {
  clear();
  changed("window");
  return drawScatter();
}

on("pair", () => {
  drawAxes();
  clear();
  return drawScatter();
});
on("limits", refresh);
on("window", refresh);
redraw.push(drawScatter);
for (const id of ["up", "across", "logarithmic"]) by(id).addEventListener("change", whole);
by("whole").addEventListener("click", whole);
