"""Scores from the rows of logits that llama.cpp computes; those of torch: tradeoffs/evaluate/torch_scores.py."""

import numpy as np

from tradeoffs.evaluate.runtime import Rows, Scores


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


def logprobs(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of some tokens by one row of logits; float32 (ids,)."""
    highest = logits.max()
    return logits[ids] - float(highest + np.log(np.exp(logits - highest).sum(dtype=np.float64)))
