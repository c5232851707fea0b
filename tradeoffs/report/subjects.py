"""Multiple choice, by subject."""

from collections.abc import Callable, Sequence

from tradeoffs.common.cells import Variant
from tradeoffs.report.formatting import Lines, accuracy_of, heading, quality_of, short, subject_of, table
from tradeoffs.report.rendering import render
from tradeoffs.results import ranking, reading
from tradeoffs.results.results import Results

CLOCKS = {"wall": "wall seconds", "cpu": "CPU seconds", "gpu": "GPU seconds"}


def section(results: Results, drawn: Sequence[str]) -> str:
    """Nothing where no such questions are asked."""
    asked = [group for group in results.groups() if results.subjects(results.of(group)[0])]
    if not asked:
        return ""
    groups = []
    for group in asked:
        best = ranking.best_shipped(results, group)
        by_method = _table(results, results.as_trained(group), lambda v: v.method)
        by_format = _table(results, results.of(group, best), lambda v: v.format)
        groups.append({"title": heading(group), "best": best, "by_method": by_method, "by_format": by_format})
    return render("subjects.md.j2", drawn, groups=groups)


def _table(results: Results, variants: list[Variant], name: Callable[[Variant], str]) -> Lines:
    first = results.subjects(variants[0])
    rows = [
        [subject_of(subject), str(count), *(accuracy_of(results.subjects(v)[subject][0]) for v in variants)]
        for subject, (_, count) in first.items()
    ]
    total = str(sum(count for _, count in first.values()))
    rows.append(["**all**", total, *(quality_of(results, v, "mmlu_accuracy") for v in variants)])
    for clock, label in CLOCKS.items():
        seconds = [reading.mmlu_seconds(v).get(clock) for v in variants]
        if any(value is not None for value in seconds):
            rows.append([label, "", *map(short, seconds)])
    return table(["subject", "questions", *(f"`{name(v)}`" for v in variants)], rows)
