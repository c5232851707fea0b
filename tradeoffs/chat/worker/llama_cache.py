"""llama.cpp's cache of keys and values while sequences join, leave and begin as others began."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tradeoffs.chat.worker.decoder import NoRoomError
from tradeoffs.llama_cpp import native
from tradeoffs.llama_cpp.context import DECODE_TOKENS, Context
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.plumbing.errors import UserError


class Kept(Context):
    """A context whose sequences are cut, copied, kept apart and continued while others grow."""

    _bytes = np.empty(0, np.uint8)

    def open(self, cells: int, sequences: int, unified: bool) -> None:
        """Makes the cache: for tokens of all sequences together, or (not `unified`) an equal part for each.

        Raises UserError if there is no memory for it.
        """
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = max(cells, DECODE_TOKENS)
        options.n_batch = options.n_ubatch = DECODE_TOKENS
        options.n_seq_max, options.kv_unified = sequences, unified
        options.n_outputs_max = self._max_rows
        options.n_threads = options.n_threads_batch = self._threads
        options.offload_kqv = options.op_offload = False
        self._handle = llama_cpp.llama_init_from_model(self._model, options)
        if not self._handle:
            raise UserError(f"{self._path}: no memory for a KV cache of {cells} tokens{native.last_lines()}")
        self._memory = llama_cpp.llama_get_memory(self._handle)

    def cut(self, slot: int, length: int) -> bool:
        """Leaves the first `length` tokens of a sequence. False where the model's memory cannot go back (recurrent)."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, slot, length, -1))

    def copy(self, slot: int, other: int, length: int) -> None:
        """Lets the sequence in `other` begin with the first `length` tokens of that in `slot`: stored once."""
        llama_cpp.llama_memory_seq_cp(self._memory, slot, other, 0, length)

    def first(self, slot: int) -> int:
        """The first position whose keys and values are still there: a sliding window leaves others behind."""
        return int(llama_cpp.llama_memory_seq_pos_min(self._memory, slot))

    def state(self, slot: int) -> np.ndarray:
        """All that is there of a sequence, as bytes; they hold until the next call."""
        size = llama_cpp.llama_state_seq_get_size(self._handle, slot)
        if len(self._bytes) < size:
            self._bytes = np.empty(size + size // 4, np.uint8)
        got = llama_cpp.llama_state_seq_get_data(self._handle, _pointer(self._bytes), size, slot)
        return self._bytes[:got]

    def restore(self, slot: int, state: np.ndarray) -> bool:
        """Puts such a state into an empty slot. False if there is no room."""
        return llama_cpp.llama_state_seq_set_data(self._handle, _pointer(state), len(state), slot) > 0

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
    """A sequence in the cache, `count` of its `ids` so far: they are as many as it may become. `cells`: what holds
    them, where that is counted."""

    ids: np.ndarray
    count: int = 0
    grows: bool = True
    cells: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def take(self, ids: Sequence[int]) -> slice:
        """Adds what has been read; where among its `ids` that is."""
        added = slice(self.count, self.count + len(ids))
        self.ids[added], self.count = ids, added.stop
        return added

    def common(self, ids: np.ndarray) -> int:
        """How many tokens both begin with; at most all but the last of `ids`."""
        length = min(self.count, len(ids) - 1)
        differs = self.ids[:length] != ids[:length]
        return int(differs.argmax()) if differs.any() else length


def _pointer(data: np.ndarray) -> Any:
    return ctypes.cast(data.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
