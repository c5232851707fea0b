"""Good enough, too much worse, or undecided: how far each variant is from the best, and what is not known of it.

A difference that is not shown is not shown to be nothing. So a variant is good enough only if it is shown to be within
a margin of the best (`decide.margins`), whichever of them that is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from tradeoffs import metrics
from tradeoffs.common.cells import Cell, Copied, Variant
from tradeoffs.results import choice, simultaneous
from tradeoffs.results.choice import BEST, GOOD, ONE, UNDECIDED, UNFIT, WORSE, Quality
from tradeoffs.results.intervals import LEVEL, Interval
from tradeoffs.results.results import Judged, Results
from tradeoffs.results.simultaneous import Measured

__all__ = ["BEST", "GOOD", "ONE", "UNDECIDED", "UNFIT", "WORSE"]  # of choice, for all that shows a verdict


@dataclass(frozen=True)
class Verdict:
    """How a variant stands against the best of some.

    `difference` is its value less that of the best, in the metric's own sign; its bounds hold for all of them together,
    and for whichever is the true best (so the best found has one, too: how far another may be ahead). `error` in it and
    `critical` are those of the pair with the best found. `items`: how many test items would decide what is undecided;
    None where nothing is, or where no number would.
    """

    word: str
    difference: Interval
    items: int | None = None
    critical: float = 0.0


@dataclass(frozen=True)
class Standing:
    """Some variants by one metric: the best, how much worse is good enough (`margin`), and the verdict on each."""

    best: Variant
    critical: float  # of differences over items; those of methods with several seeds have a larger one each
    margin: float
    verdicts: dict[Variant, Verdict]

    @property
    def eligible(self) -> list[Variant]:
        """Those that can be recommended: what is good enough, and the best found: nothing better is known."""
        return [variant for variant, verdict in self.verdicts.items() if verdict.word in (GOOD, BEST)]


@dataclass(frozen=True)
class Compared:
    """Some variants of one data set by one metric, all their differences at once, with what bounds them."""

    variants: Sequence[Variant]
    sign: int
    measured: Measured
    critical: float
    criticals: np.ndarray  # (V, V)
    quality: Quality


def compared(results: Results, some: Sequence[Variant], name: str) -> Compared:
    """Raises ValueError if the metric has no margin or one lacks it; UserError if they were not asked the same."""
    sign, measured = _sign(name), measure(results, some, name, _absolute(results, name))
    critical = simultaneous.with_best(measured)
    criticals = measured.criticals(critical)
    quality = Quality(
        value=measured.values[:, 0],
        width=criticals * measured.errors(),
        margin=np.array([results.margin(name, value) for value in measured.values[:, 0].tolist()]),
        method=measured.method,
        once=measured.trainings[measured.method] == 1,
    )
    return Compared(some, sign, measured, critical, criticals, quality)


def of_equals(results: Results, some: Sequence[Variant]) -> list[Variant]:
    """Variants in the order in which one of equals is taken for the best, wherever a best one is named: the smallest
    first, since nobody ships more for the same, and of one size the first of the run list."""
    places = {variant: place for place, variant in enumerate(results.variants)}
    return sorted(some, key=lambda variant: (results.cost[variant]["size_mb"], places[variant]))


def standing(results: Results, some: Sequence[Variant], name: str) -> Standing:
    """Each of some variants on one data set against the best of them, in their order. Raises as `compared`."""
    found = among(compared(results, of_equals(results, some), name), np.ones(len(some), bool))
    return replace(found, verdicts={variant: found.verdicts[variant] for variant in some})


def among(found: Compared, fits: np.ndarray) -> Standing:
    """Each variant against the best of those that fit (V,). Raises ValueError if none does."""
    judged, measured, count = choice.judge(found.quality, fits), found.measured, len(found.variants)
    first, margin, sign = judged.best, float(found.quality.margin[judged.best]), found.sign
    open_ = UNDECIDED in judged.words
    items = simultaneous.deciding_items(measured, found.criticals, margin, fits) if open_ else np.zeros(count, int)
    errors, verdicts = measured.errors(), {}
    for place, variant in enumerate(found.variants):
        word, bounds = judged.words[place], (float(judged.lower[place]), float(judged.upper[place]))
        if place == first:
            behind = sign * bounds[0]
            verdicts[variant] = Verdict(word, Interval(0.0, min(0.0, behind), max(0.0, behind), 0.0))
            continue
        low, high = sorted(sign * bound for bound in bounds)
        value = sign * float(measured.differences[place, first])
        difference = Interval(value, low, high, float(errors[place, first]))
        deciding = int(items[place]) or None if word == UNDECIDED else None
        verdicts[variant] = Verdict(word, difference, deciding, float(found.criticals[place, first]))
    return Standing(found.variants[first], found.critical, margin, verdicts)


def paired(results: Results, ours: Judged, theirs: Judged, name: str) -> Interval:
    """Ours less theirs, as every page shows the difference of a pair alone: 95 % over items, without seeds.

    No narrower than the least standard error has it, by the margin where there is one: two that answer few questions
    alike are not shown to be equal. Raises UserError if they were not asked the same.
    """
    found = results.compare(ours, theirs, name)
    items, margin = results.together([ours, theirs], name)[0], _absolute(results, name) if results.judged(name) else 0.0
    least = float(np.broadcast_to(_least(results, [ours, theirs], name, items, margin), (2, 2))[0, 1])
    if least <= found.error:
        return found
    low, high = found.value - simultaneous.LEAST * least, found.value + simultaneous.LEAST * least
    return Interval(found.value, min(found.low, low), max(found.high, high), least)


def against(results: Results, ours: Variant, theirs: Judged, name: str) -> Verdict:
    """One variant against another that was not picked by its value, or against copying: a plain 95 % interval.

    Of two methods with several seeds it holds the seeds, too, and it is no narrower than the least standard error has
    it. Raises as `standing`.
    """
    sign, measured = _sign(name), measure(results, [ours, theirs], name, _absolute(results, name))
    found, critical = paired(results, ours, theirs, name), float(measured.criticals(simultaneous.LEAST)[0, 1])
    if measured.seed_variances[0, 1] > 0:
        error, value = float(measured.errors()[0, 1]), sign * float(measured.differences[0, 1])
        found = Interval(value, value - critical * error, value + critical * error, error)
    margin = results.margin(name, float(measured.values[1, 0]))
    lower, upper = sorted((sign * found.low, sign * found.high))
    unknown = measured.method[0] != measured.method[1] and 1 in measured.trainings[measured.method]
    return Verdict(choice.word(lower, upper, margin, unknown), found, critical=critical)


def told_apart(results: Results, some: Sequence[Variant], name: str) -> set[frozenset[Variant]]:
    """The pairs of some variants whose difference is not 0, all pairs at once.

    Raises UserError if they were not asked the same.
    """
    measured = measure(results, some, name)
    width = measured.criticals(simultaneous.of_all_pairs(measured)) * measured.errors()
    rows, columns = np.nonzero(np.triu(np.abs(measured.differences) > width, 1))
    return {frozenset((some[one], some[other])) for one, other in zip(rows.tolist(), columns.tolist(), strict=True)}


def seed_share(results: Results, variant: Variant, name: str) -> float | None:
    """How much of the variance of a method's value is from the seeds of its trainings, 0 to 1; None with one seed."""
    measured = measure(results, [variant], name)
    if measured.trainings[0] < 2:
        return None
    whole = float(measured.seeds[0] + measured.values[0, 1:].var())
    return float(measured.seeds[0]) / whole if whole else 0.0


def over_seeds(results: Results, variant: Variant, name: str) -> Interval | None:
    """A method's mean over its seeds, its 95 % interval over items and seeds; None with one of them.

    Student's t with Satterthwaite's degrees of freedom, as for a difference of two methods.
    """
    measured = measure(results, [variant], name)
    if measured.trainings[0] < 2:
        return None
    items, seeds = float(measured.values[0, 1:].var()), float(measured.seeds[0])
    parts = seeds**2 / (measured.trainings[0] - 1) + items**2 / max(measured.items - 1, 1)
    error = (items + seeds) ** 0.5
    reach = float(stdtrit((items + seeds) ** 2 / parts, (1 + LEVEL) / 2)) * error if parts else 0.0
    value = _sign(name) * float(measured.values[0, 0])
    return Interval(value, value - reach, value + reach, error)


def measure(results: Results, some: Sequence[Judged], name: str, margin: float = 0.0) -> Measured:
    """What some variants scored on the same items, signed so that higher is better; to be judged by `margin`, if any.

    Resamples in which a metric is undefined are left out. The variance that is the seeds' is that of the mean of a
    method's trainings; drawing them with replacement has it too small by (S - 1) / S, so their distances from the mean
    are stretched.
    """
    cells = list(dict.fromkeys(_made_by(one) for one in some))
    trainings = [_scored(results, cell, name) for cell in cells]
    several = [mine if len(mine) > 1 else [] for mine in trainings]
    every: list[Judged] = list(dict.fromkeys([*some, *(training for mine in several for training in mine)]))
    items, values = results.together(every, name)
    there = np.isfinite(values).all(axis=0)
    if not there[0] or not there[1:].any():
        raise ValueError(f"{name}: no finite value to compare")
    values = _sign(name) * values[:, there]
    places = {variant: place for place, variant in enumerate(every)}
    own = values[[places[one] for one in some]].copy()
    method = np.array([cells.index(_made_by(one)) for one in some])
    shifts, seeds = np.zeros((len(cells), values.shape[1])), np.zeros(len(cells))
    for place, mine in enumerate(several):
        if not mine:
            continue
        scored = values[[places[training] for training in mine]]
        own[method == place] += scored.mean(axis=0) - scored[0]
        away = scored[:, 0] - scored[:, 0].mean()
        seeds[place] = away.var(ddof=1) / len(mine)
        drawn = results.luck(f"{cells[place]} trainings").integers(len(mine), size=(values.shape[1] - 1, len(mine)))
        shifts[place, 1:] = (len(mine) / (len(mine) - 1)) ** 0.5 * away[drawn].mean(axis=1)
    counts = np.array(
        [max(1, len(mine)) if _trainings(results, cell) else 0 for cell, mine in zip(cells, trainings, strict=True)]
    )
    return Measured(own, len(items), method, counts, shifts, seeds, _least(results, some, name, items, margin))


def _made_by(one: Judged) -> Cell | Copied:
    """The method of a variant, of one model and data set; copying is one by itself."""
    return one.cell if isinstance(one, Variant) else one


def _trainings(results: Results, cell: Cell | Copied) -> list[Variant]:
    """Those of a method, one for each seed; none of the untouched base and of copying, which have no seeds."""
    if isinstance(cell, Copied) or "train_seconds" not in results.training[cell]:
        return []
    return results.trainings(cell)


def _scored(results: Results, cell: Cell | Copied, name: str) -> list[Variant]:
    """Trainings that have a metric; none where the first was not read or lacks it (some are of formats alone)."""
    mine = _trainings(results, cell)
    there = mine and mine[0] in results.columns and results.has(mine[0], name)
    return [training for training in mine if results.has(training, name)] if there else []


def _least(results: Results, some: Sequence[Judged], name: str, items: list[str], margin: float) -> np.ndarray | float:
    """The least standard error of every difference of a mean over items, (some, some); 0 of other metrics."""
    if not is_mean(name):
        return 0.0
    scores = np.stack([per_item(results.sums(one, name, items)) for one in some])
    return simultaneous.least_errors(scores, margin, metrics.metric(name)[1].right_or_wrong)


def per_item(sums: np.ndarray) -> np.ndarray:
    """Scores of items from (sum of scores, how many): a question that stands twice, as some of MMLU do, is one item."""
    return sums[:, 0] / sums[:, 1]


def is_mean(name: str) -> bool:
    """Whether a metric is the mean over items of scores that are better when higher."""
    metric = metrics.metric(name)[1]
    return metric.columns[1:] == ("items",) and metric.better == "higher"


def _absolute(results: Results, name: str) -> float:
    """The margin of a metric, where it does not depend on a value."""
    return results.margin(name, 0.0)


def _sign(name: str) -> int:
    return -1 if metrics.metric(name)[1].better == "lower" else 1
