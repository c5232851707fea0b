"""The machine, and what ran on it."""

from collections.abc import Sequence

from tradeoffs.report.rendering import render
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    """Costs are of one machine; quality is the same on all, so several may have computed it."""
    machine = results.costs.machine
    runs = dict.fromkeys(f"{results.facts[v]['runtime']} on {machine['devices'][v]}" for v in results.variants)
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


def written(hardware: dict) -> str:
    """Of `hardware` in a run_info.json."""
    return f"{hardware['processor']}, {hardware['machine']}, {hardware['cores']} cores"
