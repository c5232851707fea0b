"""The decision: of each model and data set the best variant, the cheapest ones that are good enough, and the base."""

from collections.abc import Sequence

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report import grid
from tradeoffs.report.formatting import (
    Lines,
    cost_of,
    full_label,
    heading,
    name_of,
    quality_of,
    row_head,
    signed,
    table,
    verdict,
    with_cost,
)
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import trained_of, why_only_as_trained
from tradeoffs.results import ranking, tuning, verdicts
from tradeoffs.results.costs import COST
from tradeoffs.results.results import Results

# Costs that a decision weighs, which end of them is cheaper, and what the cheapest variant is called.
WEIGHED = (
    ("size_mb", "lower", "smallest good enough"),
    ("decode_tokens_per_second", "higher", "fastest good enough"),
    ("peak_memory_mb", "lower", "least memory good enough"),
)


def section(results: Results, drawn: Sequence[str] = ()) -> str:
    return render(
        "decision.md.j2",
        drawn,
        variants=results.variants,
        methods=results.run.methods,
        formats=results.formats,
        groups=results.groups(),
        overview=overview(results),
        models=grid.decision(results),
        decisions=[_decision(results, group) for group in results.groups()],
    )


def overview(results: Results) -> Lines:
    """One row per model and data set: the best variant, and the cheapest ones that are good enough."""
    rows = []
    for group in results.groups():
        best, name = ranking.ranked(results, group)[0], ranking.headline(results, group)
        base = results.untouched(group)
        smallest, fastest = _smallest(results, group), _fastest(results, group)
        rows.append(
            [
                row_head(group),
                f"{name_of(best)}: {quality_of(results, best, name)}",
                f"{len(ranking.good_enough(results, group)) - 1} of {len(results.of(group)) - 1}",
                with_cost(results, smallest, "size_mb", "MB"),
                with_cost(results, fastest, "decode_tokens_per_second", "tok/s"),
                quality_of(results, base, name) if base else "",
            ]
        )
    header = [
        "model / data set",
        "best",
        "good enough",
        "smallest good enough",
        "fastest good enough",
        "untouched base",
    ]
    return table(header, rows)


def _decision(results: Results, group: Pair) -> dict[str, object]:
    """What the sentences about a group are made of."""
    name, best, base = ranking.headline(results, group), ranking.ranked(results, group)[0], results.untouched(group)
    good = ranking.good_enough(results, group)
    lead: str | None = None
    forgotten: str | None = None
    if base and base not in good:
        lead = signed(verdicts.against(results, best, base, name).difference, name)
    if change := tuning.forgotten(results, trained_of(results, best)):
        forgotten = signed(change, "general_loss")
    return {
        "title": heading(group),
        "label": full_label(results, group.dataset, name),
        "best": name_of(best),
        "quality": quality_of(results, best, name),
        "others": len(good) - 1,
        "smallest": _against_best(results, _smallest(results, group), best, "size_mb"),
        "fastest": _against_best(results, _fastest(results, group), best, "decode_tokens_per_second"),
        "no_effect": base in good and len(results.run.methods) > 1,
        "lead": lead,
        "forgotten": forgotten,
        "by_size": [name_of(v) for v in ranking.pareto(results, group, "size_mb", "lower")],
        "by_speed": [name_of(v) for v in ranking.pareto(results, group, "decode_tokens_per_second", "higher")],
        "choices": _choices(results, group),
        "only_as_trained": why_only_as_trained(results, group),
    }


def _smallest(results: Results, group: Pair) -> Variant:
    return ranking.cheapest_good(results, group, "size_mb", "lower")


def _fastest(results: Results, group: Pair) -> Variant:
    return ranking.cheapest_good(results, group, "decode_tokens_per_second", "higher")


def _against_best(results: Results, variant: Variant, best: Variant, key: str) -> dict[str, str | None]:
    """A variant with a cost, and that of the best one unless it is the same."""
    of_best = None if variant == best else cost_of(results, best, key)
    return {"name": name_of(variant), "cost": cost_of(results, variant, key), "of_best": of_best}


def _choices(results: Results, group: Pair) -> Lines:
    """The variants that a decision is between, side by side."""
    name = ranking.headline(results, group)
    best = ranking.ranked(results, group)[0]
    found = verdicts.standing(results, results.of(group), name).verdicts
    also = [more for more in ("test_exact_match", "mmlu_accuracy") if results.has(best, more)]
    chosen: dict[Variant, list[str]] = {best: ["best"]}
    for key, cheaper, why in WEIGHED:
        chosen.setdefault(ranking.cheapest_good(results, group, key, cheaper), []).append(why)
    base = results.untouched(group)
    if base:
        chosen.setdefault(base, []).append("untouched base")
    shown = ("size_mb", "decode_tokens_per_second", "latency_p50_seconds", "peak_memory_mb")
    header = [
        "",
        "variant",
        full_label(results, group.dataset, name),
        "against the best",
        *(results.label(group.dataset, more) for more in also),
        *(COST[key] for key in shown),
    ]
    rows = [
        [
            ", ".join(why),
            name_of(v),
            quality_of(results, v, name),
            "" if v == best else verdict(found[v], name),
            *(quality_of(results, v, more) for more in also),
            *(cost_of(results, v, key) for key in shown),
        ]
        for v, why in chosen.items()
    ]
    return table(header, rows)
