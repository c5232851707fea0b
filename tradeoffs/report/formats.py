"""Formats: the headline metric of each method in each format, and what a format costs to run."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import Lines, bold, cost_of, counted, escaped, full_label, heading, quality_of, table
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import (
    cut_short,
    letters,
    marked,
    matrix,
    quality_table,
    what_was_cut,
    why_only_as_trained,
    with_headline,
)
from tradeoffs.results import ranking
from tradeoffs.results.costs import BATCH, COST
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    groups = [_group(results, group) for group in results.groups()]
    cut = what_was_cut(results, cut_short(results, results.variants))
    return render("formats.md.j2", drawn, groups=groups, cut=cut, rounds=results.costs.machine["rounds"])


def _group(results: Results, group: Pair) -> dict[str, object]:
    name = ranking.headline(results, group)
    good = ranking.good_enough(results, group)
    cut = cut_short(results, results.of(group))
    cells = {v: marked(bold(quality_of(results, v, name), v in good), name, v in cut) for v in results.of(group)}
    best = results.of(group, ranking.best_shipped(results, group))
    return {
        "title": heading(group),
        "label": full_label(results, group.dataset, name),
        "matrix": matrix(results, group, results.formats, cells),
        "only_as_trained": why_only_as_trained(results, group),
        "best": best[0].method,
        "letters": not ranking.has_test(results, group),
        "pooled": _pooled(results, group),
        "cost": _cost_table(results, best),
        "throughput": _throughput(results, best),
        "methods": [_method(results, results.of(group, method)) for method in results.run.methods],
    }


def _pooled(results: Results, group: Pair) -> str:
    """How many variants of a group are how many things, by format."""
    found = []
    for name in results.formats:
        mine = [v for v in results.of(group) if v.format == name]
        if not mine:  # llama.cpp cannot run this model
            continue
        things = {results.facts[v]["shapes"] for v in mine}
        found.append(f"{counted(mine, 'variant')} in `{name}` {'is' if len(mine) == 1 else 'are'} {len(things)}")
    return ", ".join(found)


def _method(results: Results, cell: list[Variant]) -> dict[str, object]:
    """All formats of one method of a group."""
    listed = (*metrics.columns("likelihood"), *metrics.columns("answers"))
    headline = ranking.headline(results, cell[0].pair)
    names = with_headline([name for name in listed if metrics.metric(name)[1].stands == "quality"], headline)
    beside = letters(results, cell, headline)
    cut = cut_short(results, cell)
    quality = quality_table(results, cell, names, lambda v: v.format, after=headline, beside=beside, cut=cut)
    return {"name": cell[0].method, "quality": quality, "cost": _cost_table(results, cell)}


def _throughput(results: Results, variants: list[Variant]) -> str:
    """Decode speed by how many sequences are decoded at the same time; nothing where only one ever was."""
    if not results.batch_sizes:
        return ""
    keys = ["decode_tokens_per_second", *(f"{BATCH}{size}" for size in results.batch_sizes)]
    rows = [[f"`{v.format}`", *(cost_of(results, v, key, bounds=True) for key in keys)] for v in variants]
    return render(
        "throughput.md.j2",
        method=variants[0].method,
        too_many=any(key not in results.cost[v] for v in variants for key in keys),
        table=table(["format", "alone", *(f"{size} at a time" for size in results.batch_sizes)], rows),
    )


def _cost_table(results: Results, variants: list[Variant]) -> Lines:
    present = {k: label for k, label in COST.items() if any(k in results.cost[v] for v in variants)}
    rows = []
    for variant in variants:
        device = results.costs.machine["devices"].get(variant, f"not on {results.run.devices[0]}")
        runs_on = escaped(f"{results.facts[variant]['runtime']}, {device}")
        rows.append([f"`{variant.format}`", runs_on, *(cost_of(results, variant, k, bounds=True) for k in present)])
    return table(["format", "runs on", *present.values()], rows)
