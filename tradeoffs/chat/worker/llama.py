"""A GGUF as a `Decoder`: sequences of one llama.cpp context, which join and leave from step to step."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tradeoffs.common import cores
from tradeoffs.llama_cpp.context import DECODE_TOKENS, SEQUENCES, Context, last
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime


class Kept(Context):
    """A context whose sequences are cut and copied while others grow."""

    def cut(self, slot: int, length: int) -> bool:
        """Leaves the first `length` tokens of a sequence. False where the model's memory cannot go back (recurrent)."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, slot, length, -1))

    def copy(self, slot: int, other: int, length: int) -> None:
        """Lets the sequence in `other` begin with the first `length` tokens of that in `slot`: stored once."""
        llama_cpp.llama_memory_seq_cp(self._memory, slot, other, 0, length)


class LlamaDecoder(LlamaCppRuntime):
    """See `Decoder`. Slots are the places; what has ended stays in its slot until room is needed, the oldest first."""

    step_tokens = DECODE_TOKENS

    def __init__(self, path: Path, cells: int | None = None) -> None:
        """`cells`: tokens of all sequences together that are kept; None: as many as an evaluation's batch."""
        super().__init__(path, "auto")
        self._kept = Kept(self._model, path, cores.threads())
        self._cells = cells or max(self.context, self.batch_tokens)
        self._kept.reserve(self._cells)
        self.places = SEQUENCES
        self._ids: dict[int, list[int]] = {}  # of each slot that holds something, the longest unused first
        self._growing: dict[int, int] = {}  # to how many tokens at most

    def close(self) -> None:
        self._kept.free()
        super().close()

    def begin(self, ids: Sequence[int], length: int) -> tuple[int, int] | None:
        best, known = self._longest_prefix(ids)
        if not self._make_room(length, keep=best):
            return None
        if best is not None and best not in self._growing:
            place = best
            if len(self._ids[place]) > known and not self._kept.cut(place, known):
                self._kept.forget(place)
                known = 0
        else:
            place = next(slot for slot in range(SEQUENCES) if slot not in self._ids)
            if best is not None and known:
                self._kept.copy(best, place, known)
        self._ids.pop(place, None)
        self._ids[place] = list(ids[:known])
        self._growing[place] = length
        return place, known

    def feed(self, parts: Mapping[int, Sequence[int]], wanted: set[int]) -> dict[int, np.ndarray]:
        places = list(parts)
        fed = [np.asarray(parts[place], np.int32) for place in places]
        starts = [len(self._ids[place]) for place in places]
        at = [
            last(ids) if place in wanted else np.zeros(len(ids), bool) for place, ids in zip(places, fed, strict=True)
        ]
        found = {}
        for rows, logits in self._kept.decode(fed, places, starts, at):
            for row, one in zip(rows, logits, strict=True):
                found[places[row]] = one.copy()
        for place, ids in parts.items():
            self._ids[place] += ids
        return found

    def end(self, place: int) -> None:
        del self._growing[place]
        self._ids[place] = self._ids.pop(place)  # the last one used

    def _longest_prefix(self, ids: Sequence[int]) -> tuple[int | None, int]:
        best, most = None, 0
        for place, held in self._ids.items():
            count = 0
            for ours, theirs in zip(ids[: len(ids) - 1], held, strict=False):
                if ours != theirs:
                    break
                count += 1
            if count > most:
                best, most = place, count
        return best, most

    def _make_room(self, length: int, keep: int | None) -> bool:
        """Whether a sequence of this length has room, once some that have ended are gone."""
        idle = [place for place in self._ids if place not in self._growing and place != keep]
        while len(self._ids) >= SEQUENCES or self._used(keep) + length > self._cells:
            if not idle:
                return False
            gone = idle.pop(0)
            self._kept.forget(gone)
            del self._ids[gone]
        return True

    def _used(self, without: int | None) -> int:
        """Tokens of what is kept, and of what grows at most."""
        return sum(self._growing.get(place, len(ids)) for place, ids in self._ids.items() if place != without)
