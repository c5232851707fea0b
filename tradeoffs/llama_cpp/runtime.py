"""A GGUF in llama.cpp, in process, behind the interface of `tradeoffs.evaluate.runtime`.

Works on the low-level API (`context`). Needs numpy and llama_cpp only, so it starts quickly.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from tqdm import tqdm

from tradeoffs.common import cores, files
from tradeoffs.common.batching import HOST_BATCH, fitting_batch, length_batches
from tradeoffs.evaluate.runtime import Rows, Scores, Target, common_prefix, per_target
from tradeoffs.llama_cpp import gpus, native
from tradeoffs.llama_cpp.context import DECODE_TOKENS, SEQUENCES, Context, last
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.llama_cpp.scores import logprobs, score_rows
from tradeoffs.plumbing.errors import UserError

PARALLEL = 16  # answers generated at the same time: each also passes over what the others have in the cache
CHUNK_ELEMENTS = 1 << 18  # logits per softmax task: 1 MB, so that its passes stay in the core's cache


class LlamaCppRuntime:
    """llama.cpp on the CPU with all cores that may be used, or with `on_gpu` on the first GPU.

    Unless that is asked for the layers stay on the CPU even if llama.cpp was built for a GPU, and then all of them lie
    on one: `device` must be what was measured. Flash
    attention is left to llama.cpp, which turns it on on a CPU: it leaves out masked parts of the cache, so sequences
    that share a decode do not pay for each other, and on full batches it is as near to float32 as the plain path. The
    KV cache is float16, llama.cpp's default and what its users run. It grows to what the largest call needs, not to the
    model's whole context.
    """

    name = "llama.cpp"
    answer_gpu_mb: float | None = None  # what is evaluated runs on no GPU

    def __init__(
        self, path: str | Path, batch_tokens: int | Literal["auto"], context: int | None = None, on_gpu: bool = False
    ) -> None:
        """Loads `path`. `batch_tokens` bounds the KV cache of batched generation; `context` None: the model's own.

        Raises UserError if the file is missing, is no GGUF or holds a model that this llama.cpp does not know; with
        `on_gpu` also where there is no GPU that it was built for.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"{path}: not found; `dvc repro` makes it from the merged checkpoint (stages convert, quantize)"
            )
        native.start_log(path)
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        self._gpu = gpus.first() if on_gpu else None
        self.device = self._gpu.description if self._gpu else "cpu"
        options.n_gpu_layers = gpus.ALL_LAYERS if on_gpu else 0
        options.split_mode = llama_cpp.LLAMA_SPLIT_MODE_NONE if on_gpu else options.split_mode
        self._free_before = self._gpu.free_mb() if self._gpu else 0.0
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise UserError(f"{path}: llama.cpp cannot load it as a GGUF model{native.last_lines()}")
        self.path = path
        self.batch_tokens = self._auto_batch() if batch_tokens == "auto" else batch_tokens
        self.context = context or llama_cpp.llama_model_n_ctx_train(self._model)
        self.size_mb = llama_cpp.llama_model_size(self._model) / 1e6
        threads = cores.threads()
        self._pool = ThreadPoolExecutor(threads)
        self._llama = Context(self._model, path, threads, on_gpu)
        self.vocabulary = self._llama.vocabulary

    def close(self) -> None:
        """Gives llama.cpp's memory back; the runtime cannot be used afterwards."""
        self._llama.free()
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._pool.shutdown()
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @cached_property
    def shapes(self) -> str:
        """See `Runtime.shapes`."""
        heads = [llama_cpp.llama_model_n_head(self._model), llama_cpp.llama_model_n_head_kv(self._model)]
        built = [native.description(self._model), f"{heads}", *sorted(map(str, native.tensors(self.path)))]
        return files.content_id(self.name, self.device, f"{self.context}", *built)

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
        begun, shared = time.perf_counter(), common_prefix(prompts)
        rests = [ids[shared:] for ids in prompts]
        self._llama.reserve(shared + max(DECODE_TOKENS, *(len(rest) for rest in rests)))
        for _ in self._llama.decode([prompts[0][:shared]], [0], [0], [np.zeros(shared, bool)]):
            pass  # no logits are wanted of it
        answers = np.empty((len(prompts), len(options[0])), np.float32)
        self.seconds = np.full(len(prompts), (time.perf_counter() - begun) / len(prompts))
        for group in _groups([len(rest) for rest in rests], SEQUENCES - 1):
            begun = time.perf_counter()
            slots = range(1, len(group) + 1)  # sequence 0 holds the shared prefix
            for slot in slots:
                self._llama.share(shared, slot)
            fed = [rests[index] for index in group]
            for rows, logits in self._llama.decode(fed, slots, [shared] * len(group), [last(rest) for rest in fed]):
                for row, row_logits in zip(rows, logits, strict=True):
                    index = group[row]
                    answers[index] = logprobs(row_logits, options[index])
            for slot in slots:
                self._llama.forget(slot)
            self.seconds[group] += (time.perf_counter() - begun) / len(group)
        return answers

    def generate(
        self,
        prompts: Sequence[np.ndarray],
        max_new_tokens: int,
        stop_ids: Sequence[int],
        ended: Callable[[list[int]], bool] = lambda answer: False,
    ) -> list[list[int]]:
        """See `Runtime.generate`. A finished answer's place is taken by the next prompt at once; `ended` may end one
        by what it has said so far.

        Raises UserError if a prompt and its answer can be longer than the context.
        """
        self._check(prompts, max_new_tokens)
        longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
        places = max(1, min(PARALLEL, len(prompts), self.batch_tokens // longest))
        self._llama.reserve(places * longest)
        answers: list[list[int]] = [[] for _ in prompts]
        self.seconds = np.zeros(len(prompts))
        waiting, running, free = deque(range(len(prompts))), dict[int, int](), list(range(places))
        while waiting or running:
            begun = time.perf_counter()
            # One new token of every running answer, and all tokens of the prompts that get a free place.
            fed = [np.array(answers[index][-1:], np.int32) for index in running.values()]
            starts = [len(prompts[index]) + len(answers[index]) - 1 for index in running.values()]
            while waiting and free:
                index = waiting.popleft()
                running[free.pop()] = index
                fed.append(prompts[index])
                starts.append(0)
            slots = list(running)
            for rows, logits in self._llama.decode(fed, slots, starts, [last(ids) for ids in fed]):
                for row, token in zip(rows, logits.argmax(axis=1).tolist(), strict=True):
                    index = running[slots[row]]
                    if token not in stop_ids:
                        answers[index].append(token)
                    if token in stop_ids or len(answers[index]) == max_new_tokens or ended(answers[index]):
                        self._llama.forget(slots[row])
                        free.append(slots[row])
            self.seconds[list(running.values())] += (time.perf_counter() - begun) / len(running)
            running = {slot: index for slot, index in running.items() if slot not in free}
        return answers

    def stream(
        self, prompt: np.ndarray, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> tuple[list[int], float, float]:
        """See `Runtime.stream`."""
        self._check([prompt], max_new_tokens)
        self._llama.reserve(len(prompt) + max_new_tokens)
        begun = time.perf_counter()
        token = self._llama.take_in(prompt)
        first = time.perf_counter() - begun
        answer: list[int] = []
        while token not in stop_ids:
            answer.append(token)
            if len(answer) == max_new_tokens:
                break
            token = int(self._llama.step(token, len(prompt) + len(answer) - 1)[0])
        return answer, first, time.perf_counter() - begun

    def prefill(self, ids: np.ndarray) -> float:
        """See `Runtime.prefill`."""
        self._check([ids])
        self._llama.reserve(len(ids))
        begun = time.perf_counter()
        self._llama.take_in(ids)
        return time.perf_counter() - begun

    def decode(self, ids: np.ndarray, tokens: int, sequences: int = 1) -> list[float]:
        """See `Runtime.decode`. Raises UserError if `ids` and `tokens` are longer than the context."""
        self._check([ids], tokens)
        self._llama.reserve(len(ids) + sequences * tokens)
        slots = np.arange(sequences, dtype=np.int32)
        token: np.ndarray | int = self._llama.take_in(ids)
        for slot in slots[1:]:
            self._llama.share(len(ids), int(slot))
        times = [time.perf_counter()]
        for position in range(len(ids), len(ids) + tokens):
            token = self._llama.step(token, position, slots)
            times.append(time.perf_counter())
        return np.diff(times).tolist()

    def gpu_memory(self) -> dict[str, float]:
        """See `Runtime.gpu_memory`; nothing where nothing runs on a GPU.

        llama.cpp counts none, so it is what is less free on the GPU than before the model was loaded: what it has set
        aside, which it keeps. All of it is in use, so both numbers are the same.
        """
        if self._gpu is None:
            return {}
        taken = max(0.0, self._free_before - self._gpu.free_mb())
        return {"peak_gpu_memory_mb": taken, "peak_gpu_memory_reserved_mb": taken}

    def gpu_clock(self) -> None:
        """See `Runtime.gpu_clock`: what is evaluated runs on no GPU."""
        return None

    def _score_together(
        self, group: list[Target], fed: list[np.ndarray], top_k: int, tail_samples: int
    ) -> list[Scores]:
        """Scores of targets that share one run through the model."""
        self._llama.reserve(sum(len(ids) for ids in fed))
        logits_at = [target.scored[1 : len(ids) + 1] for target, ids in zip(group, fed, strict=True)]
        asked = Rows.of(group, top_k, tail_samples)
        parts: list[Scores] = []
        done = 0
        for rows, logits in self._llama.decode(fed, range(len(group)), [0] * len(group), logits_at):
            step = max(1, CHUNK_ELEMENTS // self.vocabulary)
            chunks = [slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
            places = [slice(done + chunk.start, done + chunk.stop) for chunk in chunks]
            parts += self._pool.map(score_rows, [logits[c] for c in chunks], [asked[place] for place in places])
            done += len(rows)
        return per_target(parts or [score_rows(np.empty((0, self.vocabulary), np.float32), asked)], group)

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


def _groups(lengths: Sequence[int], sequences: int) -> list[list[int]]:
    """Indices of what shares one run through the model: DECODE_TOKENS tokens, at most `sequences` sequences."""
    batches = length_batches(lengths, DECODE_TOKENS)
    return [batch[at : at + sequences] for batch in batches for at in range(0, len(batch), sequences)]
