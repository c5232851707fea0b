"""The machine, and what ran on it."""

from collections.abc import Sequence

from tradeoffs.common.cells import Variant
from tradeoffs.report.formatting import escaped
from tradeoffs.report.rendering import render
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    """Costs are of one machine; quality is the same on all, so several may have computed it."""
    machine = results.costs.machine
    runs = dict.fromkeys(run_on(results, v) for v in results.variants)
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


def run_on(results: Results, variant: Variant) -> str:
    """What runs a variant, and on what."""
    return escaped(f"{results.facts[variant]['runtime']} on {results.costs.machine['devices'][variant]}")


def written(hardware: dict) -> str:
    """Of `hardware` in a run_info.json."""
    return escaped(f"{hardware['processor']}, {hardware['machine']}, {hardware['cores']} cores")
