"""A model of transformers whose answers cannot grow in one batch, as a `Decoder`: each is computed by itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from tradeoffs.chat.worker.decoder import NoRoomError
from tradeoffs.chat.worker.torch_base import PLACES, TorchBase
from tradeoffs.chat.worker.torch_rows import cuttable
from tradeoffs.models.forward import fits

SCALED_BY_LENGTH = {"dynamic", "longrope"}  # rotary positions that depend on the longest row of a pass
MEAN_OF_ALL = ("LILY",)  # adapters that depend on all rows of a pass


def why_apart(model: Any) -> str | None:
    """Why an answer of this model is computed apart from the others, its prompt in one pass; None where it need not."""
    adapter = getattr(model, "active_peft_config", None)
    if getattr(adapter, "alora_invocation_tokens", None):
        return "where its adapter begins is found in the ids of one pass"
    if adapter is not None and adapter.peft_type in MEAN_OF_ALL:
        return "its adapter mixes by a mean over all that goes through at once"
    if any(type(module).__name__ == "Linear8bitLt" for module in model.modules()):
        return "LLM.int8 keeps the columns exact in which any token of a pass has a large number"
    config = model.config.get_text_config()
    if SCALED_BY_LENGTH.intersection(_values(getattr(config, "rope_parameters", None), "rope_type")):
        return "its positions are scaled by the longest row of a pass"
    if not cuttable(DynamicCache(config=config)):
        return "what it keeps of a text cannot be cut (a recurrent state)"
    return None


@dataclass
class _Apart:
    """`ids` of which the first `done` are in the cache; `ends`: how many they were after each pass; `more`: what each
    pass is told besides."""

    most: int
    ids: list[int] = field(default_factory=list)
    done: int = 0
    ends: list[int] = field(default_factory=list)
    cache: DynamicCache | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def go_back(self, count: int) -> None:
        """Leaves the first ids, to be read anew in the same passes: what was kept of them cannot be cut."""
        self.ids, self.ends = self.ids[:count], [end for end in self.ends if end <= count]
        self.done, self.cache = 0, None

    def begin_anew(self) -> None:
        """All that is there is to be read in one pass."""
        self.ends, self.done, self.cache = [], 0, None


class ApartDecoder(TorchBase):
    """See `Decoder`; for models of which `why_apart` says why. Each answer is computed as if there were no other: its
    prompt in one pass, whatever the pieces it comes in, then token by token. What has ended is not kept."""

    def __init__(self, model: PreTrainedModel, pad_id: int, cells: int | None = None) -> None:
        super().__init__(model, pad_id, cells)
        self._growing: dict[int, _Apart] = {}
        scaled = getattr(model.config.get_text_config(), "rope_parameters", None)
        longer = "longrope" in _values(scaled, "rope_type")
        # Beyond so many tokens all positions are scaled, those that were read before too.
        self._scaled_from = min(_values(scaled, "original_max_position_embeddings"), default=None) if longer else None

    def close(self) -> None:
        self._growing.clear()

    def begin(self, ids: Sequence[int], length: int) -> tuple[int, int] | None:
        most = self.virtual + length
        used = sum(growing.most for growing in self._growing.values())
        if len(self._growing) == PLACES or (self._growing and used + most > self.cells):
            return None
        place = next(number for number in range(PLACES) if number not in self._growing)
        self._growing[place] = _Apart(most)
        return place, 0

    @torch.inference_mode()
    def feed(self, parts: Mapping[int, Sequence[int]], wanted: set[int]) -> dict[int, np.ndarray]:
        known = {place: len(self._growing[place].ids) for place in parts}
        for place, ids in parts.items():
            self._growing[place].ids += ids
        found = {}
        for place in wanted & parts.keys():
            logits = self._read(self._growing[place], 1)
            if logits is None:
                for other, count in known.items():
                    self._growing[other].go_back(count)
                raise NoRoomError
            found[place] = logits[0]
        return found

    @torch.inference_mode()
    def every(self, place: int, ids: Sequence[int]) -> np.ndarray:
        growing = self._growing[place]
        known = len(growing.ids)
        growing.begin_anew()
        growing.ids += ids
        logits = self._read(growing, len(ids))
        if logits is None:
            growing.go_back(known)
            raise NoRoomError
        return logits

    def end(self, place: int) -> None:
        del self._growing[place]

    def _read(self, growing: _Apart, last: int) -> np.ndarray | None:
        """The logits after each of the last ids, once all are read; None if there is no memory for it."""
        if self._scaled_from and growing.done <= self._scaled_from < len(growing.ids):
            growing.begin_anew()
        logits = None
        while growing.done < len(growing.ids):
            end = next((end for end in growing.ends if end > growing.done), len(growing.ids))
            if (logits := self._pass(growing, end, last)) is None:
                return None
            growing.done = end
            growing.ends = sorted({*growing.ends, end})
        return logits

    def _pass(self, growing: _Apart, end: int, last: int) -> np.ndarray | None:
        if growing.cache is None:
            growing.cache, growing.more = self._cache(1), self._beginning(growing.ids[:end])
        ids, cache, found = growing.ids[growing.done : end], growing.cache, list[np.ndarray]()
        if not fits(lambda: found.append(self._logits([ids], cache, [self.virtual + end], last, **growing.more))):
            return None
        return found[0][0]

    def _beginning(self, prompt: list[int]) -> dict[str, Any]:
        """Of an adapter that begins where its invocation stands: from where on, which later passes cannot see."""
        if not self._whole_rows:
            return {}
        from peft.tuners.lora.variants import calculate_alora_offsets

        ids = torch.tensor([prompt], device=self.on)
        return {"alora_offsets": calculate_alora_offsets(self.model.peft_config, self.model.active_adapter, ids)}


def _values(nested: Any, key: str) -> Iterator[Any]:
    """What stands under a key, at any depth."""
    if isinstance(nested, dict):
        for name, value in nested.items():
            yield from [value] if name == key else _values(value, key)
