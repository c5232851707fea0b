"""Tasks of lm-evaluation-harness: what each method and each format of the best makes of them."""

from collections.abc import Sequence

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.metrics import Metric
from tradeoffs.report.formatting import Lines, escaped, heading, name_of, quality_of, short, table, verdict
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import letters
from tradeoffs.results import ranking, tasks, verdicts
from tradeoffs.results.results import Results

CLOCKS = {"wall": "wall seconds", "cpu": "CPU seconds", "gpu": "GPU seconds"}


def section(results: Results, drawn: Sequence[str]) -> str:
    """Nothing where no tasks are asked."""
    asked = tasks.of_pair()
    groups = []
    for group in results.groups():
        best = ranking.best_shipped(results, group)
        some = list(dict.fromkeys([*results.as_trained(group), *results.of(group, best)]))
        tables = {escaped(task): _table(results, some, mine) for task, mine in asked.items()}
        groups.append({"title": heading(group), "best": best, "tables": {k: v for k, v in tables.items() if v}})
    if not any(group["tables"] for group in groups):
        return ""
    times = {group["title"]: _seconds(results, pair) for group, pair in zip(groups, results.groups(), strict=True)}
    return render("tasks.md.j2", drawn, groups=groups, times=times)


def _table(results: Results, some: list[Variant], measured: Sequence[Metric]) -> Lines:
    """A task's metrics of some variants, who is told apart by them, and, where there is a margin, their verdicts."""
    columns: dict[str, list[str]] = {}
    there = [v for v in some if any(results.has(v, metric.name) for metric in measured)]
    together = []
    for metric in measured:
        mine = [v for v in there if results.has(v, metric.name)]
        if not mine:
            continue
        before, label = len(columns), escaped(metric.label)
        columns[label] = [quality_of(results, v, metric.name) for v in there]
        if metric.better and len(mine) == len(there) > 1:
            columns[f"{label}, letters"] = letters(results, there, metric.name)["letters"]
            if results.judged(metric.name):
                found = verdicts.standing(results, there, metric.name).verdicts
                columns[f"{label}, against the best"] = [verdict(found[v], metric.name) for v in there]
        together.append(len(columns) - before)
    if not columns:
        return []
    rows = [[name_of(v), *cells] for v, cells in zip(there, zip(*columns.values(), strict=True), strict=True)]
    return table(["", *columns], rows, together=together)


def _seconds(results: Results, group: Pair) -> Lines:
    """How long each task took, of each variant, all its questions together."""
    found = {v: tasks.seconds(results.root / v.tasks(results.run.seeds)) for v in results.of(group)}
    names = list(dict.fromkeys(task for took in found.values() for task in took))
    if not names:
        return []
    clocks = [clock for clock in CLOCKS if any(clock in took[task] for took in found.values() for task in took)]
    clock = clocks[-1] if clocks[-1] == "gpu" else "wall"
    header = ["", *(f"`{escaped(task)}`, {CLOCKS[clock]}" for task in names)]
    rows = [
        [name_of(v), *(short(took.get(task, {}).get(clock, took.get(task, {}).get("wall"))) for task in names)]
        for v, took in found.items()
    ]
    return table(header, rows)
