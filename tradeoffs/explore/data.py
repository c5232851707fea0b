"""What the page is made of: everything measured of each model with each data set, as plain lists, names and numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.common.texts import harmless, on_a_line
from tradeoffs.explore import packing
from tradeoffs.report.formatting import full_label, guard_label, heading
from tradeoffs.results import costs, decision, limits, tables, tuning, verdicts
from tradeoffs.results.decision import LOST, Candidates
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Judged, Results
from tradeoffs.results.verdicts import Standing

# What training took: no cost of what is shipped, but one of the way to it.
OF_TRAINING = {
    "train_seconds": "training s",
    "adapter_mb": "adapter MB",
    "trainable_params": "trained parameters",
    "train_peak_memory_mb": "memory of training MB",
    "train_peak_gpu_memory_mb": "GPU memory of training MB",
}
PEAK = "train_peak"  # Training and inference have peaks of memory each, of the same names
# Those of the report's pictures, which take longer to import than all else here, and as told apart on a dark page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255", "#999933")
BASE_COLOUR = "#555555"
DARK_COLOURS = ("#56B4E9", "#FF8A3D", "#2FC296", "#E59CC6", "#F0B429", "#B4DDF7", "#A99BF0", "#E0719C", "#C9C75C")
DARK_BASE_COLOUR = "#BBBBBB"
# What the table shows until somebody asks for more; the headline, and what decides beside it, stand there anyway.
FIRST_SEEN = ("test_loss", "test_f1", "mmlu_accuracy", "kld", "size_mb", "decode_tokens_per_second", "model_memory_mb")

Spread = list[float]  # value, low, high; the value alone where it has no interval


def of_pair(results: Results, pair: Pair) -> dict[str, Any]:
    """All but the answers, which `items` has: what can be measured, and of each variant its numbers in that order."""
    found = decision.candidates(results, pair, _losses(results, pair))
    qualities, weighed = _qualities(results, pair, found.metric), _costs(results, pair)
    some, floor = results.of(pair), results.floor(pair)
    others, names = decision.by_others(results, pair, found.metric), [one["name"] for one in qualities + weighed]
    return {
        "name": str(pair),
        "title": heading(pair),
        "metric": found.metric,
        "cost": results.decide.cost,
        "guards": [*results.decide.guards],
        "limits": limits.flat(results.decide.limits),
        "table": packing.packed(found.table, _lost(results, found)),
        "measures": [*qualities, *weighed],
        "seen": [*dict.fromkeys((found.metric, *FIRST_SEEN, results.decide.cost))],
        "methods": [method for method in results.run.methods if results.of(pair, method)],
        "formats": [name for name in results.formats if any(v.format == name for v in some)],
        "variants": [_variant(results, v, found.metric, others, names) for v in some],
        "copying": {one["name"]: _value(results, floor, one["name"]) for one in qualities} if floor else {},
        "ladder": _ladder(results, pair),
        "subjects": _subjects(results, some),
    }


def colours(results: Results) -> dict[str, dict[str, str]]:
    """Of each method, as in the pictures of the report: on a light page and on a dark one."""
    found = {"base": {"light": BASE_COLOUR, "dark": DARK_BASE_COLOUR}}
    for place, method in enumerate(method for method in results.run.methods if method != "base"):
        own = place % len(COLOURS)
        found[method] = {"light": COLOURS[own], "dark": DARK_COLOURS[own]}
    return found


def _losses(results: Results, pair: Pair) -> list[str]:
    """The metrics of which a loss can be limited: what is judged by a margin, but on examples of the training."""
    some = results.of(pair)
    known = [name for name in limits.limitable() if results.judged(name) and not name.startswith("seen_")]
    return [name for name in known if any(limits.measured_as(results, v, name) for v in some)]


def _qualities(results: Results, pair: Pair, headline: str) -> list[dict[str, Any]]:
    """Every metric that a variant of the pair has, the headline first."""
    names = [headline, *metrics.names("quality"), *metrics.names("summary")]
    there = [name for name in dict.fromkeys(names) if any(results.has(v, name) for v in results.of(pair))]
    found = []
    for name in there:
        metric = metrics.metric(name)[1]
        row = {"name": name, "label": full_label(results, pair.dataset, name), "better": metric.better}
        found.append(row | {"kind": "quality", "decimals": metric.decimals, "about": metric.definition})
    return found


def _costs(results: Results, pair: Pair) -> list[dict[str, Any]]:
    """Every cost that a variant of the pair has; how long answers are is none."""
    some = results.of(pair)
    labels = {name: label for name, label in results.cost_labels.items() if costs.bare(name) != "answer_tokens_p50"}
    there = {name: label for name, label in labels.items() if any(name in results.cost[v] for v in some)}
    found: list[dict[str, Any]] = [
        {"name": name, "label": label, "better": costs.better(name), "kind": "cost"} for name, label in there.items()
    ]
    took = [results.trained(v) for v in some]
    for name, label in OF_TRAINING.items():
        if any(_of_training(name) in row for row in took):
            found.append({"name": name, "label": label, "better": "lower", "kind": "cost"})
    return found


def _of_training(name: str) -> str:
    """What data/training calls a number of OF_TRAINING."""
    return name.removeprefix("train_") if name.startswith(PEAK) else name


def _variant(
    results: Results, variant: Variant, metric: str, others: Mapping[str, Standing], names: Sequence[str]
) -> dict[str, Any]:
    warnings = [*_not_beating(results, variant, metric), *decision.warnings(results, variant, metric, others)]
    return {
        "name": str(variant),
        "method": variant.method,
        "format": variant.format,
        "runtime": on_a_line(str(results.facts[variant]["runtime"])),
        "warnings": [on_a_line(warning) for warning in warnings],
        "values": [_value(results, variant, name) for name in names],
    }


def _not_beating(results: Results, variant: Variant, metric: str) -> Iterator[str]:
    """What the report says of copying, where that is not beaten."""
    copied = decision.floor(results, variant, metric)
    if copied and not copied.beaten:
        label = full_label(results, variant.dataset, copied.metric)
        said = "copying is better" if copied.better else "not shown to beat copying"
        value = f"{copied.value:.{_decimals(copied.metric)}f}"
        yield f"{said}: the answer of the most similar training question has {label} {value}"


def _lost(results: Results, found: Candidates) -> dict[str, np.ndarray]:
    """Of each guard, by its label, who loses it, were the column the best: (V, V); (V, 1) where that is no matter."""
    bests = found.order if "best" in results.decide.guards.values() else found.order[:1]
    lost = {name: np.zeros((len(found.order), len(bests)), bool) for name in results.decide.guards}
    for place, other in np.argwhere(found.table.lost[:, : len(bests)] > 0).tolist():
        for guard in decision.guards(results, found.order[place], bests[other]):
            lost[guard.metric][place, other] = guard.word == LOST
    return {guard_label(results, name, found.order[0].dataset): rows for name, rows in lost.items()}


def _value(results: Results, variant: Judged, name: str) -> Spread | None:
    """One number of a variant by its name, with its interval if it has one."""
    if isinstance(variant, Variant) and name in results.cost_labels:
        bounds = costs.interval(results, variant, name)
        alone = results.cost[variant].get(name)
        return _spread(bounds) if bounds else None if alone is None else _rounded([alone])
    if isinstance(variant, Variant) and name in OF_TRAINING:
        alone = tuning.numbers(results, variant).get(_of_training(name))
        return None if alone is None else _rounded([alone])
    return _spread(results.interval(variant, name)) if results.has(variant, name) else None


def _ladder(results: Results, pair: Pair) -> dict[str, Any]:
    """Of each method its formats in the order they are made: by how much each differs from the model as trained."""
    ladder = [name for name in metrics.columns("ladder") if any(results.has(v, name) for v in results.of(pair))]
    changes = [name for name in tables.LADDER if any(results.has(v, name) for v in results.of(pair))]
    steps: dict[str, list[dict[str, Any]]] = {}
    for variant in results.of(pair):
        trained = variant.cell.variant("trained")
        if variant == trained:
            continue
        below = results.made_from(variant)
        row: dict[str, Any] = {"format": variant.format, "from": below.format}
        row["change"] = [_change(results, variant, trained, name) for name in changes]
        row["step"] = [_change(results, variant, below, name) for name in changes]
        row["apart"] = [_value(results, variant, name) for name in ladder]
        steps.setdefault(variant.method, []).append(row)
    labels = {name: full_label(results, pair.dataset, name) for name in (*changes, *ladder)}
    return {
        "changes": [{"name": name, "label": labels[name], "decimals": _decimals(name)} for name in changes],
        "apart": [{"name": name, "label": labels[name], "decimals": _decimals(name)} for name in ladder],
        "methods": steps,
    }


def _change(results: Results, ours: Variant, theirs: Variant, name: str) -> Spread | None:
    both = results.has(ours, name) and results.has(theirs, name)
    return _spread(verdicts.paired(results, ours, theirs, name)) if both else None


def _decimals(name: str) -> int:
    return metrics.metric(name)[1].decimals


def _subjects(results: Results, some: Sequence[Variant]) -> dict[str, Any] | None:
    """Multiple choice by subject: its name, how many questions it has, and of each variant the share it has right."""
    first = results.subjects(some[0])
    if not first:
        return None
    shares = [[_spread(found) for found, _ in results.subjects(v).values()] for v in some]
    names = [harmless(name.replace("_", " ")) for name in first]
    return {"names": names, "questions": [count for _, count in first.values()], "shares": shares}


def _spread(found: Interval) -> Spread:
    return _rounded([found.value, found.low, found.high])


def _rounded(values: Spread) -> Spread:
    """So many digits that, written with fewer, they are what the report writes of the unrounded ones."""
    return [float(f"{value:.9g}") for value in values]
