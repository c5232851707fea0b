"""A GGUF as a `Decoder`: sequences of one llama.cpp context, which join and leave from step to step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tradeoffs.chat import room
from tradeoffs.chat.worker.decoder import NoRoomError
from tradeoffs.chat.worker.llama_apart import Apart
from tradeoffs.chat.worker.llama_cache import Held, Kept
from tradeoffs.chat.worker.llama_shared import Shared
from tradeoffs.common import cores
from tradeoffs.llama_cpp.context import DECODE_TOKENS
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

PLACES = (32, 16, 8)  # answers that grow at a time: as many of these as have room for a whole context each
APART_BYTES = 2e9  # of keys and values at most, if each has such room
APART_SHARE = 1 / 8  # and of the memory that models may have together
SHARED_BYTES = 2e9  # if all share one: a model whose context takes more gets a shorter one
ROW = 256  # llama.cpp rounds a cache up to as many tokens


class Sequences(Protocol):
    """Which sequences are where in the cache."""

    held: dict[int, Held]  # by place

    def begin(self, ids: np.ndarray, length: int) -> tuple[int, int] | None:
        """See `Decoder.begin`."""
        ...

    def grown(self, parts: Mapping[int, Sequence[int]]) -> None:
        """Ids that the cache has taken in."""
        ...

    def end(self, place: int) -> None:
        """See `Decoder.end`."""
        ...

    def drop_ended(self) -> bool:
        """Whether there is more room in the cache, since what has ended is gone from it."""
        ...


class LlamaDecoder(LlamaCppRuntime):
    """See `Decoder`."""

    step_tokens = DECODE_TOKENS

    def __init__(self, path: Path, cells: int | None = None) -> None:
        """`cells`: tokens that all sequences share. None: each has a whole context for itself, where there is
        memory for that; else they share as many as an evaluation's batch has, or a whole context where that is more
        and fits into SHARED_BYTES."""
        super().__init__(path, "auto")
        token = _bytes_per_token(self._model)
        recurrent = llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        window = llama_cpp.llama_model_n_swa(self._model)
        context = -(-self.context // ROW) * ROW
        self._cache = Kept(self._model, path, cores.threads())
        self._sequences: Sequences
        most = min(APART_BYTES, APART_SHARE * room.limit_mb() * 1e6) / (context * token)
        places = next((places for places in PLACES if places <= most), None)
        self.places = places or PLACES[0]
        if cells is None and not recurrent and places:
            self._sequences = Apart(self._cache, places, context, window)
        else:
            count = cells or max(self.batch_tokens, min(self.context, int(SHARED_BYTES / token)))
            self.context = min(self.context, count)
            self._sequences = Shared(self._cache, count, recurrent, window)

    def close(self) -> None:
        self._cache.free()
        super().close()

    def begin(self, ids: Sequence[int], length: int) -> tuple[int, int] | None:
        """See `Decoder`."""
        return self._sequences.begin(np.asarray(ids, np.int32), length)

    def feed(self, parts: Mapping[int, Sequence[int]], wanted: set[int]) -> dict[int, np.ndarray]:
        """See `Decoder`."""
        logits = self._append(parts, every=False, wanted=wanted)
        return dict(zip((place for place in parts if place in wanted), logits, strict=True))

    def every(self, place: int, ids: Sequence[int]) -> np.ndarray:
        """See `Decoder`."""
        return self._append({place: ids}, every=True, wanted={place})

    def end(self, place: int) -> None:
        """See `Decoder`."""
        self._sequences.end(place)

    def _append(self, parts: Mapping[int, Sequence[int]], every: bool, wanted: set[int]) -> np.ndarray:
        given = [(place, self._sequences.held[place].count, ids) for place, ids in parts.items()]
        try:
            logits = self._cache.append(given, every, wanted)
        except NoRoomError:
            for place in parts:  # what was taken in before the cache was full
                if not self._cache.cut(place, self._sequences.held[place].count):
                    raise RuntimeError(f"{self.path}: its cache is full, and cannot go back") from None
            if not self._sequences.drop_ended():
                raise
            return self._append(parts, every, wanted)
        self._sequences.grown(parts)
        return logits


def _bytes_per_token(model: Any) -> float:
    """Of float16 keys and values in all layers, all heads counted as those of the first."""
    heads, kv_heads = llama_cpp.llama_model_n_head(model), llama_cpp.llama_model_n_head_kv(model)
    shared = kv_heads / heads if heads and kv_heads else 1
    return 2 * 2 * llama_cpp.llama_model_n_layer(model) * llama_cpp.llama_model_n_embd(model) * shared
