"""Kullback-Leibler divergence from a reference that kept its k most likely tokens and a sample of all others."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from tradeoffs.common import files
from tradeoffs.evaluate.runtime import Scores, Target
from tradeoffs.plumbing.errors import UserError

# A tail with less mass than this adds nothing to a divergence that anyone could measure.
NO_TAIL = 1e-30


@dataclass(frozen=True)
class Reference:
    """A distribution per scored token, cut down to its k most likely tokens; n scored tokens, natural logarithms.

    ids: int32 (n, k), most likely first. logprob: float32 (n, k). tail: float32 (n,), log of the mass of all other
    tokens. sample_ids: int32 (n, m), drawn from those others, each by its probability. sample_logprob: float32 (n, m).
    """

    ids: np.ndarray
    logprob: np.ndarray
    tail: np.ndarray
    sample_ids: np.ndarray
    sample_logprob: np.ndarray


@dataclass(frozen=True)
class Divergence:
    """KL(reference || model) per scored token, in nats; all float64 (n,).

    total: the unbiased estimate of the whole divergence. tail: the part of it that the samples contribute; what is left
    without it is exact for the top k and all others as one bucket, a lower bound (log-sum inequality, Cover and Thomas,
    Elements of Information Theory, theorem 2.7.1). variance: of `total`, from the sampling; at most this, since it is
    that of independent draws and these are stratified (runtime.uniforms).
    """

    total: np.ndarray
    tail: np.ndarray
    variance: np.ndarray


def kl_divergence(reference: Reference, scores: Scores) -> Divergence:
    """Divergence of a model whose scores are at the reference's ids and samples. Raises ValueError if they are not.

    KL(p || q) = sum over the k of p ln(p / q) + P ln(P / Q) + P KL(p / P || q / Q), the last one over the tail, whose
    mass is P in the reference and Q in the model. With r = (q / Q) / (p / P) that one is the mean of r - 1 - ln r under
    p / P: never negative, and of small variance where the models are alike (the estimator k3 of
    joschu.net/blog/kl-approx.html).
    """
    if scores.at_logprob is None or scores.tail is None or scores.sample_logprob is None:
        raise ValueError("these scores hold no log-probabilities at the reference's ids")
    if scores.at_logprob.shape != reference.logprob.shape:
        raise ValueError(f"the reference has shape {reference.logprob.shape}, the model {scores.at_logprob.shape}")
    p = np.concatenate([reference.logprob, reference.tail[:, None]], axis=1).astype(np.float64)
    q = np.concatenate([scores.at_logprob, scores.tail[:, None]], axis=1).astype(np.float64)
    coarse = (np.exp(p) * (p - q)).sum(axis=1)
    mass = np.exp(p[:, -1])
    log_ratio = (scores.sample_logprob - q[:, -1:]) - (reference.sample_logprob - p[:, -1:])
    # Where next to nothing is left for the tail its samples mean nothing, and could overflow.
    terms = np.where(mass[:, None] > NO_TAIL, np.expm1(log_ratio.clip(max=80)) - log_ratio, 0.0)
    tail = mass * terms.mean(axis=1)
    return Divergence(coarse + tail, tail, mass**2 * terms.var(axis=1, ddof=1) / terms.shape[1])


def save(path: Path, targets: Sequence[Target], scores: Sequence[Scores]) -> None:
    """What is kept of the distributions of some targets, and a fingerprint of the tokens they belong to."""
    kept = {"ids": "at_ids", "logprob": "at_logprob", "tail": "tail"}
    kept |= {name: name for name in ("sample_ids", "sample_logprob")}
    tensors = {name: np.concatenate([getattr(s, field) for s in scores]) for name, field in kept.items()}
    with files.new_file(path) as target:
        save_file(tensors, target, metadata={"tokens": fingerprint(targets)})


def load(path: Path, targets: Sequence[Target]) -> list[Reference]:
    """The reference of each target. Raises UserError if it was made for other tokens."""
    if not path.is_file():
        raise UserError(
            f"{path}: not found: the reference was made of fewer items; run `dvc repro`, which makes it anew"
        )
    with safe_open(path, framework="np") as file:
        if file.metadata()["tokens"] != fingerprint(targets):
            raise UserError(
                f"{path}: the reference was made for other tokens than these; make it anew with `dvc repro reference`"
            )
        kept = {field.name: file.get_tensor(field.name) for field in fields(Reference)}
    ends = np.cumsum([int(target.scored.sum()) for target in targets])[:-1]
    parts = {name: np.split(values, ends) for name, values in kept.items()}
    return [Reference(**{name: values[i] for name, values in parts.items()}) for i in range(len(targets))]


def fingerprint(targets: Sequence[Target]) -> str:
    digest = hashlib.sha256()
    for target in targets:
        digest.update(np.ascontiguousarray(target.ids, np.int32).tobytes())
        digest.update(np.packbits(target.scored).tobytes())
    return digest.hexdigest()
