"""The transformers side of tradeoffs.runtime.Runtime: any causal model, plain, quantised or with an adapter."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from tradeoffs.errors import UserError
from tradeoffs.runtime import Scores, Target, common_prefix, length_batches

# Logits held at once, in numbers: 128 MB in float32, whatever the vocabulary.
LOGITS = 32_000_000


class TransformersRuntime:
    """`batch_tokens` bounds a batch, padding included; `pad_id` fills rows and is never attended to."""

    name = "transformers"

    def __init__(self, model: PreTrainedModel, batch_tokens: int, pad_id: int):
        self.model, self.batch_tokens, self.pad_id = model.eval(), batch_tokens, pad_id
        self.on = next(model.parameters()).device
        self.device = torch.cuda.get_device_name(self.on) if self.on.type == "cuda" else "cpu"
        self.context: int = model.config.get_text_config().max_position_embeddings
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.size_mb = held_mb(model)

    @torch.inference_mode()
    def score(self, targets: Sequence[Target], top_k: int = 0) -> list[Scores]:
        self._check_lengths([len(target.ids) for target in targets])
        found: list[Scores] = [None] * len(targets)  # type: ignore[list-item]
        for batch in tqdm(list(self._batches(targets)), desc="score", leave=False):
            ids, mask = self._pad([targets[index].ids for index in batch])
            wanted = torch.zeros_like(mask, dtype=torch.bool)
            for row, index in enumerate(batch):
                # Scored token i is predicted at position i - 1.
                wanted[row, : len(targets[index].ids) - 1] = torch.from_numpy(targets[index].scored[1:])
            with self._logits_only_at(wanted):
                logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            counts = [int(targets[index].scored.sum()) for index in batch]
            for index, rows in zip(batch, logits.split(counts), strict=True):
                found[index] = observe(rows, targets[index], top_k)
        return found

    @torch.inference_mode()
    def choose(self, prompts: Sequence[np.ndarray], options: Sequence[np.ndarray]) -> np.ndarray:
        self._check_lengths([len(ids) for ids in prompts])
        shared = common_prefix(prompts)
        prefix = None
        if shared:
            ids = torch.from_numpy(np.asarray(prompts[0][:shared], np.int64))[None].to(self.on)
            with self._logits_only_at(torch.zeros_like(ids, dtype=torch.bool)):
                prefix = self.model(input_ids=ids, use_cache=True).past_key_values
        found = np.zeros((len(prompts), len(options[0])), np.float32)
        for batch in length_batches([len(ids) for ids in prompts], self.batch_tokens):
            ids, mask = self._pad([prompts[index][shared:] for index in batch])
            last = mask.sum(1, keepdim=True) - 1 == torch.arange(ids.shape[1], device=self.on)
            cache = None
            if prefix is not None:
                cache = copy.deepcopy(prefix)
                cache.batch_repeat_interleave(len(batch))
            seen = torch.ones(len(batch), shared, dtype=mask.dtype, device=self.on)
            with self._logits_only_at(last):
                logits = self.model(
                    input_ids=ids, attention_mask=torch.cat([seen, mask], 1), past_key_values=cache
                ).logits
            logprob = logits.float().log_softmax(-1).cpu().numpy()
            for row, index in enumerate(batch):
                found[index] = logprob[row, options[index]]
        return found

    @torch.inference_mode()
    def generate(self, prompts: Sequence[np.ndarray], max_new_tokens: int, stop_ids: Sequence[int]) -> list[list[int]]:
        self._check_lengths([len(ids) + max_new_tokens for ids in prompts])
        found: list[list[int]] = [[] for _ in prompts]
        batches = length_batches([len(ids) + max_new_tokens for ids in prompts], self.batch_tokens)
        for batch in tqdm(batches, desc="generate", leave=False):
            # Left padding: generation goes on from the last position, which must be text.
            ids, mask = self._pad([prompts[index] for index in batch], left=True)
            config = self._greedy(max_new_tokens, stop_ids)
            out = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            for index, answer in zip(batch, out[:, ids.shape[1] :].tolist(), strict=True):
                end = next((at for at, token in enumerate(answer) if token in stop_ids), len(answer))
                found[index] = answer[:end]
        return found

    @torch.inference_mode()
    def stream(
        self, prompt: np.ndarray, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> tuple[list[int], float, float]:
        ids, mask = self._pad([prompt])
        clock = _TokenClock(stop_ids)
        self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=self._greedy(max_new_tokens, stop_ids),
            streamer=clock,
        )
        return clock.tokens, clock.first - clock.begun, time.perf_counter() - clock.begun

    @torch.inference_mode()
    def prefill(self, ids: np.ndarray) -> float:
        begun = self._now()
        self._step(
            torch.from_numpy(np.asarray(ids, np.int64))[None].to(self.on), DynamicCache(config=self.model.config)
        )
        return self._now() - begun

    @torch.inference_mode()
    def decode(self, ids: np.ndarray, tokens: int) -> float:
        cache = DynamicCache(config=self.model.config)
        last = self._step(torch.from_numpy(np.asarray(ids, np.int64))[None].to(self.on), cache)
        begun = self._now()
        for _ in range(tokens):
            last = self._step(last, cache)
        return self._now() - begun

    def peak_gpu_memory_mb(self) -> float | None:
        return torch.cuda.max_memory_allocated(self.on) / 1e6 if self.on.type == "cuda" else None

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

    def _step(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """The greedy next token after `ids`, shape (1, 1); the cache grows."""
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1:].argmax(-1)

    def _greedy(self, max_new_tokens: int, stop_ids: Sequence[int]) -> GenerationConfig:
        # A fresh one: a checkpoint's own generation_config may ask for sampling or penalties.
        return GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stop_ids), pad_token_id=self.pad_id
        )

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

    def _batches(self, targets: Sequence[Target]) -> Iterator[list[int]]:
        """Batches of similar length whose scored rows of logits stay within LOGITS, where one sequence does."""
        for batch in length_batches([len(target.ids) for target in targets], self.batch_tokens):
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

    @contextmanager
    def _logits_only_at(self, wanted: Tensor) -> Iterator[None]:
        """Within the block the model's output layer sees only the positions where `wanted` (batch, length) is true.

        The logits then have shape (true positions, vocabulary). What a model does to its logits afterwards (scaling,
        soft caps) still happens, since the model's own forward goes on with them.
        """
        handle = self.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][wanted],))
        try:
            yield
        finally:
            handle.remove()

    def _check_lengths(self, lengths: Sequence[int]) -> None:
        if max(lengths) > self.context:
            raise UserError(
                f"a sequence of {max(lengths)} tokens does not fit the model's context of {self.context}; "
                "lower tokenize.max_length, tokenize.window, evaluate.max_new_tokens or evaluate.mmlu.shots"
            )

    def _now(self) -> float:
        if self.on.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


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


def observe(logits: Tensor, target: Target, top_k: int) -> Scores:
    """Scores from the rows of logits that predict a target's scored tokens; logits (n, vocabulary), any float type."""
    logits = logits.float()
    true = torch.from_numpy(np.asarray(target.ids[target.scored], np.int64)).to(logits.device)
    top = logits.max(-1, keepdim=True)
    mass = (logits - top.values).exp()
    # Sums in float64: the divergence of a good quant is 1e-6, below what a float32 sum over a vocabulary resolves.
    log_total = mass.sum(-1, dtype=torch.float64).log()

    def logprob(ids: Tensor) -> Tensor:
        return (logits.gather(1, ids) - top.values).double() - log_total[:, None]

    at, at_ids = None, None
    if top_k:
        at = at_ids = logits.topk(min(top_k, logits.shape[1])).indices
    elif target.at is not None:
        at = torch.from_numpy(np.asarray(target.at, np.int64)).to(logits.device)
    found = Scores(_numpy(logprob(true[:, None])[:, 0]), _numpy(top.indices[:, 0], np.int32))
    if at is None:
        return found
    # The tail is summed by itself: 1 - (mass of the k) would cancel to nothing. What float32 cannot hold counts as its
    # smallest normal number, so that the logarithm is finite.
    outside = mass.scatter(1, at, 0.0).sum(-1, dtype=torch.float64).clamp_min(torch.finfo(torch.float32).tiny)
    tail = outside.log() - log_total
    return Scores(
        found.logprob,
        found.argmax,
        at_logprob=_numpy(logprob(at)),
        at_ids=None if at_ids is None else _numpy(at_ids, np.int32),
        tail=_numpy(tail),
    )


def held_mb(model: PreTrainedModel) -> float:
    """Weights as held in memory, in 1e6 bytes: parameters, buffers, and the scales that bitsandbytes keeps aside."""
    held = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}  # tied weights count once
    for parameter in model.parameters():
        for tensor in _scales(parameter):
            held[tensor.data_ptr()] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values()) / 1e6


def _scales(parameter: Tensor) -> Iterator[Tensor]:
    scales = getattr(parameter, "SCB", None)  # int8: one per row
    if isinstance(scales, Tensor):
        yield scales
    state = getattr(parameter, "quant_state", None)  # nf4: one per block, themselves quantised
    while state is not None:
        yield from (tensor for tensor in (state.absmax, state.code) if isinstance(tensor, Tensor))
        state = state.state2


def _numpy(tensor: Tensor, dtype: type = np.float32) -> np.ndarray:
    return tensor.cpu().numpy().astype(dtype)
