"""What each quality metric is: which item columns it sums up, how, which direction is better, and its definition.

Light on purpose: nothing but numpy, so that tables and gates can read it without a model library.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


def ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over second sum; sums (..., 2). Undefined (NaN) where the second is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] != 0, sums[..., 0] / sums[..., 1], np.nan)


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


def bleu(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU on 0..100 from summed counts (answer length, reference length, 4 matches, 4 totals); sums (..., 10).

    sacrebleu's BLEU with its defaults (exponential smoothing, order 4), as in sacrebleu.metrics.bleu.compute_bleu.
    """
    length, reference = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2:6], sums[..., 6:10]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        penalty = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        # The n-th order without a match counts as 1 / 2^n matches.
        smoothed = np.where(matches == 0, 0.5 ** np.cumsum(matches == 0, axis=-1), matches)
        score = 100 * penalty * np.exp(np.mean(np.log(smoothed / totals), axis=-1))
    defined = (matches.sum(axis=-1) > 0) & (totals > 0).all(axis=-1)
    return np.where(defined, score, 0.0)


@dataclass(frozen=True)
class Metric:
    """What a quality metric is made of and how it reads. `better` is "lower", "higher", or "" where neither is."""

    columns: tuple[str, ...]  # of an item; their sums go into `of`
    of: Callable[[np.ndarray], np.ndarray]
    better: str
    label: str
    definition: str


def mean_of(column: str, label: str, definition: str) -> Metric:
    return Metric((column, "items"), ratio, "higher", label, definition)


# Metrics of a split with scored tokens and answers; the report explains them in these words.
METRICS = {
    "loss": Metric(
        ("log_likelihood", "tokens"), loss, "lower", "loss", "mean negative log-likelihood, nats per scored token"
    ),
    "perplexity": Metric(
        ("log_likelihood", "tokens"),
        perplexity,
        "lower",
        "perplexity",
        "exp(loss); compares only models that share a tokenizer",
    ),
    "token_accuracy": Metric(
        ("correct_tokens", "tokens"),
        ratio,
        "higher",
        "token accuracy",
        "share of scored tokens that are the most likely one, given the true text before them",
    ),
    "bits_per_byte": Metric(
        ("log_likelihood", "bytes"),
        bits_per_byte,
        "lower",
        "bits per byte",
        "nats / ln 2 / UTF-8 bytes of the scored text; the one to compare across models",
    ),
    "f1": mean_of("f1", "F1", "SQuAD token F1 of answer and expected answer, 0 to 1"),
    "exact_match": mean_of(
        "exact_match", "exact match", "share of answers equal to the expected one, SQuAD normalisation"
    ),
    "bleu": Metric(
        tuple(f"bleu_{i}" for i in range(10)),
        bleu,
        "higher",
        "BLEU",
        "corpus BLEU of sacrebleu with its defaults, 0 to 100",
    ),
    "rouge_1": mean_of("rouge_1", "ROUGE-1", "F-measure of shared words (rouge-score, no stemming)"),
    "rouge_2": mean_of("rouge_2", "ROUGE-2", "F-measure of shared word pairs (rouge-score, no stemming)"),
    "rouge_l": mean_of("rouge_l", "ROUGE-L", "F-measure of the longest common subsequence (rouge-score, no stemming)"),
    "bertscore": mean_of(
        "bertscore", "BERTScore", "F1 of bert-score, not rescaled, on the embedding model's last layer"
    ),
    "cosine": mean_of("cosine", "cosine", "cosine of the sentence embeddings of answer and expected answer"),
}
# Metrics that stand once per variant, with the split they are taken from.
SINGLE = {
    "cosine_to_base": (
        "test",
        Metric(
            ("cosine_to_base", "items"),
            ratio,
            "",
            "cosine to base",
            "cosine of the answer and the untouched base model's own answer: how far the answers moved",
        ),
    ),
    "kld": (
        "test",
        Metric(
            ("kld", "tokens"),
            ratio,
            "lower",
            "KLD",
            "KL(as trained || this format), nats per scored token: exact for the most likely tokens of the model as "
            "trained and the mass of all others; how that mass is spread among the others is estimated from a sample",
        ),
    ),
    "kld_tail": (
        "test",
        Metric(
            ("kld_tail", "tokens"), ratio, "", "KLD tail", "the part of KLD that is estimated, nats per scored token"
        ),
    ),
    "kld_error": (
        "test",
        Metric(
            ("kld_variance", "tokens"),
            sampling_error,
            "",
            "KLD error",
            "how large the standard error of KLD from that sampling is at most, nats per scored token",
        ),
    ),
    "same_top_token": (
        "test",
        Metric(
            ("same_top", "tokens"),
            ratio,
            "higher",
            "same top token",
            "share of scored tokens whose most likely token is the same as in the model as trained",
        ),
    ),
    "mmlu_accuracy": (
        "mmlu",
        mean_of(
            "correct", "MMLU", "share of multiple-choice questions whose right letter is the most likely of the four"
        ),
    ),
}

# Shares of items that are either right or wrong, for which McNemar's test is made.
ACCURACIES = ("test_exact_match", "seen_exact_match", "mmlu_accuracy")


def metric(name: str) -> tuple[str, Metric]:
    """Split and definition of a quality metric by its name in metrics/quality.json, such as `test_f1` or `kld`."""
    if name in SINGLE:
        return SINGLE[name]
    split, _, kind = name.partition("_")
    return split, METRICS[kind]


def per_item(names: Sequence[str], rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Rows (rows, columns) that have one name added up: the names in order of appearance, and (names, columns)."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    found = np.zeros((len(places), rows.shape[1]))
    np.add.at(found, [places[name] for name in names], rows)
    return list(places), found
