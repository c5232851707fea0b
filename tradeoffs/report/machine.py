"""The machine, and what ran on it."""

from collections.abc import Sequence

from tradeoffs.common.cells import Variant
from tradeoffs.report.formatting import escaped
from tradeoffs.report.rendering import render
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    """Costs are of one machine; quality is the same on all, so several may have computed it."""
    machine = results.costs.machine
    devices = machine["on"]
    runs = dict.fromkeys(run_on(results, v, on) for on in devices for v in results.variants if v in devices[on])
    others = dict.fromkeys(written(found["hardware"]) for found in results.facts.values() if "hardware" in found)
    measured = written(machine["hardware"])
    return render(
        "machine.md.j2",
        drawn,
        runs=list(runs),
        measured=measured,
        others=[other for other in others if other != measured],
        rounds=machine["rounds"],
        busy=None if machine["busy"] is None else f"{machine['busy']:.0%}",
        limit=f"{machine['limit']:.0%}",
    )


def run_on(results: Results, variant: Variant, device: str | None = None) -> str:
    """What runs a variant, and on what: on one of `run.devices`, by default the first; of several its name, too."""
    several, device = len(results.run.devices) > 1, device or results.run.devices[0]
    found = results.costs.machine["on"][device].get(variant)
    where = f"not on {device}" if found is None else f"on {found}"
    of_it = f" ({device})" if several and found not in (None, device) else ""
    return escaped(f"{results.facts[variant]['runtime']} {where}{of_it}")


def written(hardware: dict) -> str:
    """Of `hardware` in a run_info.json."""
    return escaped(f"{hardware['processor']}, {hardware['machine']}, {hardware['cores']} cores")
