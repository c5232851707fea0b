"""Costs of a variant on both sides: size and memory always; speed where the same hardware measured both.

Each is held against the same cost on the same device, wherever that stands in the `run.devices` of the other side. Two
runs are hours apart, and one and the same file can be twice as fast in one of them. So speed is held against what
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
        self.named = set(map(self._in_head, policy.costs))
        self.same_hardware = machine.same(*(side.costs.machine["hardware"] for side in (before, after)))

    @property
    def notes(self) -> list[str]:
        """That a device is no longer measured on, all variants of both sides or those of some formats: no cost there is
        compared."""
        measured, notes = self.after.costs.machine["on"], []
        for on in (on for on in self.before.run.devices if on not in self.after.run.devices):
            there = {v: name for v, name in self.before.costs.machine["on"][on].items() if v in self.after.facts}
            gone = [v for v, name in there.items() if all(of.get(v) != name for of in measured.values())]
            of = f" of {', '.join(dict.fromkeys(v.format for v in gone))}" if len(gone) < len(there) else ""
            notes += [f"costs on {on}{of} are not compared: base measured there, and head did not"] if gone else []
        return notes

    def rows(self, theirs: Variant, ours: Variant) -> Iterator[Row]:
        """A row for each cost that is judged and that one of them has, as the head names it; `theirs` is of the base.

        Of several devices those of the head's first, and those of each other one that both sides measured on.
        """
        devices, judged = self.after.run.devices, self.policy.judged_costs
        wanted = [self._in_head(name) for name in judged]
        further = [costs.named(name, on, devices) for on in devices[1:] for name in judged if costs.bare(name) == name]
        for name in dict.fromkeys([*wanted, *further]):
            device = costs.device_key(name, devices)
            if f"{costs.bare(name)}{costs.ON}{device}" in self.policy.ignore or name in self.policy.ignore:
                continue
            in_base = of_base(self.before, theirs, self.after, ours, name)
            is_new = costs.device_key(in_base, self.before.run.devices) not in self.before.run.devices
            if is_new and f"{costs.bare(name)}{costs.ON}{device}" not in self.policy.costs:
                continue  # what base knows nothing of is not missing there
            old, new = self.before.cost[theirs].get(in_base), self.after.cost[ours].get(name)
            sides = (old is not None) + (new is not None)
            if sides == 2 or (sides and name in wanted) or name in self.named:
                yield self._row(theirs, ours, (in_base, name), old, new)

    def _in_head(self, name: str) -> str:
        """What the head calls a cost that a policy names."""
        devices = self.after.run.devices
        device = costs.device_key(name, devices)
        return costs.named(name, device, devices) if device in devices else name

    def _tolerance(self, name: str) -> float:
        """Of the policy, which may name the device that the head names first, and then leaves out."""
        device = costs.device_key(name, self.after.run.devices)
        return self.policy.costs.get(f"{costs.bare(name)}{costs.ON}{device}", self.policy.tolerance(name))

    def _row(self, theirs: Variant, ours: Variant, names: tuple[str, str], old: float | None, new: float | None) -> Row:
        """`names`: what base and head call the cost."""
        in_base, name = names
        label = self.after.cost_labels.get(name) or self.before.cost_labels.get(in_base, name)
        if old is None or new is None:
            where = "neither side" if old is None and new is None else "base" if new is not None else "head"
            word: Word = LEFT_OUT if name not in self.named and "gpu" in name else NOT_COMPARED
            return Row(name, label, "cost", old, new, None, None, word, note=f"not measured {_in(where)}")
        margin = self._tolerance(name) * old
        word, note, hour = self._judged(theirs, ours, names, new / old if old else 1.0)
        if word in (NOT_COMPARED, LEFT_OUT):
            return Row(name, label, "cost", old, new, None, margin, word, note=note)
        if word == SAME:  # without an interval, which would be that of the hour
            alike = Interval(new - old, new - old, new - old, 0.0)
            return Row(name, label, "cost", old, new, alike, margin, word, note=note)
        found = self._difference(theirs, ours, names, hour)
        word, more = self._word(found, name, margin)
        moved: Moved = (
            "" if not found.excludes_0 or abs(found.value) <= margin else "better" if word == BETTER else "worse"
        )
        note = "; ".join(filter(None, (note, more)))
        return Row(name, label, "cost", old, new, found, margin, word, note=note, moved=moved)

    def _judged(
        self, theirs: Variant, ours: Variant, names: tuple[str, str], factor: float
    ) -> tuple[Word, str, Interval]:
        """Whether a cost is judged, what is said of that, and by which factor the hour moved it.

        `factor` is head by base. What has the same shapes and runtime and moved beyond the tolerance was moved by
        the hour, or by code that all share: two runs do not tell which, so it is left out, and never the same.
        """
        still, (in_base, name) = Interval(1.0, 1.0, 1.0, 0.0), names
        if name == "size_mb":
            return PASS, "", still
        devices = [costs.device_of(self.before, theirs, in_base), costs.device_of(self.after, ours, name)]
        if devices[0] != devices[1]:
            return LEFT_OUT, f"measured on another device ({devices[0]}, {devices[1]})", still
        if self.unlike:
            return NOT_COMPARED, self.unlike, still
        same = _form(self.before, theirs) == _form(self.after, ours)
        near = abs(factor - 1) <= self._tolerance(name)
        if "memory" in name:
            return (SAME, "the same shapes and runtime", still) if same and near else (PASS, "", still)
        if not self.same_hardware:
            return LEFT_OUT, "measured on other hardware", still
        if same and near:
            return SAME, "the same shapes and runtime: what differs is the hour", still
        if same:
            hour = self._hour(names)
            every = f", all of the same shapes by {hour.value:.2f}" if hour else ""
            return LEFT_OUT, f"moved by {factor:.2f}{every}: {HOUR}", still
        hour = self._hour(names)
        if hour is None:
            return LEFT_OUT, "nothing unchanged was measured in both runs to tell the hour from the change", still
        return PASS, f"the machine's hour taken out ({hour.value:.2f}), by what is of the same shapes in both", hour

    def _hour(self, names: tuple[str, str]) -> Interval | None:
        """By which factor a speed differs between the runs where nothing has changed; None if that is not known."""
        old, new = (
            {_form(side, v): side.cost[v][name] for v in side.variants if name in side.cost[v]}
            for side, name in zip((self.before, self.after), names, strict=True)
        )
        ratios = [new[key] / old[key] for key in old.keys() & new.keys() if old[key]]
        return Interval(median(ratios), min(ratios), max(ratios), 0.0) if ratios else None

    def _difference(self, theirs: Variant, ours: Variant, names: tuple[str, str], hour: Interval) -> Interval:
        """Head less base, had both been measured in the same hour; the widest that the intervals of all three allow."""
        (old, low, high), (new, least, most) = (
            _ends(self.before, theirs, names[0]),
            _ends(self.after, ours, names[1]),
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


def of_base(before: Results, theirs: Variant, after: Results, ours: Variant, name: str) -> str:
    """What base calls a cost that head calls `name`: on the same device; else on one that is named alike in run.devices
    (another GPU); else on its first, to show both. A name that base has not where head does not measure `ours`
    on that device, or where base's first device is another of head's."""
    device, on = costs.device_of(after, ours, name), costs.device_key(name, after.run.devices)
    measured = before.costs.machine["on"]
    same = [key for key in before.run.devices if device is not None and measured[key].get(theirs) == device]
    same += [on] if on in before.run.devices else []
    if same:
        return costs.named(name, same[0], before.run.devices)
    first = before.run.devices[0]
    held = [of.get(ours) for of in after.costs.machine["on"].values()]
    is_another = first in after.run.devices or measured[first].get(theirs, "") in held
    return costs.named(name, on, before.run.devices) if device is None or is_another else name


def _ends(results: Results, variant: Variant, name: str) -> tuple[float, float, float]:
    value, found = results.cost[variant][name], costs.interval(results, variant, name)
    return (value, found.low, found.high) if found else (value, value, value)


def _form(results: Results, variant: Variant) -> tuple[str, ...]:
    """What a speed depends on, but for the hour: it is that of all files of these shapes."""
    return tuple(str(results.facts[variant].get(name)) for name in ("shapes", "runtime", "device"))


def _in(where: str) -> str:
    return f"on {where}" if where == "neither side" else f"in {where}"
