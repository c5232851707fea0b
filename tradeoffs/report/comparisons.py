"""Who beats whom: methods as trained against the base and against the best of them, paired; McNemar for accuracies."""

import math
from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.report.formatting import Lines, full_label, heading, name_of, quality_of, table, verdict
from tradeoffs.report.rendering import render
from tradeoffs.results import ranking
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    return render("comparisons.md.j2", drawn, groups=[_group(results, group) for group in results.groups()])


def _group(results: Results, group: Pair) -> dict[str, object]:
    trained = [v for v in ranking.ranked(results, group) if v.format == TRAINED]
    measures = dict.fromkeys((ranking.headline(results, group), "test_exact_match", "mmlu_accuracy"))
    best, *tied = ranking.tied_with_best(results, group)
    return {
        "title": heading(group),
        "tables": [_against(results, trained, name) for name in measures if results.has(trained[0], name)],
        "best": name_of(best),
        "tied": [name_of(v) for v in tied],
    }


def _against(results: Results, trained: list[Variant], name: str) -> Lines:
    """Methods, best first, by one metric: each against the first of them and against the base."""
    best, tested = trained[0], metrics.metric(name)[1].right_or_wrong
    others = list(dict.fromkeys([best, *(v for v in trained if v.method == "base")]))
    header = ["method", full_label(results, best.dataset, name)]
    header += [column for v in others for column in (f"against `{v.method}`", "p")[: 1 + tested]]
    rows = []
    for variant in trained:
        row = [f"`{variant.method}`", quality_of(results, variant, name)]
        for other in others:
            if variant == other:
                row += [""] * (1 + tested)
                continue
            p = results.mcnemar(variant, other, name) if tested else 1.0
            found = results.compare(variant, other, name)
            if best in (variant, other):
                found = results.compare_picked(variant, other, name, len(trained))
                p = min(1.0, math.comb(len(trained), 2) * p)
            row += [verdict(found, name), f"{p:.2g}"][: 1 + tested]
        rows.append(row)
    return table(header, rows)
