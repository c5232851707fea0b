"""Metrics of a generated answer against the expected one. Each follows the field's own implementation.

An empty answer to a non-empty expectation scores 0 in F1, exact match, ROUGE, BLEU and BERTScore. Its embedding is that
of the empty text, so its cosine is defined (and low).
"""

import json
import math
import re
import string
from collections import Counter
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tradeoffs.common.examples import picked
from tradeoffs.metrics.registry import Metric, per_answer, register

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
ROUGE = ("rouge1", "rouge2", "rougeL")


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces; the order of the official SQuAD evaluation script."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


@per_answer(
    Metric("f1", "F1", "higher", "SQuAD token F1 of answer and expected answer, 0 to 1", side_by_side=True),
)
def f1(answer: str, expected: str) -> float:
    """Token F1 of the official SQuAD 2.0 evaluation script: if either text has no token left, 1 when both have none."""
    ours, theirs = normalise(answer).split(), normalise(expected).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))  # = 2PR / (P + R)


@per_answer(
    Metric(
        "exact_match",
        "exact match",
        "higher",
        "share of answers equal to the expected one, SQuAD normalisation",
        right_or_wrong=True,
    )
)
def exact_match(answer: str, expected: str) -> float:
    return float(normalise(answer) == normalise(expected))


def exact_match_of(pattern: str, answer: str, expected: str) -> float:
    """Whether a data set's `answer_pattern` finds the same first in both, case aside; 0 where it finds nothing.

    Nothing else is normalised: punctuation, which SQuAD drops, is the sign and the point of a number.
    """
    ours, theirs = picked(pattern, answer), picked(pattern, expected)
    return float(ours is not None and theirs is not None and ours.casefold() == theirs.casefold())


@per_answer(
    Metric(
        "fields",
        "fields right",
        "higher",
        "where JSON is expected: share of the fields, expected or given, that both have with the same value",
        decimals=3,
        after="exact_match",
    )
)
def fields(answer: str, expected: str) -> float:
    """Of all (field, value) pairs' names in either object, how many have an equal value in both; 0 for no JSON object.

    A field too many counts as one wrong, so that guessing every field wins nothing. NaN where `expected` is no object,
    or one without fields.
    """
    wanted = _object(expected)
    if not wanted:
        return math.nan
    given = _object(answer) or {}
    names = wanted.keys() | given.keys()
    return sum(_written(wanted, name) == _written(given, name) for name in names) / len(names)


@per_answer(
    Metric(
        "valid_json",
        "valid JSON",
        "higher",
        "where JSON is expected: share of answers that are one JSON object and nothing else",
        right_or_wrong=True,
        after="fields",
    )
)
def valid_json(answer: str, expected: str) -> float:
    """Whether the answer is one JSON object by Python's own reader; NaN where `expected` is none."""
    return math.nan if _object(expected) is None else float(_object(answer) is not None)


def _written(fields: dict[str, Any], name: str) -> str:
    return json.dumps(fields[name], sort_keys=True) if name in fields else ""


@lru_cache(maxsize=2)  # of an answer and the expected one, which two metrics read
def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, or None; NaN and Infinity, which Python would read, are no JSON (RFC 8259)."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return None


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


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


@per_answer(
    Metric(
        "bleu",
        "BLEU",
        "higher",
        "corpus BLEU of sacrebleu with its defaults, 0 to 100",
        columns=tuple(f"bleu_{i}" for i in range(10)),
        of=bleu,
        decimals=1,
        after="rouge_l",
    )
)
def bleu_counts(answer: str, expected: str) -> list[int]:
    """Answer length, reference length, 4 matches, 4 totals (n-grams of order 1 to 4, sacrebleu's 13a tokens).

    Summed over items they give the corpus BLEU: `bleu`.
    """
    score = _sacrebleu().sentence_score(answer, [expected])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


@per_answer(
    Metric(
        "rouge_1",
        "ROUGE-1",
        "higher",
        "F-measure of shared words (rouge-score, no stemming)",
        stands="summary",
        shown=False,
    )
)
def rouge_1(answer: str, expected: str) -> float:
    return rouge(answer, expected)[0]


@per_answer(
    Metric(
        "rouge_2",
        "ROUGE-2",
        "higher",
        "F-measure of shared word pairs (rouge-score, no stemming)",
        stands="summary",
        shown=False,
    )
)
def rouge_2(answer: str, expected: str) -> float:
    return rouge(answer, expected)[1]


@per_answer(
    Metric("rouge_l", "ROUGE-L", "higher", "F-measure of the longest common subsequence (rouge-score, no stemming)")
)
def rouge_l(answer: str, expected: str) -> float:
    return rouge(answer, expected)[2]


@lru_cache(maxsize=1)  # the three are asked for one after the other
def rouge(answer: str, expected: str) -> tuple[float, ...]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score, without stemming."""
    scores = _rouge_score().score(expected, answer)
    return tuple(scores[name].fmeasure for name in ROUGE)


register(
    Metric(
        "bertscore",
        "BERTScore",
        "higher",
        "F1 of bert-score, not rescaled, on the embedding model's last layer",
        column="bertscore",
        side_by_side=True,
    )
)
register(
    Metric(
        "cosine",
        "cosine",
        "higher",
        "cosine of the sentence embeddings of answer and expected answer",
        column="cosine",
        side_by_side=True,
    )
)
register(
    Metric(
        "cosine_to_base",
        "cosine to base",
        "",
        "cosine of the answer and the untouched base model's own answer: how far the answers moved",
        column="cosine_to_base",
        split="test",
    )
)


# Imported when they are needed: who reads what a metric is does not wait for them.
@cache
def _rouge_score() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), use_stemmer=False)


@cache
def _sacrebleu() -> "BLEU":
    from sacrebleu.metrics import BLEU

    # Only the counts of a sentence are used, so the effective order changes nothing but sacrebleu's warning.
    return BLEU(effective_order=True)
