"""The next token of an answer, from its logits: the most likely one, or one drawn."""

import numpy as np

from tradeoffs.chat.messages import Asked

LIKELY = 256  # of the most likely tokens, which mostly hold `top_p` of the mass: sorting all of 150,000 takes 10 ms


class BrokenError(Exception):
    """The logits are no numbers."""


class Sampler:
    """Draws the tokens of one answer. The same seed and logits give the same tokens, whatever runs beside it.

    What runs beside it may change the last digits of logits. They then rarely change what is drawn, since tokens lie
    side by side by their id, not by their weight, in which two of them would change places.
    """

    def __init__(self, asked: Asked) -> None:
        self._temperature, self._top_p = asked.temperature, asked.top_p
        self._random = np.random.default_rng(None if asked.seed is None else asked.seed % 2**64)

    def pick(self, logits: np.ndarray) -> int:
        """A token id, by logits float32 (vocabulary,). Raises BrokenError where they are no numbers."""
        likeliest = int(logits.argmax())  # of NaN, where there is one
        if not np.isfinite(logits[likeliest]):
            raise BrokenError
        if not self._temperature > 0:
            return likeliest
        ids, weights = self._kept(logits, logits[likeliest])
        below = np.cumsum(weights)
        at = int(np.searchsorted(below, self._random.random() * below[-1], side="right"))
        at = min(at, len(below) - 1)
        return int(at if ids is None else ids[at])

    def _kept(self, logits: np.ndarray, highest: np.floating) -> tuple[np.ndarray | None, np.ndarray]:
        """Ids, in order, and weights of what is drawn from: the fewest of the most likely tokens that have `top_p` of
        the mass together (Holtzman et al. 2020). None for all ids."""
        # The highest is taken off first: however low the temperature is, there is no infinity minus infinity.
        with np.errstate(over="ignore"):
            weights = np.exp((logits - highest).astype(np.float64) / self._temperature)
        if self._top_p >= 1:
            return None, weights
        total = weights.sum()
        for count in (LIKELY, len(weights)):
            count = min(count, len(weights))
            first = np.argpartition(-weights, count - 1)[:count]
            first = first[np.lexsort((first, -weights[first]))]
            below = np.cumsum(weights[first])
            enough = int(np.searchsorted(below, self._top_p * total)) + 1
            if enough <= count:
                break
        ids = np.sort(first[:enough])
        return ids, weights[ids]
