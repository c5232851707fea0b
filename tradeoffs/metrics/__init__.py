"""The metrics of quality: each is registered once, and stands in every output by that.

To add one, write in `answers` what scores an answer,

    @per_answer(Metric("length_ratio", "length ratio", "", "characters of the answer over those of the expected one"))
    def length_ratio(answer: str, expected: str) -> float:
        return len(answer) / len(expected) if expected else math.nan

or register in `sums` one that is made of what evaluation measured per item. It then is a column of data/scores.parquet,
and stands in metrics/quality.json and summary.csv with its intervals, in the report's tables and explanations, and in
`tradeoffs.compare`. Decimals, splits, pictures, and what else a metric says of itself, are fields of `Metric`.

A value of NaN leaves an answer out of the mean. What needs a heavy library imports it in the function: the tables read
these modules too.
"""

from collections.abc import Sequence

import numpy as np

# Importing them is what registers their metrics.
from tradeoffs.metrics import answers, registry, sums  # noqa: F401
from tradeoffs.metrics.registry import Kind, Metric, Stands, every, scored

__all__ = ["Metric", "columns", "every", "metric", "names", "per_item", "scored", "side_by_side"]


def metric(name: str) -> tuple[str, Metric]:
    """Split and definition of a metric by its name in the metrics files, such as `test_f1` or `kld`."""
    alone = registry.METRICS.get(name)
    if alone and alone.split:
        return alone.split, alone
    split, _, bare = name.partition("_")
    return split, registry.METRICS[bare]


def names(stands: Stands) -> list[str]:
    """Names of the metrics that stand there (`quality`, `summary`, `value`: see Metric), in the order of the files."""
    mine = [m for m in every() if m.stands == stands]
    found = [f"{split}_{m.name}" for split in ("test", "seen") for m in mine if not m.split]
    if stands == "summary":
        found += [f"general_{m.name}" for m in every() if m.general]
    return found + [m.name for m in mine if m.split]


def columns(kind: Kind) -> list[str]:
    """Names of the metrics in the report's tables of a kind, on test items, in the order of their columns."""
    mine = [m for m in every() if m.kind == kind and m.shown]
    listed = [m for m in mine if not m.after]
    for m in (m for m in mine if m.after):
        before = [place for place, other in enumerate(listed) if other.name == m.after]
        listed.insert(before[0] + 1 if before else len(listed), m)
    return [m.name if m.split else f"test_{m.name}" for m in listed]


def side_by_side() -> list[str]:
    """Metrics of answers, then of likelihood, that the report shows on test beside seen; without their splits."""
    mine = sorted((m for m in every() if m.side_by_side), key=lambda m: m.kind == "likelihood")
    return [m.name for m in mine]


def per_item(items: Sequence[str], rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Rows (rows, columns) of one item added up: the items in order of appearance, and (items, columns)."""
    places = {name: place for place, name in enumerate(dict.fromkeys(items))}
    found = np.zeros((len(places), rows.shape[1]))
    np.add.at(found, [places[name] for name in items], rows)
    return list(places), found
