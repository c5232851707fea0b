"""The decision: of each model and data set what to ship, why, what it costs, what it loses, and what is not known."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from tradeoffs import metrics
from tradeoffs.common.cells import Variant
from tradeoffs.report import grid
from tradeoffs.report.formatting import (
    Lines,
    bold,
    cost_of,
    full_label,
    heading,
    name_of,
    quality_of,
    row_head,
    short,
    signed,
    table,
    verdict,
)
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import why_only_as_trained
from tradeoffs.results import costs, decision, intervals, tuning
from tradeoffs.results.costs import COST
from tradeoffs.results.decision import KEPT, LOST, Decision, Floor, Guard
from tradeoffs.results.results import Results
from tradeoffs.results.verdicts import BEST, GOOD, ONE, UNDECIDED, WORSE

# What the cheapest end of a cost is called, and the unit of its numbers.
CHEAPEST = {
    "size_mb": ("smallest", "MB"),
    "decode_tokens_per_second": ("fastest", "tokens/s"),
    "model_memory_mb": ("lightest in memory", "MB"),
}
SHOWN = ("size_mb", "decode_tokens_per_second", "latency_p50_seconds", "model_memory_mb")


def section(results: Results, drawn: Sequence[str] = ()) -> str:
    found = [decision.decide(results, group) for group in results.groups()]
    return render(
        "decision.md.j2",
        drawn,
        variants=results.variants,
        methods=results.run.methods,
        formats=results.formats,
        groups=results.groups(),
        overview=overview(results, found) if len(found) > 1 else [],
        models=grid.decision(results),
        decisions=[_decision(results, one) for one in found],
    )


def overview(results: Results, decisions: Sequence[Decision]) -> Lines:
    """One row per model and data set: what to ship, beside the best, copying and the untouched base."""
    rows = []
    for found in decisions:
        ours, name, base = found.recommended, found.metric, results.untouched(found.pair)
        copied = found.floor
        rows.append(
            [
                row_head(found.pair),
                name_of(ours),
                full_label(results, ours.dataset, name),
                quality_of(results, ours, name),
                f"{name_of(found.standing.best)}: {quality_of(results, found.standing.best, name)}",
                _value(copied) + ("" if copied.beaten else ", not beaten") if copied else "",
                quality_of(results, base, name) if base else "",
                *(cost_of(results, ours, key) for key in CHEAPEST),
            ]
        )
    header = ["model / data set", "ship", "by", "its quality", "best", "copying", "untouched base"]
    return table([*header, *(COST[key] for key in CHEAPEST)], rows, texts=["by"])


def _decision(results: Results, found: Decision) -> dict[str, object]:
    """What the sentences about a pair are made of."""
    ours, best, name, cost = found.recommended, found.standing.best, found.metric, results.decide.cost
    against, itself = found.standing.verdicts[ours], found.standing.verdicts[best].difference
    words = Counter(one.word for one in found.standing.verdicts.values())
    needed = [one.items for one in found.standing.verdicts.values() if one.word == UNDECIDED and one.items]
    lost = _lost(found, ours)
    return {
        "title": heading(found.pair),
        "label": full_label(results, ours.dataset, name),
        "ours": name_of(ours),
        "quality": quality_of(results, ours, name),
        "best": None if ours == best else name_of(best),
        "only_found": against.word == BEST,
        "best_quality": quality_of(results, best, name),
        "difference": signed(against.difference, name),
        "margin": short(found.standing.margin),
        "cheapest": CHEAPEST[cost][0],
        "words": {word: words[word] for word in (GOOD, UNDECIDED, WORSE, ONE)},
        "all": len(results.of(found.pair)),
        "copying": _copying(results, found),
        "costs": _costs(results, ours, best),
        "busy": results.costs.machine["busy"],
        "training": _training(results, ours),
        "lost": [_guard(results, g) for g in found.guards[ours] if g.word == LOST],
        "unsure": [_guard(results, g) for g in found.guards[ours] if g.word not in (KEPT, LOST)],
        "kept": [_guard(results, g) for g in found.guards[ours] if g.word == KEPT],
        "unchecked": [full_label(results, ours.dataset, n) for n in found.unchecked],
        "behind": short(max(abs(end) for end in (itself.low, itself.high))),
        "needed": {"most": max(needed), "of": len(needed)} if needed else None,
        "detectable": _detectable(found),
        "asked": results.count(best, name),
        "seeds": len(results.trainings(ours.cell)),
        "rivals": [
            name_of(v)
            for v in found.same_cost
            if found.standing.verdicts[v].word in (ONE, UNDECIDED) and _lost(found, v) < lost
        ],
        "warnings": found.warnings,
        "pareto": {CHEAPEST[key][0]: _front(results, found, key) for key in found.pareto},
        "choices": _choices(results, found),
        "only_as_trained": why_only_as_trained(results, found.pair),
    }


def _lost(found: Decision, variant: Variant) -> int:
    return sum(guard.word == LOST for guard in found.guards[variant])


def _detectable(found: Decision) -> str | None:
    """The smallest difference of another method from the best that so many test items show most of the time."""
    errors = [one.difference.error for one in found.standing.verdicts.values() if one.word == ONE]
    return short(intervals.detectable(median(errors), found.standing.critical)) if errors else None


def _front(results: Results, found: Decision, cost: str) -> str:
    """A Pareto set, and which of those that are good enough are not told apart from its first."""
    front = found.pareto[cost]
    good = (v for v in found.standing.eligible if v not in front)
    same = [name_of(v) for v in good if not costs.told_apart(results, v, front[0], cost)]
    first = name_of(front[0]) + (f" (not told apart: {', '.join(same)})" if same else "")
    return ", ".join([first, *map(name_of, front[1:])])


def _copying(results: Results, found: Decision) -> dict[str, object] | None:
    if found.floor is None:
        return None
    return {
        "label": full_label(results, found.pair.dataset, found.floor.metric),
        "value": _value(found.floor),
        "difference": signed(found.floor.difference, found.floor.metric),
        "beaten": found.floor.beaten,
        "better": found.floor.better,
    }


def _costs(results: Results, ours: Variant, best: Variant) -> list[str]:
    """Each cost of the recommended variant, beside that of the best where the two are told apart."""
    said = []
    for key, (_, unit) in CHEAPEST.items():
        text = f"{cost_of(results, ours, key, bounds=True)} {unit} {_NOUN[key]}"
        if ours != best and costs.told_apart(results, ours, best, key):
            text += f" ({cost_of(results, best, key)} for the best, {results.facts[best]['runtime']})"
        said.append(text)
    return said


_NOUN = {
    "size_mb": "of weights",
    "decode_tokens_per_second": "decoded",
    "model_memory_mb": "of memory above the process",
}


def _training(results: Results, ours: Variant) -> str | None:
    """How long its training took."""
    seconds = tuning.numbers(results, ours).get("train_seconds")
    return None if seconds is None else f"{short(seconds)} s"


def _guard(results: Results, guard: Guard) -> str:
    """A guard as a sentence's part: the metric, what it was held against and has become, the change, the margin."""
    before = float(results.values(guard.against, guard.metric)[0])
    after = before + guard.difference.value
    label, change = _guard_label(results, guard.metric, guard.against.dataset), signed(guard.difference, guard.metric)
    return f"{label} {short(before)} to {short(after)}, {change} (margin {short(guard.margin)})"


def _guard_label(results: Results, name: str, dataset: str) -> str:
    return full_label(results, dataset, name) + (" as trained" if name.startswith("general_") else "")


def _choices(results: Results, found: Decision) -> Lines:
    """All variants that cost as little as the recommended one, then the best and the untouched base, side by side."""
    name, best, base = found.metric, found.standing.best, results.untouched(found.pair)
    rows: dict[Variant, str] = dict.fromkeys(found.same_cost, "same cost")
    rows[found.recommended] = "ship"
    rows[best] = "ship, best" if best == found.recommended else "best"
    if base:
        rows.setdefault(base, "untouched base")
    also = [more for more in ("test_exact_match",) if results.has(best, more)]
    guarded = list(dict.fromkeys(g.metric for v in rows for g in found.guards[v]))
    header = ["", "variant", "runs on", full_label(results, found.pair.dataset, name), "against the best"]
    header += [full_label(results, found.pair.dataset, more) for more in also]
    header += [f"{_guard_label(results, n, found.pair.dataset)}, change" for n in guarded]
    lines = []
    for v, why in rows.items():
        against = found.standing.verdicts[v]
        row = [why, name_of(v), results.facts[v]["runtime"], quality_of(results, v, name)]
        row += ["" if v == best else verdict(against, name)]
        row += [quality_of(results, v, more) for more in also]
        mine = {g.metric: g for g in found.guards[v]}
        row += [_change(mine.get(n)) for n in guarded]
        lines.append([bold(cell, v == found.recommended and place == 1) for place, cell in enumerate(row)])
        lines[-1] += [cost_of(results, v, key) for key in SHOWN]
    return table([*header, *(COST[key] for key in SHOWN)], lines)


def _change(guard: Guard | None) -> str:
    return "" if guard is None else f"{signed(guard.difference, guard.metric)}, {guard.word}"


def _value(floor: Floor) -> str:
    return f"{floor.value:.{metrics.metric(floor.metric)[1].decimals}f}"
