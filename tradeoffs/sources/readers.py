"""Reading a user's data file: JSON, JSONL, CSV, Parquet or plain text; and what its columns mean.

A file is read as it is needed, so that its size does not matter; only a .json, which is one array, is read whole.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tradeoffs.common.columns import FIELD
from tradeoffs.params import Columns
from tradeoffs.plumbing.errors import UserError, near

Row = tuple[str, dict[str, Any]]  # where it stands ("data.csv:7"), and its columns
Example = dict[str, Any]
TEXT_FILE = Columns(text="text")  # what the rows of a text file hold, for which no columns are given
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}


def read(path: str | Path, columns: Columns | None) -> Iterator[Example]:
    """The examples of a file in their order; without `columns` those of a text file. Raises what `rows` and `examples`
    raise, while it is iterated."""
    return examples(rows(path), columns)


def checked(path: str | Path) -> Path:
    """A file that is there and can be read by its suffix; raises UserError otherwise."""
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in READERS)
        hint = near(path.name, there) if there else f", and no other data file in {path.parent}"
        raise UserError(f"{path}: no such file{hint}")
    if path.suffix not in READERS:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; known are {', '.join(READERS)}")
    return path


def rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file in their order, and where each stands.

    Raises UserError for a missing file, an unknown suffix, broken lines and bytes that are not UTF-8.
    """
    path = checked(path)
    try:
        yield from READERS[path.suffix](path)
    except UnicodeDecodeError as error:
        line, byte = _first_not_utf8(path)
        raise UserError(
            f"{path}:{line}: not UTF-8: byte {byte} of the file ({error.reason}); save the file as UTF-8"
        ) from error


def examples(
    rows: Iterable[Row],
    columns: Columns | None,
    most: int | None = None,
    wanted: Callable[[Example], bool] = lambda example: True,
) -> Iterator[Example]:
    """What rows say, by what `columns` maps: {"prompt", "answer"}; {"text"}; where a column is `messages`, {"messages":
    [{"role", "content"}, ...]}; where one is `chosen`, {"prompt", "answer", "rejected"}, the chosen answer as answer.

    A prompt is the instruction, and the input after an empty line where there is one. A column may be put together from
    several, as "{title}: {abstract}"; it is empty where all of them are. An example with an empty instruction, answer
    or text is kept, with that text empty; so is a conversation with an empty turn or no answer, with no messages.
    After the first `most` that are `wanted`, no further row is asked for. Raises UserError for columns that are not
    there, and for values that are neither text nor number, or no messages.
    """
    columns = columns or TEXT_FILE
    first: Row | None = None
    with_input = False
    count = 0
    for row in rows:
        first = first or row
        with_input = with_input or _holds(row[1], columns.input)
        example = _example(*row, columns)
        if wanted(example):
            yield example
            count += 1
            if count == most:
                break
    if first and columns.input and not with_input:
        _value(*first, columns.input)  # some rows may lack it, but none has it: the message of a missing column


def used(columns: Columns | None) -> set[str]:
    """The names of the columns that `columns` maps, those within templates too."""
    mapped = filter(None, vars(columns or TEXT_FILE).values())
    return {name for value in mapped for name in FIELD.findall(value) or [value]}


def _example(where: str, row: dict[str, Any], columns: Columns) -> Example:
    if columns.text is not None:
        return {"text": _value(where, row, columns.text)}
    if columns.messages is not None:
        return {"messages": _messages(where, row, columns.messages)}
    prompt = _value(where, row, columns.instruction)
    extra = _value(where, row, columns.input) if _holds(row, columns.input) else ""
    found = {
        "prompt": f"{prompt}\n\n{extra}" if prompt and extra else prompt,
        "answer": _value(where, row, columns.answer if columns.chosen is None else columns.chosen),
    }
    return found if columns.chosen is None else found | {"rejected": _value(where, row, columns.rejected)}


def _holds(row: dict[str, Any], column: str | None) -> bool:
    return column is not None and all(name in row for name in FIELD.findall(column) or [column])


def _value(where: str, row: dict[str, Any], column: str | None) -> str:
    """The text of a column, or of a template of several."""
    names = FIELD.findall(column or "")
    if not names:
        return _text_of(where, column, _cell(where, row, column))
    found = {name: _text_of(where, name, _cell(where, row, name)) for name in names}
    return FIELD.sub(lambda match: found[match[1]], str(column)).strip() if any(found.values()) else ""


def _cell(where: str, row: dict[str, Any], column: str | None) -> Any:
    if column not in row:
        raise UserError(f"{where}: no column {column!r}{_columns_there(column, row)}")
    return row[column]


def _columns_there(column: str | None, row: dict[str, Any]) -> str:
    hint = near(column, row)
    return hint if hint.startswith(" (there are") else f"{hint.removesuffix(')')} there are: {', '.join(row)})"


def _text_of(where: str, column: str | None, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f"{where}: column {column!r} must hold text, is a {type(value).__name__}")
    return str(value).strip()


def _messages(where: str, row: dict[str, Any], column: str) -> list[dict[str, str]]:
    """The turns up to the last answer, as {"role", "content"}; from that form or from ShareGPT's, {"from", "value"}."""
    value = _cell(where, row, column)
    if value is not None and not isinstance(value, list):
        raise UserError(f"{where}: column {column!r} must hold a list of messages, is a {type(value).__name__}")
    turns = []
    for number, turn in enumerate(value or (), 1):
        place = f"{where}: message {number} in {column!r}"
        who, what = ("from", "value") if isinstance(turn, dict) and "from" in turn else ("role", "content")
        if not isinstance(turn, dict) or who not in turn or what not in turn:
            found = f"has {', '.join(turn) or 'none'}" if isinstance(turn, dict) else f"is a {type(turn).__name__}"
            raise UserError(f"{place} must have role and content (or from and value), {found}")
        role = ROLES.get(turn[who])
        if role is None:
            raise UserError(f"{place}: {who} is {turn[who]!r}; known are {', '.join(ROLES)}")
        if role == "system" and number > 1:
            raise UserError(f"{place}: {who} is {turn[who]!r}; only the first message can be that")
        turns.append({"role": role, "content": _text_of(place, what, turn[what])})
    while turns and turns[-1]["role"] != "assistant":  # what no answer follows teaches nothing
        turns.pop()
    return turns if all(turn["content"] for turn in turns) else []


def _json(path: Path) -> Iterator[Row]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    if not isinstance(found, list):
        raise UserError(
            f"{path}: must be an array of objects, is a {type(found).__name__}; one object a line is .jsonl"
        )
    for number, row in enumerate(found, 1):
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
            for cells in reader:
                if not cells:
                    continue
                where = f"{path}:{reader.line_num}"
                if len(cells) != len(header):
                    raise UserError(
                        f"{where}: {len(cells)} fields, the header has {len(header)}; quote fields that hold commas"
                    )
                yield where, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file: {error}") from error


def _text(path: Path) -> Iterator[Row]:
    """A document per paragraph; in a file without empty lines, a document per line."""
    by_line = not _has_paragraphs(path)
    begins = 0  # the line where the document begins that is being read
    lines: list[str] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                begins = begins if lines else number
                lines.append(line)
            if lines and (by_line or not line.strip()):
                yield f"{path}:{begins}", {"text": "".join(lines).strip()}
                lines = []
    if lines:
        yield f"{path}:{begins}", {"text": "".join(lines).strip()}


def _has_paragraphs(path: Path) -> bool:
    """Whether an empty line stands between two others."""
    begun = ended = False
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip() and ended:
                return True
            begun = begun or bool(line.strip())
            ended = begun and not line.strip()
    return False


def _first_not_utf8(path: Path) -> tuple[int, int]:
    """Line, from 1, and place in the file, from 0, of the first byte that is not UTF-8: a file that is read in parts
    only knows where it is within one."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, done = 1, 0
    with path.open("rb") as file:
        while True:
            part = file.read(1 << 20)
            held = decoder.getstate()[0]  # of a character that the part before it left unfinished
            try:
                decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                return line + (held + part)[: error.start].count(b"\n"), done - len(held) + error.start
            line, done = line + part.count(b"\n"), done + len(part)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}
