// Elements and numbers. Every text gets into the page as a text node, whatever it says.

const by = (id) => document.getElementById(id);

// An element with properties, and what stands in it: texts, elements, or nothing.
function make(tag, properties = {}, ...inside) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "for" || name === "role" || name === "scope")
      found.setAttribute(name, value);
    else found[name] = value;
  }
  found.append(...inside.filter((part) => part !== null && part !== undefined));
  return found;
}

function fill(element, ...inside) {
  element.replaceChildren(...inside.filter((part) => part !== null && part !== undefined));
}

// The options of a select, as [value, text]; keeps what was chosen, if it is still there.
function options(select, some, chosen = select.value) {
  fill(select, ...some.map(([value, text]) => make("option", { value, textContent: text })));
  if (some.some(([value]) => value === chosen)) select.value = chosen;
  return select.value;
}

// Three significant digits below 1000, whole numbers above.
function short(value) {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}

// Numbers with their intervals, as tradeoffs/report/formatting.py writes them: no more decimals than the interval has
// use for, more than usual where rounding would hide on which side of 0 it lies.
const MOST_DECIMALS = { "": 4, "+": 6 };
const warranted = (low, high, most) => (high > low ? Math.min(most, 1 - Math.floor(Math.log10(high - low))) : most);

function rounded(value, places) {
  const unit = 10 ** -places;
  return places < 0 ? Math.round(value / unit) * unit : Number(value.toFixed(places));
}

function fixed(value, places, sign = "") {
  const [whole, part] = Math.abs(rounded(value, places)).toFixed(Math.max(places, 0)).split(".");
  const before = rounded(value, places) < 0 ? "-" : sign;
  return before + whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part ? `.${part}` : "");
}

const power = (value, sign) => (value < 0 ? "" : sign) + value.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");

// How a quality's numbers are written, of whose metric `most` decimals are usual.
function asQuality(low, high, most, sign) {
  const ends = [Math.abs(low), Math.abs(high)];
  let places = warranted(low, high, most);
  if (most - places < 2) places = most;
  const hidden = ends.filter((end) => rounded(end, places) === 0 && rounded(end, most) !== 0);
  if (hidden.length) places = Math.min(most, Math.ceil(-Math.log10(Math.min(...hidden))));
  const excludes = low > 0 || high < 0;
  const least = excludes ? Math.min(...ends) : Math.max(...ends);
  const needed = Math.ceil(-Math.log10(least));
  if (least && rounded(least, places) === 0 && (excludes || needed <= MOST_DECIMALS[sign])) places = needed;
  return (value) => (places <= MOST_DECIMALS[sign] ? fixed(value, places, sign) : power(value, sign));
}

function asCost(value, low, high) {
  if (low === high) return short;
  const places = warranted(low, high, value ? Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))) : 0);
  return (one) => fixed(one, places);
}

// A value and its interval, or nothing in the place of what there is none of.
function written(spread, measure, sign = "") {
  if (!spread) return ["", ""];
  const [value, low = value, high = value] = spread;
  const one = measure.kind === "cost" ? asCost(value, low, high) : asQuality(low, high, measure.decimals, sign);
  return [one(value), low === high ? "" : `[${one(low)}, ${one(high)}]`];
}

const withInterval = (spread, measure) => written(spread, measure).filter(Boolean).join(" ");

// The same as parts of a cell; of a change with its sign.
function numbers(spread, measure, { intervals = true, sign = "" } = {}) {
  const [value, beside] = written(spread, measure, sign);
  return [value, beside && intervals ? make("span", { className: "interval", textContent: ` ${beside}` }) : null];
}

const counted = (count, what) => `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;

const least = (better) => (better === "lower" ? "lower is better" : better === "higher" ? "higher is better" : "");
