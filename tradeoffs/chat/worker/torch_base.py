"""What every decoder of transformers has: how much it keeps, and one pass through the model."""

import inspect
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from tradeoffs.plumbing.errors import UserError
from tradeoffs.transformers_runtime import TransformersRuntime

PLACES = 64  # answers that grow at a time
STEP_TOKENS = {"cpu": 512, "cuda": 2048}  # of prompts in one step: more at once are read no faster


class TorchBase(TransformersRuntime):
    """Its subclasses are a `Decoder`."""

    places = PLACES

    def __init__(self, model: PreTrainedModel, pad_id: int, cells: int | None) -> None:
        base: Any = model
        if getattr(model, "active_peft_config", None):
            base = base.get_base_model()
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
        self, ids: list[list[int]], cache: DynamicCache, lengths: list[int], last: int = 1, **more: Any
    ) -> np.ndarray:
        """After each of the `last` ids of each row, float32 (rows, last, vocabulary). There are as many `ids` of each
        row; with them it has `lengths` tokens, those in the cache counted, or fewer than stand there: then the first
        ones are none of it."""
        count, columns = len(ids[0]), cache.get_seq_length() + len(ids[0])
        first = columns - torch.tensor(lengths, device=self.on)[:, None]  # column of each row
        column = torch.arange(columns, device=self.on)
        if min(lengths) < columns:
            more["attention_mask"] = (column >= first).long()
        if self._takes_positions:
            more["position_ids"] = (column[-count:] - first).clamp(min=0)
        fed = torch.tensor(ids, device=self.on)
        out = self.model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=last, **more)
        logits: np.ndarray = out.logits[:, -last:].float().cpu().numpy()
        return logits
