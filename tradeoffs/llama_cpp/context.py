"""A model's context in llama.cpp: token ids into its KV cache, logits out.

Several sequences go through one `llama_decode`, only positions whose logits are wanted produce any, and logits are read
where llama.cpp wrote them.
"""

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tradeoffs.llama_cpp import native
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.plumbing.errors import UserError

DECODE_TOKENS = 512  # tokens in one llama_decode: llama.cpp's own physical batch size
LOGITS_BYTES = 128e6  # of one llama_decode: large vocabularies get fewer logits at a time
SEQUENCES = 64  # kept apart in the KV cache at the same time


class Context:
    """The KV cache of a loaded `model` and what is decoded into it; it grows to what the largest call needs.

    Sequences are known by their slot, from 0 on. `path` is named where memory does not suffice. `on_gpu`: the cache
    lies with the layers on a GPU.
    """

    def __init__(self, model: Any, path: Path, threads: int, on_gpu: bool = False) -> None:
        self._model, self._path, self._threads, self._on_gpu = model, path, threads, on_gpu
        self._handle: Any = None
        self._memory: Any = None
        self._cells = 0
        self.vocabulary: int = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._max_rows = int(min(max(LOGITS_BYTES // (4 * self.vocabulary), SEQUENCES), DECODE_TOKENS))
        self._batch = _Batch(DECODE_TOKENS)

    def free(self) -> None:
        """Gives the memory of the cache back."""
        if self._handle:
            llama_cpp.llama_free(self._handle)
        self._handle, self._cells = None, 0

    def reserve(self, cells: int) -> None:
        """Empties the cache, which then has room for at least `cells` tokens of all sequences together.

        Raises UserError if there is no memory for it.
        """
        cells = max(cells, DECODE_TOKENS)  # llama.cpp takes no larger batch than what was asked for here
        if cells > self._cells:
            self.free()
            options = llama_cpp.llama_context_default_params()
            options.n_ctx = cells
            options.n_batch = options.n_ubatch = DECODE_TOKENS
            options.n_seq_max = SEQUENCES
            options.n_outputs_max = self._max_rows
            options.n_threads = options.n_threads_batch = self._threads
            options.kv_unified = True  # sequences share cells, so a common prefix is stored once
            options.offload_kqv = options.op_offload = self._on_gpu
            self._handle = llama_cpp.llama_init_from_model(self._model, options)
            if not self._handle:
                raise UserError(f"{self._path}: no memory for a KV cache of {cells} tokens{native.last_lines()}")
            self._cells = llama_cpp.llama_n_ctx(self._handle)
            self._memory = llama_cpp.llama_get_memory(self._handle)
        llama_cpp.llama_memory_clear(self._memory, False)

    def share(self, length: int, slot: int, of: int = 0) -> None:
        """Lets the sequence in `slot` begin with the first `length` tokens of another one, which are stored once."""
        llama_cpp.llama_memory_seq_cp(self._memory, of, slot, 0, length)

    def forget(self, slot: int) -> None:
        """Empties a slot."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def decode(
        self,
        sequences: Sequence[np.ndarray],
        slots: Sequence[int],
        starts: Sequence[int],
        logits_at: Sequence[np.ndarray],
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Feeds token ids into the KV cache's `slots` from position `starts` on; logits where `logits_at` is true.

        Yields, per llama_decode, the sequence number of each row of logits and the logits, float32 (rows, vocabulary):
        a view of llama.cpp's buffer that holds until the next step.
        """
        ids = np.concatenate(sequences)
        lengths = [len(sequence) for sequence in sequences]
        owner = np.repeat(np.arange(len(sequences)), lengths)
        slot = np.repeat(np.asarray(slots, np.int32), lengths)
        position = np.concatenate([np.arange(length) + start for length, start in zip(lengths, starts, strict=True)])
        wanted = np.concatenate(logits_at)
        rows_before = np.concatenate([[0], np.cumsum(wanted)])
        begin = 0
        while begin < len(ids):
            fits = int(np.searchsorted(rows_before, rows_before[begin] + self._max_rows, side="right")) - 1
            end = min(begin + DECODE_TOKENS, fits, len(ids))
            part = slice(begin, end)
            self._batch.fill(ids[part], position[part], slot[part], wanted[part])
            logits = self._run(int(rows_before[end] - rows_before[begin]))
            if len(logits):
                yield owner[part][wanted[part]], logits
            begin = end

    def take_in(self, prompt: np.ndarray) -> int:
        """Feeds a prompt into the empty cache; the most likely next token."""
        token = -1
        llama_cpp.llama_memory_clear(self._memory, False)
        for _, logits in self.decode([prompt], [0], [0], [last(prompt)]):
            token = int(logits[0].argmax())
        return token

    def step(self, tokens: np.ndarray | int, position: int, slots: np.ndarray | int = 0) -> np.ndarray:
        """One token more in each of the slots, all at `position`; the most likely next ones, int64 (slots,)."""
        self._batch.fill(tokens, position, slots, True)
        return self._run(np.size(slots)).argmax(axis=1)

    def _run(self, rows: int) -> np.ndarray:
        """One llama_decode; its logits, float32 (rows, vocabulary), where llama.cpp keeps them."""
        status = llama_cpp.llama_decode(self._handle, self._batch.native)
        if status != 0:
            raise RuntimeError(f"{self._path}: llama_decode failed with status {status}{native.last_lines()}")
        if rows == 0:
            return np.empty((0, self.vocabulary), np.float32)
        address: Any = ctypes.cast(llama_cpp.llama_get_logits(self._handle), ctypes.c_void_p).value
        buffer: Any = (ctypes.c_float * (rows * self.vocabulary)).from_address(address)
        return np.frombuffer(buffer, np.float32).reshape(rows, self.vocabulary)


class _Batch:
    """A llama_batch on top of numpy arrays, filled by slices instead of token by token."""

    def __init__(self, size: int) -> None:
        self._tokens, self._positions, self._slots, self._counts = (np.zeros(size, np.int32) for _ in range(4))
        self._wanted = np.zeros(size, np.int8)
        self._counts[:] = 1
        # llama.cpp takes a list of sequences per token: here a pointer to the token's one entry of `_slots`.
        self._lists = self._slots.ctypes.data + 4 * np.arange(size, dtype=np.uintp)
        kinds: Any = dict(llama_cpp.llama_batch._fields_)  # type: ignore[arg-type]
        self.native = llama_cpp.llama_batch(
            token=ctypes.cast(self._tokens.ctypes.data, kinds["token"]),
            pos=ctypes.cast(self._positions.ctypes.data, kinds["pos"]),
            n_seq_id=ctypes.cast(self._counts.ctypes.data, kinds["n_seq_id"]),
            seq_id=ctypes.cast(self._lists.ctypes.data, kinds["seq_id"]),
            logits=ctypes.cast(self._wanted.ctypes.data, kinds["logits"]),
        )

    def fill(
        self, tokens: np.ndarray | int, positions: np.ndarray | int, slots: np.ndarray | int, wanted: np.ndarray | bool
    ) -> None:
        """The next decode's tokens: arrays of one length, and single numbers that hold for all of them."""
        count = np.size(slots)
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._slots[:count] = slots
        self._wanted[:count] = wanted
        self.native.n_tokens = count


def last(ids: np.ndarray) -> np.ndarray:
    """Where logits are wanted of a sequence's end alone: true at the last of the ids only; bool (length,)."""
    return np.arange(len(ids)) == len(ids) - 1
