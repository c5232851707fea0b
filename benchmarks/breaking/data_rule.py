"""What a data file says, read by other means than the pipeline's: what may be prepared of it, and what must be refused.

JSON by the standard library's parser with every hook taken; CSV by a machine of four states; Parquet as one table; text
by its decoded lines.
"""

import json
import re
from collections import Counter
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

from tradeoffs import params
from tradeoffs.common.columns import FIELD
from tradeoffs.sources.readers import ROLES

DIGITS = 4300  # of a whole number, Python's limit
LINE_END = re.compile("\r\n|\r|\n")


class MustRefuse(Exception):  # noqa: N818 what is to be done, not what went wrong
    """Why nothing may be made of a file."""


class Number(str):
    """A number as it is written."""


class Twice:
    """What a name holds that is there twice."""


Row = dict[str, Any]


def examples(path: Path, columns: params.Columns | None) -> list[list[Any]]:
    """The texts of each row in the order of `texts`. Raises MustRefuse."""
    rows = _READERS[path.suffix](path)
    columns = columns or params.Columns(text="text")
    if columns.input and rows and not any(columns.input in row for row in rows):
        raise MustRefuse("no row has the input")
    return [_example(row, columns) for row in rows]


def texts(example: dict[str, Any]) -> list[str]:
    """Of a prepared row, what `examples` gives of the same."""
    if "messages" in example:
        return [part for turn in example["messages"] for part in (turn["role"], turn["content"])]
    return [example[name] for name in ("text", "prompt", "answer", "rejected") if name in example]


def same(prepared: list[str], said: list[Any]) -> bool:
    """Whether each text is the one that the file holds: verbatim, of a number one of the same value."""
    return len(prepared) == len(said) and all(map(_same, prepared, said))


def _same(text: str, said: Any) -> bool:
    if not isinstance(said, Number):
        return text == said
    try:
        return text == said or Decimal(text) == Decimal(said)
    except ArithmeticError:
        return False


def _example(row: Row, columns: params.Columns) -> list[Any]:
    if columns.text:
        return [_value(row, columns.text)]
    if columns.messages:
        return _turns(row, columns.messages)
    prompt = _value(row, columns.instruction)
    extra = _value(row, columns.input) if columns.input in row else ""
    asked = f"{_within(prompt)}\n\n{_within(extra)}" if prompt and extra else prompt
    answers = [columns.answer] if columns.chosen is None else [columns.chosen, columns.rejected]
    return [asked, *(_value(row, name) for name in answers)]


def _value(row: Row, column: str | None) -> Any:
    names = FIELD.findall(column or "")
    if not names:
        return _text(_cell(row, column))
    found = {name: _within(_text(_cell(row, name))) for name in names}
    return FIELD.sub(lambda match: found[match[1]], str(column)).strip() if any(found.values()) else ""


def _cell(row: Row, column: str | None) -> Any:
    if column not in row:
        raise MustRefuse(f"no column {column}")
    return row[column]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        value = Number(repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        value = Number(value)
    if not isinstance(value, str):
        raise MustRefuse(f"a {type(value).__name__}")
    if isinstance(value, Number):
        if value.lower().strip("-") in ("nan", "inf", "infinity"):
            raise MustRefuse("no finite number")
        return value
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise MustRefuse("half a character")
    return value.strip()


def _within(text: str) -> str:
    """A number beside other texts, in the shortest form that has its value, if a float or a whole number has it."""
    if not isinstance(text, Number):
        return text
    short = str(int(text)) if text.lstrip("-").isdigit() else repr(float(text))
    return short if _same(short, text) else str(text)


def _turns(row: Row, column: str) -> list[str]:
    value = _cell(row, column)
    if not (value is None or isinstance(value, list)):
        raise MustRefuse("no list of messages")
    turns = []
    for number, turn in enumerate(value or []):
        if not isinstance(turn, dict):
            raise MustRefuse("a turn that is none")
        who, what = ("from", "value") if "from" in turn else ("role", "content")
        if who not in turn or what not in turn or not isinstance(turn[who], str) or turn[who] not in ROLES:
            raise MustRefuse("a turn of nobody")
        if turn[who] == "system" and number:
            raise MustRefuse("system within")
        turns.append((ROLES[turn[who]], _text(turn[what])))
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    return [part for turn in turns for part in turn] if all(said for _, said in turns) else []


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    often = Counter(name for name, _ in pairs)
    return {name: value if often[name] == 1 else Twice() for name, value in pairs}


def _whole(written: str) -> Number:
    if len(written) > DIGITS:
        raise MustRefuse("too many digits")
    return Number(written)


def _loads(text: str) -> Any:
    hooks: Any = {"parse_float": Number, "parse_constant": Number, "parse_int": _whole}
    try:
        return json.loads(text, object_pairs_hook=_pairs, **hooks)
    except (ValueError, RecursionError) as error:
        raise MustRefuse(str(error)) from error


def decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MustRefuse("not UTF-8") from error


def _rows(found: list[Any]) -> list[Row]:
    if not all(isinstance(row, dict) for row in found):
        raise MustRefuse("a row that is no object")
    return found


def _json(path: Path) -> list[Row]:
    found = _loads(decoded(path))
    if not isinstance(found, list):
        raise MustRefuse("no array")
    return _rows(found)


def _jsonl(path: Path) -> list[Row]:
    return _rows([_loads(line.rstrip()) for line in LINE_END.split(decoded(path)) if line.strip()])


def csv_fields(text: str) -> list[list[str]]:
    """Rows of RFC 4180, of any line ends; a quote within what is not quoted is a character. Raises MustRefuse."""
    rows: list[list[str]] = []
    row: list[str] = []
    field, state = "", "begin"
    for character in text:
        if state == "quoted":
            state, field = ("closed", field) if character == '"' else (state, field + character)
        elif state == "closed" and character == '"':
            state, field = "quoted", field + character
        elif character == "," or character in "\r\n":
            if character == "," or row or field or state == "closed":
                row.append(field)
            if character != "," and row:
                rows.append(row)
                row = []
            field, state = "", "begin"
        elif state == "closed":
            raise MustRefuse("something behind a quote")
        elif state == "begin" and character == '"':
            state = "quoted"
        else:
            field, state = field + character, "plain"
    if state == "quoted":
        raise MustRefuse("a quote that is never closed")
    if row or field or state == "closed":
        rows.append([*row, field])
    if any("\0" in cell for row in rows for cell in row):
        raise MustRefuse("NUL")
    return rows


def _csv(path: Path) -> list[Row]:
    header, *rows = csv_fields(decoded(path)) or [[]]
    if any(len(row) != len(header) for row in rows):
        raise MustRefuse("more or fewer fields than the header")
    return [_pairs(list(zip(header, row, strict=True))) for row in rows]


def _parquet(path: Path) -> list[Row]:
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            table = pq.read_table(file, use_threads=False, pre_buffer=False, page_checksum_verification=True)
        table.validate(full=True)
        columns = [column.to_pylist() for column in table.columns]
    except Exception as error:
        raise MustRefuse(str(error)) from error
    return [_pairs(list(zip(table.column_names, cells, strict=True))) for cells in zip(*columns, strict=True)]


def _txt(path: Path) -> list[Row]:
    text = decoded(path)
    if "\0" in text:
        raise MustRefuse("NUL")
    by_blank = groupby(LINE_END.split(text), key=lambda line: not line.strip())
    documents = [list(lines) for blank, lines in by_blank if not blank]
    if len(documents) == 1:
        documents = [[line] for line in documents[0]]
    return [{"text": "\n".join(document)} for document in documents]


_READERS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet, ".txt": _txt}
