"""What is read and written by `tokenize`: examples one at a time, the columns of its tables, how long examples are."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 5000  # rows that are held in memory while a table is written
TOKENS = pa.schema(
    [
        ("id", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("scored", pa.list_(pa.bool_())),  # same length: whether this token's log-probability counts
        ("prompt_tokens", pa.int32()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("bytes", pa.int32()),  # UTF-8 bytes of the scored text
    ]
)
PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),  # train, valid or test
        *((f"{part}_ids", pa.list_(pa.int32())) for part in ("prompt", "chosen", "rejected")),
    ]
)
QUESTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("subject", pa.string()),
        ("ids", pa.list_(pa.int32())),  # the few-shot prompt up to where the letter comes; its end, if it was cut
        ("options", pa.list_(pa.int32())),  # the token id of each of the four letters, its last one
        # The token ids before it, where letters take different numbers of them.
        ("stems", pa.list_(pa.list_(pa.int32()))),
        ("cut", pa.bool_()),  # whether the prompt lost its beginning to fit the context
        ("answer", pa.int32()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
    ]
)
PROMPTS = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("ids", pa.list_(pa.int32()))])


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The examples of a prepared split, or of general text, one at a time; blank lines hold none."""
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def counted(found: Iterable[dict], lengths: list[int]) -> Iterator[dict]:
    """The same, while the number of tokens of each is added to `lengths`."""
    for one in found:
        lengths.append(len(one["ids"]))
        yield one


def length_histograms(lengths: Mapping[str, Sequence[int]]) -> dict[str, dict[str, Any]]:
    """How many examples of each split have edges[n] to edges[n + 1] - 1 tokens, the longest and the median.

    All splits have the same edges, and those of other data sets and tokenizers begin as these do: 0, 8, 12, 16, 24, 32,
    48, 64, ...
    """
    edges = [0, 8]
    while edges[-1] <= max(map(max, filter(None, lengths.values())), default=0):
        edges.append(edges[-1] * 4 // 3 if edges[-1] % 3 == 0 else edges[-1] * 3 // 2)
    return {
        split: {
            "edges": edges,
            "counts": np.histogram(found, edges)[0].tolist(),
            "longest": max(found),
            "median": median(found),
        }
        for split, found in lengths.items()
        if found
    }


def write_rows(path: Path, rows: Iterable[dict], schema: pa.Schema) -> tuple[int, int]:
    """Parquet of rows that come one at a time; how many there were, and how many tokens in their `ids`."""
    count = total = 0
    rows = iter(rows)
    batches = iter(lambda: list(islice(rows, BATCH)), [])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in chain([next(batches, [])], batches):  # a table without rows has one, too
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count, total = count + len(batch), total + sum(len(row.get("ids", ())) for row in batch)
    return count, total
