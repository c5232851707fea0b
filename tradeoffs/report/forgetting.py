"""What it forgot: the loss on text of the base's own kind, before and after; what the task was paid with."""

from collections.abc import Sequence

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import Lines, difference, full_label, heading, quality_of, table
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import seeds, tuned_or_tested
from tradeoffs.results import ranking, verdicts
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    groups = [_group(results, group) for group in tuned_or_tested(results)]
    return render("forgetting.md.j2", drawn, seeds=seeds(results), groups=groups) if groups else ""


def _group(results: Results, group: Pair) -> dict[str, object]:
    measured = [v for v in results.as_trained(group) if results.has(v, "general_loss")]
    return {
        "title": heading(group),
        "model": group.model,
        "table": _table(results, group, measured) if measured else None,
        "documents": results.count(measured[0], "general_loss") if measured else None,
        "has_base": results.untouched(group) is not None,
    }


def _table(results: Results, group: Pair, measured: list[Variant]) -> Lines:
    """Both sides of the bargain: general loss and the headline metric, each with its change from the base."""
    name, base = ranking.headline(results, group), results.untouched(group)
    label = full_label(results, group.dataset, name)
    header = ["method", "general loss", label]
    header += ["change of general loss", f"change of {label}"] if base else []
    rows = []
    for variant in measured:
        row = [f"`{variant.method}`", *(quality_of(results, variant, n) for n in ("general_loss", name))]
        if base:
            changes = [difference(verdicts.paired(results, variant, base, n), n) for n in ("general_loss", name)]
            row += ["", ""] if variant == base else changes
        rows.append(row)
    return table(header, rows)
