"""The one interface behind which transformers and llama.cpp are measured: token ids in, numbers out.

No runtime tokenises or decodes text: both see the token ids that `tokenize` made, so a BOS more or less cannot differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Target:
    """One sequence to score. Scored token i is predicted by the logits at position i - 1.

    ids: int32 (length,). scored: bool (length,), scored[0] is False. at: int32 (scored tokens, k) or None; the
    token ids at which log-probabilities are wanted besides that of the true token.
    """

    ids: np.ndarray
    scored: np.ndarray
    at: np.ndarray | None = None


@dataclass(frozen=True)
class Scores:
    """What a runtime says about a target, per scored token in order; n scored tokens, natural logarithms.

    logprob: float32 (n,) of the true token. argmax: int32 (n,). at_logprob: float32 (n, k) at `Target.at`, or of the
    top k. at_ids: int32 (n, k), the top k, only when asked for. tail: float32 (n,), log of the mass outside those k.
    """

    logprob: np.ndarray
    argmax: np.ndarray
    at_logprob: np.ndarray | None = None
    at_ids: np.ndarray | None = None
    tail: np.ndarray | None = None


class Runtime(Protocol):
    name: str  # "transformers" or "llama.cpp"
    device: str  # "cpu" or the GPU's name
    context: int  # longest sequence, in tokens
    size_mb: float  # weights as they are held, in 1e6 bytes

    def score(self, targets: Sequence[Target], top_k: int = 0) -> list[Scores]:
        """Scores in the order of `targets`. With `top_k` > 0 the k most likely tokens take the place of `Target.at`."""
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

    def decode(self, ids: np.ndarray, tokens: int) -> float:
        """Seconds for `tokens` single-token steps after `ids`; taking in `ids` is not counted."""
        ...

    def peak_gpu_memory_mb(self) -> float | None:
        """Most GPU memory allocated so far, in 1e6 bytes; None where nothing runs on a GPU."""
        ...

    def gpu_clock(self) -> Callable[[], float] | None:
        """Starts a clock of GPU seconds and returns what reads it; None where nothing runs on a GPU."""
        ...


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of sequences of similar length, longest first, padded size of a batch at most `batch_tokens`.

    A sequence longer than `batch_tokens` is a batch of its own. Longest first: what does not fit in memory fails soon.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def common_prefix(sequences: Sequence[np.ndarray]) -> int:
    """Length of the longest common prefix of the token ids, at most one less than the shortest sequence.

    At least one token of each prompt is left over: its logits are the ones that are asked for.
    """
    shortest = min(len(ids) for ids in sequences)
    length = 0
    while length < shortest - 1 and all(ids[length] == sequences[0][length] for ids in sequences):
        length += 1
    return length
