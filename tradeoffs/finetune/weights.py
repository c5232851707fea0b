"""The weights at the end of a training: still numbers, gathered where processes share them, on disk."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from tradeoffs.finetune import adapters
from tradeoffs.plumbing.errors import UserError


def require_finite(model: torch.nn.Module) -> None:
    """Raises UserError unless all that was trained is finite.

    The last step's update comes after the last loss, so the weights themselves are looked at.
    """
    for name, trained in model.named_parameters():
        mine = trained.to_local() if isinstance(trained, DTensor) else trained  # of weights that are sharded
        if trained.requires_grad and not torch.isfinite(mine).all():
            raise UserError(f"{name} is no longer finite after the last training step; lower train.lr")


def whole(model: torch.nn.Module) -> dict[str, Any]:
    """The weights of a model that is sharded over processes, gathered in the first one's memory; all must call it."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def save(model: Any, gathered: dict[str, Any] | None, folder: Path) -> None:
    """Writes the adapter, or all weights: those `gathered` of a sharded model, None for any other."""
    if isinstance(model, PeftModel):
        adapters.save_adapter(model, folder)
        return
    del model._loss_function  # the recorder belongs to the training, not to the model
    model.save_pretrained(folder, state_dict=gathered)
