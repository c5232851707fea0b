"""What a variant must keep to be chosen (`decide.limits`): what each is held against, what it misses, and its words.

A limit is kept by what is shown to keep it: held against it is the end of the 95 % interval that speaks against a
variant. Of a loss, that is how much worse it may be than what it is held to: the untouched base, for a metric that
`decide.guards` holds to it; else the best of all variants by that metric, whatever the other limits are, so that a
limit means the same beside any other.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.params import Limits
from tradeoffs.params.deciding import limitable as limitable  # for who asks what can be limited
from tradeoffs.results import choice, costs, simultaneous, verdicts
from tradeoffs.results.choice import DEVICE, LOSS, MINIMA, RUNTIME, Table
from tradeoffs.results.results import Results

# The cost that each limit is one of, and what its numbers are called.
COSTS = {
    "max_size_mb": "size_mb",
    "max_memory_mb": "model_memory_mb",
    "min_tokens_per_second": "decode_tokens_per_second",
}
WORDS = {
    "max_size_mb": ("size", "MB"),
    "max_memory_mb": ("memory", "MB"),
    "min_tokens_per_second": ("decode speed", "tokens/s"),
    RUNTIME: ("runtime", ""),
}


def flat(limits: Limits) -> dict[str, float | str]:
    """By their dotted names (`max_size_mb`, `max_loss_of.mmlu_accuracy`, `runtime`), what is left out left out."""
    single = {name: getattr(limits, name) for name in (*COSTS, RUNTIME)}
    losses = {f"{LOSS}{name}": most for name, most in (limits.max_loss_of or {}).items()}
    return {name: limit for name, limit in {**single, **losses}.items() if limit is not None}


def held_against(
    results: Results, pair: Pair, order: Sequence[Variant], losses: Sequence[str]
) -> dict[str, np.ndarray]:
    """What every limit on a cost, and those on the `losses` of metrics, are held against; (V,) by the limits' names.

    NaN where it is not known: it was not measured, or is held to a base that the run list lacks. With six significant
    digits, as metrics/ has them: a number that is written like its limit keeps it.
    """
    found = {name: [_worse_end(results, v, name) for v in order] for name in COSTS}
    found |= {f"{LOSS}{name}": _losses(results, pair, order, name) for name in losses}
    return {name: np.array([float(f"{one:.6g}") for one in some]) for name, some in found.items()}


def _worse_end(results: Results, variant: Variant, limit: str) -> float:
    """A cost as it can be relied on: the lower end of a speed, the upper one of a memory; a size is exact."""
    key = COSTS[limit]
    found = costs.interval(results, variant, key)
    if found is None:
        return results.cost[variant].get(key, math.nan)
    return found.high if costs.CHEAPER[key] == "lower" else found.low


def _losses(results: Results, pair: Pair, order: Sequence[Variant], name: str) -> list[float]:
    """How much worse each of V may be by a metric, with 95 %; as a part of the value it is held to where lower is
    better, as margins are.
    """
    measured = {v: form for v in order if (form := measured_as(results, v, name)) is not None}
    forms = list(dict.fromkeys(measured.values()))
    if held_to_base(results, name):
        base = results.untouched(pair)
        form = measured_as(results, base, name) if base else None
        most = {v: _than_base(results, v, form, name) for v in forms} if form else {}
    else:
        most = _than_best(results, forms, name)
    return [most.get(measured[v], math.nan) if v in measured else math.nan for v in order]


def measured_as(results: Results, variant: Variant, name: str) -> Variant | None:
    """Of what a variant has a metric: itself, or the model as trained (the loss on general text); None: of neither."""
    trained = variant.cell.variant(TRAINED)
    forms = [variant, *([trained] if trained in results.columns else [])]
    return next((form for form in forms if results.has(form, name)), None)


def held_to_base(results: Results, name: str) -> bool:
    """Whether a loss is one against the untouched base, and not against the best of all."""
    return results.decide.guards.get(name) == "base"


def _than_base(results: Results, variant: Variant, base: Variant, name: str) -> float:
    """By the paired interval of the two, as the guard has it."""
    if variant == base:
        return 0.0
    found = verdicts.against(results, variant, base, name).difference
    if metrics.metric(name)[1].better == "higher":
        return -found.low
    return found.high / abs(float(results.values(base, name)[0]))


def _than_best(results: Results, some: Sequence[Variant], name: str) -> dict[Variant, float]:
    """By the bounds of all that are compared with the best, whichever it is, as verdicts have them."""
    if not some:
        return {}
    margin = results.margin(name, 0.0) if results.judged(name) else 0.0
    measured = verdicts.measure(results, some, name, margin)
    width = measured.criticals(simultaneous.with_best(measured)) * measured.errors()
    lower, _ = simultaneous.bounds(measured.differences, width, np.ones(len(some), bool))
    whole = 1.0 if metrics.metric(name)[1].better == "higher" else abs(float(measured.values[:, 0].max()))
    return dict(zip(some, (-lower / whole).tolist(), strict=True))


def said(limits: Mapping[str, float | str]) -> list[str]:
    """Each limit in words, such as `size at most 4 MB`."""
    return [f"{label(name)} {'' if name == RUNTIME else _end(name)}{_typed(name, one)}" for name, one in limits.items()]


def misses(table: Table, place: int, missed: Mapping[str, float]) -> list[str]:
    """What a variant misses in words, such as `size 7.3 MB (83 % over)`: the end of its interval that is held against
    the limit, and by how much of the limit that is beyond it.
    """
    found = []
    for name, by in missed.items():
        if name == RUNTIME:
            found.append(f"runs on {table.runtime[place]}")
        elif name == DEVICE:
            found.append("does not run on the device that is decided for")
        elif math.isinf(by):
            found.append(f"{label(name)} not measured")
        else:
            part = f"{100 * by:.0f} %" if by >= 0.095 else f"{100 * by:.1g} %"
            part = f"{part} {'under' if name in MINIMA else 'over'}" if by < 10 else f"{1 + by:,.0f} times the limit"
            end = "" if name == "max_size_mb" else "down to " if name in MINIMA else "up to "  # a size is exact
            found.append(f"{label(name)} {end}{amount(name, float(table.limited[name][place]))} ({part})")
    return found


def each(table: Table, limits: Mapping[str, float | str]) -> list[str]:
    """Each limit alone: how many variants miss it, of how many it was not measured, and which of them comes nearest.

    That a variant cannot run on the device that is decided for is no limit, and misses all the same: it stands last.
    """
    found, count = list[str](), len(table.names)
    for (name, limit), words in zip(limits.items(), said(limits), strict=True):
        over = {place: one[name] for place, one in enumerate(choice.misses(table, {name: limit})) if name in one}
        text = f"{words}: missed by {len(over) or 'none'} of {count}"
        known = {place: by for place, by in over.items() if math.isfinite(by)}
        if name != RUNTIME and len(known) < len(over):
            text += f", not measured of {len(over) - len(known)}"
        if known:
            least = min(known, key=lambda place: known[place])  # of equals the better one
            variant = Variant.parse(table.names[least])
            text += f", nearest {variant.method} {variant.format}: {misses(table, least, {name: known[least]})[0]}"
        found.append(text)
    absent = 0 if table.there is None else int((~table.there).sum())
    return [*found, *([f"{absent} of {count} do not run on the device that is decided for"] if absent else [])]


def label(name: str) -> str:
    return f"loss of {name.removeprefix(LOSS)}" if name.startswith(LOSS) else WORDS[name][0]


def amount(name: str, value: float | str) -> str:
    """With its unit; a loss of a metric that is better when lower is a part of its value."""
    if isinstance(value, str):
        return value
    if name.startswith(LOSS):
        part = metrics.metric(name.removeprefix(LOSS))[1].better == "lower"
        return f"{100 * value:.3g} %" if part else f"{value:.3g}"
    return f"{value:,.0f} {WORDS[name][1]}" if abs(value) >= 1000 else f"{value:.3g} {WORDS[name][1]}"


def _typed(name: str, limit: float | str) -> str:
    """A limit with all of its digits: rounded, it would be another one."""
    if isinstance(limit, str) or name.startswith(LOSS):
        return amount(name, limit)
    return f"{limit:,.15g} {WORDS[name][1]}"


def _end(name: str) -> str:
    return "at least " if name.startswith("min_") else "at most "
