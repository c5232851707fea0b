"""The statistics of a gate, of arrays alone: what is shown of each difference, and of all of them together.

Signed so that higher is better. A row passes if it is shown to lose no more than its margin: its lower one-sided 95 %
bound is above -margin. All rows have to pass, which is an intersection-union test (Berger 1982): what truly loses more
than its margin anywhere passes with at most 5 %, however many rows there are, so nothing is corrected.

To fail, one row of many is enough. So what counts as shown to be worse holds for all rows together, by the largest one
of each bootstrap resample (Westfall and Young 1993; here one-sided, and each row has its margin as a start): were both
sides equal, at most 5 % of gates would have any row that lies further beyond its margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from tradeoffs.results.intervals import LEVEL
from tradeoffs.results.simultaneous import LEAST, SIZES

ONE_SIDED = float(ndtri(LEVEL))
FEW = 30  # items; of fewer the bootstrap's tails are too short to show that anything is worse
NEVER = 1e9  # standard errors
ROUNDING = 1e-12  # of the values: a standard error below it is that of sums of floats


@dataclass(frozen=True)
class Sample:
    """A difference of two values, head less base, signed so that higher is better.

    `drawn` (1 + R,) is the value itself, then that of each resample; NaN where a metric is undefined. `error` is its
    standard error over items, `seeds` the variance that the seeds of its trainings add, which `freedom` degrees are
    known of; 0 of both where they add none.
    """

    drawn: np.ndarray
    error: float
    items: int
    margin: float
    seeds: float = 0.0
    freedom: float = 0.0

    @property
    def value(self) -> float:
        return float(self.drawn[0])

    def whole_error(self, items: int | None = None) -> float:
        """The standard error of both, or what it would be with so many items of the same kind."""
        return float(np.sqrt(self.error**2 * self.items / (items or self.items) + self.seeds))

    def critical(self, normal: float, items: int | None = None) -> float:
        """Student's t at a normal value's tail, by Satterthwaite's degrees of freedom (1946); of 1 item infinite."""
        count = items or self.items
        over_items = self.error**2 * self.items / count
        parts = over_items**2 / (count - 1) if count > 1 else np.inf
        parts += self.seeds**2 / self.freedom if self.seeds else 0.0
        if not self.whole_error(items):
            return normal
        if not np.isfinite(parts):
            return np.inf
        freedom = self.whole_error(items) ** 4 / parts if parts else np.inf
        return max(normal, float(-stdtrit(freedom, ndtr(-normal))))


@dataclass(frozen=True)
class Shown:
    """What is shown of a difference. `low` and `high`: one-sided 95 % bounds. `moved`: -1 and 1 where it is not 0 by an
    interval that holds for all rows together. `items` would decide what is open; None: nothing is, or none would.
    `needed`: see `beyond`.
    """

    low: float
    high: float
    passes: bool
    worse: bool
    moved: int
    items: int | None
    needed: float


def error_of(drawn: np.ndarray, items: int, least: float, scale: float) -> float:
    """Standard error over items of resamples (1 + R,), no less than `least`; `scale` is the size of the values."""
    found = float(np.nanstd(drawn[1:])) * float(np.sqrt(items / max(items - 1, 1)))
    return max(0.0 if found < ROUNDING * scale else found, least)


def shown(samples: Sequence[Sample], strict: float | None = None) -> list[Shown]:
    """What is shown of each of some differences, and of all together. `strict`: see `beyond`, of more samples."""
    if not samples:
        return []
    far, away = beyond(samples) if strict is None else strict, apart(samples)
    return [_one(sample, far, away) for sample in samples]


def beyond(samples: Sequence[Sample]) -> float:
    """By how many standard errors a difference has to lie beyond its margin, to be none that chance makes of equals.

    Of each resample the largest loss beyond the margin counts, over all rows; what 5 % of resamples exceed.
    """
    largest = np.max([-z - _starts(sample) for sample, z in _standardised(samples)], axis=0)
    return max(ONE_SIDED, float(np.quantile(largest, LEVEL)))


def apart(samples: Sequence[Sample]) -> float:
    """By how many standard errors a difference has to be from 0, to either side, for all rows together (max-T)."""
    largest = np.max([np.abs(z) for _, z in _standardised(samples)], axis=0)
    return max(LEAST, float(np.quantile(largest, LEVEL)))


def _starts(sample: Sample) -> float:
    """How many standard errors a margin is; beyond one without any error no chance leads."""
    return sample.margin / sample.whole_error() if sample.whole_error() else NEVER


def _standardised(samples: Sequence[Sample]) -> list[tuple[Sample, np.ndarray]]:
    """How far each resample is from the value, in standard errors (R,); 0 where it is undefined, or has no error."""
    found = []
    for place, sample in enumerate(samples):
        error = sample.whole_error()
        away = np.nan_to_num(sample.drawn[1:] - sample.value, nan=0.0)
        if sample.seeds:  # luck of its own for each row: trainings of one method stay what they are in all of its rows
            luck = np.random.default_rng([len(away), place]).standard_normal(len(away))
            away = away + np.sqrt(sample.seeds) * luck
        found.append((sample, away / error if error else np.zeros_like(away)))
    return found


def _one(sample: Sample, far: float, away: float) -> Shown:
    error, critical = sample.whole_error(), sample.critical(ONE_SIDED)
    reach = critical * error if error else 0.0
    low, high = sample.value - reach, sample.value + reach
    if not sample.seeds and error:
        drawn = sample.drawn[1:][np.isfinite(sample.drawn[1:])]
        ends = np.quantile(drawn, [1 - LEVEL, LEVEL])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    passes = low > -sample.margin and sample.items > 1
    needed = max(critical, sample.critical(far)) * error if error else 0.0
    worse = sample.items >= FEW and high < -sample.margin and sample.value + needed < -sample.margin
    moved = sample.critical(away) * error if error else 0.0
    side = 0 if sample.items < 2 or not sample.value or abs(sample.value) <= moved else int(np.sign(sample.value))
    return Shown(low, high, passes, worse, side, None if passes or worse else _deciding(sample, far), far)


def _deciding(sample: Sample, far: float) -> int | None:
    """How many items would decide, had they the same values; None where no number up to the largest of SIZES would."""
    behind = sample.value + sample.margin
    for items in SIZES[sample.items < SIZES].tolist():
        if behind < 0 and items < FEW:
            continue
        critical = sample.critical(ONE_SIDED if behind > 0 else far, items)
        if abs(behind) > critical * sample.whole_error(items):
            return int(items)
    return None
