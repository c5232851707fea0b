// How pictures are drawn: by Vega-Lite, as SVG, without anything that the page's policy forbids.

const SHAPES = [
  "circle",
  "square",
  "diamond",
  "triangle-up",
  "cross",
  "triangle-down",
  "triangle-right",
  "triangle-left",
  "M0,-1L0.3,-0.3L1,0L0.3,0.3L0,1L-0.3,0.3L-1,0L-0.3,-0.3Z",
  "M-0.9,-0.3H0.9V0.3H-0.9Z",
  "M-0.3,-0.9H0.3V0.9H-0.3Z",
  "M-0.9,-0.6L0,0.9L0.9,-0.6L0,0Z",
];

const dark = matchMedia("(prefers-color-scheme: dark)");
const fromStyle = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colours = () => state.pair.methods.map((method) => shown.colours[method][dark.matches ? "dark" : "light"]);
const shapes = () => state.pair.formats.map((_, place) => SHAPES[place % SHAPES.length]);
const narrow = () => document.documentElement.clientWidth < 640;

const look = () => {
  const text = fromStyle("--text");
  const line = fromStyle("--line");
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: text,
      titleColor: text,
      gridColor: line,
      domainColor: line,
      tickColor: line,
      labelFontSize: 12,
      titleFontSize: 12,
      titleFontWeight: "normal",
    },
    legend: {
      labelColor: text,
      titleColor: text,
      symbolStrokeWidth: 2,
      labelFontSize: 12,
      titleFontSize: 12,
      orient: "bottom",
      columns: narrow() ? 3 : 7,
      symbolLimit: 60,
      labelLimit: 120,
      titleFontWeight: "normal",
      layout: { bottom: { direction: narrow() ? "vertical" : "horizontal", anchor: "start", margin: 12 } },
    },
    rule: { color: text },
    text: { color: text },
  };
};

// Texts of a picture that is pointed at: beside the pointer, as text.
function tip(_, event, item, value) {
  const box = by("tip");
  box.hidden = value === null || value === undefined || value === "";
  if (box.hidden) return;
  box.textContent = String(value);
  const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - box.offsetWidth - 8);
  box.style.left = `${Math.max(8, left)}px`;
  box.style.top = `${event.clientY + 14}px`;
}

// Draws a specification in an element; gives the view of Vega, or null where a later drawing has overtaken it.
const drawings = new Map();
async function draw(element, spec) {
  const number = (drawings.get(element)?.number ?? 0) + 1;
  const before = drawings.get(element)?.view;
  drawings.set(element, { number, view: before });
  const width = Math.max(200, element.clientWidth);
  const found = await vegaEmbed(
    make("div"),
    { width, autosize: { type: "fit-x", contains: "padding" }, config: look(), ...spec },
    { ast: true, logLevel: 1, actions: false, renderer: "svg", defaultStyle: false, tooltip: tip },
  );
  if (drawings.get(element).number !== number) {
    found.finalize();
    return null;
  }
  before?.finalize();
  drawings.set(element, { number, view: found });
  fill(element, found.view.container());
  return found.view;
}

// Whatever is drawn is drawn again for another width or another scheme of colours.
const redraw = [];
let width = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === width) return;
  width = document.documentElement.clientWidth;
  for (const call of redraw) call();
});
dark.addEventListener("change", () => redraw.forEach((call) => call()));
