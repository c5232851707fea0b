"""The ladder: at which step from the model as trained to its smallest format a fine-tune is lost."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import Lines, bold, heading, name_of, quality_of, signed, table
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import matrix, trained_of, why_only_as_trained
from tradeoffs.results import ranking
from tradeoffs.results.results import Results

# Where merging put an adapter: values of `merge` in params.yaml.
MERGED_ONTO = {"trained_base": "the de-quantised base it was trained on", "original_base": "the original base"}


def section(results: Results, drawn: Sequence[str]) -> str:
    return render("ladder.md.j2", drawn, groups=[_group(results, group) for group in results.groups()])


def _group(results: Results, group: Pair) -> dict[str, object]:
    cells = {v: _change(results, v, "test_loss") for v in results.of(group)}
    only = results.only_as_trained(group)
    merged = [method for method in results.run.methods if method not in only]
    best = ranking.best_shipped(results, group)
    return {
        "title": heading(group),
        "matrix": matrix(results, group, results.formats[1:], cells),
        "only_as_trained": why_only_as_trained(results, group),
        "costliest": {method: _costliest_step(results, results.of(group, method)) for method in merged},
        "merges": _merges(results, group) if merged else None,
        "best": best,
        "steps": {method: _steps(results, results.of(group, method)) for method in merged},
    }


def _merges(results: Results, group: Pair) -> Lines:
    """Adapters of a quantised base, by what they were merged onto; those that left training alike under each other.

    Nothing where bf16 is not listed: what is made from `trained` then is changed by its own format too.
    """
    merged = [v for v in results.of(group) if v.format == "bf16" and "merged_onto" in results.facts[v]]
    if not merged:
        return []
    # Two blocks that differ in `merge` alone train the same model.
    losses = {v: results.interval(trained_of(results, v), "test_loss").value for v in merged}
    merged.sort(key=lambda v: list(losses.values()).index(losses[v]))
    changes = _changes(results, merged[0])
    header = ["variant", "merged onto", "change of loss", *_labels(results, group.dataset)]
    header += [f"change of {results.label(group.dataset, name)}" for name in changes]
    rows = []
    for variant in merged:
        onto = MERGED_ONTO[results.facts[variant]["merged_onto"]]
        row = [name_of(variant), onto, _change(results, variant, "test_loss")]
        row += [quality_of(results, variant, name) for name in metrics.columns("ladder")]
        rows.append([*row, *(_change(results, variant, name) for name in changes)])
    return table(header, rows, texts=["merged onto"])


def _labels(results: Results, dataset: str) -> list[str]:
    """What the metrics that compare a format with the model as trained are called."""
    return [results.label(dataset, name) for name in metrics.columns("ladder")]


def _changes(results: Results, variant: Variant) -> list[str]:
    """What a rung is compared by besides the likelihoods, where it was measured."""
    return [name for name in ("test_f1", "mmlu_accuracy") if results.has(variant, name)]


def _change(results: Results, variant: Variant, name: str, against: Variant | None = None) -> str:
    """Paired change against the model as trained (or another rung); bold: its interval excludes 0."""
    found = results.compare(variant, against or trained_of(results, variant), name)
    return bold(signed(found, name), found.excludes_0)


def _steps(results: Results, cell: list[Variant]) -> Lines:
    trained, *rungs = cell
    header = ["format", "made from", "loss, this step", "loss, in all", *_labels(results, trained.dataset)]
    others = _changes(results, trained)
    rows = []
    for variant in rungs:
        below = results.made_from(variant)
        row = [f"`{variant.format}`", f"`{below.format}`"]
        row += [_change(results, variant, "test_loss", other) for other in (below, trained)]
        row += [quality_of(results, variant, name) for name in metrics.columns("ladder")]
        rows.append([*row, *(_change(results, variant, name) for name in others)])
    return table([*header, *(f"{results.label(trained.dataset, name)}, in all" for name in others)], rows)


def _costliest_step(results: Results, cell: list[Variant]) -> dict[str, str] | None:
    """The step that the loss rises most at; None where no step costs more than this test set can show."""
    steps = [(v, results.made_from(v)) for v in cell[1:]]
    losses = [(results.compare(v, below, "test_loss"), v, below) for v, below in steps]
    real = [step for step in losses if step[0].low > 0]
    if not real:
        return None
    found, variant, below = max(real, key=lambda step: step[0].value)
    return {"below": below.format, "to": variant.format, "loss": signed(found, "test_loss")}
