"""The validation loss while a training goes on: in its curve, as what decides which weights are kept, and when to stop.

It is measured every `valid_every` steps and after the last one, on rows that nothing trains on and no number of the
report is of. The weights of the lowest one so far lie beside the saved states, so that a run which was killed ends with
the same.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tradeoffs.common import files
from tradeoffs.finetune.progress import Progress
from tradeoffs.finetune.training_state import newest, saving
from tradeoffs.params import Train
from tradeoffs.plumbing.errors import UserError

LOSS = "valid_loss"  # in a point of the curve


class Validation(TrainerCallback):
    """Adds what `measure` finds (LOSS, and whatever goes with it) to the points of `progress`; stands behind it among
    the callbacks. With `budget.valid_every` 0 it does nothing.

    `folder` is that of the saved states. Before the step `settled` nothing is kept and no patience counts: of AdaLoRA,
    what comes before has more ranks than it may.
    """

    def __init__(
        self,
        name: str,
        progress: Progress,
        budget: Train,
        folder: Path,
        measure: Callable[[], dict[str, float]],
        settled: int = 0,
    ):
        self.name, self.progress, self.budget, self.folder = name, progress, budget, folder
        self._measure, self._settled, self._due = measure, settled, False

    @property
    def best(self) -> dict[str, float] | None:
        """The point of the curve with the lowest loss, of equal ones the first."""
        return min(self._counted(), key=lambda point: point[LOSS], default=None)

    @property
    def stopped(self) -> bool:
        """Whether the last `patience` evaluations all were no better than one before."""
        best, patience = self.best, self.budget.patience
        if not patience or best is None:
            return False
        return sum(point["step"] > best["step"] for point in self._counted()) >= patience

    @property
    def finished(self) -> bool:
        """Whether an earlier run has made all steps that there will be."""
        return self.progress.taken >= self.budget.steps or self.stopped

    def _counted(self, until: float = math.inf) -> list[dict[str, float]]:
        """The points that were evaluated, from the step on from which they count."""
        return [p for p in self.progress.points if LOSS in p and self._settled <= p["step"] <= until]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.budget.valid_every:
            step = self.progress.trainer.first_step + state.global_step
            self._due = step % self.budget.valid_every == 0 or step == self.budget.steps
            control.should_log = control.should_log or self._due
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if not self._due:
            return control
        self._due, begun = False, time.perf_counter()
        measured = self._measure()
        step = int(self.progress.points[-1]["step"])
        if not math.isfinite(measured[LOSS]):
            raise UserError(
                f"{self.name}: the validation loss is {measured[LOSS]} at step {step} of {self.budget.steps}; lower "
                f"train.lr (here {args.learning_rate:g})"
            )
        self.progress.add(measured, time.perf_counter() - begun)
        if self.budget.keep == "best" and self.best is self.progress.points[-1] and args.process_index == 0:
            self._save(step)
        if self.stopped and step < self.budget.steps:
            control.should_training_stop = True
            if args.process_index == 0:
                print(self._why(step))
        return control

    def _why(self, step: int) -> str:
        best = self.best or {}
        return (
            f"{self.name}: stops after step {step} of {self.budget.steps}: no lower validation loss than that of step "
            f"{int(best['step'])} ({best[LOSS]:.4f}) in {self.budget.patience} evaluations"
        )

    def keep(self) -> int:
        """Gives the model the weights that are to be kept; the step that they are of.

        To be called by all processes once the steps are made.
        """
        taken, best = self.progress.taken, self.best
        if self.budget.keep == "last" or best is None or best["step"] == taken:
            return taken
        trainer = self.progress.trainer
        trainer.accelerator.wait_for_everyone()  # the first one writes
        tensors = load_file(self._path(best))
        with torch.no_grad():
            for name, parameter in trainer.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[name])
        return int(best["step"])

    def facts(self, kept: int) -> dict[str, Any]:
        """Of the row of data/training: the steps that there were to make, that were made, and the one that was kept;
        where a validation loss was measured, by what rule, and the seconds that it took."""
        budget = self.budget
        found: dict[str, Any] = {"steps": budget.steps, "train_steps": self.progress.taken, "kept_step": kept}
        if budget.valid_every:
            found["rule"] = {"valid_every": budget.valid_every, "keep": budget.keep, "patience": budget.patience}
            found["valid_seconds"] = self.progress.paused
        return found

    def _path(self, point: dict[str, float]) -> Path:
        return self.folder / f"best-{int(point['step']):07}.safetensors"

    def _save(self, step: int) -> None:
        """Keeps the trained weights, and those that were the best at the newest saved state, which a run that is killed
        goes on from; all others of earlier steps are removed."""
        trained = {n: p.detach() for n, p in self.progress.trainer.model.named_parameters() if p.requires_grad}
        path = self._path({"step": step})
        with saving(self.folder), files.new_file(path) as target:
            save_file({name: tensor.contiguous().clone() for name, tensor in trained.items()}, target)
        then = min(self._counted(until=newest(self.folder)), key=lambda point: point[LOSS], default=None)
        for other in self.folder.glob("best-*"):
            if other not in (path, then and self._path(then)):
                other.unlink()
