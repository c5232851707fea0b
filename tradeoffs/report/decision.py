"""The decision: of each model and data set what to ship, why, what it costs, what it loses, and what is not known."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from tradeoffs import metrics
from tradeoffs.common.cells import Variant
from tradeoffs.formats.names import AUTO
from tradeoffs.report import grid
from tradeoffs.report.formatting import (
    Lines,
    cost_of,
    decimals_of,
    escaped,
    full_label,
    guard_label,
    heading,
    name_of,
    quality_of,
    row_head,
    short,
    signed,
    table,
)
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import seeds, why_only_as_trained
from tradeoffs.results import costs, decision, intervals, limits, tuning, verdicts
from tradeoffs.results.costs import COST, HOST, MEMORY
from tradeoffs.results.decision import KEPT, LOST, Decision, Floor, Guard
from tradeoffs.results.results import Results
from tradeoffs.results.verdicts import BEST, GOOD, ONE, UNDECIDED, WORSE

# What the cheapest end of a cost is called, the unit of its numbers, and what of.
CHEAPEST = {
    "size_mb": ("smallest", "MB", "of weights"),
    "decode_tokens_per_second": ("fastest", "tokens/s", "decoded"),
    MEMORY: ("lightest in memory", "MB", "of memory above the process"),
}
IN_OVERVIEW = ("size_mb", "decode_tokens_per_second")


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
        seeds=seeds(results),
        device=_device(results),
        limited=bool(limits.flat(results.decide.limits)),
        decisions=[_decision(results, one) for one in found],
    )


def _device(results: Results) -> dict[str, object] | None:
    """Which device is decided for, where that was asked, and how many variants cannot run on it."""
    device, measured = results.run.devices[0], results.costs.machine["devices"]
    if device == AUTO:
        return None
    return {"name": device, "elsewhere": [v for v in results.variants if v not in measured]}


def overview(results: Results, decisions: Sequence[Decision]) -> Lines:
    """One row per model and data set: what to ship, beside the best, copying and the untouched base."""
    rows, copying = [], any(found.floor for found in decisions)
    for found in decisions:
        ours, name, base = found.shown, found.metric, results.untouched(found.pair)
        copied = found.floor
        rows.append(
            [
                row_head(found.pair),
                name_of(ours) if found.recommended else f"nothing fits; nearest: {name_of(ours)}",
                full_label(results, ours.dataset, name),
                quality_of(results, ours, name),
                f"{name_of(found.standing.best)}: {quality_of(results, found.standing.best, name)}",
                *([_floor(copied)] if copying else []),
                quality_of(results, base, name) if base else "",
                *(cost_of(results, ours, key) for key in IN_OVERVIEW),
            ]
        )
    header = ["model / data set", "ship", "by", "its quality", "best found"]
    header += ["copying", "untouched base"] if copying else ["untouched base"]
    return table([*header, *(COST[key] for key in IN_OVERVIEW)], rows)


def _floor(copied: Floor | None) -> str:
    return _value(copied) + ("" if copied.beaten else ", not beaten") if copied else ""


def _decision(results: Results, found: Decision) -> dict[str, object]:
    """What the sentences about a pair are made of."""
    ours, best, name, cost = found.shown, found.standing.best, found.metric, results.decide.cost
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
        "all": len(found.fit),
        **_limits(results, found),
        "copying": _copying(results, found),
        "costs": _costs(results, ours, best),
        "busy": results.costs.machine["busy"],
        "training": _training(results, ours),
        "lost": [_guard(results, g, ours) for g in found.guards[ours] if g.word == LOST],
        "unsure": [_guard(results, g, ours) for g in found.guards[ours] if g.word not in (KEPT, LOST)],
        "kept": [_guard(results, g, ours) for g in found.guards[ours] if g.word == KEPT],
        "unchecked": [full_label(results, ours.dataset, n) for n in found.unchecked],
        "behind": f"{max(abs(end) for end in (itself.low, itself.high)):.2g}",
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
        "only_as_trained": why_only_as_trained(results, found.pair),
    }


def _limits(results: Results, found: Decision) -> dict[str, object]:
    """The limits in words, empty where there are none, and what the nearest misses of them where nothing fits."""
    asked, table = limits.flat(results.decide.limits), found.candidates.table
    place = found.candidates.order.index(found.shown)
    return {
        "limits": [escaped(one) for one in limits.said(asked)],
        "nothing": found.recommended is None,
        "misses": [escaped(one) for one in limits.misses(table, place, found.missed[found.shown])],
        "each": [escaped(one) for one in limits.each(table, asked)],
        "variants": len(found.candidates.order),
    }


def _lost(found: Decision, variant: Variant) -> int:
    return sum(guard.word == LOST for guard in found.guards[variant])


def _detectable(found: Decision) -> str | None:
    """The smallest difference of another method from the best that so many test items show most of the time."""
    errors = [one.difference.error for one in found.standing.verdicts.values() if one.word == ONE]
    return f"{intervals.detectable(median(errors), found.standing.critical):.2g}" if errors else None


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
    for key, (_, unit, of) in CHEAPEST.items():
        of = (
            f"of GPU memory, and {cost_of(results, ours, HOST)} {unit} of the host's"
            if _on_gpu(results, ours, key)
            else of
        )
        text = f"{cost_of(results, ours, key, bounds=True)} {unit} {of}"
        if ours != best and costs.told_apart(results, ours, best, key):
            text += f" ({cost_of(results, best, key)} for the best found, {escaped(results.facts[best]['runtime'])})"
        said.append(text)
    return said


def _on_gpu(results: Results, variant: Variant, key: str) -> bool:
    """Whether a cost is that of a GPU's memory."""
    return key == MEMORY and HOST in results.cost[variant]


def _training(results: Results, ours: Variant) -> str | None:
    """How long its training took."""
    seconds = tuning.numbers(results, ours).get("train_seconds")
    return None if seconds is None else f"{short(seconds)} s"


def _guard(results: Results, guard: Guard, ours: Variant) -> str:
    """A guard as a sentence's part: the metric, what it was held against and has become, the change, the margin.

    Of several trainings the change is that of their mean, and so is what it has become.
    """
    trainings = len(results.trainings(ours.cell))
    mean = verdicts.over_seeds(results, guard.against, guard.metric)
    before = mean.value if mean else float(results.values(guard.against, guard.metric)[0])
    places = max(0, decimals_of(guard.difference, metrics.metric(guard.metric)[1].decimals))
    was, now = (f"{value:.{places}f}" for value in (before, before + guard.difference.value))
    label, change = guard_label(results, guard.metric, guard.against.dataset), signed(guard.difference, guard.metric)
    of_several = f" (mean of {trainings} trainings)" if trainings > 1 else ""
    return f"{label} {was} to {now}{of_several}, {change} (margin {short(guard.margin)})"


def _value(floor: Floor) -> str:
    return f"{floor.value:.{metrics.metric(floor.metric)[1].decimals}f}"
