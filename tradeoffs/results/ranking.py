"""Which variant is best, and in which order the others follow."""

from collections.abc import Sequence
from itertools import combinations

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.results import costs, intervals, verdicts
from tradeoffs.results.results import Results


def headline(results: Results, pair: Pair) -> str:
    """The metric that decides in a pair: that of params.yaml, if it was measured.

    Else (`auto`) the F1 of answers, or the loss where nothing is answered (text).
    """
    first, asked = results.of(pair)[0], results.decide.metric
    if asked != "auto" and results.has(first, asked):
        return asked
    return "test_f1" if results.has(first, "test_f1") else "test_loss"


def ranked(results: Results, pair: Pair) -> list[Variant]:
    """Variants of a pair by the headline metric, best first."""
    return best_first(results, results.of(pair), headline(results, pair))


def best_first(results: Results, some: Sequence[Variant], name: str) -> list[Variant]:
    """Variants on one data set by a quality metric, best first; of a method with several seeds by their mean."""
    values = dict(zip(some, verdicts.measure(results, some, name).values[:, 0].tolist(), strict=True))
    return sorted(some, key=lambda variant: -values[variant])


def best_shipped(results: Results, pair: Pair) -> str:
    """The method of the best variant, among the methods that can be merged, if there are any."""
    methods = [variant.method for variant in ranked(results, pair)]
    only = results.only_as_trained(pair)
    return next((method for method in methods if method not in only), methods[0])


def good_enough(results: Results, pair: Pair) -> list[Variant]:
    """The best variant of a pair and all that are good enough, best first."""
    good = verdicts.standing(results, results.of(pair), headline(results, pair)).having(verdicts.GOOD)
    return best_first(results, good, headline(results, pair))


def better(results: Results, ours: Variant, theirs: Variant, name: str) -> bool:
    """Whether `ours` is better, by a difference whose interval excludes 0."""
    difference = results.compare(ours, theirs, name)
    return not difference.tie and (difference.value > 0) == (metrics.metric(name)[1].better == "higher")


def letters(results: Results, compared: Sequence[Variant], name: str) -> dict[Variant, str]:
    """Letters that two of the variants share exactly when they are not told apart, all their pairs compared at once."""
    order = best_first(results, compared, name)
    apart = verdicts.told_apart(results, order, name)
    places = [pair for pair in combinations(range(len(order)), 2) if frozenset(order[place] for place in pair) in apart]
    found = intervals.letters(len(order), places)
    return {variant: "".join(mine) for variant, mine in zip(order, found, strict=True)}


def pareto(results: Results, pair: Pair, cost: str, cheaper: str) -> list[Variant]:
    """Variants of a pair that are worth their cost, cheapest first: shown to be better than every cheaper one.

    Quality is the headline metric; `cheaper` is "lower" or "higher": which way a cost number gets better.
    """
    sign = 1 if cheaper == "lower" else -1
    name = headline(results, pair)
    # sorted() is stable: of several that cost the same, the best one comes first.
    by_cost = sorted(ranked(results, pair), key=lambda v: sign * results.cost[v][cost])
    # Against every cheaper one, not only those of the set: of what is not told apart, the ends may be.
    return [v for place, v in enumerate(by_cost) if all(better(results, v, other, name) for other in by_cost[:place])]


def cheapest_good(results: Results, pair: Pair, cost: str, cheaper: str) -> Variant:
    """The cheapest variant that is good enough; the better one of several whose costs are not told apart."""
    good = good_enough(results, pair)  # best first
    pick = (min if cheaper == "lower" else max)(good, key=lambda v: results.cost[v][cost])
    return next(v for v in good if same_cost(results, v, pick, cost))


def same_cost(results: Results, ours: Variant, theirs: Variant, cost: str) -> bool:
    """Whether a cost number of two is not told apart."""
    return not costs.told_apart(results, ours, theirs, cost)
