"""Where a data set's examples come from, a file or the hub; and multiple-choice questions in MMLU's files."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.prepare import hub_datasets
from tradeoffs.sources import readers
from tradeoffs.sources.readers import LETTERS, Example


@dataclass(frozen=True)
class Source:
    """Examples as tradeoffs.sources.readers.examples gives them, in source order, read as they are asked for.

    `test` is None where the entry draws its test examples from `train` by hash (`test_share`). `facts` are what
    info.json says about the source; they are complete when both iterators are at their end.
    """

    train: Iterator[Example]
    test: Iterator[Example] | None
    facts: dict[str, Any]


def open_source(wanted: params.Dataset, where: str) -> Source:
    """The examples of a data set with `path` or `hub`; `where` is its key in params ("datasets.alpaca").

    At most `rows` of each split, none longer than `max_characters`. Raises UserError here or while it is iterated: what
    tradeoffs.sources.readers and tradeoffs.prepare.hub_datasets raise.
    """
    if wanted.hub:
        found = hub_datasets.open_splits(wanted, where)
        rows, facts = found.rows, found.facts
    else:
        paths = {"train": wanted.path, "test": wanted.test_path}
        rows = {split: readers.rows(path) for split, path in paths.items() if path}
        facts = {"source": wanted.path, "sha256": files.sha256(readers.checked(str(wanted.path)))}
        if wanted.test_path:
            facts |= {"test_source": wanted.test_path, "test_sha256": files.sha256(readers.checked(wanted.test_path))}
    if wanted.max_characters:
        facts["too_long"] = dict.fromkeys(rows, 0)
    taken = {
        split: readers.examples(found, wanted.columns, wanted.rows, partial(_short_enough, wanted, split, facts))
        for split, found in rows.items()
    }
    return Source(taken["train"], taken.get("test"), facts)


def _short_enough(wanted: params.Dataset, split: str, facts: dict[str, Any], example: Example) -> bool:
    """Whether it has at most `max_characters`; those that have more are counted in `facts`."""
    short = not wanted.max_characters or _characters(example) <= wanted.max_characters
    if not short:
        facts["too_long"][split] += 1
    return short


def _characters(example: Example) -> int:
    """Of all its texts together; of a pair's two answers the longer one counts."""
    if "messages" in example:
        return sum(len(message["content"]) for message in example["messages"])
    answers = max(len(example.get("answer", "")), len(example.get("rejected", "")))
    return len(example.get("prompt", "")) + answers + len(example.get("text", ""))


def read_mmlu(folder: Path, subjects: list[str] | None, where: str) -> list[dict[str, Any]]:
    """MMLU's original files <folder>/{dev,test}/<subject>_{dev,test}.csv: question, four choices, letter; no header.

    Rows: {"subject", "split", "question", "choices", "answer": 0..3}; all subjects there when none are named. Raises
    UserError, with `where` (the params key), for a folder, a subject or a field that is not as expected.
    """
    known = sorted(path.name.removesuffix("_test.csv") for path in (folder / "test").glob("*_test.csv"))
    if not known:
        raise UserError(
            f"{where}.path: {folder} has no test/<subject>_test.csv; give the folder with MMLU's dev and test"
        )
    check_subjects(subjects, known, str(folder), where)
    return [
        {"subject": subject, "split": split, **question}
        for subject in subjects or known
        for split in ("dev", "test")
        for question in _mmlu_questions(folder / split / f"{subject}_{split}.csv")
    ]


def check_subjects(subjects: list[str] | None, known: list[str], source: str, where: str) -> None:
    """Raises UserError, with the near match or what there is, for the first subject that the source does not have."""
    for number, subject in enumerate(subjects or ()):
        if subject not in known:
            raise UserError(f"{where}.subjects[{number}]: no subject {subject!r} in {source}{near(subject, known)}")


def _mmlu_questions(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; every MMLU subject has one in dev and one in test")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for fields in reader:
            if len(fields) != 6 or fields[5] not in tuple(LETTERS):
                raise UserError(f"{path}:{reader.line_num}: expected question, four choices and a letter from A to D")
            yield {"question": fields[0], "choices": fields[1:5], "answer": LETTERS.index(fields[5])}
