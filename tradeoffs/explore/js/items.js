// Questions with what was expected and what some variants answered, side by side.

const SOME = 10; // questions at a time
const NOBODY = "";
const RIGHT = "exactly right";
let many = SOME;

const compared = () =>
  [...by("beside").querySelectorAll("select")]
    .map((select) => select.value)
    .filter((name) => name !== NOBODY)
    .map((name) => state.pair.variants.findIndex((variant) => variant.name === name));

function found() {
  const { items } = state.pair;
  const mine = compared();
  const words = plain(by("find").value);
  return items.questions
    .map((_, place) => place)
    .filter((place) => {
      const answers = mine.map((one) => items.answers[one][place]);
      const texts = [items.questions[place], items.expected[place], ...answers];
      return (
        (!by("only-differ").checked || new Set(answers).size > 1) &&
        (!words || texts.some((one) => plain(items.texts[one]).includes(words)))
      );
    });
}

function drawItems() {
  const { items, variants } = state.pair;
  if (!items) return;
  const some = found();
  const mine = compared();
  const answer = (one, place) => {
    const score = items.exact[one][place] === "1" ? RIGHT : `F1 ${(items.f1[one][place] / 1000).toFixed(2)}`;
    return block(called(variants[one]), items.texts[items.answers[one][place]], score);
  };
  const question = (place) => {
    const answers = make("div", { className: "answers" }, ...mine.map((one) => answer(one, place)));
    const asked = block("asked", items.texts[items.questions[place]]);
    return make("article", {}, asked, block("expected", items.texts[items.expected[place]]), answers);
  };
  fill(by("items"), ...some.slice(0, many).map(question));
  const all = items.questions.length;
  const differ = by("only-differ").checked && mine.length < 2 ? " Choose two variants that may differ." : "";
  const cut =
    all < items.asked ? ` The page has room for ${all} of the ${items.asked} that were asked, drawn evenly.` : "";
  by("items-text").textContent =
    `${Math.min(many, some.length)} of ${counted(some.length, "question")} shown, ${all} in all.${differ}${cut}`;
  by("more-items").hidden = some.length <= many;
}

function block(label, content, score) {
  return make(
    "div",
    { className: "block" },
    make(
      "h3",
      {},
      label,
      score ? make("span", { className: score === RIGHT ? "score right" : "score", textContent: score }) : null,
    ),
    make("p", { className: "said", textContent: content.trim() === "" ? "(empty)" : content }),
  );
}

// What ships, and the best of another method; of another format where there is none: both are tuned, if two are.
function worthComparing() {
  const inOrder = inRank(state.pair.variants);
  const others = inOrder.slice(1);
  const tuned = others.filter((one) => one.method !== "base");
  const second = tuned.find((one) => one.method !== inOrder[0].method) ?? tuned[0] ?? others[0];
  return second ? [inOrder[0], second] : inOrder;
}

function drawBeside() {
  const names = state.pair.variants.map((variant) => [variant.name, called(variant)]);
  const first = worthComparing().map((variant) => variant.name);
  const labels = ["Answers of", "beside", "and"];
  fill(
    by("beside"),
    ...labels.map((label, place) => {
      const id = `beside-${place}`;
      const select = make("select", { id, onchange: again });
      options(select, [...(place ? [[NOBODY, "nobody"]] : []), ...names], first[place] ?? NOBODY);
      return make("span", { className: "choice" }, make("label", { for: id, textContent: label }), select);
    }),
  );
}

function again() {
  many = SOME;
  drawItems();
}

on("pair", () => {
  by("items-section").hidden = !state.pair.items;
  if (!state.pair.items) return;
  drawBeside();
  again();
});
for (const id of ["only-differ", "find"]) by(id).addEventListener("input", again);
by("more-items").addEventListener("click", () => {
  many += SOME;
  drawItems();
});
