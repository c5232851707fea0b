"""Reading a user's dataset: JSON, JSONL, CSV, Parquet or plain text; and multiple-choice questions in MMLU's files."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tradeoffs.errors import UserError, near
from tradeoffs.params import Columns

Row = tuple[str, dict[str, Any]]  # where it stands ("data.csv:7"), and its columns
LETTERS = "ABCD"  # of the options of a multiple-choice question


def read(path: Path, columns: Columns | None) -> list[dict[str, str]]:
    """The dataset's examples in file order, by what `columns` maps: {"prompt", "answer"}, {"text"}, or, where a column
    is `chosen`, {"prompt", "answer", "rejected"} with the chosen answer as the answer.

    A prompt is the instruction, and the input after an empty line where there is one. An example with an empty
    instruction, answer or text is kept, with that text empty. Raises UserError for a missing file, an unknown suffix,
    broken lines, bytes that are not UTF-8, columns that are not there, and values that are neither text nor number.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in READERS)
        hint = near(path.name, there) if there else f", and no other data file in {path.parent}"
        raise UserError(f"{path}: no such file{hint}")
    if path.suffix not in READERS:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; known are {', '.join(READERS)}")
    try:
        rows = list(READERS[path.suffix](path))
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1 if path.suffix != ".parquet" else 0
        raise UserError(f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    examples = [_example(where, row, columns or Columns(text="text")) for where, row in rows]
    if columns and columns.input and rows and not any(columns.input in row for _, row in rows):
        _value(*rows[0], columns.input)  # some rows may lack it, but none has it: the message of a missing column
    return examples


def _example(where: str, row: dict[str, Any], columns: Columns) -> dict[str, str]:
    if columns.text is not None:
        return {"text": _value(where, row, columns.text)}
    prompt = _value(where, row, columns.instruction)
    extra = _value(where, row, columns.input) if columns.input in row else ""
    found = {
        "prompt": f"{prompt}\n\n{extra}" if prompt and extra else prompt,
        "answer": _value(where, row, columns.answer if columns.chosen is None else columns.chosen),
    }
    return found if columns.chosen is None else found | {"rejected": _value(where, row, columns.rejected)}


def _value(where: str, row: dict[str, Any], column: str | None) -> str:
    if column not in row:
        raise UserError(f"{where}: no column {column!r}{near(column, row)}")
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f"{where}: column {column!r} must hold text, is a {type(value).__name__}")
    return str(value).strip()


def _json(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: must be an array of objects, is a {type(rows).__name__}; one object a line is .jsonl")
    for number, row in enumerate(rows, 1):
        yield _object(f"{path}: entry {number}", row)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield _object(f"{path}:{number}", json.loads(line.rstrip()))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not valid JSON: {error.msg} (column {error.colno})") from error


def _object(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with named columns, is a {type(row).__name__}")
    return where, row


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for fields in reader:
                if not fields:
                    continue
                where = f"{path}:{reader.line_num}"
                if len(fields) != len(header):
                    raise UserError(
                        f"{where}: {len(fields)} fields, the header has {len(header)}; quote fields that hold commas"
                    )
                yield where, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file: {error}") from error
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", row


def _text(path: Path) -> Iterator[Row]:
    """A document per paragraph; in a file without empty lines, a document per line."""
    text = path.read_text(encoding="utf-8-sig")
    parts = re.split(r"\n\s*\n", text) if re.search(r"\n\s*\n", text.strip()) else text.split("\n")
    for number, part in enumerate(parts, 1):
        if part.strip():
            yield f"{path}: document {number}", {"text": part.strip()}


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}


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
