"""A GGUF as a `Decoder`: sequences of one llama.cpp context, which join and leave from step to step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

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

ROW = 256  # llama.cpp rounds a cache up to as many tokens
SHAPE = (  # what `room.bytes_per_token` goes by
    llama_cpp.llama_model_n_layer,
    llama_cpp.llama_model_n_embd,
    llama_cpp.llama_model_n_head,
    llama_cpp.llama_model_n_head_kv,
)


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

    def __init__(self, path: Path, cells: int | None = None, most_mb: float | None = None) -> None:
        """`cells`: tokens that all sequences share. None: each has a whole context for itself, where `most_mb`, which
        all models may have together, has room for that; else they share `room.shared_tokens`."""
        super().__init__(path, "auto")
        token = room.bytes_per_token(*(read(self._model) for read in SHAPE))
        recurrent = llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        window = llama_cpp.llama_model_n_swa(self._model)
        context = -(-self.context // ROW) * ROW
        most_mb = room.limit_mb() if most_mb is None else most_mb
        self._cache = Kept(self._model, path, cores.threads())
        self._sequences: Sequences
        places = room.places(context, token, most_mb)
        self.places = places or room.PLACES[0]
        if cells is None and not recurrent and places:
            kept = room.kept_bytes(context * token, most_mb)
            self._sequences = Apart(self._cache, places, context, window, kept)
        else:
            count = cells or room.shared_tokens(self.context, token)
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
