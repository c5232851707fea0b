"""Test questions with what was expected and what a variant answered, one by one, and which of them to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from tradeoffs.common import files
from tradeoffs.common.cells import SCORES, Variant
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import reading

if TYPE_CHECKING:
    from tradeoffs.results.results import Judged, Results


@dataclass(frozen=True)
class Asked:
    """A test question and one answer to it. `exact` is what exact match counts: by the data set's `answer_pattern`
    where it has one, else by the whole answer."""

    id: str
    question: str
    expected: str
    generated: str
    f1: float
    exact: bool


def asked(results: "Results", variant: "Judged") -> list[Asked]:
    """The test questions of a variant, or of copying, in the order they were asked; none of a text."""
    return _asked(results.columns[variant])


def read(variant: Variant) -> list[Asked]:
    """The same of one variant, or of a further training, without the results of a whole run.

    Raises UserError if its items or the scores are missing, or do not belong together.
    """
    files.must_exist(SCORES)
    scored = pq.read_table(SCORES, filters=[("variant", "=", str(variant))])
    return _asked(reading.columns(Path(), variant, scored))


def _asked(columns: Mapping[str, np.ndarray]) -> list[Asked]:
    """Of items as `reading.columns` has them; those of a text have no answer, and no scores at all without prompts."""
    return [
        Asked(
            columns["item"][place],
            columns["prompt"][place],
            columns["answer"][place],
            columns["generated"][place],
            float(columns["f1"][place]),
            bool(columns["exact_match"][place] == 1),
        )
        for place in np.flatnonzero(columns["split"] == "test")
        if columns["generated"][place] is not None
    ]


def worst(rows: Sequence[Asked], n: int) -> list[Asked]:
    """The `n` with the lowest F1, the lowest first; of equals, by their ids."""
    return sorted(rows, key=lambda row: (row.f1, row.id))[:n]


def median(rows: Sequence[Asked], n: int) -> list[Asked]:
    """The `n` around the median F1, in the order of `worst`; where they cannot be centred, one more below it."""
    begin = max(0, (len(rows) - n) // 2)
    return worst(rows, len(rows))[begin : begin + n]


def drawn(rows: Sequence[Asked], n: int, seed: int) -> list[Asked]:
    """`n` at random, in the order they were drawn: by a hash of seed and id.

    So every variant of a data set has the same ones, and more of them are these and others.
    """
    return sorted(rows, key=lambda row: files.content_id(str(seed), row.id))[:n]


def beside(ours: Sequence[Asked], theirs: Sequence[Asked]) -> list[tuple[Asked, Asked]]:
    """Each question with the answers of two. Raises UserError if they were not asked the same."""
    if [row.id for row in ours] != [row.id for row in theirs]:
        raise UserError(
            "the two variants were asked different test questions; run `dvc repro`, so that both are asked the same"
        )
    return list(zip(ours, theirs, strict=True))


def differing(ours: Sequence[Asked], theirs: Sequence[Asked]) -> list[tuple[Asked, Asked]]:
    """Questions to which two give different answers, with both; the greatest difference in F1 first, then by ids.

    Raises as `beside`.
    """
    found = [(one, other) for one, other in beside(ours, theirs) if one.generated != other.generated]
    return sorted(found, key=lambda both: (-abs(both[0].f1 - both[1].f1), both[0].id))
