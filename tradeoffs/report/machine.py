"""The machines: on which costs were measured, methods trained, and quality computed."""

from collections.abc import Mapping, Sequence
from typing import Any

from tradeoffs.common import machine
from tradeoffs.common.cells import Variant
from tradeoffs.report.formatting import Lines, escaped, table
from tradeoffs.report.rendering import render
from tradeoffs.results.results import Results

# What a machine can have done.
COSTS, TRAINED, QUALITY = "costs were measured", "methods were trained", "quality was computed"


def section(results: Results, drawn: Sequence[str]) -> str:
    """Costs are of one machine; quality is the same on all, so several may have computed it."""
    measured, devices = results.costs.machine, results.costs.machine["on"]
    runs = dict.fromkeys(run_on(results, v, on) for on in devices for v in results.variants if v in devices[on])
    return render(
        "machine.md.j2",
        drawn,
        runs=list(runs),
        machines=_machines(results),
        rounds=measured["rounds"],
        busy=None if measured["busy"] is None else f"{measured['busy']:.0%}",
        limit=f"{measured['limit']:.0%}",
    )


def _machines(results: Results) -> Lines:
    """A row for each machine, and what was done there; who says less of the same one stands in its row."""
    done: dict[str, list[dict[str, Any]]] = {
        COSTS: [results.costs.machine["hardware"]],
        TRAINED: [row["hardware"] for row in results.training.values() if "hardware" in row],
        QUALITY: [found["hardware"] for found in results.facts.values() if "hardware" in found],
    }
    rows: list[tuple[dict[str, Any], dict[str, None]]] = []
    for what, every in done.items():
        for hardware in every:
            row = next((row for row in rows if _same(row[0], hardware)), None)
            if row is None:
                rows.append((dict(hardware), {what: None}))
            else:
                row[0].update(hardware | row[0])
                row[1][what] = None
    lines = [[*_cells(hardware), "; ".join(what)] for hardware, what in rows]
    header = ["processor", "cores", "RAM GB", "GPU", "its GB", "driver", "here"]
    there = [place for place in range(len(header)) if any(line[place] for line in lines)]
    return table(
        [header[place] for place in there], [[line[place] for place in there] for line in lines], texts=[header[-1]]
    )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether they are the same machine with the same driver, as far as both say."""
    drivers = {found["driver"] for found in (one, other) if "driver" in found}
    return machine.same(one, other) and len(drivers) < 2


def _cells(hardware: Mapping[str, Any]) -> list[str]:
    gpus = hardware.get("gpus", [])
    return [
        escaped(f"{hardware['processor']}, {hardware['machine']}"),
        _cores(hardware),
        escaped(str(hardware.get("memory_gb", ""))),
        "<br>".join(escaped(_gpu(one)) for one in gpus),
        "<br>".join(escaped(str(one.get("memory_gb", ""))) for one in gpus),
        escaped(str(hardware.get("driver", ""))),
    ]


def _gpu(kind: Mapping[str, Any]) -> str:
    return kind["name"] if kind["count"] == 1 else f"{kind['count']} x {kind['name']}"


def _cores(hardware: Mapping[str, Any]) -> str:
    """With how many of them a computation took, where that is not all."""
    cores, threads = hardware["cores"], hardware.get("threads", hardware["cores"])
    return f"{cores}" if threads == cores else f"{cores}, {threads} used"


def run_on(results: Results, variant: Variant, device: str | None = None) -> str:
    """What runs a variant, and on what: on one of `run.devices`, by default the first; of several its name, too."""
    several, device = len(results.run.devices) > 1, device or results.run.devices[0]
    found = results.costs.machine["on"][device].get(variant)
    where = f"not on {device}" if found is None else f"on {found}"
    of_it = f" ({device})" if several and found not in (None, device) else ""
    return escaped(f"{results.facts[variant]['runtime']} {where}{of_it}")


def written(hardware: Mapping[str, Any]) -> str:
    """Of `hardware` in a run_info.json, on a line."""
    gpus = ", ".join(_gpu(one) for one in hardware.get("gpus", []))
    said = f"{hardware['processor']}, {hardware['machine']}, {_cores(hardware)} cores"
    return escaped(f"{said}, {gpus}" if gpus else said)
