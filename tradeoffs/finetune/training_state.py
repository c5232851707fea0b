"""The state of a training run on disk, so that a killed one goes on and ends with the same weights, byte for byte.

safetensors and JSON only. Two things a Trainer's own checkpoint lacks are here: the importance that AdaLoRA's allocator
has gathered, and all of a VB-LoRA's parameters (its saved adapter keeps the top k only).
"""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

WEIGHTS, STATE = "state.safetensors", "state.json"


class SavedState(TrainerCallback):
    """Saves every `every` steps under `folder`, the newest only, and hands a saved state back.

    `first_step`: the step of what was restored, 0 for a new run.
    """

    def __init__(self, folder: Path, every: int):
        self.folder, self.every, self.first_step = folder, every, 0
        self._found: dict[str, Any] = {}

    def restore(self, model: Any, optimizer: torch.optim.Optimizer, scheduler: Any) -> dict[str, Any]:
        """Puts the newest saved state into place; what Progress.state() gave then, {} if nothing was saved."""
        saved = sorted(self.folder.glob("step-*"))
        if not saved:
            return {}
        tensors = load_file(saved[-1] / WEIGHTS)
        found = json.loads((saved[-1] / STATE).read_text(encoding="utf-8"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"model.{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer.", tensors):
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": found["param_groups"]})
        scheduler.load_state_dict(found["scheduler"])
        allocator = _allocator(model)
        for table in _tables(allocator):
            getattr(allocator, table).update(
                {name: tensor.to(model.device) for name, tensor in _below(f"allocator.{table}.", tensors)}
            )
        if allocator is not None:
            model.active_peft_config.rank_pattern = found["rank_pattern"]
        self.first_step, self._found = found["step"], found
        return found["progress"]

    def bind(self, trainer: Any, progress: Any) -> None:
        """Says whose state is kept, and hands `trainer` what of it is not the model's or the optimiser's."""
        self._trainer, self._progress = trainer, progress
        if self._found.get("batch_tokens"):  # halved, where memory ran out
            trainer.batch_tokens = self._found["batch_tokens"]
        if self._found.get("scaler"):
            trainer.accelerator.scaler.load_state_dict(self._found["scaler"])

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        step = self.first_step + state.global_step  # that is made; its point of the curve is too
        # Random numbers of a step depend on the step and the process alone, so there is nothing of them to keep.
        torch.manual_seed((args.seed << 32) + (step << 8) + args.process_index)
        if args.process_index == 0 and state.global_step > 0 and step % self.every == 0:
            self.save(step, self._trainer.model, optimizer, lr_scheduler)

    def save(self, step: int, model: Any, optimizer: Any, scheduler: Any) -> None:
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
        state = optimizer.state_dict()
        for index, moments in state["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
        allocator = _allocator(model)
        for table in _tables(allocator):
            tensors |= {f"allocator.{table}.{name}": value for name, value in getattr(allocator, table).items()}
        facts = {
            "step": step,
            "param_groups": state["param_groups"],
            "scheduler": scheduler.state_dict(),
            "progress": self._progress.state(),
            "batch_tokens": getattr(self._trainer, "batch_tokens", None),
        }
        if (scaler := self._trainer.accelerator.scaler) is not None:  # of float16
            facts["scaler"] = scaler.state_dict()
        if allocator is not None:
            facts["rank_pattern"] = model.active_peft_config.rank_pattern
        with saving(self.folder), files.new_folder(self.folder / f"step-{step:07}") as folder:
            save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / WEIGHTS)
            (folder / STATE).write_text(json.dumps(facts), encoding="utf-8")
        for old in sorted(self.folder.glob("step-*"))[:-1]:
            shutil.rmtree(old)


def newest(folder: Path) -> int:
    """The step of the newest saved state in `folder`, 0 if there is none."""
    return max((int(path.name[5:]) for path in folder.glob("step-*")), default=0)


@contextmanager
def saving(where: Path) -> Iterator[None]:
    """Turns what a full disk raises, in whatever library, into one clear message."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error).lower()
        if not full:
            raise
        raise UserError(f"{where}: the disk is full; free some space and run `dvc repro` again, it goes on") from error


def _below(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))


def _allocator(model: Any) -> Any:
    """AdaLoRA's rank allocator, None for all other methods."""
    return getattr(getattr(model, "base_model", None), "rankallocator", None)


def _tables(allocator: Any) -> tuple[str, ...]:
    return ("ipt", "exp_avg_ipt", "exp_avg_unc") if allocator is not None else ()
