"""What the decision is made of, on a screen: one picture, and of each model and data set three short tables."""

from collections.abc import Sequence

from tradeoffs.common.cells import Variant
from tradeoffs.report import grid
from tradeoffs.report.formatting import (
    Lines,
    cost_of,
    escaped,
    full_label,
    heading,
    name_of,
    quality_of,
    short,
    signed,
    table,
    verdict,
)
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import (
    OF_A_CANDIDATE,
    cut_short,
    guard_changes,
    marked,
    quality_table,
    runner_up,
    seeds,
    what_was_cut,
)
from tradeoffs.results import costs, decision, tuning, verdicts
from tradeoffs.results.costs import COST
from tradeoffs.results.decision import Decision
from tradeoffs.results.results import Results

# The pictures that show a cost; memory goes with size.
PICTURES = {"size_mb": "quality_vs_size", "decode_tokens_per_second": "quality_vs_speed"}
ANSWERED = ("test_exact_match", "test_f1")
OF_A_FORMAT = ("size_mb", "decode_tokens_per_second", "model_memory_mb")
FORGOT = "general_loss"
SHIP, NEAREST = "ship", "nearest miss"


def section(results: Results, drawn: Sequence[str]) -> str:
    found = [decision.decide(results, group) for group in results.groups()]
    cost = results.decide.cost if results.decide.cost in PICTURES else "size_mb"
    return render(
        "front.md.j2",
        drawn,
        shown="bits_per_byte" if grid.is_one(results) and grid.with_bits(results) else PICTURES[cost],
        framed=len(results.run.models) > 1,
        dashed=any(len(one.pareto[cost]) > 1 for one in found),
        seeds=seeds(results),
        groups=[_group(results, one) for one in found],
    )


def _group(results: Results, found: Decision) -> dict[str, object]:
    candidates = _compared(results, found)
    method, trained = found.shown.method, results.as_trained(found.pair)
    marks = [*candidates, *([*trained, *results.of(found.pair, method)] if found.metric == "test_f1" else [])]
    return {
        "title": heading(found.pair),
        "method": method,
        "candidates": _candidates(results, found, candidates),
        "methods": _methods(results, found, trained),
        "formats": _formats(results, found),
        "cut": what_was_cut(results, cut_short(results, marks)),
    }


def _compared(results: Results, found: Decision) -> dict[Variant, str]:
    """What is shipped and what it was chosen over, and why each of them is there; what is nearest if none fits."""
    ours, best = found.shown, found.standing.best
    columns = {ours: f"{SHIP if found.recommended else NEAREST}{', best found' if ours == best else ''}"}
    others = {"best found": best, "best of another method": runner_up(results, found)}
    for why, variant in (others | {"untouched base": results.untouched(found.pair)}).items():
        if variant is not None:
            columns.setdefault(variant, why)
    return columns


def _candidates(results: Results, found: Decision, columns: dict[Variant, str]) -> Lines:
    """What is shipped beside what could be: a column for each, a row for each thing to weigh."""
    name, best, dataset = found.metric, found.standing.best, found.pair.dataset
    heads = [f"{why}: {name_of(v)}" for v, why in columns.items()]
    floor, cut = results.floor(found.pair), cut_short(results, list(columns))
    rows: dict[str, list[str]] = {}
    for metric in dict.fromkeys((name, *ANSWERED)):
        cells = [marked(quality_of(results, v, metric), metric, v in cut) for v in columns]
        rows[full_label(results, dataset, metric)] = cells + ([quality_of(results, floor, metric)] if floor else [])
    judged = found.standing.verdicts
    rows["against the best"] = [judged[v].word if v == best else verdict(judged[v], name) for v in columns]
    rows |= guard_changes(results, found, list(columns))
    rows["runs on"] = [escaped(results.facts[v]["runtime"]) for v in columns]
    weighed = costs.with_host(results, list(columns), OF_A_CANDIDATE)
    rows |= {COST[key]: [cost_of(results, v, key) for v in columns] for key in weighed}
    heads += ["copying"] if floor else []
    lines = [[label, *cells, *[""] * (len(heads) - len(cells))] for label, cells in rows.items() if any(cells)]
    return table(["", *heads], lines)


def _methods(results: Results, found: Decision, trained: list[Variant]) -> Lines:
    """Each method as trained: what it can, what it forgot, and what it took; nothing where nothing was tuned."""
    if not any(v.method != "base" for v in trained):
        return []
    name, took = found.metric, [tuning.numbers(results, v) for v in trained]
    beside = {
        "against the best": _words(found, trained),
        "forgot, nats": [_forgot(results, v) for v in trained],
        "adapter MB": [short(one.get("adapter_mb")) for one in took],
        "training s": [short(one.get("train_seconds")) for one in took],
    }
    shown = {title: cells for title, cells in beside.items() if any(cells)}
    return quality_table(
        results, trained, [name], lambda v: v.method, after=name, beside=shown, cut=cut_short(results, trained)
    )


def _forgot(results: Results, variant: Variant) -> str:
    """How much the loss on general text rose, as the guard has it: over all seeds. Nothing where it is not known."""
    first, base = tuning.forgotten(results, variant), results.untouched(variant.pair)
    if first is None or base is None:
        return ""
    over_all = results.judged(FORGOT)  # without a margin there is no guard either
    return signed(verdicts.against(results, variant, base, FORGOT).difference if over_all else first, FORGOT)


def _formats(results: Results, found: Decision) -> Lines:
    """Each format of the method that is shipped: what is left of its quality, and what it costs."""
    mine, name = results.of(found.pair, found.shown.method), found.metric
    weighed = costs.with_host(results, mine, OF_A_FORMAT)
    beside = {"against the best": _words(found, mine)}
    beside |= {COST[key]: [cost_of(results, v, key) for v in mine] for key in weighed}
    return quality_table(
        results, mine, [name], lambda v: v.format, after=name, beside=beside, cut=cut_short(results, mine)
    )


def _words(found: Decision, some: list[Variant]) -> list[str]:
    """The verdict on each, against the best of all variants: the same in every table of the page."""
    return [found.standing.verdicts[v].word for v in some]
