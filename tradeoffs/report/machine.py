"""The machine, and what ran on it."""

from collections.abc import Sequence

from tradeoffs.report.rendering import render
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    runs = dict.fromkeys(f"{cost['runtime']} on {cost['device']}" for cost in results.cost.values())
    machines = dict.fromkeys(
        f"{hardware['processor']}, {hardware['machine']}, {hardware['cores']} cores"
        for hardware in (cost["hardware"] for cost in results.cost.values() if "hardware" in cost)
    )
    return render("machine.md.j2", drawn, runs=list(runs), machines=list(machines))
