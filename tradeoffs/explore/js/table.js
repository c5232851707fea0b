// All numbers of all variants: sorted, filtered, with the columns that are wanted, and as Markdown.

const sorting = { column: "", down: false };
const hidden = new Map(); // of each pair the columns that are not shown

const text = (name, label, of) => ({ name, label, of, kind: "text" });
const FIXED = [
  text("variant", "variant", called),
  text("runtime", "runs on", (variant) => variant.runtime),
  text("standing", "under these limits", (variant) => standing(variant)),
];

const columns = () => [...FIXED, ...state.pair.measures];
const visible = () => columns().filter((column) => !hidden.get(state.pair.name).has(column.name));

// A cell as text; of a number with or without its interval.
function cell(column, variant) {
  if (column.kind === "text") return column.of(variant);
  const found = valueOf(variant, column.name);
  if (!found) return "";
  return by("intervals").checked ? withInterval(found, column) : written(found, column)[0];
}

const plain = (value) => value.toLocaleLowerCase();

function rows() {
  const words = plain(by("words").value).split(/\s+/).filter(Boolean);
  const found = state.pair.variants.filter((variant) => {
    const texts = plain(FIXED.map((column) => column.of(variant)).join(" "));
    const wanted = fits(variant) || !by("only-fits").checked;
    return words.every((word) => texts.includes(word)) && wanted && selected(variant);
  });
  const column = columns().find((one) => one.name === sorting.column);
  if (!column) return inRank(found);
  const key = (variant) => (column.kind === "text" ? column.of(variant) : valueOf(variant, column.name)?.[0]);
  const sign = sorting.down ? -1 : 1;
  // What has no number stands last, whichever way.
  return found.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  });
}

// What ships, then the rest of the frontier, then the others, the best first.
function inRank(some) {
  const front = onFrontier();
  const rank = (variant) => (front.includes(variant) ? front.indexOf(variant) : front.length + placeOf(variant));
  return [...some].sort((one, other) => rank(one) - rank(other));
}

function heading(column) {
  const mine = sorting.column === column.name;
  const button = make("button", {
    type: "button",
    id: `sort-${column.name}`,
    textContent: column.label,
    title: [column.about, least(column.better)].filter(Boolean).join("; "),
    onclick: () => {
      Object.assign(
        sorting,
        mine ? { down: !sorting.down } : { column: column.name, down: column.better === "higher" },
      );
      drawTable();
      by(`sort-${column.name}`).focus();
    },
  });
  return make(
    "th",
    { scope: "col", className: column.kind, "aria-sort": mine ? (sorting.down ? "descending" : "ascending") : "none" },
    button,
  );
}

const inNumbers = (column, variant) =>
  numbers(valueOf(variant, column.name), column, { intervals: by("intervals").checked });

function drawTable() {
  const some = rows();
  const shownColumns = visible();
  const front = onFrontier();
  const body = some.map((variant) =>
    make(
      "tr",
      { className: front.includes(variant) ? "front" : "" },
      ...shownColumns.map((column, place) => {
        const inside = column.kind === "text" ? [cell(column, variant)] : inNumbers(column, variant);
        return place === 0 && column.name === "variant"
          ? make("th", { scope: "row" }, make("code", { textContent: inside[0] }))
          : make("td", { className: column.kind }, ...inside);
      }),
    ),
  );
  fill(
    by("table"),
    make("caption", { textContent: `Variants of ${state.pair.title}`, className: "unseen" }),
    make("thead", {}, make("tr", {}, ...shownColumns.map(heading))),
    make("tbody", {}, ...body),
  );
  by("table-text").textContent =
    `${some.length} of ${counted(state.pair.variants.length, "variant")}, ` +
    `${shownColumns.length} of ${columns().length} columns` +
    (narrow() ? "; scroll sideways for the others" : "") +
    (Object.keys(state.window).length ? "; only the selected part of the picture" : "");
  by("copied").hidden = true;
}

function drawColumns() {
  const mine = hidden.get(state.pair.name);
  fill(
    by("columns"),
    ...columns().map((column) => {
      const id = `column-${column.name}`;
      const box = make("input", {
        type: "checkbox",
        id,
        checked: !mine.has(column.name),
        onchange: () => {
          if (box.checked) mine.delete(column.name);
          else mine.add(column.name);
          drawTable();
        },
      });
      return make("span", { className: "choice" }, box, make("label", { for: id, textContent: column.label }));
    }),
  );
}

// A text as one cell of a table in Markdown: nothing in it is Markdown or HTML.
function escaped(value) {
  return value
    .replace(/&/g, "&amp;")
    .replace(/</g, "&lt;")
    .replace(/>/g, "&gt;")
    .replace(/[\\`*_[\]~$#!]/g, "\\$&")
    .replace(/\|/g, "&#124;")
    .replace(/:\/\//g, ":&#8203;//")
    .replace(/[\r\n\u2028\u2029]+/g, " ");
}

function markdown() {
  const some = visible();
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return (
    [
      line(some.map((column) => escaped(column.label))),
      `|${some.map((column) => (column.kind === "text" ? " --- " : " ---: ")).join("|")}|`,
      ...rows().map((variant) =>
        line(
          some.map((column) =>
            column.name === "variant"
              ? `\`${cell(column, variant)}\``
              : column.kind === "text"
                ? escaped(cell(column, variant))
                : cell(column, variant),
          ),
        ),
      ),
    ].join("\n") + "\n"
  );
}

async function copy() {
  const written = markdown();
  try {
    await navigator.clipboard.writeText(written);
    by("table-text").textContent = `Copied ${counted(rows().length, "row")} as Markdown.`;
  } catch {
    // Some browsers give a page from disk no clipboard.
    by("copied").hidden = false;
    by("markdown").value = written;
    by("markdown").focus();
    by("markdown").select();
  }
}

on("pair", () => {
  const name = state.pair.name;
  if (!hidden.has(name)) {
    const first = new Set(["variant", "runtime", "standing", ...state.pair.seen]);
    hidden.set(
      name,
      new Set(
        columns()
          .map((column) => column.name)
          .filter((one) => !first.has(one)),
      ),
    );
  }
  Object.assign(sorting, { column: "", down: false });
  drawColumns();
  drawTable();
});
on("limits", drawTable);
on("window", drawTable);
for (const id of ["words", "only-fits", "intervals"]) by(id).addEventListener("input", drawTable);
by("copy").addEventListener("click", copy);

// Whether a table goes on to the right of what is seen of it, for the style to say so.
for (const box of document.querySelectorAll(".wide")) {
  const mark = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  box.addEventListener("scroll", mark, { passive: true });
  for (const one of [box, box.firstElementChild]) new ResizeObserver(mark).observe(one);
}
