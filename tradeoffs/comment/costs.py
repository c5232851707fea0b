"""What the recommended variant of each side costs, of several devices on each."""

from collections.abc import Iterator

from tradeoffs.comment.rows import pair_name
from tradeoffs.comment.texts import said
from tradeoffs.common import machine
from tradeoffs.common.cells import Variant
from tradeoffs.gate.costing import of_base
from tradeoffs.gate.policy import COSTS
from tradeoffs.gate.rows import Gate
from tradeoffs.report.formatting import Lines, cost_of, table
from tradeoffs.results import costs


def section(gate: Gate) -> Lines:
    """No lines where one of the sides recommends nothing."""
    rows = [
        [pair_name(one.pair), *row]
        for one in gate.decisions
        if one.before and one.after
        for row in _rows(gate, Variant.parse(one.before), Variant.parse(one.after))
    ]
    if not rows:
        return []
    several = len({row[0] for row in rows}) > 1
    header = ["", "cost of what is recommended", "before", "after"]
    if several:
        return [*table(header, rows, texts=header[:2], keys=2), "", *_hours(gate)]
    return [*table(header[1:], [row[1:] for row in rows], texts=header[1:2]), "", *_hours(gate)]


def _rows(gate: Gate, old: Variant, new: Variant) -> Iterator[list[str]]:
    """Label, before and after of each cost on each device that one of them was measured on."""
    before, after = gate.before, gate.after
    for key in COSTS:
        told: set[str] = set()
        for name in dict.fromkeys(costs.named(key, on, after.run.devices) for on in after.run.devices):
            in_base, label = of_base(before, old, after, new, name), after.cost_labels[name]
            where = [costs.device_of(before, old, in_base), costs.device_of(after, new, name)]
            values = [cost_of(before, old, in_base, bounds=True), cost_of(after, new, name, bounds=True)]
            if all(values) and where[0] != where[1] and name not in costs.OF_NO_DEVICE:
                if len(before.run.devices) == len(after.run.devices) == 1:
                    label += f" ({said(str(where[0]))} before, {said(str(where[1]))} now)"
                else:
                    values[0] = ""
            told |= {in_base} if values[0] else set()
            if any(values):
                yield [label, *values]
        for name in dict.fromkeys(costs.named(key, on, before.run.devices) for on in before.run.devices):
            if name not in told and (value := cost_of(before, old, name, bounds=True)):
                yield [before.cost_labels[name], value, ""]


def _hours(gate: Gate) -> Lines:
    same = machine.same(*(side.costs.machine["hardware"] for side in (gate.before, gate.after)))
    other = "" if same else "Speeds are of different machines, and not compared. "
    return [f"{other}Speeds of two runs differ by the hour as well; the gate takes that out where it can.", ""]
