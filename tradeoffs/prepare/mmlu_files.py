"""Multiple-choice questions in MMLU's own files, one of worked examples and one of questions for each subject."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.sources import formats
from tradeoffs.sources.multiple_choice import LETTERS

NAME_BYTES = 100  # of a subject, at most: it becomes part of the names of files
# Of the columns that metrics/summary.csv has of a subject, and those that it has of all subjects together.
ENDS = ("", "_low", "_high", "_seed_sd", "_seconds")
TAKEN = ("accuracy", "wall_seconds", "cpu_seconds", "gpu_seconds", "question_seconds")


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
    found = []
    for subject in subjects or known:
        for split in ("dev", "test"):
            path = folder / split / f"{subject}_{split}.csv"
            asked = list(_mmlu_questions(path))
            if not asked:
                raise UserError(f"{path}: holds no question; expected rows of question, four choices and a letter")
            found += [{"subject": subject, "split": split, **question} for question in asked]
    return found


def check_subjects(subjects: list[str] | None, known: list[str], source: str, where: str) -> None:
    """Raises UserError, with the near match or what there is, for the first subject that the source does not have; and
    for names that cannot be told apart in tables, or that no file can have."""
    for number, subject in enumerate(subjects or ()):
        if subject not in known:
            raise UserError(f"{where}.subjects[{number}]: no subject {subject!r} in {source}{near(subject, known)}")
    asked = subjects or known
    for subject in asked:
        if not (subject and subject.isprintable()) or "/" in subject or len(subject.encode()) > NAME_BYTES:
            raise UserError(
                f"{where}.subjects: {subject[:NAME_BYTES]!r} of {source} is no name for a subject: expected printable "
                f"characters without a slash, at most {NAME_BYTES} bytes; rename it, or name the other ones"
            )
    _check_columns(asked, source, where)


def _check_columns(asked: Sequence[str], source: str, where: str) -> None:
    """Each subject has columns of its own: spaces and underscores are alike in tables."""
    names = Counter(f"{name.replace('_', ' ')}{end.replace('_', ' ')}" for name in (*asked, *TAKEN) for end in ENDS)
    for subject in asked:
        if any(names[f"{subject}{end}".replace("_", " ")] > 1 for end in ENDS):
            raise UserError(
                f"{where}.subjects: {subject!r} of {source} stands twice, or is named like a column of another one or "
                f"of all together ({', '.join(TAKEN)}; {', '.join(ENDS[1:])} behind a name); rename it"
            )


def _mmlu_questions(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; every MMLU subject has one in dev and one in test")
    for where, fields in formats.readable(path, formats.csv_rows(path)):
        if len(fields) != 6 or fields[5] not in tuple(LETTERS):
            raise UserError(f"{where}: expected question, four choices and a letter from A to D")
        yield {"question": fields[0], "choices": fields[1:5], "answer": LETTERS.index(fields[5])}
