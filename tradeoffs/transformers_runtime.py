"""The transformers side of `evaluate.runtime.Runtime`: any causal model, plain, quantised or with an adapter."""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from tradeoffs.common import cores
from tradeoffs.common.batching import halved, length_batches
from tradeoffs.evaluate import torch_weights
from tradeoffs.evaluate.runtime import Rows, Scores, Target, common_prefix, per_target
from tradeoffs.evaluate.torch_scores import observe
from tradeoffs.models.forward import auto_batch, fits, gpu_rise, logits_only_at
from tradeoffs.plumbing.errors import UserError

# Logits held at once, in numbers: 64 MB in float32, whatever the vocabulary. What is computed from them takes about
# six times as much.
LOGITS = 16_000_000


class TransformersRuntime:
    """`batch_tokens` bounds a batch, padding included; `pad_id` fills rows and is never attended to.

    With "auto" it follows from the model's shape and the machine's memory. Where a batch does not fit after all, it is
    halved, and stays so. Virtual tokens (prompt tuning, P-tuning, prefix tuning) are computed once: every sequence
    begins with their keys and values in its cache, and `context` is what they leave of the model's.
    """

    name = "transformers"

    def __init__(self, model: PreTrainedModel, batch_tokens: int | Literal["auto"], pad_id: int):
        # Of itself torch heeds the affinity of its process, not what its control groups pay for.
        if cores.usable() < torch.get_num_threads():
            torch.set_num_threads(cores.usable())
        self.pad_id, self.size_mb = pad_id, torch_weights.held_mb(model)
        self.on = next(model.parameters()).device
        self.device = torch.cuda.get_device_name(self.on) if self.on.type == "cuda" else "cpu"
        adapter = getattr(model, "active_peft_config", None)
        # Where such an adapter begins is found in the ids of one forward, so all of a sequence must be in it.
        self._whole_rows = bool(getattr(adapter, "alora_invocation_tokens", None))
        self._first: DynamicCache | None = None
        self.model: Any = model.eval()
        self._whole = model  # with its adapter, also where that is no part of `model`
        if adapter is not None and adapter.is_prompt_learning:
            self.model, self._first = self.model.get_base_model(), virtual_cache(model)
        self.virtual = self._first.get_seq_length() if self._first else 0
        self.context: int = model.config.get_text_config().max_position_embeddings - self.virtual
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.batch_tokens = self._auto_batch() if batch_tokens == "auto" else batch_tokens

    @cached_property
    def shapes(self) -> str:
        """See `Runtime.shapes`."""
        return torch_weights.shapes(self._whole, self.name, self.device)

    @torch.inference_mode()
    def score(self, targets: Sequence[Target], top_k: int = 0, tail_samples: int = 0) -> list[Scores]:
        self._check_lengths([len(target.ids) for target in targets])
        found: list[Scores] = [None] * len(targets)  # type: ignore[list-item]

        def work(batch: list[int]) -> None:
            for part in self._few_logits(batch, targets):
                some = [targets[index] for index in part]
                asked, done = Rows.of(some, top_k, tail_samples), 0
                scores = []
                for logits in self._scored_logits(some):
                    scores.append(observe(logits, asked[done : done + len(logits)]))
                    done += len(logits)
                for index, one in zip(part, per_target(scores, some), strict=True):
                    found[index] = one

        self._in_batches([len(target.ids) for target in targets], work, "score")
        return found

    @torch.inference_mode()
    def choose(self, prompts: Sequence[np.ndarray], options: Sequence[np.ndarray]) -> np.ndarray:
        self._check_lengths([len(ids) for ids in prompts])
        begun = self._now()
        shared = 0 if self._whole_rows else common_prefix(prompts)
        prefix = self._cache(1)
        if shared:
            ids = torch.from_numpy(np.asarray(prompts[0][:shared], np.int64))[None].to(self.on)
            with logits_only_at(self.model, torch.zeros_like(ids, dtype=torch.bool)):
                self.model(input_ids=ids, past_key_values=prefix, use_cache=True)
        found = np.zeros((len(prompts), len(options[0])), np.float32)
        before = self._now() - begun

        def work(batch: list[int]) -> None:
            ids, mask = self._pad([prompts[index][shared:] for index in batch])
            last = mask.sum(1, keepdim=True) - 1 == torch.arange(ids.shape[1], device=self.on)
            cache = copy.deepcopy(prefix)
            cache.batch_repeat_interleave(len(batch))
            with logits_only_at(self.model, last):
                logits = self.model(
                    input_ids=ids, attention_mask=_before(mask, self.virtual + shared, 1), past_key_values=cache
                ).logits
            logprob = logits.float().log_softmax(-1).cpu().numpy()
            for row, index in enumerate(batch):
                found[index] = logprob[row, options[index]]

        # Each prompt of a batch holds a copy of the shared part in its cache, so its whole length counts.
        self._in_batches([len(ids) for ids in prompts], work)
        self.seconds += before / len(prompts)
        return found

    @torch.inference_mode()
    def generate(self, prompts: Sequence[np.ndarray], max_new_tokens: int, stop_ids: Sequence[int]) -> list[list[int]]:
        lengths = [len(ids) + max_new_tokens for ids in prompts]
        self._check_lengths(lengths)
        found: list[list[int]] = [[] for _ in prompts]

        def work(batch: list[int]) -> None:
            inputs = self._to_go_on([prompts[index] for index in batch])
            out = self.model.generate(**inputs, generation_config=self._greedy(max_new_tokens, stop_ids))
            for index, answer in zip(batch, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                end = next((at for at, token in enumerate(answer) if token in stop_ids), len(answer))
                found[index] = answer[:end]

        self._in_batches(lengths, work, "generate")
        return found

    @torch.inference_mode()
    def stream(
        self, prompt: np.ndarray, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> tuple[list[int], float, float]:
        config, risen = self._greedy(max_new_tokens, stop_ids), gpu_rise(self.on)
        inputs, clock = self._to_go_on([prompt]), _TokenClock(stop_ids)
        self.model.generate(**inputs, generation_config=config, streamer=clock)
        took, self.answer_gpu_mb = time.perf_counter() - clock.begun, risen()
        return clock.tokens, clock.first - clock.begun, took

    @torch.inference_mode()
    def prefill(self, ids: np.ndarray) -> float:
        begun = self._now()
        self._step(torch.from_numpy(np.asarray(ids, np.int64))[None].to(self.on), self._cache(1))
        return self._now() - begun

    @torch.inference_mode()
    def decode(self, ids: np.ndarray, tokens: int, sequences: int = 1) -> list[float]:
        times: list[float] = []

        def work(batch: list[int]) -> None:
            cache = self._cache(len(batch))
            last = self._step(torch.from_numpy(np.tile(np.asarray(ids, np.int64), (len(batch), 1))).to(self.on), cache)
            times.append(self._now())
            for _ in range(tokens):
                last = self._step(last, cache)
                times.append(self._now())  # with a GPU it waits for each token, as who shows them one by one does

        if not fits(partial(work, list(range(sequences)))):
            raise UserError(f"out of memory on {self.device} with {sequences} sequences of {len(ids) + tokens} tokens")
        return np.diff(times).tolist()

    def gpu_memory(self) -> dict[str, float]:
        if self.on.type != "cuda":
            return {}
        return {
            "peak_gpu_memory_mb": torch.cuda.max_memory_allocated(self.on) / 1e6,
            "peak_gpu_memory_reserved_mb": torch.cuda.max_memory_reserved(self.on) / 1e6,
        }

    def gpu_clock(self) -> Callable[[], float] | None:
        if self.on.type != "cuda":
            return None
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()

        def read() -> float:
            ended.record()
            ended.synchronize()
            return begun.elapsed_time(ended) / 1000

        return read

    def _cache(self, sequences: int) -> DynamicCache:
        """Keys and values that so many sequences begin with: none, or those of the virtual tokens."""
        if self._first is None:
            return DynamicCache(config=self.model.config)
        cache = copy.deepcopy(self._first)
        cache.batch_repeat_interleave(sequences)
        return cache

    def _step(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """The greedy next tokens after `ids` (sequences, length), shape (sequences, 1); the cache grows."""
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1:].argmax(-1)

    def _greedy(self, max_new_tokens: int, stop_ids: Sequence[int]) -> GenerationConfig:
        # A fresh one: a checkpoint's own generation_config may ask for sampling or penalties.
        return GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stop_ids), pad_token_id=self.pad_id
        )

    def _to_go_on(self, prompts: Sequence[np.ndarray]) -> dict[str, Any]:
        """What `generate` takes to go on from each prompt."""
        # Left padding: generation goes on from the last position, which must be text.
        ids, mask = self._pad(prompts, left=True)
        if not self.virtual:
            return {"input_ids": ids, "attention_mask": mask}
        # It skips as many ids as the cache holds, whatever they are.
        return {
            "input_ids": _before(ids, self.virtual, self.pad_id),
            "attention_mask": _before(mask, self.virtual, 1),
            "past_key_values": self._cache(len(prompts)),
        }

    def _pad(self, sequences: Sequence[np.ndarray], left: bool = False) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, both int64 (sequences, longest)."""
        width = max(len(ids) for ids in sequences)
        ids = torch.full((len(sequences), width), self.pad_id)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            place = slice(width - len(sequence), width) if left else slice(len(sequence))
            ids[row, place] = torch.from_numpy(np.asarray(sequence, np.int64))
            mask[row, place] = 1
        return ids.to(self.on), mask.to(self.on)

    def _auto_batch(self) -> int:
        """By the keys and values of a token in all layers and the activations of one, at their widest."""
        config = self.model.config.get_text_config()
        width, layers = config.hidden_size, config.num_hidden_layers
        wide = getattr(config, "intermediate_size", None) or 4 * width
        per_token = (2 * layers * width + 24 * width + 6 * wide) * self.model.dtype.itemsize
        return auto_batch(per_token, self.on, weights=self.size_mb * 1e6)

    def _in_batches(self, lengths: Sequence[int], work: Callable[[list[int]], None], what: str | None = None) -> None:
        """Calls `work` with the indices of sequences of similar length, batch by batch; `what` names the progress bar.
        `seconds` are then those of each sequence: of its batch an equal share.

        Raises UserError if even one sequence does not fit the memory.
        """
        lengths = [length + self.virtual for length in lengths]
        waiting = deque(length_batches(lengths, self.batch_tokens))
        self.seconds = np.zeros(len(lengths))
        with tqdm(total=len(lengths), desc=what, leave=False, disable=None if what else True) as bar:
            while waiting:
                batch, begun = waiting.popleft(), self._now()
                if fits(partial(work, batch)):
                    self.seconds[batch] = (self._now() - begun) / len(batch)
                    bar.update(len(batch))
                    continue
                if len(batch) == 1:
                    raise UserError(
                        f"out of memory on {self.device} with one sequence of {lengths[batch[0]]} tokens alone"
                    )
                self.batch_tokens = halved(batch, lengths)
                bar.write(f"out of memory: batches of {self.batch_tokens} tokens from here on")
                rest = [index for some in (batch, *waiting) for index in some]
                waiting = deque(
                    [rest[i] for i in some] for some in length_batches([lengths[i] for i in rest], self.batch_tokens)
                )

    def _few_logits(self, batch: list[int], targets: Sequence[Target]) -> Iterator[list[int]]:
        """A batch in parts whose scored rows of logits stay within LOGITS, where one sequence does."""
        part: list[int] = []
        held = 0
        for index in batch:
            rows = int(targets[index].scored.sum())
            if part and (held + rows) * self.vocabulary > LOGITS:
                yield part
                part, held = [], 0
            part.append(index)
            held += rows
        yield part

    def _scored_logits(self, targets: Sequence[Target]) -> Iterator[Tensor]:
        """The rows of logits that predict the targets' scored tokens, in order; (some rows, vocabulary) at a time.

        Of a single sequence that has too many, piece by piece of its length, with what came before in the cache.
        """
        ids, mask = self._pad([target.ids for target in targets])
        wanted = torch.zeros_like(mask, dtype=torch.bool)
        for row, target in enumerate(targets):
            # Scored token i is predicted at position i - 1.
            wanted[row, : len(target.ids) - 1] = torch.from_numpy(target.scored[1:])
        length = ids.shape[1]
        few = len(targets) > 1 or int(wanted.sum()) * self.vocabulary <= LOGITS
        if few or self._whole_rows:
            first = {"past_key_values": self._cache(len(targets))} if self.virtual else {"use_cache": False}
            with logits_only_at(self.model, wanted):
                mask = _before(mask, self.virtual, 1)
                yield self.model(input_ids=ids, attention_mask=mask, **first).logits
            return
        cache, piece = self._cache(1), LOGITS // self.vocabulary
        for start in range(0, length, piece):
            part = slice(start, start + piece)
            with logits_only_at(self.model, wanted[:, part]):
                yield self.model(input_ids=ids[:, part], past_key_values=cache, use_cache=True).logits

    def _check_lengths(self, lengths: Sequence[int]) -> None:
        if max(lengths) > self.context:
            beside = f" beside {self.virtual} virtual tokens" if self.virtual else ""
            raise UserError(
                f"a sequence of {max(lengths)} tokens does not fit the model's context of "
                f"{self.context + self.virtual}{beside}; "
                "lower tokenize.max_length, tokenize.window, evaluate.max_new_tokens or evaluate.mmlu.shots"
            )

    def _now(self) -> float:
        if self.on.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@torch.inference_mode()
def virtual_cache(model: Any) -> DynamicCache:
    """Keys and values of a prompt-learning PeftModel's virtual tokens, of one sequence.

    Attention is causal, so they are the same whatever text follows. Prefix tuning has trained them themselves; in
    prompt tuning and P-tuning they are what the model makes of the embeddings that were trained.
    """
    trained = model.get_prompt(batch_size=1)
    if isinstance(trained, DynamicCache):
        return trained
    base = model.get_base_model()
    embeddings = trained.to(base.get_input_embeddings().weight.dtype)
    return base(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1).past_key_values


def _before(rows: Tensor, count: int, value: int) -> Tensor:
    """Rows (n, length) with `count` columns of `value` before them."""
    return torch.nn.functional.pad(rows, (count, 0), value=value)


class _TokenClock(BaseStreamer):
    """Collects a generation's tokens and notes when the first one was there."""

    def __init__(self, stop_ids: Sequence[int]):
        self.begun, self.first = time.perf_counter(), 0.0
        self.tokens: list[int] = []
        self._stop, self._prompt_seen = set(stop_ids), False

    def put(self, value: Tensor) -> None:
        if not self._prompt_seen:  # generate() hands over the prompt first
            self._prompt_seen = True
            return
        self.first = self.first or time.perf_counter()
        self.tokens += [token for token in value.flatten().tolist() if token not in self._stop]

    def end(self) -> None:
        pass
