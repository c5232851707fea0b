"""A cache of keys and values with room for what comes: else all of it is copied for each token of an answer."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens more than there are


def with_room(cache: DynamicCache) -> DynamicCache:
    """The same cache; a layer of a kind of its own (of a window, or without attention) stays as it is."""
    cache.layers = [_Roomy(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _Roomy(DynamicLayer):
    """keys, values: views of the first tokens of what is held; (rows, heads, tokens, width)."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.__dict__.update(layer.__dict__)
        self._held: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        held = self._held
        # Rows that were left out are left out of the views alone.
        if held is None or held[0].shape[-2] < after or held[0].shape[0] != key_states.shape[0]:
            held = self._held = (self._more(key_states, self.keys, after), self._more(value_states, self.values, after))
        for place, new in zip(held, (key_states, value_states), strict=True):
            place[:, :, before:after] = new
        self.keys, self.values = (place[:, :, :after] for place in held)
        return self.keys, self.values

    def _more(self, new: Tensor, old: Tensor | None, tokens: int) -> Tensor:
        found = torch.empty(*new.shape[:2], tokens + ROOM, new.shape[-1], dtype=new.dtype, device=new.device)
        if old is not None and old.numel():
            found[:, :, : old.shape[-2]] = old
        return found
