// The first look.

options(
  by("pair"),
  shown.pairs.map((pair) => [pair.name, pair.title]),
);
by("pair-choice").hidden = shown.pairs.length < 2;
by("pair").addEventListener("change", () => {
  state.pair = shown.pairs.find((pair) => pair.name === by("pair").value);
  return start();
});

function start() {
  by("title").textContent = `${state.pair.title}: quality against cost`;
  return changed("pair");
}

start().then(() => performance.mark("rendered"));
