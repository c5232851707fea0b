"""What lies in data/ of a run list, below a `root`: items and scores as arrays, others as JSON; read when needed."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tradeoffs import metrics
from tradeoffs.common import files
from tradeoffs.common.cells import NOTES, SCORES, TRAINED, Copied, Variant
from tradeoffs.formats import trained_only
from tradeoffs.plumbing.errors import UserError

# Besides those that metrics are made of.
_COLUMNS: tuple[str, ...] = ("split", "item", "document", "subject", "tokens", "bytes", "chosen", "correct_option")
_COLUMNS += ("prompt", "answer", "generated", "generated_tokens", "answer_tokens", "latency_seconds", "ttft_seconds")
SECONDS, ANSWER_GPU = "seconds", "answer_gpu_mb"  # of an answer or a choice; of an answer to a prompt
_MADE = ("items", "correct")  # of them: 1 for each item, whether the right option was chosen


def read_json(path: Path) -> dict:
    """Raises UserError if there is none."""
    files.must_exist(path)
    return files.read_json(path)


def notes(root: Path, axis: str) -> dict[str, str]:
    """What params.yaml notes of models or data sets that the run list names; a commit may be older than that."""
    found = files.read_json(root / NOTES) if (root / NOTES).is_file() else {}
    return {name: entry["notes"] for name, entry in found.get(axis, {}).items()}


def must_be_made(variant: Variant) -> None:
    """Raises UserError if a variant was never made because its method cannot be merged, or its base be no GGUF."""
    if found := trained_only.absent(variant.facts):
        sentence, other = trained_only.sentence(*found), variant.cell.variant(TRAINED)
        raise UserError(f"{variant}: there is none, its method exists {sentence}; name {other}")


def scores(root: Path) -> tuple[dict[str, pa.Table], str | None]:
    """data/scores.parquet by variant, and the embedding model behind cosine and BERTScore (None without answers)."""
    files.must_exist(root / SCORES)
    table = pq.read_table(root / SCORES)
    if not table.num_rows:
        return {}, None
    names = table["variant"].unique().to_pylist()
    by_variant = {name: table.filter(pc.equal(table["variant"], name)) for name in names}
    return by_variant, table.schema.metadata[b"embedding"].decode()


def columns(root: Path, variant: Variant, scored: pa.Table | None) -> dict[str, np.ndarray]:
    """Items of one variant as arrays (items,): float64 with NaN for null, object for texts; scores joined to them."""
    own = [m for m in metrics.every() if not m.column and not m.task]
    measured = [column for m in own for column in m.columns if column not in _MADE]
    files.must_exist(root / variant.items)
    there = pq.read_schema(root / variant.items).names
    took = [name for name in (SECONDS, ANSWER_GPU) if name in there]  # older items lack them
    table = pq.read_table(root / variant.items, columns=list(dict.fromkeys((*_COLUMNS, *measured, *took))))
    found: dict[str, np.ndarray] = {}
    for name in table.column_names:
        values = table[name].to_numpy()
        found[name] = values if pa.types.is_string(table.schema.field(name).type) else values.astype(np.float64)
    document = found.pop("document")
    found["item"] = np.where(document != None, document, found["item"])  # noqa: E711 (element by element)
    found["items"] = np.ones(table.num_rows)
    found["correct"] = np.where(np.isnan(found["chosen"]), np.nan, found["chosen"] == found["correct_option"])
    answered = np.array([text is not None for text in found["generated"]], bool)
    if (scored["item"].to_pylist() if scored else []) != found["item"][answered].tolist():
        raise UserError(f"{SCORES}: not made from the present {variant.items}; run `dvc repro`")
    for name, values in (_score_columns(scored) if scored else {}).items():
        found[name] = np.full(table.num_rows, np.nan)
        found[name][answered] = values
    return found


def copied(root: Path, floor: Copied, scored: pa.Table | None) -> dict[str, np.ndarray]:
    """The test items of what copying answers, as `columns` has those of a variant; without what only a model has."""
    files.must_exist(root / floor.items)
    table = pq.read_table(root / floor.items)
    found = {name: table[name].to_numpy() for name in table.column_names}
    found["items"] = np.ones(table.num_rows)
    if (scored["item"].to_pylist() if scored else []) != found["item"].tolist():
        raise UserError(f"{SCORES}: not made from the present {floor.items}; run `dvc repro`")
    return found | (_score_columns(scored) if scored else {})


def searched(floor: Copied) -> tuple[int, int]:
    """How many training questions were searched for similar ones, and of how many."""
    found = pq.read_schema(floor.items).metadata
    return int(found[b"searched"]), int(found[b"training"])


def mmlu_seconds(variant: Variant) -> dict[str, float]:
    """What all multiple-choice questions of a variant took, by clock: wall, cpu and, on one, gpu."""
    found: dict[str, float] = json.loads(pq.read_schema(variant.items).metadata[b"mmlu_seconds"])
    return found


def subject_seconds(path: Path) -> dict[str, dict[str, float]]:
    """The same of each subject, as it was measured, of the items at `path`; empty of those that are older than that."""
    metadata = pq.read_schema(path).metadata or {}
    found: dict[str, dict[str, float]] = json.loads(metadata.get(b"subject_seconds", b"{}"))
    return found


def seconds(items: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    """What each answer or choice of a split took, float64 (items,), of `columns`; none where that was not measured."""
    found = items[SECONDS][items["split"] == split] if SECONDS in items else np.zeros(0)
    return found[~np.isnan(found)]


def _score_columns(scored: pa.Table) -> dict[str, np.ndarray]:
    """NaN where a score is null: those of prompts, which have no expected answer."""
    found: dict[str, np.ndarray] = {}
    for metric in (m for m in metrics.scored() if m.column in scored.column_names):
        if metric.many:
            lists = [row or [np.nan] * len(metric.columns) for row in scored[metric.column].to_pylist()]
            found |= dict(zip(metric.columns, np.array(lists, np.float64).T, strict=True))
        else:
            found[metric.column] = scored[metric.column].to_numpy().astype(np.float64)
    return found
