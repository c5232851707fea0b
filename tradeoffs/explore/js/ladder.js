// From the model as trained down to its smallest format: at which step a fine-tune is lost.

const rungs = () => state.pair.ladder.methods[by("ladder-method").value] ?? [];

// What can be drawn: a change against the model as trained, or how far apart the two are.
function drawable() {
  const { changes, apart } = state.pair.ladder;
  return [
    ...changes.map((one, place) => ({
      ...one,
      key: `change-${place}`,
      label: `change of ${one.label}`,
      of: (rung) => rung.change[place],
    })),
    ...apart.map((one, place) => ({ ...one, key: `apart-${place}`, of: (rung) => rung.apart[place] })),
  ];
}

function drawLadder() {
  const mine = drawable().find((one) => one.key === by("ladder-measure").value);
  const values = rungs().flatMap((rung) => {
    const found = mine.of(rung);
    return found
      ? [
          {
            format: rung.format,
            y: found[0],
            text: written(found, mine, "+")[0],
            low: found[1] ?? found[0],
            high: found[2] ?? found[0],
            tip: `${rung.format}, made from ${rung.from}\n${mine.label}: ${withInterval(found, mine)}`,
          },
        ]
      : [];
  });
  const y = { field: "y", type: "quantitative", title: mine.label, scale: { zero: true } };
  const x = {
    field: "format",
    type: "nominal",
    sort: state.pair.formats,
    title: "format, in the order of the ladder",
    axis: { labelAngle: narrow() ? -45 : 0, grid: false },
  };
  const colour = shown.colours[by("ladder-method").value][dark.matches ? "dark" : "light"];
  by("ladder").setAttribute("aria-label", `${mine.label} of each format of ${by("ladder-method").value}`);
  const said = values.map((one) => `${one.format} ${one.text}`).join(", ");
  by("ladder-text").textContent = `95 % intervals, against the model as trained: ${said}.`;
  return draw(by("ladder"), {
    data: { values },
    height: 200,
    encoding: { x },
    layer: [
      { mark: { type: "rule", strokeDash: [4, 4] }, encoding: { x: null, y: { datum: 0 } } },
      {
        mark: { type: "rule", strokeWidth: 2, color: colour },
        encoding: { y: { ...y, field: "low" }, y2: { field: "high" } },
      },
      {
        mark: { type: "point", filled: true, size: 110, color: colour },
        encoding: { y, tooltip: { field: "tip", type: "nominal" } },
      },
    ],
  });
}

function drawSteps() {
  const { changes, apart } = state.pair.ladder;
  const heads = [
    "format",
    "made from",
    ...changes.flatMap((one) => [`${one.label}, this step`, `${one.label}, in all`]),
    ...apart.map((one) => one.label),
  ];
  const body = rungs().map((rung) =>
    [
      ...changes.flatMap((one, place) =>
        [rung.step, rung.change].map((all) => numbers(all[place], one, { sign: "+" })),
      ),
      ...apart.map((one, place) => numbers(rung.apart[place], one)),
    ].map((inside) => make("td", {}, ...inside)),
  );
  fill(
    by("ladder-table"),
    make("caption", { textContent: `The ladder of ${by("ladder-method").value}`, className: "unseen" }),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        ...heads.map((head, place) =>
          make("th", { scope: "col", textContent: head, className: place < 2 ? "text" : "" }),
        ),
      ),
    ),
    make(
      "tbody",
      {},
      ...rungs().map((rung, place) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, make("code", { textContent: rung.format })),
          make("td", { className: "text" }, make("code", { textContent: rung.from })),
          ...body[place],
        ),
      ),
    ),
  );
}

function drawAllOfLadder() {
  drawSteps();
  return drawLadder();
}

on("pair", () => {
  const methods = Object.keys(state.pair.ladder.methods);
  by("ladder-section").hidden = !methods.length || !drawable().length;
  if (by("ladder-section").hidden) return null;
  const ours = state.choice.judged ? inTable(state.choice.recommended).method : methods[0];
  options(
    by("ladder-method"),
    methods.map((one) => [one, one]),
    methods.includes(ours) ? ours : methods[0],
  );
  options(
    by("ladder-measure"),
    drawable().map((one) => [one.key, one.label]),
  );
  return drawAllOfLadder();
});
redraw.push(() => by("ladder-section").hidden || drawLadder());
for (const id of ["ladder-method", "ladder-measure"]) by(id).addEventListener("change", drawAllOfLadder);
