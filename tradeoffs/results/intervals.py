"""95 % intervals over items, paired comparisons, and the smallest difference that a test set can show.

Every metric here is a function of sums over items (a loss is total nats / total tokens, BLEU comes from summed n-gram
counts), so one resample is one row of item counts and all resamples are one matrix product.
"""

import math
import string
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtri

LEVEL = 0.95
FEW = 10  # of right or wrong items; with fewer the bootstrap's interval is too short, and none at all with 0
POWER = float(ndtri(0.80))


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % percentile bootstrap interval. `error` is the bootstrap's standard deviation."""

    value: float
    low: float
    high: float
    error: float

    @property
    def excludes_0(self) -> bool:
        """For a difference: it is shown to be one, large or small."""
        return not self.low <= 0.0 <= self.high


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


def share(right: int, of: int, values: np.ndarray) -> Interval:
    """Interval of a share of items, from it per resample (1 + count,); exact where fewer than FEW are right or wrong.

    Clopper and Pearson 1934. Of 0 in 300 every resample is 0, and the interval reaches to 0.012.
    """
    found = interval(values)
    wrong, tail = of - right, (1 - LEVEL) / 2
    if min(right, wrong) >= FEW:
        return found
    low = float(betaincinv(right, wrong + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong else 1.0
    return Interval(found.value, low, high, found.error)


def detectable(error: float, critical: float) -> float:
    """Smallest true difference found with 80 % power, by a paired difference's standard error and critical value.

    (critical + z[0.80]) * standard error; Cohen 1988, section 2.2, for the difference of paired means. The critical
    value is that of the table: 1.96 for one comparison, more where many hold together.
    """
    return (critical + POWER) * error


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
