"""Which variant is best, and in which order the others follow."""

from collections.abc import Sequence
from itertools import combinations

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.results import intervals, verdicts
from tradeoffs.results.results import Results


def headline(results: Results, pair: Pair) -> str:
    """The metric that decides in a pair: that of params.yaml, if it was measured.

    Else (`auto`) the F1 of answers, or the loss where nothing is answered (text), or multiple choice where that is all
    that is asked.
    """
    first, asked = results.of(pair)[0], results.decide.metric
    if asked != "auto" and results.has(first, asked):
        return asked
    return next((name for name in ("test_f1", "test_loss") if results.has(first, name)), "mmlu_accuracy")


def has_test(results: Results, pair: Pair) -> bool:
    """Whether a pair has test items; multiple choice and tasks are all there is of a data set of kind `questions`."""
    return results.has(results.of(pair)[0], "test_loss")


def without_test(results: Results, pair: Pair) -> str:
    """What to compare by where there are no test items: multiple choice, or if that is not asked what decides, which is
    a metric of a task."""
    asked = results.has(results.of(pair)[0], "mmlu_accuracy")
    return "mmlu_accuracy" if asked else headline(results, pair)


def ranked(results: Results, pair: Pair) -> list[Variant]:
    """Variants of a pair by the headline metric, best first."""
    return best_first(results, results.of(pair), headline(results, pair))


def best_first(results: Results, some: Sequence[Variant], name: str) -> list[Variant]:
    """Variants on one data set by a quality metric, best first; of a method with several seeds by their mean.

    Of equals the first by `verdicts.of_equals`, so that it is the best found.
    """
    values = dict(zip(some, verdicts.measure(results, some, name).values[:, 0].tolist(), strict=True))
    return sorted(verdicts.of_equals(results, some), key=lambda variant: -values[variant])


def best_shipped(results: Results, pair: Pair) -> str:
    """The method of the best variant, among the methods that can be merged, if there are any."""
    methods = [variant.method for variant in ranked(results, pair)]
    only = results.only_as_trained(pair)
    return next((method for method in methods if method not in only), methods[0])


def good_enough(results: Results, pair: Pair) -> list[Variant]:
    """The best variant of a pair and all that are good enough, best first."""
    good = set(verdicts.standing(results, ranked(results, pair), headline(results, pair)).eligible)
    return [variant for variant in ranked(results, pair) if variant in good]


def letters(results: Results, compared: Sequence[Variant], name: str) -> dict[Variant, str]:
    """Letters that two of the variants share exactly when they are not told apart, all their pairs compared at once."""
    order = best_first(results, compared, name)
    apart = verdicts.told_apart(results, order, name)
    places = [pair for pair in combinations(range(len(order)), 2) if frozenset(order[place] for place in pair) in apart]
    found = intervals.letters(len(order), places)
    return {variant: "".join(mine) for variant, mine in zip(order, found, strict=True)}
