// Multiple choice by subject: a table whose cells are the darker, the more is right.

const AS_TRAINED = "";

const mix = (from, to, share) => from.map((one, place) => Math.round(one + (to[place] - one) * share));
const rgb = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));

// Relative luminance (WCAG 2.2): at 0.179 black and white are as far away.
const bright = (found) =>
  found
    .map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);

// Blue alone, from the page's own colour: as light and dark it is read by everybody.
function shade(share) {
  const [from, to] = dark.matches ? ["#1b1e22", "#7cc4f0"] : ["#ffffff", "#0b5b94"];
  const found = mix(rgb(from), rgb(to), share);
  return [`rgb(${found.join(",")})`, bright(found) > 0.179 ? "#000000" : "#ffffff"];
}

function drawSubjects() {
  const { subjects, variants } = state.pair;
  if (!subjects) return;
  const method = by("subjects-of").value;
  const places = variants.flatMap((variant, place) =>
    (method === AS_TRAINED ? variant.format === "trained" : variant.method === method) ? [place] : [],
  );
  const head = (place) => (method === AS_TRAINED ? variants[place].method : variants[place].format);
  const one = (place, subject) => {
    const [value, low, high] = subjects.shares[place][subject];
    const found = make("td", {
      textContent: `${Math.round(100 * value)} %`,
      title: `95 %: ${Math.round(100 * low)} to ${Math.round(100 * high)} %`,
    });
    [found.style.backgroundColor, found.style.color] = shade(value);
    return found;
  };
  fill(
    by("subjects"),
    make("caption", { textContent: "Share of questions that are right; one in four is by chance" }),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "col", className: "text", textContent: "subject" }),
        make("th", { scope: "col", textContent: "questions" }),
        ...places.map((place) => make("th", { scope: "col" }, make("code", { textContent: head(place) }))),
      ),
    ),
    make(
      "tbody",
      {},
      ...subjects.names.map((name, subject) =>
        make(
          "tr",
          {},
          make("th", { scope: "row", textContent: name }),
          make("td", { textContent: String(subjects.questions[subject]) }),
          ...places.map((place) => one(place, subject)),
        ),
      ),
    ),
  );
}

on("pair", () => {
  by("subjects-section").hidden = !state.pair.subjects;
  options(by("subjects-of"), [
    [AS_TRAINED, "methods, as trained"],
    ...state.pair.methods.map((one) => [one, `formats of ${one}`]),
  ]);
  drawSubjects();
});
redraw.push(drawSubjects);
by("subjects-of").addEventListener("change", drawSubjects);
