// Elements and numbers. Every text gets into the page as a text node, whatever it says.

export const by = (id) => document.getElementById(id);

// An element with properties, and what stands in it: texts, elements, or nothing.
export function make(tag, properties = {}, ...inside) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "for" || name === "role") found.setAttribute(name, value);
    else found[name] = value;
  }
  found.append(...inside.filter((part) => part !== null && part !== undefined));
  return found;
}

export function fill(element, ...inside) {
  element.replaceChildren(...inside.filter((part) => part !== null && part !== undefined));
}

// Three significant digits below 1000, whole numbers above.
export function short(value) {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}

export const seconds = (value) => (value < 1 ? [String(Math.round(1000 * value)), "ms"] : [short(value), "s"]);

export const counted = (count, what) => `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;

export const percent = (share) => `${(100 * share).toFixed(1)} %`;
