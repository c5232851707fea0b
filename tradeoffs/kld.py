"""Kullback-Leibler divergence from a reference that kept only its k most likely tokens, and the file that holds it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from tradeoffs import files
from tradeoffs.errors import UserError
from tradeoffs.runtime import Scores, Target


@dataclass(frozen=True)
class TopK:
    """A reference distribution per scored token; n tokens, natural logarithms.

    ids: int32 (n, k), most likely first. logprob: float32 (n, k). tail: float32 (n,), log of the mass of all
    other tokens.
    """

    ids: np.ndarray
    logprob: np.ndarray
    tail: np.ndarray


def kl_divergence(reference: TopK, logprob: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """KL(reference || model) per scored token, in nats; float64 (n,).

    All tokens outside the reference's top k count as one bucket, so this is a lower bound of the full divergence
    (log-sum inequality, Cover and Thomas, Elements of Information Theory, theorem 2.7.1). `logprob` (n, k) and
    `tail` (n,) are the model's at the reference's ids. Raises ValueError if the shapes differ.
    """
    if logprob.shape != reference.logprob.shape:
        raise ValueError(f"the reference has shape {reference.logprob.shape}, the model {logprob.shape}")
    p = np.concatenate([reference.logprob, reference.tail[:, None]], axis=1).astype(np.float64)
    q = np.concatenate([logprob, tail[:, None]], axis=1).astype(np.float64)
    mass = np.exp(p)
    terms = np.zeros_like(p)
    with np.errstate(invalid="ignore"):  # -inf minus -inf where there is no tail, which `where` leaves out
        np.multiply(mass, p - q, out=terms, where=mass > 0)
    return terms.sum(axis=1)


def save(path: Path, targets: Sequence[Target], scores: Sequence[Scores]) -> None:
    """The top k of all targets of one split, in order, with a fingerprint of the tokens they belong to."""
    tensors = {
        "ids": np.concatenate([s.at_ids for s in scores]),
        "logprob": np.concatenate([s.at_logprob for s in scores]),
        "tail": np.concatenate([s.tail for s in scores]),
    }
    with files.new_file(path) as target:
        save_file(tensors, target, metadata={"tokens": fingerprint(targets)})


def load(path: Path, targets: Sequence[Target]) -> list[TopK]:
    """The reference of each target. Raises UserError if it was made for other tokens."""
    with safe_open(path, framework="np") as file:
        if file.metadata()["tokens"] != fingerprint(targets):
            raise UserError(
                f"{path}: the reference was made for other tokens than these; make it anew with `dvc repro reference`"
            )
        ids, logprob, tail = (file.get_tensor(name) for name in ("ids", "logprob", "tail"))
    ends = np.cumsum([int(target.scored.sum()) for target in targets])
    return [
        TopK(ids[end - n : end], logprob[end - n : end], tail[end - n : end])
        for end, n in zip(ends, (int(target.scored.sum()) for target in targets), strict=True)
    ]


def fingerprint(targets: Sequence[Target]) -> str:
    digest = hashlib.sha256()
    for target in targets:
        digest.update(np.ascontiguousarray(target.ids, np.int32).tobytes())
        digest.update(np.packbits(target.scored).tobytes())
    return digest.hexdigest()
