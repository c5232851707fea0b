"""A GGUF in llama.cpp, in process, behind the interface of `tradeoffs.evaluate.runtime`.

Works on the low-level API: several sequences go through one `llama_decode`, only positions whose logits are wanted
produce any, and logits are read where llama.cpp wrote them. Needs numpy and llama_cpp only, so it starts quickly.
"""

import ctypes
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from tqdm import tqdm

from tradeoffs.common.batching import HOST_BATCH, fitting_batch, length_batches
from tradeoffs.evaluate.runtime import Rows, Scores, Target, common_prefix, per_target
from tradeoffs.llama_cpp import native
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.plumbing.errors import UserError

DECODE_TOKENS = 512  # tokens in one llama_decode: llama.cpp's own physical batch size
LOGITS_BYTES = 128e6  # of one llama_decode: large vocabularies get fewer logits at a time
SEQUENCES = 64  # kept apart in the KV cache at the same time
PARALLEL = 32  # answers generated at the same time
CHUNK_ELEMENTS = 1 << 18  # logits per softmax task: 1 MB, so that its passes stay in the core's cache


class LlamaCppRuntime:
    """llama.cpp on the CPU with all cores.

    The layers stay on the CPU even if llama.cpp was built for a GPU: `device` must be what was measured. Flash
    attention is left to llama.cpp, which turns it on on a CPU: it leaves out masked parts of the cache, so sequences
    that share a decode do not pay for each other, and on full batches it is as near to float32 as the plain path. The
    KV cache is float16, llama.cpp's default and what its users run. It grows to what the largest call needs, not to the
    model's whole context.
    """

    name = "llama.cpp"
    device = "cpu"

    def __init__(self, path: str | Path, batch_tokens: int | Literal["auto"], context: int | None = None) -> None:
        """Loads `path`. `batch_tokens` bounds the KV cache of batched generation; `context` None: the model's own.

        Raises UserError if the file is missing, is no GGUF or holds a model that this llama.cpp does not know.
        """
        self._context_handle: Any = None
        self._memory: Any = None
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"{path}: not found; `dvc repro` makes it from the merged checkpoint (stages convert, quantize)"
            )
        native.start_log()
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise UserError(f"{path}: llama.cpp cannot load it as a GGUF model{native.last_lines()}")
        self.path = path
        self.batch_tokens = self._auto_batch() if batch_tokens == "auto" else batch_tokens
        self.context = context or llama_cpp.llama_model_n_ctx_train(self._model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self.size_mb = path.stat().st_size / 1e6
        self._threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads)
        self._cells = 0
        self._max_rows = int(min(max(LOGITS_BYTES // (4 * self.vocabulary), SEQUENCES), DECODE_TOKENS))
        self._batch = _Batch(DECODE_TOKENS)

    def close(self) -> None:
        """Gives llama.cpp's memory back; the runtime cannot be used afterwards."""
        if self._context_handle:
            llama_cpp.llama_free(self._context_handle)
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._pool.shutdown()
        self._context_handle = self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def score(self, targets: Sequence[Target], top_k: int = 0, tail_samples: int = 0) -> list[Scores]:
        """See `Runtime.score`. Raises UserError if a sequence is longer than the context."""
        self._check([target.ids for target in targets])
        # Nothing is asked of the last scored token's own logits, nor of anything after it.
        fed = [
            target.ids[: np.flatnonzero(target.scored)[-1]] if target.scored.any() else target.ids[:0]
            for target in targets
        ]
        scores: list[Scores] = [None] * len(targets)  # type: ignore[list-item]
        groups = _groups([len(ids) for ids in fed], SEQUENCES)
        for group in tqdm(groups, desc="score", leave=False):
            found = self._score_together([targets[i] for i in group], [fed[i] for i in group], top_k, tail_samples)
            for index, one in zip(group, found, strict=True):
                scores[index] = one
        return scores

    def choose(self, prompts: Sequence[np.ndarray], options: Sequence[np.ndarray]) -> np.ndarray:
        """See `Runtime.choose`. Raises UserError if a prompt is longer than the context."""
        self._check(prompts)
        shared = common_prefix(prompts)
        rests = [ids[shared:] for ids in prompts]
        self._reserve(shared + max(DECODE_TOKENS, *(len(rest) for rest in rests)))
        for _ in self._decode([prompts[0][:shared]], [0], [0], [np.zeros(shared, bool)]):
            pass  # no logits are wanted of it
        answers = np.empty((len(prompts), len(options[0])), np.float32)
        for group in _groups([len(rest) for rest in rests], SEQUENCES - 1):
            slots = range(1, len(group) + 1)  # sequence 0 holds the shared prefix
            for slot in slots:
                llama_cpp.llama_memory_seq_cp(self._memory, 0, slot, 0, shared)
            fed = [rests[index] for index in group]
            for rows, logits in self._decode(fed, slots, [shared] * len(group), [_last(rest) for rest in fed]):
                for row, row_logits in zip(rows, logits, strict=True):
                    index = group[row]
                    answers[index] = row_logits[options[index]] - _log_sum_exp(row_logits)
            for slot in slots:
                llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return answers

    def generate(self, prompts: Sequence[np.ndarray], max_new_tokens: int, stop_ids: Sequence[int]) -> list[list[int]]:
        """See `Runtime.generate`. A finished answer's place is taken by the next prompt at once.

        Raises UserError if a prompt and its answer can be longer than the context.
        """
        self._check(prompts, max_new_tokens)
        longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
        places = max(1, min(PARALLEL, len(prompts), self.batch_tokens // longest))
        self._reserve(places * longest)
        answers: list[list[int]] = [[] for _ in prompts]
        waiting, running, free = deque(range(len(prompts))), dict[int, int](), list(range(places))
        while waiting or running:
            # One new token of every running answer, and all tokens of the prompts that get a free place.
            fed = [np.array(answers[index][-1:], np.int32) for index in running.values()]
            starts = [len(prompts[index]) + len(answers[index]) - 1 for index in running.values()]
            while waiting and free:
                index = waiting.popleft()
                running[free.pop()] = index
                fed.append(prompts[index])
                starts.append(0)
            slots = list(running)
            for rows, logits in self._decode(fed, slots, starts, [_last(ids) for ids in fed]):
                for row, token in zip(rows, logits.argmax(axis=1).tolist(), strict=True):
                    index = running[slots[row]]
                    if token not in stop_ids:
                        answers[index].append(token)
                    if token in stop_ids or len(answers[index]) == max_new_tokens:
                        llama_cpp.llama_memory_seq_rm(self._memory, slots[row], -1, -1)
                        free.append(slots[row])
            running = {slot: index for slot, index in running.items() if slot not in free}
        return answers

    def stream(
        self, prompt: np.ndarray, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> tuple[list[int], float, float]:
        """See `Runtime.stream`."""
        self._check([prompt], max_new_tokens)
        self._reserve(len(prompt) + max_new_tokens)
        begun = time.perf_counter()
        token = self._take_in(prompt)
        first = time.perf_counter() - begun
        answer: list[int] = []
        while token not in stop_ids:
            answer.append(token)
            if len(answer) == max_new_tokens:
                break
            token = self._step(token, len(prompt) + len(answer) - 1)
        return answer, first, time.perf_counter() - begun

    def prefill(self, ids: np.ndarray) -> float:
        """See `Runtime.prefill`."""
        self._check([ids])
        self._reserve(len(ids))
        begun = time.perf_counter()
        self._take_in(ids)
        return time.perf_counter() - begun

    def decode(self, ids: np.ndarray, tokens: int, sequences: int = 1) -> float:
        """See `Runtime.decode`. Raises UserError if `ids` and `tokens` are longer than the context."""
        self._check([ids], tokens)
        self._reserve(len(ids) + sequences * tokens)
        slots = np.arange(sequences, dtype=np.int32)
        token: np.ndarray | int = self._take_in(ids)
        for slot in slots[1:]:
            llama_cpp.llama_memory_seq_cp(self._memory, 0, int(slot), 0, len(ids))
        begun = time.perf_counter()
        for position in range(len(ids), len(ids) + tokens):
            self._batch.fill(token, position, slots, True)
            token = self._run_batch(sequences).argmax(axis=1)
        return time.perf_counter() - begun

    def gpu_memory(self) -> dict[str, float]:
        """See `Runtime.gpu_memory`: nothing runs on a GPU."""
        return {}

    def gpu_clock(self) -> None:
        """See `Runtime.gpu_clock`: nothing runs on a GPU."""
        return None

    def _score_together(
        self, group: list[Target], fed: list[np.ndarray], top_k: int, tail_samples: int
    ) -> list[Scores]:
        """Scores of targets that share one run through the model."""
        self._reserve(sum(len(ids) for ids in fed))
        logits_at = [target.scored[1 : len(ids) + 1] for target, ids in zip(group, fed, strict=True)]
        asked = Rows.of(group, top_k, tail_samples)
        parts: list[Scores] = []
        done = 0
        for rows, logits in self._decode(fed, range(len(group)), [0] * len(group), logits_at):
            step = max(1, CHUNK_ELEMENTS // self.vocabulary)
            chunks = [slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
            places = [slice(done + chunk.start, done + chunk.stop) for chunk in chunks]
            parts += self._pool.map(score_rows, [logits[c] for c in chunks], [asked[place] for place in places])
            done += len(rows)
        return per_target(parts or [score_rows(np.empty((0, self.vocabulary), np.float32), asked)], group)

    def _decode(
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
            logits = self._run_batch(int(rows_before[end] - rows_before[begin]))
            if len(logits):
                yield owner[part][wanted[part]], logits
            begin = end

    def _take_in(self, prompt: np.ndarray) -> int:
        """Feeds a prompt into the empty cache; the most likely next token."""
        token = -1
        llama_cpp.llama_memory_clear(self._memory, False)
        for _, logits in self._decode([prompt], [0], [0], [_last(prompt)]):
            token = int(logits[0].argmax())
        return token

    def _step(self, token: int, position: int) -> int:
        """One single-token step of sequence 0; the most likely next token."""
        self._batch.fill(token, position, 0, True)
        return int(self._run_batch(1)[0].argmax())

    def _run_batch(self, rows: int) -> np.ndarray:
        """One llama_decode; its logits, float32 (rows, vocabulary), where llama.cpp keeps them."""
        status = llama_cpp.llama_decode(self._context_handle, self._batch.native)
        if status != 0:
            raise RuntimeError(f"{self.path}: llama_decode failed with status {status}{native.last_lines()}")
        if rows == 0:
            return np.empty((0, self.vocabulary), np.float32)
        address = ctypes.cast(llama_cpp.llama_get_logits(self._context_handle), ctypes.c_void_p).value
        return np.frombuffer((ctypes.c_float * (rows * self.vocabulary)).from_address(address), np.float32).reshape(
            rows, self.vocabulary
        )

    def _auto_batch(self) -> int:
        """By the float16 keys and values of a token in all layers."""
        layers, width, heads, kv_heads = (
            read(self._model)
            for read in (
                llama_cpp.llama_model_n_layer,
                llama_cpp.llama_model_n_embd,
                llama_cpp.llama_model_n_head,
                llama_cpp.llama_model_n_head_kv,
            )
        )
        shared = kv_heads / heads if heads and kv_heads else 1  # none in a first layer without attention
        return fitting_batch(2 * 2 * layers * width * shared, HOST_BATCH)

    def _check(self, sequences: Sequence[np.ndarray], new_tokens: int = 0) -> None:
        for ids in sequences:
            if not 1 <= len(ids) <= self.context - new_tokens:
                raise UserError(
                    f"{self.path}: a sequence of {len(ids)} tokens and {new_tokens} new ones does not fit its context "
                    f"of 1 to {self.context} tokens; lower tokenize.max_length, tokenize.window, "
                    "evaluate.max_new_tokens or evaluate.mmlu.shots in params.yaml"
                )
            if ids.min() < 0 or ids.max() >= self.vocabulary:
                raise UserError(
                    f"{self.path}: token ids {ids.min()} to {ids.max()} do not fit its vocabulary "
                    f"of {self.vocabulary}; they come from another tokenizer"
                )

    def _reserve(self, cells: int) -> None:
        """An empty KV cache with room for at least `cells` tokens of all sequences together."""
        cells = max(cells, DECODE_TOKENS)  # llama.cpp takes no larger batch than what was asked for here
        if cells > self._cells:
            if self._context_handle:
                llama_cpp.llama_free(self._context_handle)
            options = llama_cpp.llama_context_default_params()
            options.n_ctx = cells
            options.n_batch = options.n_ubatch = DECODE_TOKENS
            options.n_seq_max = SEQUENCES
            options.n_outputs_max = self._max_rows
            options.n_threads = options.n_threads_batch = self._threads
            options.kv_unified = True  # sequences share cells, so a common prefix is stored once
            options.offload_kqv = options.op_offload = False
            self._context_handle = llama_cpp.llama_init_from_model(self._model, options)
            if not self._context_handle:
                raise UserError(f"{self.path}: no memory for a KV cache of {cells} tokens{native.last_lines()}")
            self._cells = llama_cpp.llama_n_ctx(self._context_handle)
            self._memory = llama_cpp.llama_get_memory(self._context_handle)
        llama_cpp.llama_memory_clear(self._memory, False)


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
    ):
        """The next decode's tokens: arrays of one length, and single numbers that hold for all of them."""
        count = np.size(slots)
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._slots[:count] = slots
        self._wanted[:count] = wanted
        self.native.n_tokens = count


def score_rows(logits: np.ndarray, asked: Rows) -> Scores:
    """Scores of some rows of logits, float32 (rows, vocabulary), of which `asked` says what is wanted.

    The mass outside `at` (or the top k) is summed by itself, not subtracted from 1, so it keeps its digits however
    small it is; one that float32 cannot hold counts as the smallest normal number, so that its logarithm is finite.
    The ids in a row of `at` must differ.
    """
    rows = np.arange(len(logits))[:, None]
    argmax = logits.argmax(axis=1)[:, None]
    highest = logits[rows, argmax]
    at, samples = asked.at, asked.samples
    if asked.top_k:
        top_k = min(asked.top_k, logits.shape[1])
        at = np.argpartition(logits, -top_k, axis=1)[:, -top_k:]
        at = np.take_along_axis(at, np.argsort(-logits[rows, at], axis=1, kind="stable"), axis=1)
    weights = logits - highest
    np.exp(weights, out=weights)
    inside = 0.0
    if at is not None:
        inside = weights[rows, at].sum(axis=1, dtype=np.float64)
        weights[rows, at] = 0
    outside = weights.sum(axis=1, dtype=np.float64)
    log_total = np.log(inside + outside)[:, None]
    log_sum_exp = highest + log_total
    if asked.uniforms is not None:
        samples = _draw(weights, asked.uniforms)

    def logprob(ids: np.ndarray) -> np.ndarray:
        return (logits[rows, ids] - log_sum_exp).astype(np.float32)

    scores = {"logprob": logprob(asked.true[:, None])[:, 0], "argmax": argmax[:, 0].astype(np.int32)}
    if at is not None:
        scores["at_logprob"] = logprob(at)
        scores["tail"] = (np.log(np.maximum(outside, np.finfo(np.float32).tiny)) - log_total[:, 0]).astype(np.float32)
    if samples is not None:
        scores["sample_logprob"] = logprob(samples)
    if asked.top_k:
        scores["at_ids"] = at.astype(np.int32)  # type: ignore[union-attr]
        if samples is not None:
            scores["sample_ids"] = samples.astype(np.int32)
    return Scores(**scores)


def _draw(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Columns drawn by weight; weights (rows, columns), uniforms (rows, m), one per draw -> (rows, m)."""
    found = np.empty(uniforms.shape, np.int64)
    for row, below in enumerate(np.cumsum(weights, axis=1, dtype=np.float64)):
        found[row] = np.searchsorted(below, uniforms[row] * below[-1], side="right")
    return found.clip(max=weights.shape[1] - 1)  # where no weight is left at all


def _groups(lengths: Sequence[int], sequences: int) -> list[list[int]]:
    """Indices of what shares one run through the model: DECODE_TOKENS tokens, at most `sequences` sequences."""
    batches = length_batches(lengths, DECODE_TOKENS)
    return [batch[at : at + sequences] for batch in batches for at in range(0, len(batch), sequences)]


def _last(ids: np.ndarray) -> np.ndarray:
    """True at the last of the ids only; bool (length,)."""
    return np.arange(len(ids)) == len(ids) - 1


def _log_sum_exp(logits: np.ndarray) -> float:
    """log(sum(exp(logits))) of one row."""
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum(dtype=np.float64)))
