"""What there is to measure: variants of a pair whose files have the same shapes cost the same and are one thing."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Pair, Variant, variants
from tradeoffs.evaluate.items import Row, prompt
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import AUTO, PRECISIONS, QUANTS
from tradeoffs.params import Run
from tradeoffs.plumbing.errors import UserError

SENTENCE = "What takes how long depends on how many tokens there are, and not on which."


@dataclass(frozen=True)
class Thing:
    """`members`: the variants that have these shapes, in the order of the run list, each with its facts. `on`: one of
    DEVICES; on each that a thing is measured on it is a thing by itself."""

    pair: Pair
    shapes: str
    members: dict[Variant, dict[str, Any]]
    on: str = AUTO

    @property
    def is_gguf(self) -> bool:
        return next(iter(self.members)).format in QUANTS


def things(run: Run) -> list[Thing]:
    """Of the run list alone: what lies in data/ besides is not measured. Raises UserError if facts are missing."""
    found: dict[tuple[Pair, str], dict[Variant, dict[str, Any]]] = {}
    for variant in variants(run):
        files.must_exist(variant.facts)
        facts = files.read_json(variant.facts)
        if not trained_only.in_place_of(facts):
            found.setdefault((variant.pair, facts["shapes"]), {})[variant] = facts
    return [Thing(pair, shapes, members) for (pair, shapes), members in found.items()]


def weights(variant: Variant, facts: dict[str, Any]) -> list[Path]:
    """The files and folders that a variant is loaded from. Raises UserError if they are not there."""
    found = [variant.cell.merged if variant.format in PRECISIONS else variant.gguf]
    if variant.format == TRAINED:
        found = [variant.cell.base, variant.cell.training(facts["seed"]).weights]
    for path in found:
        if not path.exists():  # the stage depends on the facts alone
            raise UserError(f"{path}: missing; `dvc pull` fetches it, or `dvc repro` makes it")
    return found


def loaded(variant: Variant, facts: dict[str, Any], dtype: str) -> dict[str, Any]:
    """See `Work.loaded`. `dtype` is what models as trained are computed in."""
    paths = [str(path) for path in weights(variant, facts)]
    if variant.format == TRAINED:
        return {"base": paths[0], "trained": paths[1], "method": facts["method"], "dtype": dtype}
    if variant.format in PRECISIONS:
        return {"checkpoint": paths[0], "precision": variant.format}
    return {"gguf": paths[0]}


def architectures(some: list[Thing]) -> list[str]:
    """The modules of transformers that these things are made of."""
    configs = {thing.pair.cell("base").base / "config.json" for thing in some}
    kinds = sorted({json.loads(path.read_text())["model_type"] for path in configs if path.is_file()})
    return [f"transformers.models.{kind}.modeling_{kind}" for kind in kinds]


@dataclass(frozen=True)
class Asked:
    """What all things of a pair are given: token ids of its first test items, or where it has none, of its first
    multiple-choice questions; where it has neither, as tasks are all that is asked, those of a sentence, and nothing is
    answered or scored.

    `items` are those whose prompts are answered one at a time. `count`: how many items the `scored` sequences are, of
    which a document's windows are so many parts.
    """

    pad_id: int
    sample: list[int]
    items: list[str]
    prompts: list[list[int]]
    scored: list[tuple[list[int], list[bool]]]
    count: float


def asked(pair: Pair, latency_prompts: int, scored_sequences: int) -> Asked:
    info, most = files.read_json(pair.tokens / "info.json"), max(latency_prompts, scored_sequences)
    rows = list(_first(pair.tokens / "test.parquet", most))
    if not rows:
        rows = [_as_asked(row, info["context"]) for row in _first(pair.tokens / "mmlu.parquet", most)]
    answered = rows[:latency_prompts] if info["kind"] != "text" else []
    scored, count = rows[:scored_sequences], 0.0
    if info["kind"] == "text":
        windows = Counter(_document(row) for row in files.read_table(pair.tokens / "test.parquet", ["id"]))
        count = sum(1 / windows[_document(row)] for row in scored)
    return Asked(
        info["pad_id"],
        rows[0]["ids"] if rows else Tokenizer.from_file(str(pair.tokens / "tokenizer.json")).encode(SENTENCE).ids,
        [row["id"] for row in answered],
        [prompt(row).tolist() for row in answered],
        [(row["ids"], row["scored"]) for row in scored],
        count or len(scored),
    )


def _as_asked(question: Row, context: int) -> Row:
    """A multiple-choice question as a test item: its whole prompt, then the right letter, which is scored."""
    letter = [*question["stems"][question["answer"]], question["options"][question["answer"]]]
    ids = [*question["ids"], *letter][-context:]
    before = len(ids) - len(letter)
    return {
        "id": question["id"],
        "ids": ids,
        "scored": [at >= before for at in range(len(ids))],
        "prompt_tokens": before,
    }


def _document(window: Row) -> str:
    return window["id"].rpartition("-")[0]


def _first(table: Path, most: int) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(table) as file:
        yield from next(file.iter_batches(most)).to_pylist() if file.metadata.num_rows else ()
