"""The rows of quality: what a metric of a variant is on both sides, and what is shown of the difference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from tradeoffs import metrics
from tradeoffs.common.cells import Cell, Variant
from tradeoffs.gate import measuring
from tradeoffs.gate.measuring import Sample, Shown
from tradeoffs.gate.pairing import Pairing, holder
from tradeoffs.gate.rows import BETTER, NOT_COMPARED, NOT_SHOWN, PASS, SAME, WORSE, Moved, Row, Word
from tradeoffs.report.formatting import full_label
from tradeoffs.results import simultaneous, verdicts
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results

MOVED: dict[int, Moved] = {-1: "worse", 0: "", 1: "better"}
ONE_TRAINING = (
    "one training on a side: what is judged are these weights, not the method; another seed (run.seeds) may come out "
    "otherwise"
)


@dataclass(frozen=True)
class Open:
    """A row that waits for all others: what is shown of a difference holds for all of them together.

    `share` is the part of the test items that the metric is of: some answers have no fields, for example.
    """

    row: Row
    sample: Sample
    share: float


class Quality:
    """Rows by the `margins` of metrics; `asked` are those that a policy names itself. `notes`: what to know of all."""

    def __init__(self, pairing: Pairing, margins: dict[str, float], asked: set[str]):
        self.pairing, self.margins, self._asked = pairing, margins, asked
        self.before, self.after = pairing.before, pairing.after
        self.notes: dict[str, None] = {}

    def rows(self, theirs: Variant, ours: Variant) -> list[Row | Open]:
        """`theirs` is of the base."""
        same = self.pairing.same(theirs, ours)
        found = [self._row(theirs, ours, name, same) for name in self.margins]
        return [row for row in found if row is not None]

    def _row(self, theirs: Variant, ours: Variant, name: str, same: bool) -> Row | Open | None:
        """None where neither side has the metric and nobody asked for it by name: a text has no answers."""
        one, two = holder(self.before, theirs, name), holder(self.after, ours, name)
        label = full_label(self.after, ours.dataset, name)
        values = _value(self.before, one, name), _value(self.after, two, name)
        if not (self.before.has(one, name) or self.after.has(two, name)) and not self._is_asked(name):
            return None
        if None not in values and same and (one == theirs or self.pairing.same(one, two)):
            return Row(name, label, "quality", *values, Interval(0.0, 0.0, 0.0, 0.0), None, SAME)
        if why := self.pairing.against(one, two, name):
            return Row(name, label, "quality", *values, None, None, NOT_COMPARED, note=why)
        return self._open(one, two, name, label)

    def _is_asked(self, name: str) -> bool:
        return bool({name, metrics.metric(name)[1].name} & self._asked)

    def _open(self, theirs: Variant, ours: Variant, name: str, label: str) -> Open:
        old, new = _Side(self.before, theirs, name), _Side(self.after, ours, name)
        values = float(old.values[0]), float(new.values[0])
        sign = sign_of(name)
        # A loss has no scale of its own: its margin is a part of the value (results.margin).
        margin = self.margins[name] * (abs(values[0]) if sign < 0 else 1.0)
        drawn = sign * (new.values - old.values)
        least = 0.0
        if verdicts.is_mean(name):
            scores = np.stack([verdicts.per_item(side.sums) for side in (old, new)])
            least = float(simultaneous.least_errors(scores, margin, metrics.metric(name)[1].right_or_wrong)[0, 1])
            if np.array_equal(*scores):  # no change says how large one is, so it may be a whole answer
                least = max(least, float(np.sqrt(max(margin - margin**2, 0.0) / scores.shape[1])))
        error = measuring.error_of(drawn, len(old.sums), least, abs(values[0]))
        seeds, freedom = self._of_seeds(theirs.cell, ours.cell, old, new)
        row = Row(name, label, "quality", *values, None, margin, NOT_SHOWN)
        sample = Sample(drawn, error, len(old.sums), margin, seeds, freedom)
        return Open(row, sample, _share(self.after, ours, name, len(old.sums)))

    def _of_seeds(self, theirs: Cell, ours: Cell, old: "_Side", new: "_Side") -> tuple[float, float]:
        """The variance of a difference that is from the seeds of its trainings, and its degrees of freedom.

        None where both are of the same trainings, or each was trained once: that is said. Where one side was, its seed
        is taken to matter as much as those of the other.
        """
        if not (old.trained or new.trained) or self.pairing.same_trainings(theirs, ours):
            return 0.0, 0.0
        several = [side for side in (old, new) if side.count > 1]
        if any(side.trained and side.count == 1 for side in (old, new)):
            self.notes[ONE_TRAINING] = None
        if len(several) < 2:
            spread = several[0].variance if several else 0.0
            return sum(spread / side.count for side in (old, new) if side.trained), sum(s.count - 1 for s in several)
        parts = [side.variance / side.count for side in several]
        below = sum(part**2 / (side.count - 1) for part, side in zip(parts, several, strict=True))
        return sum(parts), sum(parts) ** 2 / below if below else 0.0


class _Side:
    """A metric of a variant on one side: of several trainings their mean, and the variant's own difference from the
    first of them, as the report has it."""

    def __init__(self, results: Results, variant: Variant, name: str):
        self.values, self.sums = results.values(variant, name), results.sums(variant, name)
        scored = [t for t in results.trainings(variant.cell) if t in results.columns and results.has(t, name)]
        self.trained = "train_seconds" in results.training[variant.cell]
        self.count, self.variance = max(1, len(scored)), 0.0  # of trainings, and between them
        if self.count > 1:
            every = np.stack([results.values(training, name) for training in scored])
            self.values = self.values + every.mean(axis=0) - every[0]
            self.variance = float(every[:, 0].var(ddof=1))


def finished(several: Sequence[Sequence[Row | Open]]) -> list[list[Row]]:
    """The same with a word on every row: what is shown of each holds for all of them together."""
    waiting = [row for rows in several for row in rows if isinstance(row, Open)]
    shown = iter(measuring.shown([row.sample for row in waiting]))
    return [[_finished(row, next(shown)) if isinstance(row, Open) else row for row in rows] for rows in several]


def _share(results: Results, variant: Variant, name: str, items: int) -> float:
    """The part of the questions that a metric of answers is of; 1 of every other metric."""
    split, metric = metrics.metric(name)
    asked = int((results.columns[variant]["split"] == split).sum())
    return items / asked if metric in metrics.scored() and asked > items else 1.0


def _of_all(items: int | None, share: float) -> int | None:
    """How many test items hold so many that count, rounded up to two digits."""
    if items is None or share == 1:
        return items
    step = 10 ** max(0, len(str(round(items / share))) - 2)
    return ceil(items / share / step) * step


def sign_of(name: str) -> int:
    return -1 if metrics.metric(name)[1].better == "lower" else 1


def _finished(opened: Open, shown: Shown) -> Row:
    row, sample, sign = opened.row, opened.sample, sign_of(opened.row.name)
    low, high = sorted((sign * shown.low + 0.0, sign * shown.high + 0.0))  # no -0.0
    word: Word = WORSE if shown.worse else NOT_SHOWN
    if shown.passes:
        word = BETTER if shown.moved > 0 else PASS
    note = ""
    if word == NOT_SHOWN and shown.high < -sample.margin:
        note = "beyond the margin, but of so many rows chance brings one as far"
        if sample.items < measuring.FEW:
            note = f"beyond the margin, but fewer than {measuring.FEW} items show nothing to be worse"
    return replace(
        row,
        difference=Interval(sign * sample.value, low, high, sample.whole_error()),
        word=word,
        items=_of_all(shown.items, opened.share),
        note=note,
        needed=shown.needed,
        moved=MOVED[shown.moved],
    )


def _value(results: Results, variant: Variant, name: str) -> float | None:
    value = float(results.values(variant, name)[0]) if results.has(variant, name) else np.nan
    return value if np.isfinite(value) else None
