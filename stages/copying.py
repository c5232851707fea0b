"""The floor that a tuned model must beat: of each test question, the answer of the most similar training question.

Similar by the cosine of the questions' embeddings; of several that are as similar, the first training example. A text
and multiple choice have no answers to copy, and `evaluate.copying: 0` asks for none: then the table is empty.

IN   data/prepared/<dataset>/train.jsonl, test.jsonl
OUT  data/copying/<dataset>.parquet
     python -m stages.copying --dataset demo
"""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import pyarrow as pa

from tradeoffs import params
from tradeoffs.common import cells, examples, files
from tradeoffs.metrics.embeddings import DIGITS, cosines, embed, load_embedder
from tradeoffs.plumbing import cli, clock

BLOCK = 512  # test questions that are compared with all training questions at once
# Beside the rows, as metadata: how many training questions were searched, and of how many.
COPIED = pa.schema(
    [
        ("split", pa.string()),  # test
        ("item", pa.string()),  # id of the test example, as in data/items
        ("prompt", pa.string()),
        ("answer", pa.string()),  # the expected one
        ("generated", pa.string()),  # the one that is copied
        ("similarity", pa.float64()),
        ("example", pa.string()),  # id of the training example that it is copied from
        ("question", pa.string()),  # what was asked there
    ]
)


@dataclass(frozen=True)
class Reads:
    test: Annotated[int, "evaluate.splits.test"]
    most: Annotated[int, "evaluate.copying"]
    embedding: Annotated[str, "evaluate.embedding"]


def main(dataset: str) -> None:
    cfg = params.load(Reads)
    prepared, copied = cells.prepared(dataset), cells.Copied(dataset)
    asked, _ = first(prepared / "test.jsonl", cfg.test)  # in the order in which every variant is asked them
    if why := _nothing_to_copy(asked, cfg.most):
        files.write_table(copied.items, [], COPIED)
        print(f"{copied}: {why}")
        return
    train, there = first(prepared / "train.jsonl", cfg.most)
    with clock.loading():
        embedder = load_embedder(cfg.embedding)
    print(f"{dataset}: searching {len(train)} of {there} training questions by {cfg.embedding} on {embedder.device}")
    texts = [examples.question(example) for example in (*asked, *train)]
    vectors = embed(embedder, texts)
    rows = [
        {
            "split": "test",
            "item": question["id"],
            "prompt": examples.question(question),
            "answer": examples.answer(question),
            "generated": examples.answer(train[place]),
            "similarity": similarity,
            "example": train[place]["id"],
            "question": examples.question(train[place]),
        }
        for question, (place, similarity) in zip(
            asked, most_similar(vectors[: len(asked)], vectors[len(asked) :]), strict=True
        )
    ]
    searched = {"searched": str(len(train)), "training": str(there)}
    files.write_table(copied.items, rows, COPIED.with_metadata(searched))
    print(f"{copied}: {len(rows)} answers copied, median similarity {median(row['similarity'] for row in rows):.2f}")


def _nothing_to_copy(asked: list[dict[str, Any]], most: int) -> str:
    if not asked:  # of kind `questions`
        return "nothing is asked but multiple choice"
    if not most:
        return "evaluate.copying is 0"
    return "a text has no answers to copy" if "text" in asked[0] else ""


def first(path: Path, most: int) -> tuple[list[dict[str, Any]], int]:
    """The first examples of a prepared split, and how many there are in all.

    Training examples lie in the order of a hash, so the first of them are a sample.
    """
    with path.open(encoding="utf-8") as file:
        found = [json.loads(line) for line in islice(file, most) if line.strip()]
        return found, len(found) + sum(1 for _ in file)


def most_similar(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[int, float]]:
    """Of each of `ours` the place of the most similar of `theirs`, the first of equals, and the cosine, rounded."""
    found = []
    for begin in range(0, len(ours), BLOCK):
        similar = cosines(ours[begin : begin + BLOCK], theirs)
        places = similar.argmax(axis=1)
        found += [(int(place), round(float(row[place]), DIGITS)) for place, row in zip(places, similar, strict=True)]
    return found


if __name__ == "__main__":
    cli.run(main)
