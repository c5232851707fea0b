"""The rows of a user's data file: JSON, JSONL, CSV, Parquet or plain text.

A file is read as it is needed, so that its size does not matter; only a .json, which is one array, is read whole.
"""

import codecs
import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tradeoffs.plumbing.errors import UserError, near

Row = tuple[str, dict[str, Any]]  # where it stands ("data.csv:7"), and its columns
FIELD_CHARACTERS = 1 << 24  # of a CSV field, at most: a longer one is a quote that nothing closes


class _Repeated:
    """What a name holds that is there more than once: which of them is meant nobody can say."""

    def __repr__(self) -> str:
        return "there more than once"


REPEATED = _Repeated()


def checked(path: str | Path) -> Path:
    """A file that is there and can be read by its suffix; raises UserError otherwise."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in READERS)
        hint = near(path.name, there) if there else f", and no other data file in {path.parent}"
        raise UserError(f"{path}: no such file{hint}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):  # to open a pipe would wait for its other end
        raise UserError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}; must be a file")
    if path.suffix not in READERS:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; known are {', '.join(READERS)}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: may not be read (permission denied); give yourself the right to")
    return path


def rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file in their order, and where each stands; a name that one has twice holds REPEATED.

    Raises UserError for a missing file, an unknown suffix, broken lines, bytes that are not UTF-8, and what cannot be
    read from the disk or into memory.
    """
    path = checked(path)
    yield from readable(path, READERS[path.suffix](path))


def readable(path: Path, found: Iterator[Any]) -> Iterator[Any]:
    """What is read from a text file, where it can be: raises UserError for what can be wrong with any file."""
    try:
        yield from found
    except UnicodeDecodeError as error:
        line, byte = _first_not_utf8(path)
        raise UserError(
            f"{path}:{line}: not UTF-8: byte {byte} of the file ({error.reason}); save the file as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: does not fit into memory; .jsonl and .parquet are read row by row") from error


def csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The fields of each row that is not empty, and where it ends. Raises UserError for what is no CSV."""
    csv.field_size_limit(FIELD_CHARACTERS)
    begins = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if any("\0" in cell for cell in cells):
                    raise _with_nul(f"{path}:{reader.line_num}")
                if cells:
                    yield f"{path}:{reader.line_num}", cells
                begins = reader.line_num + 1
        except csv.Error as error:
            unclosed = "; a quote of the row that begins here is never closed"
            ended = "end of data" in str(error) or "field limit" in str(error)
            raise UserError(f"{path}:{begins}: not valid CSV: {error}{unclosed if ended else ''}") from error


def _with_nul(where: str) -> UserError:
    return UserError(f"{where}: holds a NUL character, as UTF-16 and binary files do; save the file as UTF-8")


def _named(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Columns, or the keys of an object, by their names."""
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) < len(pairs):
        often = Counter(name for name, _ in pairs)
        found |= {name: REPEATED for name, count in often.items() if count > 1}
    return found


def _number(written: str) -> float | str:
    """As a float, or as it is written where that would hold another number."""
    value = float(written)
    # Of 15 digits a float keeps each; of an exponent or of more of them one must ask.
    if repr(value) == written or (len(written) <= 15 and "e" not in written.lower()):
        return value
    try:
        same = Decimal(repr(value)) == Decimal(written)
    except InvalidOperation:  # an exponent of more than 18 digits
        same = False
    return value if same else written


_DECODER = json.JSONDecoder(object_pairs_hook=_named, parse_float=_number)


def _parsed(text: str, where: str) -> Any:
    """JSON; raises JSONDecodeError, and UserError for what is JSON but cannot be read."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise UserError(f"{where}: not readable JSON: lists or objects in each other, hundreds deep") from error
    except ValueError as error:  # Python's limit on the digits of a whole number
        raise UserError(f"{where}: not readable JSON: a number of thousands of digits; put it in quotes") from error


def _json(path: Path) -> Iterator[Row]:
    try:
        found = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
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
            where = f"{path}:{number}"
            try:
                yield _object(where, _parsed(line.rstrip(), where))
            except json.JSONDecodeError as error:
                raise UserError(f"{where}: not valid JSON: {error.msg} (column {error.colno})") from error


def _object(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with named columns, is a {type(row).__name__}")
    return where, row


def _csv(path: Path) -> Iterator[Row]:
    found = csv_rows(path)
    _, header = next(found, ("", []))
    for where, cells in found:
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} fields, the header has {len(header)}; quote fields that hold commas"
            )
        yield where, _named(zip(header, cells, strict=True))


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        for batch in _batches(path):
            for row in batch:
                number += 1
                yield f"{path}: row {number}", row
    except (MemoryError, ImportError):  # no fault of the file's
        raise
    except Exception as error:  # of a damaged file pyarrow raises whatever the damage leads to
        if isinstance(error, OSError) and error.errno:  # of the disk; pyarrow's own have no number
            raise
        said = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"damaged after row {number}" if number else "not a Parquet file"
        raise UserError(f"{path}: {what}: {said}") from error


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        for batch in file.iter_batches(batch_size=1000):
            if len(set(names)) == len(names):
                yield batch.to_pylist()
            else:
                columns = [column.to_pylist() for column in batch.columns]
                yield [_named(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _text(path: Path) -> Iterator[Row]:
    """A document per paragraph; in a file without empty lines, a document per line."""
    by_line = not _has_paragraphs(path)
    begins = 0  # the line where the document begins that is being read
    lines: list[str] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise _with_nul(f"{path}:{number}")
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
