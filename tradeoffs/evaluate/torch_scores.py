"""Scores from the rows of logits that a torch model computes; those of llama.cpp: tradeoffs/llama_cpp/scores.py."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tradeoffs.evaluate.runtime import Rows, Scores


def observe(logits: Tensor, asked: Rows) -> Scores:
    """Scores from rows of logits, (n, vocabulary) of any float type, of which `asked` says what is wanted."""
    logits = logits.float()
    top = logits.max(-1, keepdim=True)
    mass = (logits - top.values).exp_()
    # Sums in float64: the divergence of a good quant is 1e-6, below what a float32 sum over a vocabulary resolves.
    log_total = mass.sum(-1, dtype=torch.float64).log()

    def logprob(ids: Tensor) -> np.ndarray:
        return _numpy((logits.gather(1, ids) - top.values).double() - log_total[:, None])

    def tensor(ids: np.ndarray | None) -> Any:
        return None if ids is None else torch.from_numpy(np.asarray(ids, np.int64)).to(logits.device)

    true, at, samples = tensor(asked.true), tensor(asked.at), tensor(asked.samples)
    found: dict[str, Any] = {"logprob": logprob(true[:, None])[:, 0], "argmax": _numpy(top.indices[:, 0], np.int32)}
    if asked.top_k:
        at = logits.topk(min(asked.top_k, logits.shape[1])).indices
        found["at_ids"] = _numpy(at, np.int32)
    if at is not None:
        # The tail is summed by itself: 1 - (mass of the k) would cancel to nothing. What float32 cannot hold counts as
        # its smallest normal number, so that the logarithm is finite.
        mass.scatter_(1, at, 0.0)
        outside = mass.sum(-1, dtype=torch.float64).clamp_min(torch.finfo(torch.float32).tiny)
        found |= {"at_logprob": logprob(at), "tail": _numpy(outside.log() - log_total)}
    if asked.uniforms is not None:
        samples = _draw(mass, torch.from_numpy(asked.uniforms).to(logits.device))
        found["sample_ids"] = _numpy(samples, np.int32)
    if samples is not None:
        found["sample_logprob"] = logprob(samples)
    return Scores(**found)


def _draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Columns drawn by weight; weights (rows, columns), uniforms (rows, m), one per draw -> (rows, m)."""
    below = weights.cumsum(-1, dtype=torch.float64)
    found = torch.searchsorted(below, uniforms * below[:, -1:], right=True)
    return found.clamp_max(weights.shape[1] - 1)  # where no weight is left at all


def _numpy(tensor: Tensor, dtype: type = np.float32) -> np.ndarray:
    return tensor.cpu().numpy().astype(dtype)
