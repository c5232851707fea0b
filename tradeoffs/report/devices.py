"""Devices: the same variants on each of `run.devices`, side by side, and what would be shipped on each."""

from collections.abc import Mapping, Sequence

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import Lines, cost_of, escaped, full_label, heading, name_of, quality_of, table
from tradeoffs.report.rendering import render
from tradeoffs.results import costs, decision, ranking
from tradeoffs.results.costs import COST
from tradeoffs.results.results import Results

SIDE_BY_SIDE = (
    *("prefill_tokens_per_second", "decode_tokens_per_second", "ttft_seconds", "latency_p50_seconds"),
    *(costs.MEMORY, costs.HOST, "peak_memory_mb"),
)


def section(results: Results, drawn: Sequence[str]) -> str:
    """Nothing where costs were measured on one device."""
    if len(results.run.devices) == 1:
        return ""
    each = {device: costs.on(results, device) for device in results.run.devices}
    return render(
        "devices.md.j2",
        drawn,
        devices=[f"`{device}`: {_called(there)}" for device, there in each.items()],
        first=results.run.devices[0],
        cost=COST[results.decide.cost],
        left_out=[escaped(f"{device}: {why}") for device, why in results.costs.machine["left_out"].items()],
        groups=[_group(results, group, each) for group in results.groups()],
    )


def _called(there: Results) -> str:
    """What a device is called, and how many variants were measured on it."""
    (device,) = there.run.devices
    named = there.costs.machine["on"][device]
    count = f"{len(named)} of {len(there.variants)} variants"
    names = [name for name in dict.fromkeys(named.values()) if name != device]
    return f"{', '.join(map(escaped, names))}, {count}" if names else count


def _group(results: Results, group: Pair, each: Mapping[str, Results]) -> dict[str, object]:
    best = ranking.best_shipped(results, group)
    others = [method for method in results.run.methods if method != best and results.of(group, method)]
    return {
        "title": heading(group),
        "best": best,
        "table": _side_by_side(results, results.of(group, best), each),
        "methods": [
            {"name": method, "table": _side_by_side(results, results.of(group, method), each)} for method in others
        ],
        "decided": _decided(group, each),
    }


def _side_by_side(results: Results, some: Sequence[Variant], each: Mapping[str, Results]) -> Lines:
    """A row per variant; of each cost a column per device, empty where the variant was not measured on it."""
    name = ranking.headline(results, some[0].pair)
    header = ["format", full_label(results, some[0].dataset, name), COST["size_mb"]]
    rows = [[f"`{v.format}`", quality_of(results, v, name), cost_of(results, v, "size_mb")] for v in some]
    widths = []
    for key in SIDE_BY_SIDE:
        # A text has no first token, a CPU no memory of a GPU.
        measured = {device: there for device, there in each.items() if any(key in there.cost[v] for v in some)}
        header += [f"{COST[key]}, {device}" for device in measured]
        for row, v in zip(rows, some, strict=True):
            row += [cost_of(there, v, key) for there in measured.values()]
        widths += [len(measured)] if measured else []
    return table(header, rows, together=[2, *widths])


def _decided(group: Pair, each: Mapping[str, Results]) -> Lines:
    """What would be shipped, were each device the one that is decided for."""
    rows = []
    for device, there in each.items():
        found = decision.decide(there, group)
        ours, front = found.shown, found.pareto[there.decide.cost]
        rows.append([device, name_of(ours) if found.recommended else f"nothing fits; nearest: {name_of(ours)}"])
        rows[-1] += [quality_of(there, ours, found.metric)]
        rows[-1] += [cost_of(there, ours, key) for key in decision.WEIGHED]
        rows[-1] += [", ".join(map(name_of, front[1:]))]
    label = full_label(next(iter(each.values())), group.dataset, found.metric)
    header = ["on", "ship", label, *(COST[key] for key in decision.WEIGHED), "cheaper and worse"]
    return table(header, rows, texts=["ship", "cheaper and worse"])
