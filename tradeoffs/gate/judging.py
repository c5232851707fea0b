"""A revision against another one, as a reviewer has to know it: what is worse, what is not shown, what is all right."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tradeoffs import metrics, params
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.gate import committed, freshness, measuring
from tradeoffs.gate.costing import Costing
from tradeoffs.gate.measuring import Sample
from tradeoffs.gate.pairing import Pairing, holder
from tradeoffs.gate.policy import Policy, gated_metrics
from tradeoffs.gate.rows import (
    BETTER,
    EXIT,
    LEFT_OUT,
    NOT_COMPARED,
    NOT_SHOWN,
    PASS,
    SAME,
    WORSE,
    Decided,
    Gate,
    Gated,
    Row,
    Verdict,
    Word,
)
from tradeoffs.params import reading
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.report.formatting import full_label
from tradeoffs.results import simultaneous, verdicts
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results
from tradeoffs.revisions import Revision

__all__ = [
    "BETTER",
    "EXIT",
    "LEFT_OUT",
    "NOT_COMPARED",
    "NOT_SHOWN",
    "PASS",
    "SAME",
    "WORSE",
    "Decided",
    "Gate",
    "Gated",
    "Row",
    "Verdict",
    "Word",
    "judge",
]

DECISION = "metrics/decision.json"


def judge(base: Revision, head: Revision, policy: Policy) -> Gate:
    """What `head` made worse of what `base` was.

    Raises UserError with what to do where one of them has no numbers to compare: not run, not pushed, no such commit, a
    dvc.lock that is not of its params.yaml and code; or where the policy names a variant that neither has.
    """
    freshness.require(head)
    settings = _settings(head)
    margins, notes = _margins(base, settings[2])
    before, after = (_results(side, *settings) for side in (base, head))
    pairing = Pairing(base, head, before, after)
    judging = _Judging(pairing, policy, gated_metrics(policy, margins))
    recommended = {side: _recommended(side, results) for side, results in ((base, before), (head, after))}
    gated = [judging.gated(variant, named) for variant, named in _wanted(policy, before, after, recommended.values())]
    decisions = [judging.decided(pair, *(recommended[side].get(pair) for side in (base, head))) for pair in _pairs(before, after)]
    gated, decisions = judging.finished(gated, decisions)
    notes = [*_of_sides(base, head, policy), *notes, *judging.notes()]
    return Gate(base, head, policy, gated, decisions, notes, before, after)


def _settings(head: Revision) -> tuple[int, int, params.Decide]:
    """The seed, the number of resamples and `decide` of the head: what both sides are judged by."""
    problems: list[str] = []
    decide: params.Decide = reading.read(params.Decide, head.params.get("decide"), "decide", problems)
    if problems:
        raise UserError(f"params.yaml of {head}: {'; '.join(problems)}; name a commit of today's form")
    seed, resamples = head.params.get("seed"), (head.params.get("evaluate") or {}).get("bootstrap")
    if type(seed) is not int or type(resamples) is not int or resamples < 1:
        raise UserError(f"params.yaml of {head}: no whole numbers for seed and evaluate.bootstrap")
    return seed, resamples, decide


def _results(side: Revision, seed: int, resamples: int, decide: params.Decide) -> Results:
    """What a side measured, by the same draws as the other."""
    return Results(side.run, seed, resamples, decide, root=side.folder())


def _margins(base: Revision, decide: params.Decide) -> tuple[dict[str, float], list[str]]:
    """Margins of the base, so that no change widens what it is itself judged by; of the head what the base has none of."""
    found = (base.params.get("decide") or {}).get("margins")
    old = {
        name: float(value)
        for name, value in (found.items() if isinstance(found, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < np.inf
    }
    other = [name for name in decide.margins if name in old and old[name] != decide.margins[name]]
    gone = [name for name in old if name not in decide.margins]
    said = [f"decide.margins of {', '.join([*other, *gone])} have changed: judged by those of base"] if other or gone else []
    known = {name: value for name, value in old.items() if name in metrics.registry.METRICS or name in _full()}
    return decide.margins | known, said


def _full() -> set[str]:
    return {name for stands in ("quality", "summary") for name in metrics.names(stands)}


def _recommended(side: Revision, results: Results) -> dict[Pair, str]:
    """The recommended variant of each model and data set, from metrics/decision.json; of what has none nothing."""
    try:
        found: Any = json.loads(side.text(DECISION) or "{}")
    except ValueError:
        found = {}
    rows = {pair: found.get(str(pair)) if isinstance(found, dict) else None for pair in results.groups()}
    named = {pair: row.get("recommended") for pair, row in rows.items() if isinstance(row, dict)}
    known = set(map(str, results.variants))
    return {pair: name for pair, name in named.items() if isinstance(name, str) and name in known}


def _pairs(before: Results, after: Results) -> list[Pair]:
    return list(dict.fromkeys([*after.groups(), *before.groups()]))


def _wanted(
    policy: Policy, before: Results, after: Results, recommended: Iterable[dict[Pair, str]]
) -> list[tuple[Variant, bool]]:
    """The variants that are gated, and whether the policy names them; in the order of the run lists."""
    every = list(dict.fromkeys([*after.variants, *before.variants]))
    if policy.on == "all":
        return [(variant, False) for variant in every]
    if policy.on == "recommended":
        names = {name for side in recommended for name in side.values()}
        return [(variant, False) for variant in every if str(variant) in names]
    known = {str(variant): variant for variant in every}
    if unknown := [name for name in policy.on if name not in known]:
        listed = "\n  ".join(f"on: {name}: a variant of neither side{near(name, known)}" for name in unknown)
        raise UserError(f"{policy.name}: {len(unknown)} problem{'s' if len(unknown) > 1 else ''}\n  {listed}")
    return [(known[name], True) for name in dict.fromkeys(policy.on)]


def _of_sides(base: Revision, head: Revision, policy: Policy) -> list[str]:
    """What a reader has to know of the two sides, whatever was measured."""
    notes = []
    if committed.is_within(base, head) is False:
        notes.append(
            f"{head.name} lacks commits of {base.name}: what those made better looks worse here; merge them, or name "
            "--base by `git merge-base`"
        )
    if base.params.get("seed") != head.params.get("seed"):
        notes.append(f"another seed: {base.params.get('seed')} in base, {head.params.get('seed')} in head")
    if stale := freshness.problems(base):
        notes.append(f"dvc.lock of {base} is not of its commit ({stale[0]}): what it holds is compared")
    if policy.name and base.sha and (text := base.text(policy.name)) is not None and text != head.text(policy.name):
        notes.append(f"{policy.name} is not that of {base.name}")
    return notes


class _Judging:
    """Rows as they come; those that need statistics wait for all others, since what is shown holds for all together."""

    def __init__(self, pairing: Pairing, policy: Policy, margins: dict[str, float]):
        self.pairing, self.policy, self.margins = pairing, policy, margins
        self.before, self.after = pairing.before, pairing.after
        self._costing = Costing(self.before, self.after, policy, pairing.of_costs())
        self._samples: dict[int, Sample] = {}  # by the id of their row
        self._said: dict[str, None] = {}

    def notes(self) -> list[str]:
        changed = [f"evaluate.{key} was {old}, is {new}" for key, (old, new) in self.pairing.settings.items()]
        return [*changed, *self._said]

    def gated(self, variant: Variant, named: bool) -> Gated:
        there = variant in self.before.facts, variant in self.after.facts
        if not there[1]:
            return Gated(variant, [], "removed: head does not have it", missing=named)
        if not there[0]:
            return Gated(variant, [], "new: base does not have it, so there is nothing to compare it with")
        return Gated(variant, self._rows(variant, variant))

    def decided(self, pair: Pair, before: str | None, after: str | None) -> Decided:
        if before is None or after is None:
            side = "head" if after is None else "base"
            gone = pair not in (self.after if side == "head" else self.before).groups()
            note = f"{side} does not have this model and data set" if gone else f"{side} has no {DECISION} that names one"
            return Decided(pair, before, after, [], note, missing=after is None and not gone)
        if before == after:
            return Decided(pair, before, after, [], "the same variant is recommended")
        note = "another variant is recommended: it is held against the one that was"
        return Decided(pair, before, after, self._rows(Variant.parse(before), Variant.parse(after)), note)

    def _rows(self, theirs: Variant, ours: Variant) -> list[Row]:
        same = theirs == ours and self.pairing.same(theirs, ours)
        found = [self._quality(theirs, ours, name, margin, same) for name, margin in self.margins.items()]
        return [row for row in found if row is not None] + list(self._costing.rows(theirs, ours))

    def _quality(self, theirs: Variant, ours: Variant, name: str, margin: float, same: bool) -> Row | None:
        """None where neither side has the metric and nobody asked for it by name: a text has no answers."""
        one, two = holder(self.before, theirs, name), holder(self.after, ours, name)
        label = full_label(self.after, ours.dataset, name)
        has = self.before.has(one, name), self.after.has(two, name)
        if not any(has) and not {name, metrics.metric(name)[1].name} & set(self.policy.metrics):
            return None
        values = [float(side.values(v, name)[0]) if there else None for side, v, there in zip((self.before, self.after), (one, two), has, strict=True)]
        values = [value if value is not None and np.isfinite(value) else None for value in values]
        if same and all(has) and None not in values and (one == theirs or self.pairing.same(one, two)):
            return Row(name, label, "quality", *values, Interval(0.0, 0.0, 0.0, 0.0), None, SAME)
        if why := self.pairing.against(one, two, name):
            return Row(name, label, "quality", *values, None, None, NOT_COMPARED, note=why)
        return self._sampled(one, two, name, label, margin)

    def _sampled(self, theirs: Variant, ours: Variant, name: str, label: str, margin: float) -> Row:
        sign = -1 if metrics.metric(name)[1].better == "lower" else 1
        old, new = _Side(self.before, theirs, name), _Side(self.after, ours, name)
        worth = margin * (abs(float(old.values[0])) if sign < 0 else 1.0)
        drawn, items = sign * (new.values - old.values), old.sums.shape[0]
        least = 0.0
        if verdicts.is_mean(name):
            scores = np.stack([old.sums[:, 0], new.sums[:, 0]])
            least = float(simultaneous.least_errors(scores, worth, metrics.metric(name)[1].right_or_wrong)[0, 1])
        error = measuring.error_of(drawn, items, least, float(np.abs(old.values[0])))
        seeds, freedom = _of_seeds(old, new)
        if (old.several or new.several) and old.count != new.count:
            self._said[f"{ours.cell}: {old.count} trainings in base, {new.count} in head: the seeds of both matter alike"] = None
        if not seeds and old.trained and new.trained and max(old.count, new.count) == 1 and old.made != new.made:
            self._said[
                "one training on each side: what is judged are these weights, not the method; another seed (run.seeds) may "
                "come out otherwise"
            ] = None
        row = Row(name, label, "quality", float(old.values[0]), float(new.values[0]), None, worth, NOT_SHOWN)
        self._samples[id(row)] = Sample(drawn, error, items, worth, seeds, freedom)
        self._kept = [*getattr(self, "_kept", []), row]  # ids stay theirs
        return row

    def finished(self, gated: Sequence[Gated], decisions: Sequence[Decided]) -> tuple[list[Gated], list[Decided]]:
        """The same with a word on every row."""
        found = measuring.shown(list(self._samples.values()))
        shown = dict(zip(self._samples, found, strict=True))

        def of(rows: list[Row]) -> list[Row]:
            return [self._finished(row, shown[id(row)]) if id(row) in shown else row for row in rows]

        return [replace(one, rows=of(one.rows)) for one in gated], [replace(one, rows=of(one.rows)) for one in decisions]

    def _finished(self, row: Row, shown: measuring.Shown) -> Row:
        sample = self._samples[id(row)]
        sign = -1 if metrics.metric(row.name)[1].better == "lower" else 1
        low, high = sorted((sign * shown.low, sign * shown.high))
        word: Word = WORSE if shown.worse else NOT_SHOWN
        if shown.passes:
            word = BETTER if shown.moved > 0 else PASS
        note = ""
        if word == NOT_SHOWN and shown.high < -sample.margin:
            note = "beyond the margin, but among so many rows chance does as much"
        moved = {-1: "worse", 0: "", 1: "better"}[shown.moved]
        difference = Interval(sign * sample.value, low, high, sample.whole_error())
        return replace(row, difference=difference, word=word, items=shown.items, note=note, moved=moved)


class _Side:
    """A metric of a variant on one side: of several trainings their mean, and the variant's own difference from the
    first of them, as the report has it."""

    def __init__(self, results: Results, variant: Variant, name: str):
        self.values, self.sums = results.values(variant, name), results.sums(variant, name)
        trainings = [t for t in results.trainings(variant.cell) if t in results.columns and results.has(t, name)]
        self.several = len(trainings) > 1
        self.trained = "train_seconds" in results.training[variant.cell]
        self.count = max(1, len(trainings))
        self.made = results.training[variant.cell]
        self.variance = 0.0  # between trainings
        if self.several:
            scored = np.stack([results.values(training, name) for training in trainings])
            self.values = self.values + scored.mean(axis=0) - scored[0]
            self.variance = float(scored[:, 0].var(ddof=1))


def _of_seeds(old: _Side, new: _Side) -> tuple[float, float]:
    """The variance of the difference that is the seeds', and its degrees of freedom; none where the trainings are the same.

    Where one side was trained once, its seeds are taken to matter as much as those of the other.
    """
    if old.made == new.made or not (old.several or new.several):
        return 0.0, 0.0
    known = [side for side in (old, new) if side.several]
    if len(known) == 1:
        spread, freedom = known[0].variance, known[0].count - 1
        return spread * ((1 / old.count if old.trained else 0.0) + (1 / new.count if new.trained else 0.0)), freedom
    parts = [side.variance / side.count for side in known]
    below = sum(part**2 / (side.count - 1) for part, side in zip(parts, known, strict=True))
    return sum(parts), sum(parts) ** 2 / below if below else 0.0
