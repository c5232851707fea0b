"""Reading a user's data file, and what its columns mean."""

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tradeoffs.common.columns import FIELD
from tradeoffs.params import Columns
from tradeoffs.plumbing.errors import UserError, listed, near
from tradeoffs.sources.formats import REPEATED, Row, checked, rows

__all__ = ["Example", "Row", "checked", "examples", "read", "rows", "used"]

Example = dict[str, Any]
TEXT_FILE = Columns(text="text")  # what the rows of a text file hold, for which no columns are given
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}


def read(path: str | Path, columns: Columns | None) -> Iterator[Example]:
    """The examples of a file in their order; without `columns` those of a text file. Raises what `rows` and `examples`
    raise, while it is iterated."""
    return examples(rows(path), columns)


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
    there or there twice, and for values that are neither text nor number, or no messages.
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
    if row[column] is REPEATED:
        raise UserError(f"{where}: {column!r} is there more than once; keep only the one that is meant")
    return row[column]


def _columns_there(column: str | None, row: dict[str, Any]) -> str:
    hint = near(column, row)
    return hint if hint.startswith(" (there are") else f"{hint.removesuffix(')')} there are: {listed(row)})"


def _text_of(where: str, column: str | None, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        found = f"is {value}" if value is REPEATED else f"is a {type(value).__name__}"
        raise UserError(f"{where}: column {column!r} must hold text, {found}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: column {column!r} holds {value}, which is no number; leave it empty")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: column {column!r} holds {text[error.start]!r}, half of a character (a surrogate without its "
            "other half); write the character whole"
        ) from error
    return text


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
        role = ROLES.get(turn[who]) if isinstance(turn[who], str) else None
        if role is None:
            raise UserError(f"{place}: {who} is {reprlib.repr(turn[who])}; known are {', '.join(ROLES)}")
        if role == "system" and number > 1:
            raise UserError(f"{place}: {who} is {turn[who]!r}; only the first message can be that")
        turns.append({"role": role, "content": _text_of(place, what, turn[what])})
    while turns and turns[-1]["role"] != "assistant":  # what no answer follows teaches nothing
        turns.pop()
    return turns if all(turn["content"] for turn in turns) else []
