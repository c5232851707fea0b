"""Costs of a variant on both sides: size and memory always; speed where the same hardware measured both.

Two runs are hours apart, and one and the same file can be twice as fast in one of them. So speed is held against what
both runs measured unchanged (files of the same shapes): by how much those moved is the hour, not the change.
"""

from collections.abc import Iterator
from statistics import median

from tradeoffs.common import machine
from tradeoffs.common.cells import Variant
from tradeoffs.gate.policy import Policy
from tradeoffs.gate.rows import BETTER, LEFT_OUT, NOT_COMPARED, NOT_SHOWN, PASS, SAME, WORSE, Moved, Row, Word
from tradeoffs.results import costs
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results

HOUR = "the machine's hour, llama.cpp, torch or evaluation code; measure both in one session to tell"
FEW_ROUNDS = "the rounds are too far apart; more of them (evaluate.cost.rounds) may tell"
ROUNDING = 1e-9


class Costing:
    """The costs of two sides; `unlike` is why what both measured is not compared, if it is not."""

    def __init__(self, before: Results, after: Results, policy: Policy, unlike: str):
        self.before, self.after, self.policy, self.unlike = before, after, policy, unlike
        self.same_hardware = machine.same(*(side.costs.machine["hardware"] for side in (before, after)))

    def rows(self, theirs: Variant, ours: Variant) -> Iterator[Row]:
        """A row for each cost that is judged and that one of them has; `theirs` is of the base.

        Of several devices those of the first, and those of each other one that both sides measured on.
        """
        judged = self.policy.judged_costs
        both = [on for on in self.after.run.devices[1:] if on in self.before.run.devices[1:]]
        further = [f"{name}{costs.ON}{on}" for on in both for name in judged if name not in costs.OF_NO_DEVICE]
        for name in dict.fromkeys([*judged, *(name for name in further if name not in self.policy.ignore)]):
            old, new = self.before.cost[theirs].get(name), self.after.cost[ours].get(name)
            if old is not None or new is not None or name in self.policy.costs:
                yield self._row(theirs, ours, name, old, new)

    def _row(self, theirs: Variant, ours: Variant, name: str, old: float | None, new: float | None) -> Row:
        label = self.after.cost_labels.get(name) or self.before.cost_labels.get(name, name)
        if old is None or new is None:
            where = "neither side" if old is None and new is None else "base" if new is not None else "head"
            word: Word = LEFT_OUT if name not in self.policy.costs and "gpu" in name else NOT_COMPARED
            return Row(name, label, "cost", old, new, None, None, word, note=f"not measured {_in(where)}")
        margin = self.policy.tolerance(name) * old
        word, note, hour = self._judged(theirs, ours, name, new / old if old else 1.0)
        if word in (NOT_COMPARED, LEFT_OUT):
            return Row(name, label, "cost", old, new, None, margin, word, note=note)
        if word == SAME:  # without an interval, which would be that of the hour
            alike = Interval(new - old, new - old, new - old, 0.0)
            return Row(name, label, "cost", old, new, alike, margin, word, note=note)
        found = self._difference(theirs, ours, name, hour)
        word, more = self._word(found, name, margin)
        moved: Moved = (
            "" if not found.excludes_0 or abs(found.value) <= margin else "better" if word == BETTER else "worse"
        )
        note = "; ".join(filter(None, (note, more)))
        return Row(name, label, "cost", old, new, found, margin, word, note=note, moved=moved)

    def _judged(self, theirs: Variant, ours: Variant, name: str, factor: float) -> tuple[Word, str, Interval]:
        """Whether a cost is judged, what is said of that, and by which factor the hour moved it.

        `factor` is head by base. What has the same shapes and runtime and moved beyond the tolerance was moved by
        the hour, or by code that all share: two runs do not tell which, so it is left out, and never the same.
        """
        still = Interval(1.0, 1.0, 1.0, 0.0)
        if name == "size_mb":
            return PASS, "", still
        devices = [costs.device_of(side, v, name) for side, v in ((self.before, theirs), (self.after, ours))]
        if devices[0] != devices[1]:
            return LEFT_OUT, f"measured on another device ({devices[0]}, {devices[1]})", still
        if self.unlike:
            return NOT_COMPARED, self.unlike, still
        same = _form(self.before, theirs) == _form(self.after, ours)
        near = abs(factor - 1) <= self.policy.tolerance(name)
        if "memory" in name:
            return (SAME, "the same shapes and runtime", still) if same and near else (PASS, "", still)
        if not self.same_hardware:
            return LEFT_OUT, "measured on other hardware", still
        if same and near:
            return SAME, "the same shapes and runtime: what differs is the hour", still
        if same:
            hour = self._hour(name)
            every = f", all of the same shapes by {hour.value:.2f}" if hour else ""
            return LEFT_OUT, f"moved by {factor:.2f}{every}: {HOUR}", still
        hour = self._hour(name)
        if hour is None:
            return LEFT_OUT, "nothing unchanged was measured in both runs to tell the hour from the change", still
        return PASS, f"the machine's hour taken out ({hour.value:.2f}), by what is of the same shapes in both", hour

    def _hour(self, name: str) -> Interval | None:
        """By which factor a speed differs between the runs where nothing has changed; None if that is not known."""
        old, new = (
            {_form(side, v): side.cost[v][name] for v in side.variants if name in side.cost[v]}
            for side in (self.before, self.after)
        )
        ratios = [new[key] / old[key] for key in old.keys() & new.keys() if old[key]]
        return Interval(median(ratios), min(ratios), max(ratios), 0.0) if ratios else None

    def _difference(self, theirs: Variant, ours: Variant, name: str, hour: Interval) -> Interval:
        """Head less base, had both been measured in the same hour; the widest that the intervals of all three allow."""
        (old, low, high), (new, least, most) = (
            _ends(side, v, name) for side, v in ((self.before, theirs), (self.after, ours))
        )
        return Interval(new / hour.value - old, least / hour.high - high, most / hour.low - low, 0.0)

    def _word(self, found: Interval, name: str, margin: float) -> tuple[Word, str]:
        """Worse, or better, is what is so by more than the margin and by intervals that do not overlap; it passes if
        no end is worse by more. Of a speed that is asked too much, as hours differ: it is said, and left out."""
        sign = -1 if costs.better(name) == "lower" else 1
        value = sign * found.value
        low, high = sorted((sign * found.low, sign * found.high))
        if value < -margin:
            return (WORSE, "") if high < 0 else (NOT_SHOWN, FEW_ROUNDS)
        if value > margin and low > 0:
            return BETTER, ""
        if low >= -margin - ROUNDING * abs(margin):
            return PASS, ""
        return (NOT_SHOWN if "memory" in name else LEFT_OUT), f"within the margin, and not shown to be: {FEW_ROUNDS}"


def _ends(results: Results, variant: Variant, name: str) -> tuple[float, float, float]:
    value, found = results.cost[variant][name], costs.interval(results, variant, name)
    return (value, found.low, found.high) if found else (value, value, value)


def _form(results: Results, variant: Variant) -> tuple[str, ...]:
    """What a speed depends on, but for the hour: it is that of all files of these shapes."""
    return tuple(str(results.facts[variant].get(name)) for name in ("shapes", "runtime", "device"))


def _in(where: str) -> str:
    return f"on {where}" if where == "neither side" else f"in {where}"
