"""What every decoder of transformers has: how much it keeps, and one pass through the model."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from tradeoffs.plumbing.errors import UserError
from tradeoffs.transformers_runtime import TransformersRuntime

PLACES = 64  # answers that grow at a time
# Of a prompt in one step, beside the answers that grow: of a CPU such a piece takes as long as some ten tokens of one
# answer, of a GPU no longer than one.
STEP_TOKENS = {"cpu": 128, "cuda": 512}


class TorchBase(TransformersRuntime):
    """Its subclasses are a `Decoder`."""

    places = PLACES

    def __init__(self, model: PreTrainedModel, pad_id: int, cells: int | None) -> None:
        base: Any = model.get_base_model() if getattr(model, "active_peft_config", None) else model
        accepted = inspect.signature(base.forward).parameters
        if "past_key_values" not in accepted:
            raise UserError(
                f"a model of type {model.config.model_type} keeps what it has read in a form of its own, so it cannot "
                "be talked with token by token; convert it (`run.quants`) and talk with its GGUF"
            )
        super().__init__(model, "auto", pad_id)
        self._takes_positions = "position_ids" in accepted
        self.step_tokens = STEP_TOKENS[self.on.type]
        self.cells = cells or max(self.context, self._fitting_cells())

    def _fitting_cells(self) -> int:
        return self.batch_tokens

    def _logits(
        self, ids: list[Sequence[int]], cache: DynamicCache, lengths: list[int], last: int = 1, **more: Any
    ) -> np.ndarray:
        """After each of the `last` ids of each row, float32 (rows, last, vocabulary). There are as many `ids` of each
        row, which the cache then holds too; `lengths` are the tokens of each that it held before."""
        before, count = torch.tensor(lengths, device=self.on)[:, None], len(ids[0])
        width = max(lengths) + count
        if min(lengths) < max(lengths):
            more["attention_mask"] = (torch.arange(width, device=self.on) >= width - count - before).long()
        if self._takes_positions:
            more["position_ids"] = before + torch.arange(count, device=self.on)
        fed = torch.tensor([list(row) for row in ids], device=self.on)
        out = self.model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=last, **more)
        logits: np.ndarray = out.logits[:, -last:].float().cpu().numpy()
        return logits
