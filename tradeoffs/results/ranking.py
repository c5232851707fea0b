"""Which variant is best, which are tied with it, and which of those costs least."""

from collections.abc import Sequence
from itertools import combinations

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.results import costs, intervals
from tradeoffs.results.results import Results


def headline(results: Results, pair: Pair) -> str:
    """The metric that decides in a pair: the F1 of answers, or the loss where nothing is answered (text)."""
    return "test_f1" if results.has(results.of(pair)[0], "test_f1") else "test_loss"


def ranked(results: Results, pair: Pair) -> list[Variant]:
    """Variants of a pair by the headline metric, best first."""
    return best_first(results, results.of(pair), headline(results, pair))


def best_first(results: Results, some: Sequence[Variant], name: str) -> list[Variant]:
    """Variants by a quality metric, best first."""
    sign = 1 if metrics.metric(name)[1].better == "higher" else -1
    return sorted(some, key=lambda variant: -sign * float(results.values(variant, name)[0]))


def best_shipped(results: Results, pair: Pair) -> str:
    """The method of the best variant, among the methods that can be merged, if there are any."""
    methods = [variant.method for variant in ranked(results, pair)]
    only = results.only_as_trained(pair)
    return next((method for method in methods if method not in only), methods[0])


def tied_with_best(results: Results, pair: Pair) -> list[Variant]:
    """The best variant of a pair and all whose paired difference from it has an interval that contains 0."""
    best, *rest = ranked(results, pair)
    name = headline(results, pair)
    return [best] + [v for v in rest if results.compare_picked(v, best, name, 1 + len(rest)).tie]


def better(results: Results, ours: Variant, theirs: Variant, name: str) -> bool:
    """Whether `ours` is better, by a difference that is no tie even if the two are picked out of their pair."""
    difference = results.compare_picked(ours, theirs, name, len(results.of(ours.pair)))
    return not difference.tie and (difference.value > 0) == (metrics.metric(name)[1].better == "higher")


def letters(results: Results, compared: Sequence[Variant], name: str) -> dict[Variant, str]:
    """Letters that two of the variants share exactly when they are tied, all their pairs compared at once."""
    order = best_first(results, compared, name)
    told_apart = [
        (one, other)
        for one, other in combinations(range(len(order)), 2)
        if not results.compare_picked(order[one], order[other], name, len(order)).tie
    ]
    found = intervals.letters(len(order), told_apart)
    return {variant: "".join(mine) for variant, mine in zip(order, found, strict=True)}


def pareto(results: Results, pair: Pair, cost: str, cheaper: str) -> list[Variant]:
    """Variants of a pair that are worth their cost, cheapest first: no cheaper one is as good, not even by a tie.

    Quality is the headline metric; `cheaper` is "lower" or "higher": which way a cost number gets better.
    """
    sign = 1 if cheaper == "lower" else -1
    name = headline(results, pair)
    # sorted() is stable: of several that cost the same, the best one comes first.
    by_cost = sorted(ranked(results, pair), key=lambda v: sign * results.cost[v][cost])
    # Against every cheaper one, not only those of the set: a tie of a tie need not be one.
    return [v for place, v in enumerate(by_cost) if all(better(results, v, other, name) for other in by_cost[:place])]


def cheapest_tied(results: Results, pair: Pair, cost: str, cheaper: str) -> Variant:
    """The cheapest variant that is tied with the best; the better one of several whose costs are not told apart."""
    tied = tied_with_best(results, pair)  # best first
    pick = (min if cheaper == "lower" else max)(tied, key=lambda v: results.cost[v][cost])
    return next(v for v in tied if same_cost(results, v, pick, cost))


def same_cost(results: Results, ours: Variant, theirs: Variant, cost: str) -> bool:
    """Whether a cost number of two is not told apart."""
    return not costs.told_apart(results, ours, theirs, cost)
