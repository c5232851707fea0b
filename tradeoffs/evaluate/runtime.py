"""The one interface behind which transformers and llama.cpp are measured: token ids in, numbers out.

No runtime tokenises or decodes text: both see the token ids that `tokenize` made, so a BOS more or less cannot differ.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Target:
    """One sequence to score. Scored token i is predicted by the logits at position i - 1.

    ids: int32 (length,). scored: bool (length,), scored[0] is False; n tokens of it are true. at: int32 (n, k) or None;
    the token ids at which log-probabilities are wanted besides that of the true token. samples: int32 (n, m) or None;
    further such ids, which may repeat and do not count for `Scores.tail`.
    """

    ids: np.ndarray
    scored: np.ndarray
    at: np.ndarray | None = None
    samples: np.ndarray | None = None

    @property
    def true(self) -> np.ndarray:
        """The scored tokens; int32 (n,)."""
        return self.ids[self.scored]


@dataclass(frozen=True)
class Scores:
    """What a runtime says about a target, per scored token in order; n scored tokens, natural logarithms.

    logprob: float32 (n,) of the true token. argmax: int32 (n,). at_logprob: float32 (n, k) at `Target.at`, or of the
    top k. tail: float32 (n,), log of the mass outside those k. sample_logprob: float32 (n, m) at `Target.samples`, or
    at m tokens drawn from that tail. at_ids, sample_ids: int32, the top k and the drawn tokens, only when asked for.
    """

    logprob: np.ndarray
    argmax: np.ndarray
    at_logprob: np.ndarray | None = None
    at_ids: np.ndarray | None = None
    tail: np.ndarray | None = None
    sample_logprob: np.ndarray | None = None
    sample_ids: np.ndarray | None = None


@dataclass(frozen=True)
class Rows:
    """What is asked of rows of logits, one per scored token of one or several targets; a slice of it is Rows again.

    true: int32 (n,). at, samples: as in Target. top_k: how many of the most likely tokens are wanted in place of `at`.
    uniforms: float64 (n, m) in [0, 1) or None; each draws one token from the mass outside the top k.
    """

    true: np.ndarray
    at: np.ndarray | None
    samples: np.ndarray | None
    top_k: int
    uniforms: np.ndarray | None

    @classmethod
    def of(cls, targets: Sequence[Target], top_k: int, tail_samples: int) -> "Rows":
        drawn = np.concatenate([uniforms(t, tail_samples) for t in targets]) if top_k and tail_samples else None
        at, samples = (None if top_k else _joined([getattr(t, name) for t in targets]) for name in ("at", "samples"))
        return cls(np.concatenate([t.true for t in targets]), at, samples, top_k, drawn)

    def __getitem__(self, part: slice) -> "Rows":
        cut = [None if x is None else x[part] for x in (self.at, self.samples, self.uniforms)]
        return Rows(self.true[part], cut[0], cut[1], self.top_k, cut[2])

    def __len__(self) -> int:
        return len(self.true)


def uniforms(target: Target, count: int) -> np.ndarray:
    """float64 (scored tokens, count) in [0, 1): random, and the same for the same tokens in whatever batch.

    Stratified: one number in each of `count` equal parts, so that fewer of them say as much.
    """
    seed = zlib.crc32(np.ascontiguousarray(target.ids, np.int32).tobytes())
    draws = np.random.default_rng(seed).random((int(target.scored.sum()), count))
    return (np.arange(count) + draws) / count


def per_target(parts: Sequence[Scores], targets: Sequence[Target]) -> list[Scores]:
    """Scores of consecutive rows, put together and cut where one target ends and the next begins."""
    ends = np.cumsum([int(target.scored.sum()) for target in targets])[:-1]
    columns: dict[str, list[Any]] = {}
    for field in fields(Scores):
        whole = _joined([getattr(part, field.name) for part in parts])
        columns[field.name] = [None] * len(targets) if whole is None else np.split(whole, ends)
    return [Scores(**{name: values[i] for name, values in columns.items()}) for i in range(len(targets))]


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    return None if parts[0] is None else np.concatenate(parts)  # type: ignore[arg-type]


class Runtime(Protocol):
    name: str  # "transformers" or "llama.cpp"
    device: str  # "cpu" or the GPU's name
    context: int  # longest sequence, in tokens
    vocabulary: int
    size_mb: float  # the weights as they are held, in 1e6 bytes; no tokenizer, no other metadata
    # Of each sequence of the latest `choose` or `generate`, float64 (sequences,): by the clock, of every pass of the
    # model that it was in an equal share with the others in it. So all of them together are what the call took.
    seconds: np.ndarray
    # Of the latest `stream`, the peak of the GPU's memory above what was there before it, which is the weights; in 1e6
    # bytes, None where it ran on no GPU.
    answer_gpu_mb: float | None

    @property
    def shapes(self) -> str:
        """A digest of what decides the cost: two models that have the same one cost the same.

        Runtime and device, context, how the model is put together, and name, shape and type of all that it holds.
        """
        ...

    def score(self, targets: Sequence[Target], top_k: int = 0, tail_samples: int = 0) -> list[Scores]:
        """Scores in the order of `targets`.

        With `top_k` > 0 the k most likely tokens take the place of `Target.at`, and `tail_samples` tokens drawn from
        all others, each by its probability, that of `Target.samples`.
        """
        ...

    def choose(self, prompts: Sequence[np.ndarray], options: Sequence[np.ndarray]) -> np.ndarray:
        """Log-probability of each option token right after its prompt; float32 (prompts, options per prompt).

        The longest common prefix of the prompts' token ids is computed once and kept in the KV cache.
        """
        ...

    def generate(self, prompts: Sequence[np.ndarray], max_new_tokens: int, stop_ids: Sequence[int]) -> list[list[int]]:
        """Greedy answers, batched; the stop token is not part of them."""
        ...

    def stream(
        self, prompt: np.ndarray, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> tuple[list[int], float, float]:
        """One prompt alone: answer, seconds to the first token, seconds in all."""
        ...

    def prefill(self, ids: np.ndarray) -> float:
        """Seconds to take in one prompt of these ids from an empty cache."""
        ...

    def decode(self, ids: np.ndarray, tokens: int, sequences: int = 1) -> list[float]:
        """Seconds of each of `tokens` steps after `ids`, one token of every sequence; taking in `ids` is not counted.

        All `sequences` begin with `ids` and are decoded at the same time.
        """
        ...

    def gpu_memory(self) -> dict[str, float]:
        """Peaks in 1e6 bytes, `peak_gpu_memory_mb` (allocated) and `peak_gpu_memory_reserved_mb`; none on a CPU."""
        ...

    def gpu_clock(self) -> Callable[[], float] | None:
        """Starts a clock of GPU seconds and returns what reads it; None where nothing runs on a GPU."""
        ...


def common_prefix(sequences: Sequence[np.ndarray]) -> int:
    """Length of the longest common prefix of the token ids, at most one less than the shortest sequence.

    At least one token of each prompt is left over: its logits are the ones that are asked for.
    """
    shortest = min(len(ids) for ids in sequences)
    length = 0
    while length < shortest - 1 and all(ids[length] == sequences[0][length] for ids in sequences):
        length += 1
    return length
