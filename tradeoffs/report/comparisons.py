"""Who beats whom: methods as trained against the best of them and against the base, paired; McNemar for accuracies."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.report.formatting import Lines, difference, full_label, heading, name_of, quality_of, table, verdict
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import seeds, tuned_or_tested
from tradeoffs.results import ranking, verdicts
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    groups = [_group(results, group) for group in tuned_or_tested(results)]
    return render("comparisons.md.j2", drawn, seeds=seeds(results), groups=groups) if groups else ""


def _group(results: Results, group: Pair) -> dict[str, object]:
    trained = [v for v in ranking.ranked(results, group) if v.format == TRAINED]
    measures = dict.fromkeys((ranking.headline(results, group), "test_exact_match", "mmlu_accuracy"))
    best, *others = ranking.good_enough(results, group)
    return {
        "title": heading(group),
        "tables": [_against(results, trained, name) for name in measures if results.has(trained[0], name)],
        "best": name_of(best),
        "good_enough": [name_of(v) for v in others],
    }


def _against(results: Results, trained: list[Variant], name: str) -> Lines:
    """Methods, best first by the headline metric, by one metric: each against the best by it, and against the base."""
    standing, tested = verdicts.standing(results, trained, name), metrics.metric(name)[1].right_or_wrong
    best, base = standing.best, next((v for v in trained if v.method == "base"), None)
    header = ["method", full_label(results, best.dataset, name)]
    header += [f"against `{best.method}`, the best", "p"][: 1 + tested]
    header += ["against `base`", "p"][: 1 + tested] if base else []
    rows = []
    for variant in trained:
        row = [f"`{variant.method}`", quality_of(results, variant, name)]
        for other, found in (
            (best, verdict(standing.verdicts[variant], name)),
            (base, difference(verdicts.against(results, variant, base, name).difference, name) if base else ""),
        ):
            if other is None:
                continue
            p = f"{results.mcnemar(variant, other, name):.2g}" if tested and variant != other else ""
            row += ["" if variant == other else found, p][: 1 + tested]
        rows.append(row)
    return table(header, rows, together=[1, *(1 + tested for _ in header[2 :: 1 + tested])])
