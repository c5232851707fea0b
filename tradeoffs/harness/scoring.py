"""What lm-evaluation-harness made of a model's answers, as a row per item and as metrics that are made of the rows.

All that comes after it (intervals, paired comparisons, verdicts) resamples items, so each metric is written as a value
and a weight per item and a function of their sums: of nearly all that is what it is. What is none (an F1 of classes, a
corpus's BLEU) is written as its jackknife pseudo-values (Tukey 1958): their mean is the metric, and they vary as it
does.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import pyarrow as pa

from tradeoffs.harness.finding import Loaded
from tradeoffs.metrics.task_forms import FORMS

MOST_LEFT_OUT = 200  # groups of items that are left out in turn; more need an aggregation each
SAME = 1e-6  # relative: two ways of adding up

# One row per item of a task; `values` and `weights` in the order in which the metadata `tasks` has the task's metrics.
ROWS = pa.schema(
    [
        ("task", pa.string()),  # of a group the one that the item is from
        ("item", pa.string()),  # its place in the task, and a digest of what it says
        ("prompt", pa.string()),
        ("answer", pa.string()),  # what was expected; of a text the text
        ("generated", pa.string()),
        ("options", pa.list_(pa.string())),
        ("option_logprobs", pa.list_(pa.float64())),  # nats; without options that of the answer, or of the text
        ("chosen", pa.int32()),
        ("correct_option", pa.int32()),
        ("values", pa.list_(pa.float64())),
        ("weights", pa.list_(pa.float64())),
    ]
)
Pair = tuple[np.ndarray, np.ndarray]  # value and weight of each item; NaN where an item has none
Metric = dict[str, Any]


def scored(loaded: Loaded, found: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Metric]]:
    """The rows of a task, or of all tasks of a group, and its metrics, from what lm-eval's `evaluate` returned."""
    rows: list[dict[str, Any]] = []
    metrics: list[Metric] = []
    for name, task in loaded.tasks.items():
        samples = found["samples"][name]
        first = samples[0]["filter"]
        mine = [_row(name, task, sample) for sample in samples if sample["filter"] == first]
        pairs: list[Pair] = []
        for metric in _metrics(name, task, samples, found["results"][name], len(mine)):
            pairs.append(metric.pop("pair"))
            metrics.append(metric)
        for place, row in enumerate(mine):
            row["values"] = [float(values[place]) for values, _ in pairs]
            row["weights"] = [float(weights[place]) for _, weights in pairs]
        rows += mine
    for group, totals in (found.get("groups") or {}).items():
        metrics += _of_group(loaded, group, totals, metrics, rows)
    return rows, metrics


def full_name(task: str, metric: str, which: str) -> str:
    """What a metric is called in metrics/, where names hold letters, digits and `_`."""
    return re.sub(r"\W+", "_", "_".join([task, metric, *([which] if which != "none" else [])]), flags=re.ASCII)


def _row(name: str, task: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
    asked, said, kind = sample["arguments"], sample["resps"], task.OUTPUT_TYPE
    row: dict[str, Any] = {"task": name, "item": f"{name}-{sample['doc_id']}-{sample['doc_hash'][:12]}"}
    row |= {"prompt": str(asked[0][0]), "answer": str(sample["target"])}
    if kind == "generate_until":
        return row | {"generated": str(said[0][0])}
    if kind == "loglikelihood_rolling":
        return row | {"prompt": "", "answer": str(asked[0][0]), "option_logprobs": [_number(said[0][0])]}
    logprobs = [float(one[0][0]) for one in said]
    row["option_logprobs"] = logprobs
    if kind == "multiple_choice":
        same = len({str(one[0]) for one in asked}) == 1
        row |= {"options": [str(one[1] if same else one[0]) for one in asked], "chosen": int(np.argmax(logprobs))}
        if isinstance(sample["target"], int) and not isinstance(sample["target"], bool):
            row["correct_option"] = sample["target"]
    return row


def _number(said: Any) -> float:
    return float(said[0] if isinstance(said, (tuple, list)) else said)


def _metrics(
    name: str, task: Any, samples: Sequence[Mapping[str, Any]], totals: Mapping[str, Any], items: int
) -> list[Metric]:
    found = []
    for key, total in totals.items():
        metric, _, which = key.partition(",")
        if not which or metric.endswith("_stderr") or metric == "bypass":
            continue
        mine = [sample for sample in samples if sample["filter"] == which]
        there = [place for place, sample in enumerate(mine) if metric in sample]
        values = [mine[place][metric] for place in there]
        pair = None
        if isinstance(total, Number) and math.isfinite(float(total)):  # type: ignore[arg-type]
            pair = per_item(values, task.aggregation().get(metric), float(total))  # type: ignore[arg-type]
        if pair is None:
            print(f"note: {name}: {metric} ({which}) is no number of which an interval can be made, and is left out")
            continue
        form, of_items, exact = pair
        whole = tuple(np.full(items, np.nan) for _ in range(2))
        for column, some in zip(whole, of_items, strict=True):
            column[there] = some
        better = task.higher_is_better().get(metric)
        found.append(
            {
                "name": full_name(name, metric, which),
                "of": name,
                "metric": metric,
                "filter": which,
                "better": "" if better is None else "higher" if better else "lower",
                "form": form,
                "right_or_wrong": bool(exact and form == "mean" and np.isin(of_items[0], (0, 1)).all()),
                "alike": bool((whole[1] == 1).all()),  # all items weigh the same, and each has a value
                "exact": exact,
                "value": float(total),  # type: ignore[arg-type]
                "shots": int(task.config.num_fewshot or 0),
                "pair": whole,
            }
        )
    return found


def per_item(
    values: Sequence[Any], aggregate: Callable[[list[Any]], Any] | None, total: float
) -> tuple[str, Pair, bool] | None:
    """How `total` is made of the items: a name of FORMS, value and weight of each (n,), and whether by their sums; None
    where it cannot be said.

    Found by trying: what the sums come to is compared with what the task's own aggregation said.
    """
    for pair in _as_sums(values):
        for form, of in FORMS.items():
            with np.errstate(all="ignore"):
                came_to = float(of(np.array([pair[0].sum(), pair[1].sum()])))
            if math.isclose(came_to, total, rel_tol=SAME, abs_tol=SAME):
                return form, pair, True
    found = _jackknife(list(values), aggregate, total) if aggregate and len(values) > 1 else None
    return None if found is None else ("mean", found, False)


def _as_sums(values: Sequence[Any]) -> list[Pair]:
    """What items may be sums of: numbers, numbers with their weights, lists of numbers."""
    if all(_is_number(value) for value in values):
        return [(np.array([float(value) for value in values]), np.ones(len(values)))]
    if not all(isinstance(value, (tuple, list)) and value and all(map(_is_number, value)) for value in values):
        return []
    lists = [np.array(value, np.float64) for value in values]
    found = [(np.array([one.sum() for one in lists]), np.array([float(len(one)) for one in lists]))]
    if all(len(one) == 2 for one in lists):
        found.insert(0, (np.array([one[0] for one in lists]), np.array([one[1] for one in lists])))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_)) and math.isfinite(float(value))


def _jackknife(values: list[Any], aggregate: Callable[[list[Any]], Any], total: float) -> Pair | None:
    """Pseudo-values of items, whose mean is `total` and whose standard error is that of the metric."""
    groups = min(len(values), MOST_LEFT_OUT)
    of = np.arange(len(values)) % groups
    try:
        without = [
            float(aggregate([value for value, group in zip(values, of, strict=True) if group != left]))
            for left in range(groups)
        ]
    except Exception:  # of whatever it is: it may not be there for some of the items
        return None
    pseudo = groups * total - (groups - 1) * np.array(without)
    if not np.isfinite(pseudo).all():
        return None
    # Items of a group stand for it together, so each varies by more than the group does.
    per_item = pseudo[of] * math.sqrt(len(values) / groups)
    return per_item - per_item.mean() + total, np.ones(len(values))


def _of_group(
    loaded: Loaded, group: str, totals: Mapping[str, Any], of_tasks: Sequence[Metric], rows: Sequence[Mapping[str, Any]]
) -> list[Metric]:
    """Metrics of a group: of all items alike, or of its tasks alike however many items each has."""
    members = [task.config.task for task in loaded.groups[group].get_all_tasks()]
    counts = {name: sum(row["task"] == name for row in rows) for name in members}
    found = []
    for key, total in totals.items():
        metric, _, which = key.partition(",")
        if not which or metric.endswith("_stderr") or not isinstance(total, Number):
            continue
        parts = {one["of"]: one for one in of_tasks if (one["metric"], one["filter"]) == (metric, which)}
        parts = {name: parts[name] for name in members if name in parts}
        sizes = sum(counts[name] for name in parts)
        by_size = dict.fromkeys(parts, 1.0)
        by_task = {name: sizes / len(parts) / counts[name] for name in parts}
        for scale in (by_size, by_task) if parts and all(one["form"] == "mean" for one in parts.values()) else ():
            mean = sum(scale[name] * counts[name] * one["value"] for name, one in parts.items()) / sizes
            if all(one["alike"] for one in parts.values()) and math.isclose(mean, total, rel_tol=SAME, abs_tol=SAME):  # type: ignore[arg-type]
                one = next(iter(parts.values()))
                alike = len(set(scale.values())) == 1
                found.append(
                    one
                    | {"name": full_name(group, metric, which), "of": group, "value": float(total), "alike": alike}  # type: ignore[arg-type]
                    | {"right_or_wrong": alike and all(each["right_or_wrong"] for each in parts.values())}
                    | {"scale": scale}
                )
                break
        else:
            print(f"note: {group}: {metric} ({which}) of the group is no mean over its items or tasks, and is left out")
    return found
