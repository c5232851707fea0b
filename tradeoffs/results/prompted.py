"""The user's own prompts and what each variant said to them; nothing is expected of an answer, so nothing is scored."""

from dataclasses import dataclass

import numpy as np

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.results.reading import ANSWER_GPU
from tradeoffs.results.results import Results, require_same


@dataclass(frozen=True)
class Answer:
    """What a variant said to one of the user's prompts, alone (batch 1)."""

    text: str
    tokens: int
    latency_seconds: float
    ttft_seconds: float
    cosine_to_base: float | None  # None where the run list has no `base`
    gpu_mb: float | None  # peak of the GPU's memory while it answered, above the weights; None where it ran on no GPU

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.latency_seconds


def prompts(results: Results, pair: Pair) -> dict[str, str]:
    """The user's prompts by their ids. Raises UserError if the variants of a pair were not all asked the same."""
    asked = {}
    for variant in results.of(pair):
        mine = results.columns[variant]
        wanted = mine["split"] == "prompt"
        asked[variant] = dict(zip(mine["item"][wanted], mine["prompt"][wanted], strict=True))
    first, *others = asked
    for other in others:
        require_same("prompts", first, list(asked[first]), other, list(asked[other]))
    return asked[first]


def answers(results: Results, variant: Variant) -> dict[str, Answer]:
    """What a variant said to the user's prompts, by their ids."""
    mine = results.columns[variant]
    found = {}
    for row in np.flatnonzero(mine["split"] == "prompt"):
        cosine = mine["cosine_to_base"][row]
        gpu = mine[ANSWER_GPU][row] if ANSWER_GPU in mine else np.nan
        found[mine["item"][row]] = Answer(
            mine["generated"][row],
            int(mine["generated_tokens"][row]),
            float(mine["latency_seconds"][row]),
            float(mine["ttft_seconds"][row]),
            None if np.isnan(cosine) else float(cosine),
            None if np.isnan(gpu) else float(gpu),
        )
    return found
