"""Metrics of what evaluation measured per item: likelihoods, divergence from the model as trained, multiple choice."""

import math

import numpy as np

from tradeoffs.metrics.registry import Metric, ratio, register


def loss(sums: np.ndarray) -> np.ndarray:
    """Mean negative log-likelihood in nats per token, from summed (log-likelihood, tokens)."""
    return -ratio(sums)


def perplexity(sums: np.ndarray) -> np.ndarray:
    """exp(loss), from summed (log-likelihood, tokens)."""
    return np.exp(loss(sums))


def bits_per_byte(sums: np.ndarray) -> np.ndarray:
    """Total nats / ln 2 / UTF-8 bytes, from summed (log-likelihood, bytes)."""
    return -ratio(sums) / math.log(2)


def sampling_error(sums: np.ndarray) -> np.ndarray:
    """Standard error per token of independent items, from summed (variance of an item's sum, tokens)."""
    return ratio(np.stack([np.sqrt(sums[..., 0]), sums[..., 1]], axis=-1))


register(
    Metric(
        "loss",
        "loss",
        "lower",
        "mean negative log-likelihood, nats per scored token",
        columns=("log_likelihood", "tokens"),
        of=loss,
        kind="likelihood",
        general=True,
        side_by_side=True,
    )
)
register(
    Metric(
        "perplexity",
        "perplexity",
        "lower",
        "exp(loss); compares only models that share a tokenizer",
        columns=("log_likelihood", "tokens"),
        of=perplexity,
        decimals=2,
        kind="likelihood",
    )
)
register(
    Metric(
        "token_accuracy",
        "token accuracy",
        "higher",
        "share of scored tokens that are the most likely one, given the true text before them",
        columns=("correct_tokens", "tokens"),
        kind="likelihood",
        after="bits_per_byte",
    )
)
register(
    Metric(
        "bits_per_byte",
        "bits per byte",
        "lower",
        "nats / ln 2 / UTF-8 bytes of the scored text; the one to compare across models",
        columns=("log_likelihood", "bytes"),
        of=bits_per_byte,
        kind="likelihood",
    )
)
register(
    Metric(
        "kld",
        "KLD",
        "lower",
        "KL(as trained || this format), nats per scored token: exact for the most likely tokens of the model as "
        "trained and the mass of all others; how that mass is spread among the others is estimated from a sample",
        columns=("kld", "tokens"),
        decimals=4,
        split="test",
        kind="ladder",
    )
)
register(
    Metric(
        "kld_tail",
        "KLD tail",
        "",
        "the part of KLD that is estimated, nats per scored token",
        columns=("kld_tail", "tokens"),
        split="test",
        stands="summary",
        kind="ladder",
        shown=False,
    )
)
register(
    Metric(
        "kld_error",
        "KLD error",
        "",
        "how large the standard error of KLD from that sampling is at most, nats per scored token",
        columns=("kld_variance", "tokens"),
        of=sampling_error,
        split="test",
        stands="value",
        kind="ladder",
        shown=False,
    )
)
register(
    Metric(
        "same_top_token",
        "same top token",
        "higher",
        "share of scored tokens whose most likely token is the same as in the model as trained",
        columns=("same_top", "tokens"),
        split="test",
        kind="ladder",
    )
)
register(
    Metric(
        "mmlu_accuracy",
        "MMLU",
        "higher",
        "share of multiple-choice questions whose right letter is the most likely of the four",
        columns=("correct", "items"),
        split="mmlu",
        right_or_wrong=True,
    )
)
