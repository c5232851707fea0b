"""One training of one experiment: what it was trained with and on, how long it took, how good it became."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tradeoffs import metrics
from tradeoffs.methods.trl_stages import STAGES, Measure, chosen_by
from tradeoffs.metrics.answers import f1

TESTED = {"test_loss": "test loss", "test_bits_per_byte": "test bits per byte", "test_f1": "test F1"}
# Of a training, beside its time, what a setting can change.
FACTS = {
    "adapter_mb": "adapter MB",
    "trainable_params": "trainable parameters",
    "peak_memory_mb": "training memory MB",
    "peak_gpu_memory_mb": "training GPU memory MB",
}
COLUMNS = ["split", "item", "document", "tokens", "log_likelihood", "bytes", "generated", "answer"]  # of the items

Setting = dict[str, Any]  # flat parameters by their names, the method's own values of `train` merged in
LeftOut = dict[str, dict[str, None]]  # the names of experiments (a set in order) by the reason


@dataclass(frozen=True)
class Trial:
    """What dvc.lock records of a training in one revision."""

    experiment: str
    model: str
    dataset: str
    method: str
    seed: int
    setting: Setting
    data: dict[str, tuple[str, ...]]  # hashes of what reading.DATA names
    valid: dict[str, float]  # on held-out rows, by the names of measures: valid_loss, and what its stage is chosen by
    tokens: float  # real ones, no padding
    train_seconds: float
    facts: dict[str, float]  # of FACTS
    steps: dict[str, int] = field(default_factory=dict)  # that there were to make, by the names of data/training
    items: bytes | None = field(default=None, repr=False)  # what reference wrote of this training, if it went on to it

    @cached_property
    def tested(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """By the names of TESTED the items (a text's documents) and per item the sums that the metric is made of."""
        if self.items is None:
            return {}
        rows = [
            row for row in pq.read_table(io.BytesIO(self.items), columns=COLUMNS).to_pylist() if row["split"] == "test"
        ]
        names = [row["document"] or row["item"] for row in rows]
        columns = {
            name: np.array([row[name] for row in rows], np.float64) for name in ("tokens", "log_likelihood", "bytes")
        }
        columns["items"] = np.ones(len(rows))
        if all(row["generated"] is not None for row in rows):
            columns["f1"] = np.array([f1(row["generated"], row["answer"]) for row in rows])
        found = {name: metrics.metric(name)[1].columns for name in TESTED}
        return {
            name: metrics.per_item(names, np.stack([columns[column] for column in wanted], axis=-1))
            for name, wanted in found.items()
            if all(column in columns for column in wanted)
        }

    @property
    def test(self) -> dict[str, float]:
        """Test metrics as trained, by their names; empty where the experiment did not go on to evaluate."""
        return {name: float(metrics.metric(name)[1].of(sums.sum(axis=0))) for name, (_, sums) in self.tested.items()}

    @property
    def group(self) -> tuple[str, str]:
        """Model and data set: methods are compared within one."""
        return self.model, self.dataset

    @property
    def measure(self) -> Measure:
        """What its setting is chosen by."""
        return chosen_by(self.setting.get("stage"))

    @property
    def value(self) -> float:
        """Of its measure."""
        return self.valid[self.measure.name]

    @property
    def examples(self) -> int:
        """Optimiser steps times batch size, those of a further stage included."""
        stage = self.setting.get("stage")
        return sum(self._examples(block) for block in ("", *([STAGES[stage].block] if stage else ())))

    def _examples(self, block: str) -> int:
        """Of a stage, whose own `train` stands in this block, or of supervised tuning."""

        def said(key: str) -> Any:
            return self.setting.get(f"{block}.train.{key}", self.setting.get(f"train.{key}"))

        # Of a budget in epochs only the training itself knew the steps.
        steps = self.steps.get(f"{block}_steps" if block else "steps") or said("steps")
        return int(steps * said("batch_size"))

    def same_training(self) -> str:
        """Equal for two trials that trained the same thing on the same data."""
        own = (self.model, self.dataset, self.method, self.seed, self.setting, self.data)
        return json.dumps(own, sort_keys=True, default=str)


@dataclass
class Sweep:
    """What was found, and what is not in the table."""

    trials: Sequence[Trial]
    left_out: LeftOut
    committed: str = ""  # what the commit's own trainings are called
    seed: int = 0  # of the bootstrap
    resamples: int = 1000

    @property
    def groups(self) -> list[tuple[str, str]]:
        return sorted({trial.group for trial in self.trials})
