"""How to read the numbers: what each metric is, and what stands in brackets behind a value."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.report.rendering import render
from tradeoffs.results import intervals
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    # Multiple choice is a subject of its own, and comes last.
    every = sorted(metrics.every(), key=lambda metric: metric.split == "mmlu")
    listed = [_metric(results, m.name if m.split else f"test_{m.name}") for m in every]
    margins = ", ".join(f"`{name}` {value:g}" for name, value in results.decide.margins.items())
    return render(
        "reading.md.j2", drawn, metrics=listed, embedding=results.embedding, few=intervals.FEW, margins=margins
    )


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
    return {name: f"`` {pattern} ``" if "`" in pattern else f"`{pattern}`" for name, pattern in found.items()}


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
