"""Multiple-choice questions in MMLU's own files, one of worked examples and one of questions for each subject."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.sources.multiple_choice import LETTERS


def read(folder: Path, subjects: list[str] | None, where: str) -> list[dict[str, Any]]:
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
