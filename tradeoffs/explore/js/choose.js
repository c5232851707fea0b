// tradeoffs/results/choice.py once more, line by line; a test holds both to the same answers.

const GOOD = "good enough";
const UNDECIDED = "undecided";
const WORSE = "too much worse";
const ONE = "one training";
const BEST = "best found";
const UNFIT = "beyond a limit";
const GUARDS = "guards";
const RANK = "rank";
const RUNTIME = "runtime";
const DEVICE = "device";
const MINIMA = ["min_tokens_per_second"];

// Of each variant the limits that it is beyond, and by which part of the limit; infinitely where that is not known.
function misses(table, limits) {
  return table.names.map((_, place) => {
    const over = table.there && !table.there[place] ? { [DEVICE]: Infinity } : {};
    for (const [name, limit] of Object.entries(limits)) {
      if (name === RUNTIME) {
        if (table.runtime[place] !== limit) over[name] = Infinity;
        continue;
      }
      const value = table.limited[name][place];
      const part = value === null ? Infinity : (MINIMA.includes(name) ? limit - value : value - limit) / limit;
      if (!(part <= 0)) over[name] = part;
    }
    return over;
  });
}

// The verdict on each variant against the best of those that fit, and how far each is from it at least and at most.
function judge(table, fits) {
  const among = table.names.map((_, place) => place).filter((place) => fits[place]);
  const best = among.reduce((found, place) => (table.value[place] > table.value[found] ? place : found), among[0]);
  const words = [];
  const lower = [];
  const upper = [];
  table.names.forEach((_, place) => {
    const against = fits[place] ? among : [best];
    const apart = (other) => table.value[place] - table.value[other];
    lower.push(Math.min(...against.map((other) => apart(other) - table.width[place][other])));
    upper.push(Math.min(...against.map((other) => apart(other) + table.width[place][other])));
    const once = table.method[place] !== table.method[best] && Boolean(table.once[place] || table.once[best]);
    const found = word(lower[place], upper[place], table.margin[best], once);
    words.push(!fits[place] ? UNFIT : place !== best || found === GOOD ? found : BEST);
  });
  return { best, words, lower, upper };
}

function word(lower, upper, margin, unknown) {
  if (upper < -margin) return WORSE;
  if (unknown) return ONE;
  return lower > -margin ? GOOD : UNDECIDED;
}

// Of what can be taken the cheapest, and why each of the others is not it.
function cheapest(table, judged, cost) {
  let left = judged.words.flatMap((found, place) => ([GOOD, BEST].includes(found) ? [place] : []));
  const out = {};
  for (const why of [cost, GUARDS, ...Object.keys(table.cheaper), RANK]) {
    let kept = left.slice(0, 1);
    if (why === GUARDS) {
      const lost = (place) => table.lost[place][judged.best];
      const fewest = Math.min(...left.map(lost));
      kept = left.filter((place) => lost(place) === fewest);
    } else if (why !== RANK) {
      const all = left;
      kept = left.filter((place) => !all.some((other) => table.cheaper[why][other][place]));
    }
    for (const place of left) if (!kept.includes(place)) out[place] = why;
    left = kept;
  }
  return [left[0], out];
}

// Quality against a cost, dearest first: what is as good and told apart as cheaper there is none.
function frontier(table, fits, cost) {
  const found = [];
  for (let left = fits; left.some(Boolean);) {
    const [next] = cheapest(table, judge(table, left), cost);
    found.push(next);
    left = left.map((there, place) => there && Boolean(table.cheaper[cost][place][next]));
  }
  return found;
}

// What to take under some limits; `judged` is null where nothing fits.
function choose(table, limits, cost) {
  const missed = misses(table, limits);
  const fits = missed.map((over) => !Object.keys(over).length);
  if (!fits.some(Boolean)) return { missed, fits, judged: null, nearest: nearest(missed) };
  const judged = judge(table, fits);
  const [recommended, passedOver] = cheapest(table, judged, cost);
  return { missed, fits, judged, recommended, passedOver, frontier: frontier(table, fits, cost) };
}

// What misses least: fewest limits infinitely, then the smallest part of the one that it is furthest beyond.
function nearest(missed) {
  const far = (over) => {
    const known = Object.values(over).filter(Number.isFinite);
    return [Object.keys(over).length - known.length, Math.max(0, ...known)];
  };
  return missed.reduce((found, over, place) => {
    const [mine, theirs] = [far(over), far(missed[found])];
    return mine[0] < theirs[0] || (mine[0] === theirs[0] && mine[1] < theirs[1]) ? place : found;
  }, 0);
}
