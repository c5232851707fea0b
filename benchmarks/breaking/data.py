"""Data files that are damaged, and whether what is prepared of them is what they say.

A file of 24 rows, of one of the kinds and formats that there are, is written and damaged: in single bytes, in a value,
in its columns, as a whole, or something else is in its place; or MMLU's files, or the names of its subjects. Stage
prepare's own code then prepares it.

The rule. `data_rule` reads the file by other means. What it says must be refused may not be accepted. Of what is
accepted, each prepared row is a row of the file, verbatim but for the space around its texts (a number: of the same
value), none more often than it is there; all that are not prepared are counted in info.json, by the reason; no two have
the same id. Multiple choice is the same as read from MMLU's files, row by row. What is refused leaves nothing behind,
and its message names the file or the key in params.yaml; and what is sound by `data_rule`, with rows enough, may not
be refused.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.breaking import Taken, Tries, Try, attempt, data_damage, data_rule
from benchmarks.breaking.data_rule import MustRefuse
from stages import prepare
from tradeoffs import params
from tradeoffs.common import examples, files

COLUMNS = {
    "instruction": (
        params.Columns(instruction="ask", answer="reply"),
        params.Columns(instruction="ask", input="more", answer="reply"),
        params.Columns(instruction="{more}: {ask}", answer="reply"),
    ),
    "preference": (params.Columns(instruction="ask", chosen="good", rejected="bad"),),
    "chat": (params.Columns(messages="talk"),),
    "text": (params.Columns(text="text"),),
}
ENOUGH = 20  # different rows, of which there is something for each split
MESSAGE = 4000  # characters, at most
MEMORY = 6 << 30
SUBJECTS = (
    *("a\nb", "<img src=x onerror=alert(1)>", "a|b", "\x1b[31mred", "..", ".", "", "accuracy", "law low", "law_low"),
    *("é" * 60, "anatomy ", "=cmd", "a\udce9", "x" * 200, "名前", "\u202egnp", "cpu_seconds", "a\tb", "$(id)"),
    *("{{ x }}", "a_b", "a b"),
)
MMLU_ROWS = (
    *(b"q,a,b,c,d,E\n", b"q,a,b,c,d,a\n", b"q,a,b,c,A\n", b'"q,a,b,c,d,A\n', b'q,a,b,c,d,"A\n', b"q,a,b,c,d,A\r"),
    *(b"\xffq,a,b,c,d,A\n", b"\x00q,a,b,c,d,A\n", b"q,a,b,c,d, A\n", b"\n\n", b",,,,,A\n", b'"q\n2",a,b,c,d,B\n'),
    b'"q" x,a,b,c,d,A\n',
)
PATTERNS = (
    *("(.*)", r"(\d+)", r"item (\d+)", "((?:a+)+)$", "((?:[a-z ]+)*)#", r"((?:\w+\s?)+)!", r"(?:.*)*(x)"),
    *(r"(?s).*item (\w+)", r"((?:(?:1?)*)*)$", "(nothing)", "()", r"^(?:\s*\w)*\b(\d)$", r"((?:x|x)*)y", "(?i)(ITEM)"),
)


@dataclass(frozen=True)
class Case:
    """What is prepared, what may come of it, and whether something else than its file was damaged."""

    what: str
    wanted: params.Dataset
    rule: Callable[[], list[list[Any]]]  # raises MustRefuse
    mmlu: Callable[[], list[tuple[Any, ...]]] = list


def tries(count: int, seed: int) -> Tries:
    for number in range(count):
        random = Random(f"{seed} {number}")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            case = random.choices((_file, _mmlu, _no_file, _pattern), (90, 6, 3, 1))[0](random, folder)
            taken, said = _attempted(folder, case.wanted)
            yield Try(f"{number}: {case.what}", *_judged(folder, case, taken, said))


def _attempted(folder: Path, wanted: params.Dataset) -> tuple[Taken, str]:
    """A hang is one that comes again: pyarrow has threads, and a fork can be made while one of them holds a lock."""
    found = attempt(lambda: _prepare(folder, wanted), memory=MEMORY)
    return attempt(lambda: _prepare(folder, wanted), memory=MEMORY) if found[0] == Taken.HANG else found


def _prepare(folder: Path, wanted: params.Dataset) -> None:
    """As stage prepare does, but for params.yaml, which is not what is broken here."""
    os.chdir(folder)
    with (
        patch.object(prepare.params, "load", lambda *_, **__: SimpleNamespace(seed=0, dataset=wanted)),
        patch.object(examples, "PATIENCE", 0.3),
    ):
        prepare.main("x")


def _file(random: Random, folder: Path) -> Case:
    kind = random.choice(list(data_damage.NAMES))
    suffix = random.choice(data_damage.SUFFIXES[kind])
    where = random.random()
    if where < 0.4:
        what, content = data_damage.of_bytes(
            random, data_damage.written(random, data_damage.rows(random, kind), suffix)
        )
    else:
        damage = data_damage.of_a_value if where < 0.75 else data_damage.of_the_table
        what, content = damage(random, kind, suffix)
    path = folder / f"rows{suffix}"
    path.write_bytes(content)
    return _case(random, f"{kind} {suffix}: {what}", kind, path)


def _case(random: Random, what: str, kind: str, path: Path, **more: Any) -> Case:
    columns = None if path.suffix == ".txt" else random.choice(COLUMNS[kind])
    longest = random.choice((None, None, None, 120))
    wanted = params.Dataset(
        kind=kind,  # type: ignore[arg-type]
        near_duplicate=0.9,
        seen=1,
        valid=1,
        test_share=0.5,
        path=str(path),
        columns=columns,
        max_characters=longest,
        **more,
    )
    return Case(what, wanted, lambda: data_rule.examples(path, columns))


def _clean(random: Random, folder: Path, **more: Any) -> Case:
    path = folder / "rows.jsonl"
    path.write_bytes(data_damage.written(random, data_damage.rows(random, "instruction"), ".jsonl"))
    return _case(random, "clean", "instruction", path, **more)


def _no_file(random: Random, folder: Path) -> Case:
    suffix = random.choice(data_damage.SUFFIXES["text"])
    content = data_damage.written(random, data_damage.rows(random, "text"), suffix)
    how, path = data_damage.no_file(random, folder / f"rows{suffix}", content)
    case = _case(random, f"{suffix}: {how}", "text", path)
    return case if how == "link" else Case(case.what, case.wanted, _never)


def _never() -> list[list[Any]]:
    raise MustRefuse("no file")


def _pattern(random: Random, folder: Path) -> Case:
    pattern = random.choice(PATTERNS)
    case = _clean(random, folder, answer_pattern=pattern)
    return Case(f"answer_pattern {pattern}", case.wanted, case.rule)


def _mmlu(random: Random, folder: Path) -> Case:
    """Two subjects of three questions; one file, one name or one place is not as it should be."""
    subjects, root = ["anatomy", "law"], folder / "mmlu"
    if random.random() < 0.4:
        subjects[random.randrange(2)] = random.choice(SUBJECTS)
    for split in ("dev", "test"):
        (root / split).mkdir(parents=True)
        for subject in subjects:
            lines = [b'"%s, %d?",a,b,c,"d, e",%c\n' % (split.encode(), n, b"ABCD"[n]) for n in range(3)]
            (root / split / f"{subject}_{split}.csv").write_bytes(b"".join(lines))
    path = random.choice(sorted(root.glob("*/*")))
    content = path.read_bytes()
    how = random.choice(("row", "row", "bytes", "empty", "gone", "folder", "pipe", "whole", "none"))
    if how == "row":
        added = random.choice(MMLU_ROWS)
        path.write_bytes(content + added if random.random() < 0.5 else added + content)
        how = repr(added)
    elif how == "bytes":
        how, content = data_damage.of_bytes(random, content)
        path.write_bytes(content)
    elif how == "whole":
        path.write_bytes(data_damage.WHOLE["UTF-16"](content))
    elif how == "empty":
        path.write_bytes(b"")
    elif how != "none":
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
    asked = random.choice((None, None, ["law"], ["law", "anatomy"], ["law", "law"], ["../test/law"]))
    case = _clean(random, folder, mmlu=params.MmluSource(path=str(root), subjects=asked))
    return Case(
        f"mmlu {subjects} {asked}: {path.name!r} {how}", case.wanted, case.rule, lambda: _questions(root, asked)
    )


def _questions(root: Path, asked: list[str] | None) -> list[tuple[Any, ...]]:
    known = sorted(
        path.name.removesuffix("_test.csv") for path in (root / "test").iterdir() if path.name.endswith("_test.csv")
    )
    subjects = asked or known
    if not subjects or not set(subjects) <= set(known):
        raise MustRefuse("no such subject")
    columns = [f"{one}{end}" for one in subjects for end in ("", "_low", "_high", "_seed_sd")]
    columns += ["accuracy", "accuracy_low", "accuracy_high", "wall_seconds", "cpu_seconds", "gpu_seconds"]
    if max(Counter(name.replace("_", " ") for name in columns).values()) > 1:
        raise MustRefuse("two of one name")
    if any(not one or not one.isprintable() or len(one.encode()) > 100 for one in subjects):
        raise MustRefuse("no name")
    found = []
    for subject in subjects:
        for split in ("dev", "test"):
            path = root / split / f"{subject}_{split}.csv"
            if not path.is_file():
                raise MustRefuse("no file")
            rows = data_rule.csv_fields(data_rule.decoded(path))
            if not rows or any(len(row) != 6 or row[5] not in list("ABCD") for row in rows):
                raise MustRefuse("no questions")
            found += [(subject, split, row[0], row[1:5], "ABCD".index(row[5])) for row in rows]
    return found


def _judged(folder: Path, case: Case, taken: Taken, said: str) -> tuple[Taken, str]:
    try:
        there, asked = case.rule(), case.mmlu()
    except MustRefuse as reason:
        if taken == Taken.ACCEPTED:
            return Taken.SILENT, f"accepted, though {reason}"
        there, asked = [], []
    if taken == Taken.REFUSED:
        return _refused(folder, case, there, said)
    if taken != Taken.ACCEPTED:
        return taken, said
    wrong = _wrong(folder / "data/prepared/x", case, there, asked)
    return (Taken.SILENT, wrong) if wrong else (taken, said)


def _refused(folder: Path, case: Case, there: list[list[Any]], said: str) -> tuple[Taken, str]:
    left = [path for path in (folder / "data").rglob("*") if path != folder / "data/prepared"]
    if left:
        return Taken.MANUAL, f"left behind: {left}"
    if len(said) > MESSAGE or not any(name in said for name in (folder.name, "datasets.x", "answer_pattern")):
        return Taken.MANUAL, f"a message that helps nobody: {said[:MESSAGE]}"
    limited = case.wanted.max_characters or case.wanted.answer_pattern
    kind = case.wanted.kind
    if len({tuple(row) for row in there if not _is_empty(row, kind)}) >= ENOUGH and not limited:
        return Taken.MANUAL, f"refused, though nothing is wrong with it: {said}"
    return Taken.REFUSED, said


def _wrong(folder: Path, case: Case, there: list[list[Any]], asked: list[tuple[Any, ...]]) -> str:
    """What is not as the rule has it, or nothing."""
    split = {name: files.read_jsonl(folder / f"{name}.jsonl") for name in ("train", "valid", "test", "seen", "mmlu")}
    info = files.read_json(folder / "info.json")
    kept = [row for name in ("train", "valid", "test") for row in split[name]]
    if len({row["id"] for row in kept}) < len(kept):
        return "two rows of one id"
    if split["seen"] != split["train"][: len(split["seen"])]:
        return "seen is not the beginning of train"
    left = list(there)
    for row in kept:
        texts = data_rule.texts(row)
        place = next((place for place, said in enumerate(left) if data_rule.same(texts, said)), None)
        if place is None:
            return f"not in the file: {texts}"
        del left[place]
    dropped, counts = info["dropped"], info["counts"]
    lost = sum(value for value in dropped.values() if isinstance(value, int))
    too_long = sum(info.get("too_long", {}).values())
    if counts["read"] + too_long != len(there) or counts["read"] != len(kept) + lost:
        return f"{len(there)} rows in the file; {counts}, {too_long} too long, dropped {dropped}"
    if any(counts[name] != len(split[name]) for name in ("train", "valid", "test", "seen")):
        return f"counts that are not: {counts}"
    if not case.wanted.max_characters and dropped["empty"] != sum(_is_empty(row, case.wanted.kind) for row in there):
        return f"{dropped['empty']} empty rows"
    questions = [(q["subject"], q["split"], q["question"], q["choices"], q["answer"]) for q in split["mmlu"]]
    if questions != asked:
        return f"other questions: {questions}"
    pattern = case.wanted.answer_pattern
    if pattern and not all(re.search(pattern, row["answer"]) for row in split["test"]):
        return "an answer without what the pattern finds"
    return ""


def _is_empty(row: list[Any], kind: str) -> bool:
    if kind == "chat":
        return "user" not in row[::2]
    return not all(row) and not (kind == "preference" and row[1] == row[2])
