"""Data files, and what can be wrong with them: what a row says, how it is written, and single bytes of the file."""

import csv
import gzip
import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch"),
    *("Größe", "東京", "naïve", "🙂", "3.5", "1,000"),
)
NAMES = {
    "instruction": ("ask", "more", "reply"),
    "preference": ("ask", "good", "bad"),
    "chat": ("talk",),
    "text": ("text",),
}
SUFFIXES = {
    "instruction": (".jsonl", ".json", ".csv", ".parquet"),
    "preference": (".jsonl", ".json", ".csv", ".parquet"),
    "chat": (".jsonl", ".json", ".parquet"),
    "text": (".jsonl", ".json", ".csv", ".parquet", ".txt"),
}

# Texts that are text, whatever a page, a shell, a table or a terminal would make of them.
TEXTS = (
    *("", " \t", "nan", "NaN", "null", "=cmd|' /C calc'!A1", "<script>alert(1)</script>", "a | b", "\x1b[31mred"),
    *('say "so"', "a,b;c", "line\nline", "a\r\nb\rc", "x\u2028y\x85z\x0bw", "\ufeffbom", "\u200b", "e\u0301", "𝄞"),
    *("\x1fanswer", "a\x1eb\x1f", "{ask}", "$(id)", "../../x", "’", "\u202egnp", "word " * 2000, "x" * 150_000),
)
# As they stand in JSON: some are no JSON, some no text, some numbers.
LITERALS = (
    *("NaN", "Infinity", "-Infinity", "nan", "1e999", "1e5", "-0", "1.10", "0.1000000000000000055511151231257827"),
    *("12345678901234567890123", "1e99999999999999999999999", "-1e-999", "01", "1.", "+1", "0x10", "7" * 5000),
    *("true", "false", "null", "[]", "{}", '["x"]', '{"a": 1}', "[" * 100_000, '{"a":' * 100_000, "[" * 30 + "]" * 30),
    *(r'"\ud800"', r'"a\udc00b"', r'"\ud83d\ude00"', r'"\udc00\ud800"', r'"\u0000"', r'"\u000"', '"\t"', "'x'"),
    *('"x', '"a" "b"', "undefined", '{"a": 1, "a": 2}', '""', r'"\x41"', "/* no */ 1", '"\\"'),
)
CONTENTS: tuple[Any, ...] = (None, "", [], {}, 4, 1.5, True, " y ", "\x00")
MESSAGES: tuple[Any, ...] = (
    *(None, [], {}, "text", 7, [None], ["x"], [[]], [{}], [{"role": "user"}], [{"content": "x"}], {"role": "user"}),
    *([{"role": role, "content": "x"}] for role in ("tool", None, 3, ["user"], {"a": 1}, "", "USER", True)),
    *([{"role": "assistant", "content": said}] for said in CONTENTS),
    [{"from": "gpt", "value": "x", "role": "user", "content": "y"}],
    [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "assistant", "content": "c"}],
    [{"role": "assistant", "content": "alone"}],
    [{"role": "assistant", "content": "a\x1fuser\x1fb"}],
)
TOKENS = (
    *(b"\xef\xbb\xbf", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b'"', b"'", b",", b"\n"),
    *(b"\r", b"\r\n", b"\n\n", b"{", b"}", b"[", b"]", b"\\", b"\\u", b":", b"NaN", b"\x1a", b"\x1b]0;t\x07", b" "),
    *(b"\xe2\x80\xae", b"PAR1", b"\x1f\x8b", b"\x7f" * 8, b"\xc2\x85", b"\xe2\x80\xa8", b"1e999", b"//", b"<!--"),
    *(b"\x0c", b"\x00" * 64),
)


DAMAGES = ("flip", "set", "delete", "insert", "repeat", "cut", "zero", "noise", "token", "token", "swap")
PLACES = ("folder", "pipe", "/dev/null", "/dev/zero", "loop", "nowhere", "nothing", "socket", "suffix", "link", "long")


def text_of(random: Random, number: int) -> str:
    return " ".join(random.choices(WORDS, k=random.randint(3, 9))) + f" item {number}"


def rows(random: Random, kind: str) -> list[Row]:
    """24 rows as they should be, most of them of their own words."""

    def said(number: int) -> str:
        return text_of(random, number)

    if kind == "chat":
        forms = (("role", "content", "user", "assistant"), ("from", "value", "human", "gpt"))
        who, what, user, assistant = random.choice(forms)
        return [
            {"talk": [{who: user, what: said(n)}, {who: assistant, what: said(n)}] * random.randint(1, 2), "id": n}
            for n in range(24)
        ]
    return [{name: said(n) for name in NAMES[kind]} | {"id": n} for n in range(24)]


def written(random: Random, found: list[Row], suffix: str) -> bytes:
    """A file of these rows, in one of the ways in which such files are written."""
    if suffix == ".json":
        return json.dumps(found, ensure_ascii=random.random() < 0.5, indent=random.choice((None, 2))).encode()
    if suffix == ".jsonl":
        return b"".join(json.dumps(row, ensure_ascii=random.random() < 0.5).encode() + b"\n" for row in found)
    if suffix == ".txt":
        between = random.choice(("\n", "\n\n", "\r\n\r\n", "\n \n"))
        return between.join(str(row["text"]) for row in found).encode()
    if suffix == ".csv":
        file = io.StringIO()
        quoting: Any = random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        table = csv.writer(file, quoting=quoting, lineterminator=random.choice(("\n", "\r\n")))
        names = list(dict.fromkeys(name for row in found for name in row))
        table.writerow(names)
        table.writerows([row.get(name, "") for name in names] for row in found)
        return file.getvalue().encode()
    return parquet(random, pa.Table.from_pylist(found))


def parquet(random: Random, table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=random.choice((5, 100)),
        compression=random.choice(("none", "snappy", "zstd", "gzip", "brotli", "lz4")),
        use_dictionary=random.random() < 0.5,
        data_page_version=random.choice(("1.0", "2.0")),
        write_page_checksum=random.random() < 0.5,
        store_schema=random.random() < 0.8,
    )
    return sink.getvalue()


def of_a_value(random: Random, kind: str, suffix: str) -> tuple[str, bytes]:
    """One value of one row is another one, or is not there, or is there twice."""
    found = rows(random, kind)
    number, name = random.randrange(len(found)), random.choice(NAMES[kind])
    row = found[number]
    if suffix in (".json", ".jsonl") and random.random() < 0.6:
        literal = random.choice(LITERALS)
        row[name] = "@@"
        if random.random() < 0.2:
            content = written(random, found, suffix).replace(b'"@@"', f'"one", "{name}": {literal}'.encode())
            return f"{name} twice, then {literal[:40]}", content
        return f"{name} is {literal[:40]}", written(random, found, suffix).replace(b'"@@"', literal.encode())
    if kind == "chat":
        row[name] = random.choice(MESSAGES)
        try:
            return f"messages are {str(row[name])[:60]}", written(random, found, suffix)
        except (pa.ArrowException, TypeError):  # no column can hold it beside the others
            return of_a_value(random, kind, suffix)
    if random.random() < 0.2:
        if suffix == ".txt":
            return "clean", written(random, found, suffix)
        value = row.pop(name)
        row |= random.choice(({}, {name.upper(): value}, {f" {name}": value}, {f"{name}\n": value}))
        return f"no {name}", written(random, found, suffix)
    row[name] = random.choice(TEXTS)
    return f"{name} is {row[name][:40]!r}", written(random, found, suffix)


def of_the_table(random: Random, kind: str, suffix: str) -> tuple[str, bytes]:
    """Something about all rows, or about the names of the columns."""
    if suffix == ".parquet":
        return _of_a_column(random, kind)
    content = written(random, rows(random, kind), suffix)
    how = random.choice(list(WHOLE))
    if suffix == ".csv" and random.random() < 0.6:
        return _of_a_header(random, content)
    return how, WHOLE[how](content)


def _of_a_header(random: Random, content: bytes) -> tuple[str, bytes]:
    head, _, rest = content.partition(b"\n")
    names = head.strip().split(b",")
    at = random.randrange(len(names))
    quoted, space = b'"' + names[at].strip(b'"'), b" " + names[at]
    instead = random.choice((names[at - 1], b"", b'""', quoted, space, b"a,b", b"\x00", b"?"))
    body = rest.split(b"\n")
    lines = [b",".join([*names[:at], instead, *names[at + 1 :]]), *body]
    if random.random() < 0.3:
        extra = random.choice((names[at], b"", b"other"))
        lines = [head.strip() + b"," + extra, *(line.strip() + b",x" for line in body if line)]
    return f"header {lines[0][:60]!r}", b"\n".join(lines)


def _of_a_column(random: Random, kind: str) -> tuple[str, bytes]:
    found = rows(random, kind)
    table = pa.Table.from_pylist(found)
    name = random.choice(NAMES[kind])
    how = random.choice(list(_COLUMNS))
    column = _COLUMNS[how](len(found))
    if column is None:
        names = list(table.column_names)
        if how == "no columns":
            table = table.select([])
        elif how == "no rows":
            table = table.slice(0, 0)
        elif how == "twice":
            table = table.append_column(name, table[name])
        else:
            names[-1] = random.choice(("", name.upper(), "a\nb", "\x1b[31m", "id", "x" * 10_000))
            table = table.rename_columns(names)
        return f"{how}: {name}", parquet(random, table)
    return f"{name} is {how}", parquet(random, table.set_column(table.column_names.index(name), name, column))


def _bad_utf8(count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(), count, pa.array([b"caf\xe9"] * count).buffers()).view(pa.string())


_COLUMNS: dict[str, Callable[[int], Any]] = {
    "no columns": lambda count: None,
    "no rows": lambda count: None,
    "twice": lambda count: None,
    "renamed": lambda count: None,
    "int": lambda count: pa.array(range(count)),
    "float": lambda count: pa.array([n / 3 for n in range(count)]),
    "float with NaN": lambda count: pa.array([float("nan"), *range(1, count)], pa.float64()),
    "float32": lambda count: pa.array([n / 3 for n in range(count)], pa.float32()),
    "half floats with infinity": lambda count: pa.array([float("inf"), *range(1, count)], pa.float32()),
    "bool": lambda count: pa.array([True] * count),
    "binary": lambda count: pa.array([b"x"] * count),
    "not UTF-8": _bad_utf8,
    "null": lambda count: pa.nulls(count),
    "decimal": lambda count: pa.array(range(count)).cast(pa.decimal128(30, 2)),
    "timestamp": lambda count: pa.array([2**50 + n for n in range(count)], pa.timestamp("s")),
    "timestamp with a zone": lambda count: pa.array(range(count), pa.timestamp("ns", "Nowhere/At all")),
    "duration": lambda count: pa.array([2**62] * count, pa.duration("us")),
    "date": lambda count: pa.array([2**30] * count, pa.date32()),
    "dictionary": lambda count: pa.array([f"the word {n}" for n in range(count)]).dictionary_encode(),
    "large string": lambda count: pa.array([f"the word {n}" for n in range(count)], pa.large_string()),
    "string view": lambda count: pa.array([f"the word {n}" for n in range(count)], pa.string_view()),
    "list": lambda count: pa.array([["x"]] * count),
    "struct": lambda count: pa.array([{"role": "user", "content": "x"}] * count),
    "list of structs": lambda count: pa.array([[{"role": "assistant", "content": str(n)}] for n in range(count)]),
    "map": lambda count: pa.array([[("role", "user")]] * count, pa.map_(pa.string(), pa.string())),
    "deep": lambda count: _deep(count),
    "NUL and others": lambda count: pa.array([f"\x00\x1f {n}" for n in range(count)]),
    "long": lambda count: pa.array([f"{n} " + "x" * 100_000 for n in range(count)]),
    "blank": lambda count: pa.array([" \n"] * count),
}


def _deep(count: int) -> pa.Array:
    value: Any = "x"
    for _ in range(60):
        value = [value]
    return pa.array([value] * count)


WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "clean": lambda content: content,
    "empty": lambda content: b"",
    "only a mark": lambda content: b"\xef\xbb\xbf",
    "only space": lambda content: b" \n\t\r\n",
    "marked": lambda content: b"\xef\xbb\xbf" + content,
    "marked twice": lambda content: b"\xef\xbb\xbf" * 2 + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda content: content.decode().encode("utf-16-le"),
    "UTF-16 of ASCII": lambda content: content.decode().encode("ascii", "ignore").decode().encode("utf-16-le"),
    "UTF-32": lambda content: content.decode().encode("utf-32"),
    "Latin-1": lambda content: content.decode().encode("latin-1", "replace"),
    "gzip": gzip.compress,
    "zstd": lambda content: pa.compress(content, "zstd", asbytes=True),
    "twice": lambda content: content + content,
    "old line ends": lambda content: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    "Windows line ends": lambda content: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "no line ends": lambda content: content.replace(b"\n", b""),
    "line ends twice": lambda content: content.replace(b"\n", b"\n\n"),
    "semicolons": lambda content: content.replace(b",", b";"),
    "tabs": lambda content: content.replace(b",", b"\t"),
    "no quotes": lambda content: content.replace(b'"', b""),
    "single quotes": lambda content: content.replace(b'"', b"'"),
    "upper case": bytes.upper,
    "backwards": lambda content: content[::-1],
    "trailing comma": lambda content: content.rstrip() + b",\n",
    "in an object": lambda content: b'{"data": ' + content + b"}",
    "comment first": lambda content: b"# data\n" + content,
    "a long row": lambda content: content + b'{"text": "' + b"x " * 100_000,
    "a page of HTML": lambda content: b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n",
    "an LFS pointer": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a pickle": lambda content: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93.",
    "a conflict": lambda content: b"<<<<<<< HEAD\n" + content + b"=======\n" + content + b">>>>>>> other\n",
}


def of_bytes(random: Random, content: bytes) -> tuple[str, bytes]:
    """Up to three places of a file are damaged; of Parquet often its end, where it says what it holds."""
    damaged, done = bytearray(content), []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        begin = max(0, len(damaged) - 700) if random.random() < 0.3 else 0
        at = random.randrange(begin, len(damaged)) if damaged else 0
        to = min(len(damaged), at + random.choice((1, 1, 2, 8, 100)))
        how = random.choice(DAMAGES)
        if how == "flip" and damaged:
            damaged[at] ^= 1 << random.randrange(8)
        elif how == "set" and damaged:
            damaged[at] = random.choice((0, 0xFF, 0x7F, 0x80, *range(256)))
        elif how == "delete":
            del damaged[at:to]
        elif how == "insert":
            damaged[at:at] = random.randbytes(random.choice((1, 2, 9)))
        elif how == "repeat":
            damaged[at:at] = damaged[at:to] * random.choice((1, 2, 50))
        elif how == "cut":
            del damaged[at:]
        elif how == "zero":
            damaged[at:to] = bytes(to - at)
        elif how == "noise":
            damaged[at:to] = random.randbytes(to - at)
        elif how == "swap":
            damaged[at:to] = damaged[at:to][::-1]
        else:
            damaged[at:at] = random.choice(TOKENS)
        done.append(f"{how} at {at}")
    return ", ".join(done), bytes(damaged)


def no_file(random: Random, path: Path, content: bytes) -> tuple[str, Path]:
    """Something else stands where the file is expected: what, and its path."""
    how = random.choice(PLACES)
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how.startswith("/dev/"):
        path.symlink_to(how)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "nowhere":
        path.symlink_to("not_there")
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif how == "suffix":
        path = path.with_suffix(random.choice((".csv.gz", ".CSV", ".jsonl.zst", ".json5", ".xlsx", "")))
        path.write_bytes(content)
    elif how == "link":
        path.with_name("there").write_bytes(content)
        path.symlink_to("there")
    elif how == "long":
        path = path.with_name("x" * 300 + path.suffix)
    return how, path
