"""Many differences at once: bounds that hold together, by the largest one of each bootstrap resample (max-T).

Of arrays alone; tradeoffs.results.verdicts fills them from what was measured. Higher values are better here.
Hsu 1984, Constrained simultaneous confidence intervals for multiple comparisons with the best; Westfall and Young
1993, Resampling-based multiple testing, for the quantile of the largest statistic.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from tradeoffs.results.intervals import LEVEL, Interval

LEAST = float(ndtri((1 + LEVEL) / 2))  # of a single difference: what is less is a bootstrap that degenerated
ROUNDING = 1e-12  # of the largest value: a standard error below it is that of sums of floats, not of items
HALF = float(ndtri(0.75))  # of two equals the one that does not come out best is half of the time so many errors behind
MOST_ITEMS = 1_000_000
# Numbers of two digits, as "with so many items" is said: 10, 11, ..., 99, 100, 110, ...
SIZES = np.array([number * 10**power for power in range(5) for number in range(10, 100)] + [MOST_ITEMS])


@dataclass(frozen=True)
class Measured:
    """What several variants scored on the same items; V variants, G trained methods, R resamples.

    A format's value is its method's mean over trainings, plus its own difference from the training it was made of.
    """

    values: np.ndarray  # (V, 1 + R), the value itself first: resamples draw items, the same for all
    items: int
    method: np.ndarray  # (V,), the place of each variant's method among the G
    trainings: np.ndarray  # (G,), how many seeds a method was trained with; 0: it trains nothing
    shifts: np.ndarray  # (G, 1 + R), what drawing trainings with replacement adds to a method's value
    seeds: np.ndarray  # (G,), the variance of a method's value that is from the seeds of its trainings
    least: np.ndarray | float = 0.0  # (V, V), the least that a difference's standard error over items can be

    @property
    def differences(self) -> np.ndarray:
        """(V, V): row less column."""
        return self.values[:, None, 0] - self.values[None, :, 0]

    @cached_property
    def item_errors(self) -> np.ndarray:
        """Standard error over items of every difference (V, V). One variant at a time: V * R numbers in memory."""
        found = np.stack([(self.values[:, 1:] - own).std(axis=1) for own in self.values[:, 1:]])
        found[found < ROUNDING * np.abs(self.values).max()] = 0.0
        found = np.maximum(found, self.least)
        np.fill_diagonal(found, 0.0)
        return found

    @property
    def seed_variances(self) -> np.ndarray:
        """(V, V): of a difference of two methods, that of both; within one method none."""
        mine = self.seeds[self.method]
        return np.where(self.method[:, None] == self.method, 0.0, mine[:, None] + mine)

    def errors(self, shrunk: float = 1.0) -> np.ndarray:
        """Standard error of every difference (V, V), that over items `shrunk` as by more of them."""
        return np.sqrt((shrunk * self.item_errors) ** 2 + self.seed_variances)

    def largest(self, one: int) -> np.ndarray:
        """Of the differences from `one`, in each resample the largest |d* - d| / error; (R,). Without error: 0."""
        mine, error = self.method[one], self.errors()[one][:, None]
        drawn = self.values[:, 1:] - self.values[one, 1:] + self.shifts[self.method, 1:] - self.shifts[mine, 1:]
        away = np.abs(drawn - (self.values[:, :1] - self.values[one, 0]))
        return np.divide(away, error, out=np.zeros_like(away), where=error > 0).max(axis=0)

    def criticals(self, critical: float) -> np.ndarray:
        """The critical value of every pair (V, V): `critical`, or Student's t at the same tail where seeds count.

        Its degrees of freedom are Satterthwaite's (1946), of the seeds of both methods and the items.
        """
        parts = self.seeds**2 / np.maximum(self.trainings - 1, 1)
        known = parts[self.method][:, None] + parts[self.method] + self.item_errors**4 / max(self.items - 1, 1)
        several = self.seed_variances > 0
        freedom = np.divide(self.errors() ** 4, known, out=np.full(known.shape, np.inf), where=several & (known > 0))
        found = np.full(known.shape, critical)
        found[several] = np.maximum(critical, -stdtrit(freedom[several], ndtr(-critical)))
        return found


def least_errors(scores: np.ndarray, margin: float, right_or_wrong: bool) -> np.ndarray:
    """The least standard error of every difference of means, (V, V), of scores (V, items) judged by a margin.

    The bootstrap's is too small where two differ in few answers, as if so many had shown that all others will be the
    same. So it is no less than it would be were they `margin` apart by changes of that size (the standard error of
    Tango 1998, who tests whether two shares are so far apart). Of right or wrong, a change is 1, and it is no less than
    that of Agresti and Min 2005 either, one half added to each cell of a pair's table.
    """
    items = scores.shape[1]
    apart = np.ones((len(scores), len(scores)))
    if not right_or_wrong:
        for place, own in enumerate(scores):
            changed = np.abs(scores - own)
            whole = changed.sum(axis=1)
            apart[place] = np.divide((changed**2).sum(axis=1), whole, out=np.zeros_like(whole), where=whole > 0)
    least = np.sqrt(np.maximum(margin * apart - margin**2, 0.0) / items)
    if not right_or_wrong:
        return least
    only = scores @ (1 - scores).T + 0.5  # row right, column wrong
    count = items + 2
    return np.maximum(least, np.sqrt(((only + only.T) / count - ((only - only.T) / count) ** 2) / count))


def with_best(measured: Measured) -> float:
    """The critical value of comparisons with the best, whichever it is: of any one variant with all others.

    It is the largest over all that could be the best, so another variant makes it no smaller.
    """
    every = (np.quantile(measured.largest(one), LEVEL) for one in range(len(measured.values)))
    return max(LEAST, *map(float, every))


def of_all_pairs(measured: Measured) -> float:
    """The critical value of all pairs together."""
    largest = measured.largest(0)
    for one in range(1, len(measured.values)):
        largest = np.maximum(largest, measured.largest(one))
    return max(LEAST, float(np.quantile(largest, LEVEL)))


def bounds(difference: np.ndarray, width: np.ndarray, fits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of each variant's distance from the best of those that fit, whichever it is; (V,) each.

    That distance is the least of its differences from all that fit, itself among them (so none is above 0 of what
    fits). So both bounds are against every one of them, not only against the one that came out best, and another one
    raises neither. `difference` and `width` are of each pair (V, V), row less column; fits (V,) is bool.
    """
    return (difference - width)[:, fits].min(axis=1), (difference + width)[:, fits].min(axis=1)


def deciding_items(measured: Measured, criticals: np.ndarray, margin: float, fits: np.ndarray) -> np.ndarray:
    """How many items would decide whether each variant is within `margin` of the best that fits (V,); 0: none up to
    MOST_ITEMS.

    The standard error over items shrinks with the square root of their number, the values stay, and so does what the
    seeds add: where that alone is too much, no number of items helps.
    """
    first = int(np.argmax(np.where(fits, measured.values[:, 0], -np.inf)))
    behind, critical = -measured.differences[:, first], criticals[:, first]
    found = np.zeros(len(measured.values), int)
    for items in SIZES[measured.items < SIZES]:
        errors = measured.errors((measured.items / items) ** 0.5)
        lower, upper = bounds(measured.differences, criticals * errors, fits)
        error = errors[:, first]
        likely = -np.maximum(behind, HALF * error) - critical * error
        found[(found == 0) & ((np.minimum(lower, likely) > -margin) | (upper < -margin))] = items
        if found.all():
            break
    return found


def against(values: np.ndarray, first: int) -> list[Interval]:
    """Each of several (V, 1 + R) less the first named, by intervals that hold together with 95 %."""
    differences = values - values[first]
    errors = differences[:, 1:].std(axis=1)
    away = np.abs(differences[:, 1:] - differences[:, :1])
    ratios = np.divide(away, errors[:, None], out=np.zeros_like(away), where=errors[:, None] > 0)
    reach = max(LEAST, float(np.quantile(ratios.max(axis=0), LEVEL))) * errors
    return [
        Interval(float(d), float(d - r), float(d + r), float(e))
        for d, r, e in zip(differences[:, 0], reach, errors, strict=True)
    ]
