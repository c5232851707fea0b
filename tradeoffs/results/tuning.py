"""What tuning took, what it learnt and what it forgot."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradeoffs.common.cells import Cell, Variant
from tradeoffs.results import costs, intervals
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results

# Names in metrics/training.json; other tools read them.
TRAINING = (
    "steps",
    "epochs",
    "batch_size",
    "lr",
    "trainable_params",
    "total_params",
    "adapter_mb",
    "train_seconds",
    "train_tokens_per_second",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "peak_gpu_memory_reserved_mb",
    "train_loss",
    "valid_loss",
    "train_steps",
    "kept_step",
    "valid_seconds",
)
HOST_PEAK = "peak_memory_mb"  # of the process
PARTS = ("", "preference_")  # what the names of a stage after supervised tuning begin with
# ... of the points of its curve, each as a median: the first steps of a run are slower than all others.
MEDIANS = {"tokens_per_second": "median_tokens_per_second", "utilisation": "median_utilisation"}


def numbers(results: Results, variant: Variant) -> dict[str, float]:
    """What is known of a variant's training as single numbers, by their names in metrics/training.json."""
    row = results.trained(variant)
    found = {name: row[name] for name in TRAINING if name in row}
    for key, name in MEDIANS.items():
        points = [point[key] for point in row.get("curve", []) if key in point]
        found |= {name: float(np.median(points))} if points else {}
    if learnt := rewards(results, variant):
        found |= {"preference_pairs": len(row["reward_margins"])}
        found |= {name: interval.value for name, interval in learnt.items()}
    return found


def peak_memory(row: Mapping[str, Any]) -> tuple[float, bool] | None:
    """Most memory of a training, in MB, and whether that is a GPU's: where there was one, its own is what must fit.

    `row` as data/training has it. None where nothing was trained.
    """
    found = [(row[name], name != HOST_PEAK) for name in (*costs.GPU_PEAKS, HOST_PEAK) if name in row]
    return found[0] if found else None


@dataclass(frozen=True)
class Rule:
    """What the validation loss decided in a training, and on the way to what it was measured."""

    valid_every: int  # steps
    keep: str  # last, or best
    patience: int  # evaluations without a lower one, after which it stopped; 0: never


def rule(results: Results, variant: Variant, part: str = "") -> Rule | None:
    """Of a part of a variant's training; None where no validation loss was measured before its end."""
    found = results.trained(variant).get(f"{part}rule")
    return Rule(**found) if found else None


def stopped_early(results: Results, variant: Variant) -> bool:
    """Whether a variant's training made fewer steps than it had, in one of its parts."""
    row = results.trained(variant)
    return any(row.get(f"{part}train_steps", 0) < row.get(f"{part}steps", 0) for part in PARTS)


def between_seeds(results: Results, cell: Cell, name: str) -> float | None:
    """Standard deviation (n - 1) of a quality metric between the trainings of a cell; None for a single one."""
    trainings = results.trainings(cell)
    if len(trainings) == 1 or not all(results.has(v, name) for v in trainings):
        return None
    return statistics.stdev(results.interval(v, name).value for v in trainings)


def rewards(results: Results, variant: Variant) -> dict[str, Interval]:
    """Of a method that learnt from pairs of answers, over the held-out pairs; empty for any other.

    `reward_accuracy` is the share whose chosen answer has the higher reward, `reward_margin` the mean difference.
    """
    margins = np.array(results.trained(variant).get("reward_margins", []), np.float64)
    if not len(margins):
        return {}
    draws = results.resample(len(margins))
    return {
        "reward_accuracy": results.share((margins > 0).astype(np.float64)),
        "reward_margin": intervals.interval(draws @ margins / len(margins)),
    }


def forgotten(results: Results, variant: Variant) -> Interval | None:
    """How much the loss on general text rose from the untouched base to this model as trained, paired, in nats.

    None where it was not measured: for the base itself, without `base` in the run list, without general text.
    """
    base = results.untouched(variant.pair)
    if base is None or base == variant or not all(results.has(v, "general_loss") for v in (base, variant)):
        return None
    return results.compare(variant, base, "general_loss")
