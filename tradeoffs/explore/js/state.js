// What the page shows at the moment, and who is told when that changes.

const shown = JSON.parse(by("data").textContent);
for (const pair of shown.pairs) pair.table = unpacked(pair.table);

const state = {
  pair: shown.pairs[0],
  limits: {}, // by the names of the table's limits, and `runtime`
  cost: shown.pairs[0].cost, // what "cheapest" means
  choice: null, // of `choose`, under these limits
  window: {}, // the part of the picture that is selected: up and across, each [low, high]
};

// Who draws anew: for another pair of model and data set, other limits, another part of the picture. In the order of
// the scripts, so that the choice is made before anybody shows it.
const listeners = { pair: [], limits: [], window: [] };

const on = (what, call) => listeners[what].push(call);

// Done when everybody has drawn.
const changed = (what) => Promise.all(listeners[what].map((call) => call()));

const measure = (name) => state.pair.measures.find((one) => one.name === name);

const valueOf = (variant, name) => {
  const place = state.pair.measures.findIndex((one) => one.name === name);
  return place < 0 ? null : variant.values[place];
};

const called = (variant) => `${variant.method} ${variant.format}`;

const named = (name) => state.pair.variants.find((variant) => variant.name === name);

// Whether a variant lies in the selected part of the picture.
function selected(variant) {
  return Object.entries(state.window).every(([axis, [low, high]]) => {
    const found = valueOf(variant, by(axis).value);
    return found && found[0] >= low && found[0] <= high;
  });
}
