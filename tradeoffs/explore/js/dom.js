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

// A value as its measure is written: a quality with its decimals, more of them where they would show nothing but 0.
function number(value, measure) {
  if (measure.kind === "cost" || measure.decimals === undefined) return short(value);
  const fixed = value.toFixed(measure.decimals);
  if (Number(fixed) !== 0 || value === 0) return fixed;
  return Math.abs(value) < 1e-4 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
}

const interval = (spread, measure) =>
  spread && spread.length === 3 && spread[1] !== spread[2]
    ? `[${number(spread[1], measure)}, ${number(spread[2], measure)}]`
    : "";

const withInterval = (spread, measure) =>
  spread ? [number(spread[0], measure), interval(spread, measure)].filter(Boolean).join(" ") : "";

// The same as parts of a cell; of a change with its sign.
function numbers(spread, measure, { intervals = true, sign = false } = {}) {
  if (!spread) return [];
  const beside = intervals ? interval(spread, measure) : "";
  const value = (sign && spread[0] > 0 ? "+" : "") + number(spread[0], measure);
  return [value, beside ? make("span", { className: "interval", textContent: ` ${beside}` }) : null];
}

const counted = (count, what) => `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;

const least = (better) => (better === "lower" ? "lower is better" : better === "higher" ? "higher is better" : "");
