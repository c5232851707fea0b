"""What a metric of quality is, and the register of them. Light on purpose: it imports no model library."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

# Kinds of metrics, in the order in which all outputs list them: of the true text, of answers (and choices) in one's own
# words, of a format against the model as trained. Each kind has tables of its own in the report.
KINDS = ("likelihood", "answers", "ladder")
Kind = Literal["likelihood", "answers", "ladder"]
Stands = Literal["quality", "summary", "value"]
Score = Callable[[str, str], float | list[int]]  # of an answer and the expected one
S = TypeVar("S", bound=Score)


def ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over second sum; sums (..., 2). Undefined (NaN) where the second is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] != 0, sums[..., 0] / sums[..., 1], np.nan)


@dataclass(frozen=True)
class Metric:
    """What a metric is made of, how it reads, and where it stands.

    Every metric is a function of sums over items, so that one resample is one product (see results.intervals). Without
    `columns` and `of` it is the mean over items of the column that bears its name.
    """

    name: str
    label: str  # in tables and pictures
    better: Literal["lower", "higher", ""]  # "" where neither is
    definition: str  # the report explains it in these words
    columns: tuple[str, ...] = ()  # of an item; their sums go into `of`
    of: Callable[[np.ndarray], np.ndarray] = ratio  # sums (..., columns) to values (...)
    decimals: int = 3
    # The only split that it is taken from, under its bare name; "": from test and seen, as `test_NAME` and `seen_NAME`.
    split: str = ""
    general: bool = False  # from general text too, as `general_NAME` in summary.csv
    right_or_wrong: bool = False  # a share of items that are either: McNemar's test is made
    # quality: metrics/quality.json and summary.csv; summary: that alone; value: there, without its interval.
    stands: Stands = "quality"
    kind: Kind = "answers"
    shown: bool = True  # as a column of the report's tables of its kind
    after: str = ""  # ... to the right of this one; "": of all others
    side_by_side: bool = False  # also where the report sets test beside seen, in a table and in a picture
    column: str = ""  # of data/scores.parquet; "": its columns are those of data/items
    task: str = ""  # of `evaluate.tasks`, or of a group there, that measures it; such a one is registered as it is read
    unread: bool = False  # named, but in no results so far
    score: Score | None = None  # what fills `column`; None where stage `score` does, with the embedding model

    @property
    def many(self) -> bool:
        """Whether `column` holds a list per answer, one number for each of `columns`."""
        return bool(self.column) and self.columns != (self.column, "items")


METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Adds a metric made of columns that are there already.

    Raises ValueError if its name is taken, or for what cannot be: beside seen stands what has both splits.
    """
    if metric.name in METRICS:
        raise ValueError(f"{metric.name}: two metrics of this name")
    if metric.side_by_side and metric.split:
        raise ValueError(f"{metric.name}: taken from {metric.split} alone, so nothing stands beside it")
    METRICS[metric.name] = replace(metric, columns=metric.columns or (metric.column or metric.name, "items"))
    return METRICS[metric.name]


def per_answer(metric: Metric) -> Callable[[S], S]:
    """Decorates what scores one answer, of (answer, expected); its results are a column of data/scores.parquet."""

    def add(score: S) -> S:
        register(replace(metric, column=score.__name__, score=score))
        return score

    return add


def every() -> list[Metric]:
    """All metrics, in the order of KINDS; those of a single split come last."""
    return sorted(METRICS.values(), key=lambda metric: (bool(metric.split), KINDS.index(metric.kind)))


def scored() -> list[Metric]:
    """Those that stage `score` fills a column for."""
    return [metric for metric in every() if metric.column]
