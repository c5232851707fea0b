"""What a value of a task of lm-evaluation-harness is of sums over its items: each item has a value and a weight."""

import math
from collections.abc import Callable

import numpy as np


def mean(sums: np.ndarray) -> np.ndarray:
    """Summed values over summed weights; sums (..., 2)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] != 0, sums[..., 0] / sums[..., 1], np.nan)


def perplexity(sums: np.ndarray) -> np.ndarray:
    """exp of the mean negative log-likelihood per unit (token, word, byte, document); sums (..., 2)."""
    return np.exp(-mean(sums))


def bits(sums: np.ndarray) -> np.ndarray:
    """Mean negative log-likelihood per unit, in bits; sums (..., 2)."""
    return -mean(sums) / math.log(2)


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"mean": mean, "perplexity": perplexity, "bits": bits}
