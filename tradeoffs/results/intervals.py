"""95 % bootstrap intervals over items, paired comparisons, ties, and the smallest difference a test set can show.

Every metric here is a function of sums over items (a loss is total nats / total tokens, BLEU comes from summed n-gram
counts), so one resample is one row of item counts and all resamples are one matrix product.
"""

import math
import string
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
# Normal quantiles 0.975 + 0.80: a difference of 2.8 standard errors is called one in 80 % of repetitions.
DETECTABLE = 1.959964 + 0.841621


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % percentile bootstrap interval. `error` is the bootstrap's standard deviation."""

    value: float
    low: float
    high: float
    error: float

    @property
    def tie(self) -> bool:
        """For a difference: the interval contains 0, so the two are not told apart."""
        return self.low <= 0.0 <= self.high


def resamples(items: int, count: int, seed: int) -> np.ndarray:
    """How often each item is drawn; float64 (1 + count, items). Row 0 counts each item once: the value itself.

    Two metrics computed with the same matrix are paired: each resample holds the same items for both.
    """
    draws = np.random.default_rng(seed).multinomial(items, np.full(items, 1.0 / items), size=count)
    return np.vstack([np.ones(items), draws])


def interval(values: np.ndarray) -> Interval:
    """From a metric per resample, shape (1 + count,), the value itself first. Raises ValueError if none is finite.

    A resample in which a metric is undefined (no token drawn) is NaN and left out.
    """
    rest = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or not len(rest):
        raise ValueError("no finite value to make an interval of")
    low, high = np.quantile(rest, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high), float(rest.std()))


def difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Interval of ours - theirs, both per resample from the same matrix: the paired comparison of two variants."""
    return interval(ours - theirs)


def simultaneous(found: Interval, comparisons: int) -> Interval:
    """A difference's interval, widened until `comparisons` such intervals hold together with 95 % (Bonferroni).

    For comparisons with one that was picked as the best of many: its lead is in part luck. The bootstrap's standard
    deviation and the normal quantile give the width, since percentiles that far out would need too many resamples.
    """
    reach = NormalDist().inv_cdf(1 - 0.025 / comparisons) * found.error
    low, high = min(found.low, found.value - reach), max(found.high, found.value + reach)
    return Interval(found.value, low, high, found.error)


def detectable(error: float) -> float:
    """Smallest true difference found with 80 % power at the 5 % level, by the standard error of a paired difference.

    (z[0.975] + z[0.80]) * standard error; Cohen 1988, section 2.2, for the difference of paired means.
    """
    return DETECTABLE * error


def letters(count: int, told_apart: Iterable[tuple[int, int]]) -> list[tuple[str, ...]]:
    """Letters per member 0..count-1: two share one exactly when their pair is not in `told_apart`.

    Insert and absorb of Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons.
    Letters run in the order of the members: the first one has the `a`.
    """
    groups = [frozenset(range(count))]
    for one, other in told_apart:
        split = [
            part
            for group in groups
            for part in ((group - {one}, group - {other}) if {one, other} <= group else (group,))
        ]
        groups = [group for group in dict.fromkeys(split) if not any(group < wider for wider in split)]
    groups.sort(key=sorted)
    return [tuple(_letter(n) for n, group in enumerate(groups) if member in group) for member in range(count)]


def _letter(number: int) -> str:
    """a to z, A to Z, a2 to z2, ..."""
    turn, index = divmod(number, len(string.ascii_letters))
    return string.ascii_letters[index] + (str(turn + 1) if turn else "")


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Exact two-sided p-value that two variants answer equally well, from right (1) or wrong (0) per shared question.

    McNemar 1947 in its exact form: the questions that only one gets right fall to either side like a fair coin.
    """
    only_ours = int(np.sum((ours == 1) & (theirs == 0)))
    only_theirs = int(np.sum((ours == 0) & (theirs == 1)))
    n, k = only_ours + only_theirs, min(only_ours, only_theirs)
    # Integers until the last division: 2**n leaves the range of a float at n = 1024.
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, 2 * tail / 2**n)
