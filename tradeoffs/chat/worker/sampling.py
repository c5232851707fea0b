"""The next token of an answer, from its logits: the most likely one, or one drawn."""

import numpy as np

from tradeoffs.chat.messages import Asked


class Sampler:
    """Draws the tokens of one answer. The same seed and logits give the same tokens, whatever runs beside it."""

    def __init__(self, asked: Asked) -> None:
        self._temperature, self._top_p = asked.temperature, asked.top_p
        self._random = np.random.default_rng(asked.seed)

    def pick(self, logits: np.ndarray) -> int:
        """A token id, by logits float32 (vocabulary,)."""
        if not self._temperature:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self._temperature
        weights = np.exp(scaled - scaled.max())
        order = np.argsort(-weights, kind="stable")
        below = np.cumsum(weights[order])
        # The fewest of the most likely tokens that have top_p of the mass together.
        count = int(np.searchsorted(below, self._top_p * below[-1])) + 1
        drawn = self._random.random() * below[min(count, len(below)) - 1]
        return int(order[np.searchsorted(below, drawn, side="right").clip(max=len(below) - 1)])


def logprobs(logits: np.ndarray, ids: list[int]) -> list[float]:
    """Natural log-probabilities of some tokens, by logits float32 (vocabulary,)."""
    highest = float(logits.max())
    total = highest + float(np.log(np.exp(logits - highest, dtype=np.float64).sum()))
    return [float(logits[one]) - total for one in ids]
