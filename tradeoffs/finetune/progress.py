"""What a training run shows while it goes on, and the curve that it leaves."""

import math
import time
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.plumbing.live import Watch


class Progress(TrainerCallback):
    """A progress bar over the optimiser steps, and a point of the curve every `every` steps.

    A point holds, of the steps since the point before, `loss` (cross-entropy, nats per scored token) and
    `token_accuracy`, both over scored tokens; `tokens_per_second` (real ones, no padding) and `utilisation` of
    `peak_flops`; and of its own step `lr`, `grad_norm` and what `add` was given. `earlier` is the `state` that an
    interrupted run left.
    """

    def __init__(
        self, trainer: Any, steps: int, every: int, flops_per_token: float, peak_flops: float, earlier: dict[str, Any]
    ):
        self.trainer, self.steps, self.every = trainer, steps, every
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self.points: list[dict[str, float]] = list(earlier.get("points", []))
        self.losses: list[float] = list(earlier.get("losses", []))
        self._accuracies: list[float] = list(earlier.get("accuracies", []))
        self._first_step, self._earlier_seconds = len(self.losses), earlier.get("seconds", 0.0)
        self.paused: float = earlier.get(
            "paused", 0.0
        )  # seconds that are no part of `seconds`: spent on what was added
        self._mark = (0.0, 0)  # time and tokens of this process at the last point
        self._begun, self._seconds = 0.0, 0.0  # of the loop in this process

    def state(self) -> dict[str, Any]:
        """What is known so far, as JSON values, for the process that goes on after this one."""
        self._collect()
        return {
            "points": self.points,
            "losses": self.losses,
            "accuracies": self._accuracies,
            "seconds": self._earlier_seconds + (self._seconds or self._running()),
            "paused": self.paused,
        }

    @property
    def taken(self) -> int:
        """Steps so far, those of an interrupted run before this one among them."""
        self._collect()
        return len(self.losses)

    def final_loss(self, step: int | None = None) -> float:
        """The mean over the last tenth of the steps up to `step` (None: of all that were made): one step alone depends
        on which examples it had."""
        step = step or self.taken
        return _mean(self.losses[:step][-math.ceil(step / 10) :])

    def add(self, measured: dict[str, float], seconds: float) -> None:
        """What else is known of the last point's step, and how long finding it out kept the training waiting."""
        self.points[-1] |= measured
        self.paused += seconds
        self._begun += seconds
        self._mark = (self._mark[0] + seconds, self._mark[1])
        said = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in measured.items())
        self._bar.set_postfix_str(f"{self._bar.postfix}, {said}")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._begun = time.perf_counter()
        self._mark = (self._begun, 0)
        self._bar = tqdm(
            total=self.steps, initial=self._first_step, desc="train", unit="step", disable=args.process_index != 0
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self._bar.update(1)
        step = self._first_step + state.global_step
        control.should_log = step % self.every == 0 or step == self.steps
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "learning_rate" not in logs:  # the summary at the end
            return
        self._collect()
        begun, tokens = self._mark
        self._mark = (time.perf_counter(), self.trainer.tokens)
        speed = (self._mark[1] - tokens) / (self._mark[0] - begun)
        since = int(self.points[-1]["step"]) if self.points else 0
        point = {
            "step": self._first_step + state.global_step,
            "loss": _mean(self.losses[since:]),
            "token_accuracy": _mean(self._accuracies[since:]),
            "lr": logs["learning_rate"],
            "tokens_per_second": speed,
            "utilisation": speed * self.flops_per_token / (self.peak_flops * args.world_size),
        }
        if "grad_norm" in logs:
            point["grad_norm"] = logs["grad_norm"]
        self.points.append(point)
        self._bar.set_postfix_str(
            f"loss {point['loss']:.3f}, {speed:,.0f} tokens/s, {point['utilisation']:.0%} of peak, "
            f"{peak_memory_mb() / 1000:.1f} GB"
        )

    def _collect(self) -> None:
        """Fetches what the trainer has measured since the last time."""
        new = len(self.losses) - self._first_step
        self.losses += _floats(self.trainer.losses[new:])
        self._accuracies += _floats(self.trainer.accuracies[new:])

    def _running(self) -> float:
        return time.perf_counter() - self._begun if self._begun else 0.0

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._seconds = self._running()
        self._bar.close()


class Told(TrainerCallback):
    """Passes the points of `progress` on to who watches the run; a `part` of a run counts its steps for itself."""

    def __init__(self, progress: Progress, watch: Watch, part: str = ""):
        self._progress, self._watch, self._part = progress, watch, part

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._watch.update(self._progress.points, self._part)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._watch.update(self._progress.points, self._part)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The floating-point operations per second that a large matrix product reaches on this machine, measured."""
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):  # the first one warms up
        begun = time.perf_counter()
        (a @ b).sum().item()  # .item() waits for the GPU
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _floats(values: list[torch.Tensor]) -> list[float]:
    return torch.stack(values).float().tolist() if values else []
