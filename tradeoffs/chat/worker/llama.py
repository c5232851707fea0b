"""A GGUF as a `Decoder`: sequences of one llama.cpp context, which join and leave from step to step."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradeoffs.chat.worker.decoder import NoRoomError
from tradeoffs.common import cores
from tradeoffs.llama_cpp import native
from tradeoffs.llama_cpp.context import DECODE_TOKENS, SEQUENCES, Context
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

PLACES = 32  # answers that grow at a time; the other sequences are kept for what goes on from them
CACHE_BYTES = 2e9  # of keys and values at most: a model whose context takes more gets a shorter one


class Kept(Context):
    """A context whose sequences are cut, copied and continued while others grow."""

    def cut(self, slot: int, length: int) -> bool:
        """Leaves the first `length` tokens of a sequence. False where the model's memory cannot go back (recurrent)."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, slot, length, -1))

    def copy(self, slot: int, other: int, length: int) -> None:
        """Lets the sequence in `other` begin with the first `length` tokens of that in `slot`: stored once."""
        llama_cpp.llama_memory_seq_cp(self._memory, slot, other, 0, length)

    def first(self, slot: int) -> int:
        """The first position whose keys and values are still there: a sliding window leaves others behind."""
        return int(llama_cpp.llama_memory_seq_pos_min(self._memory, slot))

    def append(self, parts: Sequence[tuple[int, int, Sequence[int]]], every: bool, wanted: set[int]) -> np.ndarray:
        """Ids for slots from a position on: (slot, position, ids) each. Logits after the last id of those `wanted`, in
        the order of `parts`, or after every id; float32 (rows, vocabulary), which hold until the next call.

        Raises NoRoomError where the cache is full; a part of them may be in it then.
        """
        tokens, positions, slots, asked = list[int](), list[int](), list[int](), list[bool]()
        for slot, position, ids in parts:
            tokens += ids
            positions += range(position, position + len(ids))
            slots += [slot] * len(ids)
            asked += [every] * (len(ids) - 1) + [slot in wanted]
        most = self._max_rows if every else DECODE_TOKENS
        found = []
        for begin in range(0, len(tokens), most):
            part = slice(begin, begin + most)
            self._batch.fill(tokens[part], positions[part], slots[part], asked[part])  # type: ignore[arg-type]
            logits = self._run(sum(asked[part]))
            found.append(logits if len(tokens) <= most else logits.copy())
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _run(self, rows: int) -> np.ndarray:
        status = llama_cpp.llama_decode(self._handle, self._batch.native)
        if status == 1:
            raise NoRoomError
        if status:
            raise RuntimeError(f"{self._path}: llama_decode failed with status {status}{native.last_lines()}")
        if not rows:
            return np.empty((0, self.vocabulary), np.float32)
        address: Any = ctypes.cast(llama_cpp.llama_get_logits(self._handle), ctypes.c_void_p).value
        buffer: Any = (ctypes.c_float * (rows * self.vocabulary)).from_address(address)
        return np.frombuffer(buffer, np.float32).reshape(rows, self.vocabulary)


@dataclass(eq=False)
class Held:
    """A sequence in the cache: `count` of its ids are there, and the cells that hold them. It is as long as it may
    become."""

    ids: np.ndarray
    cells: np.ndarray
    count: int = 0
    grows: bool = True

    def common(self, ids: np.ndarray) -> int:
        """How many tokens both begin with; at most all but the last of `ids`."""
        length = min(self.count, len(ids) - 1)
        differs = self.ids[:length] != ids[:length]
        return int(differs.argmax()) if differs.any() else length


class Cells:
    """Which cells of the cache are in use, by how many sequences: llama.cpp does not say it."""

    def __init__(self, count: int) -> None:
        self._uses = np.zeros(count, np.int32)
        self._unused = np.arange(count)  # the first `free` of them
        self.free = count

    def take(self, count: int) -> np.ndarray:
        self.free -= count
        found = self._unused[self.free : self.free + count].copy()
        self._uses[found] = 1
        return found

    def share(self, cells: np.ndarray) -> None:
        self._uses[cells] += 1

    def give(self, cells: np.ndarray) -> None:
        self._uses[cells] -= 1
        unused = cells[self._uses[cells] == 0]
        self._unused[self.free : self.free + len(unused)] = unused
        self.free += len(unused)


class LlamaDecoder(LlamaCppRuntime):
    """See `Decoder`. Slots are the places; what has ended stays in its slot until room is needed, the oldest first."""

    step_tokens = DECODE_TOKENS
    places = PLACES

    def __init__(self, path: Path, cells: int | None = None) -> None:
        """`cells`: tokens of all sequences together that are kept; None: as many as an evaluation's batch, or the
        model's context where that is more and fits into CACHE_BYTES."""
        super().__init__(path, "auto")
        count = cells or max(self.batch_tokens, min(self.context, int(CACHE_BYTES / _bytes_per_token(self._model))))
        self.context = min(self.context, count)
        self._kept = Kept(self._model, path, cores.threads())
        self._kept.reserve(count)
        self._cells = Cells(count)
        self._held: dict[int, Held] = {}  # by slot, the longest unused first
        recurrent, hybrid = llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid
        self._whole_only = recurrent(self._model) or hybrid(self._model)
        self._window: int = llama_cpp.llama_model_n_swa(self._model)

    def close(self) -> None:
        self._kept.free()
        super().close()

    def begin(self, ids: Sequence[int], length: int) -> tuple[int, int] | None:
        """See `Decoder`."""
        asked = np.asarray(ids, np.int32)
        best, known = self._longest_prefix(asked)
        # Little of it is lost: what goes on from a sequence takes it over.
        takes = best is not None and not self._held[best].grows and 2 * known >= self._held[best].count
        if takes:
            known = self._cut(best, known)
        while not self._make_room(length - known, best):
            if takes or best is None or self._held[best].grows:
                return None
            takes, known = True, self._cut(best, known)
        if takes:
            place, cells = best, self._held.pop(best).cells[:known]
        else:
            place = next(slot for slot in range(SEQUENCES) if slot not in self._held)
            cells = np.empty(0, np.int64)
            if best is not None:
                cells = self._held[best].cells[:known]
                self._kept.copy(best, place, known)
                self._cells.share(cells)
        self._held[place] = Held(np.resize(asked, length), np.resize(cells, length), known)
        return place, known

    def feed(self, parts: Mapping[int, Sequence[int]], wanted: set[int]) -> dict[int, np.ndarray]:
        """See `Decoder`."""
        logits = self._append(parts, every=False, wanted=wanted)
        return dict(zip((place for place in parts if place in wanted), logits, strict=True))

    def every(self, place: int, ids: Sequence[int]) -> np.ndarray:
        """See `Decoder`."""
        return self._append({place: ids}, every=True, wanted={place})

    def end(self, place: int) -> None:
        """See `Decoder`."""
        held = self._held.pop(place)
        held.grows = False
        self._held[place] = held  # the last one used

    def _append(self, parts: Mapping[int, Sequence[int]], every: bool, wanted: set[int]) -> np.ndarray:
        given = [(place, self._held[place].count, ids) for place, ids in parts.items()]
        try:
            logits = self._kept.append(given, every, wanted)
        except NoRoomError:
            self._take_back(parts)
            if not self._drop_idle():
                raise
            return self._append(parts, every, wanted)
        cells = self._cells.take(sum(len(ids) for _, _, ids in given))
        done = 0
        for place, begin, ids in given:
            held, end = self._held[place], begin + len(ids)
            held.ids[begin:end] = ids
            held.cells[begin:end] = cells[done : done + len(ids)]
            held.count, done = end, done + len(ids)
        return logits

    def _take_back(self, places: Mapping[int, object]) -> None:
        """What was taken in before the cache was full."""
        for place in places:
            if not self._kept.cut(place, self._held[place].count):
                raise RuntimeError(f"{self.path}: its cache is full, and cannot go back")

    def _longest_prefix(self, ids: np.ndarray) -> tuple[int | None, int]:
        """The slot whose sequence begins like `ids` for longest, one that has ended before one that grows."""
        best, most = None, 0
        for place, held in self._held.items():
            known = self._usable(place, held, held.common(ids))
            if known > most or (known == most and best is not None and self._held[best].grows):
                best, most = (place, known) if known else (None, 0)
        return best, most

    def _usable(self, place: int, held: Held, known: int) -> int:
        """How much of a common beginning can be gone on from: what is left of a sequence that went further."""
        if self._whole_only and known < held.count:
            return 0  # a recurrent state holds all that it has read
        if self._window and self._kept.first(place) > max(0, known - self._window):
            return 0  # of what the next token sees, something was left behind
        return known

    def _cut(self, place: int, length: int) -> int:
        """Leaves the first tokens of a sequence that has ended; how many that are in fact."""
        held = self._held[place]
        if length < held.count and not self._kept.cut(place, length):
            self._kept.forget(place)
            length = 0
        self._cells.give(held.cells[length : held.count])
        held.count = length
        return length

    def _make_room(self, more: int, keep: int | None) -> bool:
        """Whether there is room for so many more tokens, once some of what has ended is gone."""
        more += sum(len(held.ids) - held.count for held in self._held.values() if held.grows)
        idle = [place for place, held in self._held.items() if not held.grows and place != keep]
        for place in idle:
            if len(self._held) < SEQUENCES and more <= self._cells.free:
                break
            self._drop(place)
        return len(self._held) < SEQUENCES and more <= self._cells.free

    def _drop_idle(self) -> bool:
        idle = [place for place, held in self._held.items() if not held.grows]
        for place in idle:
            self._drop(place)
        return bool(idle)

    def _drop(self, place: int) -> None:
        held = self._held.pop(place)
        self._kept.forget(place)
        self._cells.give(held.cells[: held.count])


def _bytes_per_token(model: Any) -> float:
    """Of float16 keys and values in all layers, all heads counted as those of the first."""
    heads, kv_heads = llama_cpp.llama_model_n_head(model), llama_cpp.llama_model_n_head_kv(model)
    shared = kv_heads / heads if heads and kv_heads else 1
    return 2 * 2 * llama_cpp.llama_model_n_layer(model) * llama_cpp.llama_model_n_embd(model) * shared
