"""How to read the numbers: what each metric is, and what stands in brackets behind a value."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.metrics import Metric
from tradeoffs.report.formatting import code, escaped
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import seeds
from tradeoffs.results import intervals, limits, ranking
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    # Multiple choice is a subject of its own, and comes last.
    every = sorted((m for m in metrics.every() if _shown(results, m)), key=lambda metric: metric.split == "mmlu")
    listed = [_metric(results, _name(m)) for m in every]
    margins = ", ".join(
        f"`{name}` {value:g}" for name, value in results.decide.margins.items() if _measured(results, name)
    )
    return render(
        "reading.md.j2",
        drawn,
        metrics=listed,
        embedding=code(results.embedding) if results.embedding else None,
        few=intervals.FEW,
        margins=margins,
        guards=_guards(results),
        limits=[escaped(one) for one in limits.said(limits.flat(results.decide.limits))],
        one_training=seeds(results) == 1,
        tested=any(ranking.has_test(results, group) for group in results.groups()),
    )


def _name(metric: Metric) -> str:
    return metric.name if metric.split else f"test_{metric.name}"


def _shown(results: Results, metric: Metric) -> bool:
    """Whether a metric stands in any table of the report; what is in metrics/summary.csv alone is told of in docs."""
    decides = {metrics.metric(ranking.headline(results, group))[1] for group in results.groups()}
    measured = any(results.has(variant, _name(metric)) for variant in results.variants)
    return measured and (metric.shown or metric in decides)


def _measured(results: Results, name: str) -> bool:
    """Whether a metric is there in any split, by its name in `decide.margins`: with a split or without one."""
    names = {*metrics.names("quality"), *metrics.names("summary")}
    found = [full for full in names if name in (full, metrics.metric(full)[1].name)]
    return any(results.has(variant, full) for full in found for variant in results.variants)


def _guards(results: Results) -> list[str]:
    """What each guard holds, and to whom, of those that anything is known of."""
    held = {"base": "the untouched base", "best": "the best found"}
    known = [name for name in results.decide.guards if _measured(results, name)]
    return [f"`{name}` against {held[results.decide.guards[name]]}" for name in known]


def _metric(results: Results, name: str) -> dict[str, object]:
    metric = metrics.metric(name)[1]
    return {
        "label": " / ".join(dict.fromkeys(results.label(dataset, name) for dataset in results.run.datasets)),
        "better": metric.better,
        "definition": metric.definition,
        "patterns": _patterns(results) if metric.name == "exact_match" else {},
        "error": _sampling_error(results) if name == "kld" else None,
    }


def _patterns(results: Results) -> dict[str, str]:
    """What finds the part of an answer that is compared, by data set, where it is not the whole."""
    found = {name: info["answer_pattern"] for name, info in results.prepared.items() if "answer_pattern" in info}
    return {name: code(pattern) for name, pattern in found.items()}


def _sampling_error(results: Results) -> dict[str, str] | None:
    """The largest sampling error of a divergence, relative to the divergence; None where none was sampled."""
    measured = [v for v in results.variants if results.has(v, "kld_error")]
    found = {v: [results.interval(v, name).value for name in ("kld_error", "kld")] for v in measured}
    relative = {v: error / divergence for v, (error, divergence) in found.items() if divergence > 0}
    if not any(relative.values()):
        return None
    worst = max(relative, key=lambda v: relative[v])
    error, divergence = found[worst]
    return {
        "variant": str(worst),
        "share": f"{relative[worst]:.2g}",
        "error": f"{error:.1e}",
        "divergence": f"{divergence:.1e}",
    }
