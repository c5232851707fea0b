"""Multiple choice, by subject."""

from collections.abc import Callable, Sequence

from tradeoffs.common.cells import Variant
from tradeoffs.report.formatting import Lines, accuracy_of, heading, name_of, quality_of, short, subject_of, table
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
        found = {"title": heading(group), "best": best, "by_method": by_method, "by_format": by_format}
        shown = list(dict.fromkeys([*results.as_trained(group), *results.of(group, best)]))
        groups.append(found | {"times": _times(results, shown)})
    return render("subjects.md.j2", drawn, groups=groups, models=len(results.run.models))


def _times(results: Results, variants: list[Variant]) -> Lines:
    """Seconds of each subject's questions by the clock on the wall, and of one question in the mean; no lines where
    that was not measured."""
    took = {v: results.subject_seconds[v] for v in variants}
    if not any(took.values()):
        return []
    rows = []
    for subject, (_, count) in results.subjects(variants[0]).items():
        seconds = [took[v].get(subject, {}).get("wall") for v in variants]
        rows.append([subject_of(subject), str(count), *map(short, seconds)])
    means = [reading.seconds(results.columns[v], "mmlu") for v in variants]
    rows.append(["**one question, mean**", "", *(short(float(one.mean())) if len(one) else "" for one in means)])
    return table(["subject", "questions", *(name_of(v) for v in variants)], rows)


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
