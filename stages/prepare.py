"""Makes one dataset ready: read or generated, cleaned, split by content, de-duplicated; of kind `questions`, its
multiple choice alone.

IN   datasets.<dataset> (metrics/settings/datasets/<dataset>.json); for `path` that file; for `mmlu` that folder, or the
     hub
OUT  data/prepared/<dataset>/   train, seen, valid, test, mmlu (jsonl), info.json; a blank line for what has no
     examples
     python -m stages.prepare --dataset demo
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tradeoffs import params
from tradeoffs.common import cells, files
from tradeoffs.plumbing import cli
from tradeoffs.prepare import answer_patterns, generated, hub_mmlu, mmlu_files, records, splits
from tradeoffs.sources import hub


@dataclass(frozen=True)
class Reads:
    seed: int


@dataclass(frozen=True)
class Settings:
    dataset: Annotated[params.Dataset, "datasets.{dataset}"]


def main(dataset: str) -> None:
    seed, where = params.load(Reads).seed, f"datasets.{dataset}"
    wanted = params.load_settings(Settings, dataset=dataset).dataset
    mmlu, mmlu_source = _mmlu(wanted, seed, where)
    source = None if wanted.kind == "questions" else _source(wanted, seed, where)
    with files.new_folder(cells.prepared(dataset)) as folder:
        counts, dropped = _divided(source, wanted, where, folder) if source else splits.without_examples(folder)
        if wanted.answer_pattern:
            answer_patterns.check(folder, wanted.answer_pattern, f"{where}.answer_pattern")
        files.write_jsonl(folder / "mmlu.jsonl", mmlu)
        counts |= {f"mmlu_{split}": sum(row["split"] == split for row in mmlu) for split in ("dev", "test")}
        subjects = list(dict.fromkeys(row["subject"] for row in mmlu))
        facts = source.facts if source else {}
        info = {"kind": wanted.kind, **facts, "counts": counts, "subjects": subjects, "dropped": dropped}
        info |= {"mmlu": mmlu_source} if mmlu_source else {}
        info |= {"answer_pattern": wanted.answer_pattern} if wanted.answer_pattern else {}
        files.write_json(folder / "info.json", info)
    for path in (wanted.path, wanted.test_path, wanted.mmlu and wanted.mmlu.path):
        if path:
            files.note_if_unwatched(path, "data/raw", f"prepare@{dataset}")
    print(f"{dataset}: {counts}" + (f", dropped {_lost(dropped)}{_too_long(facts)}" if source else ""))


def _divided(
    source: records.Source, wanted: params.Dataset, where: str, folder: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Writes the splits of all examples: how many there are, and what was dropped."""
    rows = splits.Rows(wanted.near_duplicate or 1.0, wanted.kind != "text", folder)
    # The source's own test split first: where both have an example, what train has of it is the copy.
    rows.add(source.test or (), 1.0)
    rows.add(source.train, (wanted.test_share or 0.0) if source.test is None else 0.0)
    made, dropped = splits.divide(rows, wanted, where)
    for name, numbers in made.items():
        rows.write(folder / f"{name}.jsonl", numbers)
    return {"read": rows.read} | {name: len(numbers) for name, numbers in made.items()}, dropped


def _source(wanted: params.Dataset, seed: int, where: str) -> records.Source:
    if not wanted.generate:
        return records.open_source(wanted, where)
    return generated.source(wanted.generate, wanted.test_share or 0.0, seed)


def _lost(dropped: dict[str, Any]) -> str:
    """What was dropped, in one line: what would have given away an evaluated example, then what was there twice."""
    text = "{near_duplicates} near-duplicates of test examples, {near_duplicates_of_valid} of valid ones, "
    text += "{near_duplicates_within} of other training examples, {duplicates} duplicates, {empty} empty"
    if dropped.get("equal_answers"):
        text += ", {equal_answers} pairs of equal answers"
    return text.format(**dropped)


def _too_long(facts: dict[str, Any]) -> str:
    """What `max_characters` left out of each split of the source, before anything else looked at it."""
    found = facts.get("too_long", {})
    return "".join(f"; {count} rows of {split} longer than max_characters" for split, count in found.items())


def _mmlu(wanted: params.Dataset, seed: int, where: str) -> tuple[list[dict[str, Any]], dict[str, str] | None]:
    """The multiple-choice questions with their ids, and what info.json says about their source; None without any."""
    source: dict[str, str] | None = None
    if wanted.mmlu and wanted.mmlu.hub:
        rows, commit = hub_mmlu.read(wanted.mmlu.hub, wanted.mmlu.revision, wanted.mmlu.subjects, f"{where}.mmlu")
        source = {"source": wanted.mmlu.hub, "commit": commit}
        hub.note_unpinned(wanted.mmlu.hub, wanted.mmlu.revision, commit, f"{where}.mmlu")
    elif wanted.mmlu:
        rows = mmlu_files.read(Path(str(wanted.mmlu.path)), wanted.mmlu.subjects, f"{where}.mmlu")
        source = {"source": str(wanted.mmlu.path)}
    elif wanted.generate:
        rows, source = generated.exams(wanted.generate, seed, where), {"source": "generated"}
    else:
        rows = []
    ids = [files.content_id(row["subject"], row["question"], *row["choices"]) for row in rows]
    return [{"id": id, **row} for id, row in zip(ids, rows, strict=True)], source


if __name__ == "__main__":
    cli.run(main)
