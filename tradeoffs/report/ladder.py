"""The ladder: at which step from the model as trained to its smallest format a fine-tune is lost."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import Lines, bold, full_label, heading, name_of, quality_of, signed, table
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import matrix, trained_of, why_only_as_trained
from tradeoffs.results import ranking, verdicts
from tradeoffs.results.results import Results

UNITS = {"test_loss": "nats"}  # of what is lost at a step
# Where merging put an adapter: values of `merge` in params.yaml.
MERGED_ONTO = {"trained_base": "the de-quantised base it was trained on", "original_base": "the original base"}


def section(results: Results, drawn: Sequence[str]) -> str:
    groups = [_group(results, group) for group in results.groups()]
    labels = " or ".join(dict.fromkeys(str(group["label"]) for group in groups))
    nats = any(group["unit"] for group in groups)
    return render("ladder.md.j2", drawn, groups=groups, labels=labels, nats=nats, tuned=results.run.methods != ["base"])


def _group(results: Results, group: Pair) -> dict[str, object]:
    by = _by(results, group)
    cells = {v: _change(results, v, by) for v in results.of(group)}
    only = results.only_as_trained(group)
    merged = [method for method in results.run.methods if method not in only]
    best = ranking.best_shipped(results, group)
    return {
        "title": heading(group),
        "label": full_label(results, group.dataset, by),
        "unit": UNITS.get(by, ""),
        "matrix": matrix(results, group, results.formats[1:], cells),
        "only_as_trained": why_only_as_trained(results, group),
        "costliest": {method: _costliest_step(results, results.of(group, method)) for method in merged},
        "merges": _merges(results, group) if merged else None,
        "best": best,
        "steps": {method: _steps(results, results.of(group, method)) for method in merged},
    }


def _by(results: Results, group: Pair) -> str:
    """What the rungs are compared by: the loss on test items, or what there is where there are none."""
    return "test_loss" if ranking.has_test(results, group) else ranking.without_test(results, group)


def _merges(results: Results, group: Pair) -> Lines:
    """Adapters of a quantised base, by what they were merged onto; those that left training alike under each other.

    Nothing where bf16 is not listed: what is made from `trained` then is changed by its own format too.
    """
    merged = [v for v in results.of(group) if v.format == "bf16" and "merged_onto" in results.facts[v]]
    if not merged:
        return []
    # Two blocks that differ in `merge` alone train the same model.
    by = _by(results, group)
    losses = {v: results.interval(trained_of(results, v), by).value for v in merged}
    merged.sort(key=lambda v: list(losses.values()).index(losses[v]))
    changes = _changes(results, merged[0])
    header = ["variant", "merged onto", f"change of {results.label(group.dataset, by)}", *_labels(results, group)]
    header += [f"change of {results.label(group.dataset, name)}" for name in changes]
    rows = []
    for variant in merged:
        onto = MERGED_ONTO[results.facts[variant]["merged_onto"]]
        row = [name_of(variant), onto, _change(results, variant, by)]
        row += [quality_of(results, variant, name) for name in _divergences(results, group)]
        rows.append([*row, *(_change(results, variant, name) for name in changes)])
    return table(header, rows, texts=["merged onto"])


def _labels(results: Results, group: Pair) -> list[str]:
    """What the metrics that compare a format with the model as trained are called."""
    return [results.label(group.dataset, name) for name in _divergences(results, group)]


def _changes(results: Results, variant: Variant) -> list[str]:
    """What a rung is compared by besides the likelihoods, where it was measured."""
    by = _by(results, variant.pair)
    return [name for name in ("test_f1", "mmlu_accuracy") if name != by and results.has(variant, name)]


def _divergences(results: Results, group: Pair) -> list[str]:
    """The metrics that compare a format with the model as trained, where there are test items to do so on."""
    return metrics.columns("ladder") if ranking.has_test(results, group) else []


def _change(results: Results, variant: Variant, name: str, against: Variant | None = None) -> str:
    """Paired change against the model as trained (or another rung); bold: its interval excludes 0."""
    found = verdicts.paired(results, variant, against or trained_of(results, variant), name)
    return bold(signed(found, name), found.excludes_0)


def _steps(results: Results, cell: list[Variant]) -> Lines:
    trained, *rungs = cell
    by = _by(results, trained.pair)
    label = results.label(trained.dataset, by)
    header = ["format", "made from", f"{label}, this step", f"{label}, in all", *_labels(results, trained.pair)]
    others = _changes(results, trained)
    rows = []
    for variant in rungs:
        below = results.made_from(variant)
        row = [f"`{variant.format}`", f"`{below.format}`"]
        row += [_change(results, variant, by, other) for other in (below, trained)]
        row += [quality_of(results, variant, name) for name in _divergences(results, trained.pair)]
        rows.append([*row, *(_change(results, variant, name) for name in others)])
    return table([*header, *(f"{results.label(trained.dataset, name)}, in all" for name in others)], rows)


def _costliest_step(results: Results, cell: list[Variant]) -> dict[str, str] | None:
    """The step that most is lost at; None where no step costs more than this test set can show."""
    by = _by(results, cell[0].pair)
    lower = metrics.metric(by)[1].better == "lower"
    steps = [(v, results.made_from(v)) for v in cell[1:]]
    losses = [(verdicts.paired(results, v, below, by), v, below) for v, below in steps]
    real = [step for step in losses if (step[0].low > 0 if lower else step[0].high < 0)]
    if not real:
        return None
    found, variant, below = max(real, key=lambda step: abs(step[0].value))
    return {"below": below.format, "to": variant.format, "loss": signed(found, by)}
