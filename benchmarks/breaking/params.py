"""params.yaml, broken in every place: wrong values, names, keys; its bytes and lines; what YAML has to offer.

A try is the real file, cut to a few entries of each catalogue, with one to three things in it broken. What is accepted
must mean what it says, by rules that know nothing of the code that accepted it:

- DVC's own parser reads the same values in it, of the same types.
- Every value is of the kind and size that TABLE states for its place, and all that TABLE asks for is there.
- DVC's own resolver makes of dvc.yaml commands that are the words meant and no others, and outputs that lie in the
  folder of their stage.
- No warm-up is longer than its training, and transformers and rotary positions take what is asked of them. PEFT takes
  it too, or refuses it in words when the training begins: what its fields may be to each other only it knows.

What refuses does so in words: one message that names the file, without a character that a terminal obeys. The files in
configs/ are accelerate's own, and nothing of this project reads them.
"""

import json
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from benchmarks.assets import ROOT
from benchmarks.breaking import Taken, Tries, Try, attempt, params_rules
from tradeoffs import params
from tradeoffs.plumbing.errors import UserError

BATCH = 100  # tries in one fork
SECONDS = 3.0  # for one
LOADER, DUMPER = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)

HOSTILE = (
    *(
        "../../../outside",
        "a; touch x",
        "$(touch x)",
        "`touch x`",
        "a'; touch x; '",
        'a"b',
        "-h",
        "--model=x",
        ".",
        "..",
    ),
    *(
        "",
        " ",
        "a b",
        "a/b",
        "/etc/passwd",
        "a-b",
        "a\nb",
        "\x1b[31mred",
        "a\u202eb",
        "a\u0000b",
        "раураl",
        "ｄｅｍｏ",
        "démo",
    ),
    *(
        "${run.models}",
        "%s",
        "{0}",
        "*",
        "~",
        "null",
        "true",
        "123",
        "1e5",
        "x" * 61,
        "x" * 5000,
        "<script>",
        "demo\n",
        "CON",
    ),
)
WRONG: tuple[Any, ...] = (
    *(
        None,
        [],
        {},
        "",
        " ",
        "x",
        ["x"],
        {"x": 1},
        [[]],
        [{}],
        [None],
        {"": ""},
        -1,
        0,
        1,
        2,
        3,
        0.5,
        1.5,
        -0.5,
        True,
        False,
    ),
    *(10**9 + 1, 10**12, 2**31, 2**32, 2**63 - 1, 2**63, 10**30, 10**400, -(10**12), 1e-300, 1e300, float("inf")),
    *(
        float("-inf"),
        float("nan"),
        "1",
        "1.5",
        "true",
        "auto",
        "none",
        "null",
        "nan",
        "2024-01-01",
        "#",
        "\x7f",
        "\ud7ff",
    ),
)
LITERALS = (
    *(
        "yes",
        "no",
        "on",
        "off",
        "Yes",
        "y",
        "n",
        "010",
        "0o17",
        "0b101",
        "0x1F",
        "1_000",
        "0_1",
        "08",
        "1:30",
        "1:30:30.5",
    ),
    *(
        "2001-01-01",
        "2001-13-45",
        "2001-01-01 10:00:00",
        ".inf",
        "-.inf",
        ".nan",
        "1e400",
        "1e5",
        "1.e5",
        ".5",
        "+.5",
        "-.5e3",
    ),
    *(
        "~",
        "=",
        "<<",
        "!!python/object/apply:os.system [touch x]",
        "!!python/name:os.system",
        "!x y",
        "!!str 5",
        "!!int x",
    ),
    *(
        "!!bool maybe",
        "!!float 5",
        "!!binary aGk=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!timestamp 2001-01-01",
        "!!null x",
    ),
    *(
        "*missing",
        "&a [*a]",
        "&a {x: *a}",
        "[",
        "{",
        "}",
        "'",
        '"',
        "- x",
        "? x",
        "a: b: c",
        "|",
        ">",
        "@x",
        "`x`",
        "%x",
        "\t",
    ),
    *(
        '"\\ud800"',
        '"\\u0000"',
        '"\\x1b[2J"',
        '"\\UFFFFFFFF"',
        "1" * 5000,
        "0x" + "f" * 5000,
        "[" * 60 + "]" * 60,
        "[" * 60000,
    ),
    *(
        "- " * 60000,
        "{a: " * 300,
        "? " * 300,
        "12e03",
        "+1",
        "-0",
        "1__0",
        "_1",
        "0.",
        "00",
        "0.1_0",
        "1.5.2",
        "1e",
        "TRUE",
        "tRue",
    ),
)
LINES = (
    *(
        "---",
        "...",
        "%YAML 1.1\n---",
        "%TAG ! tag:x,2000:",
        "# \x00",
        "\ufeff",
        "\x85",
        "<<: *x",
        "<<: {steps: 1}",
        "<<: [1]",
    ),
    *(
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
        "? !!python/tuple [a]\n: 1",
        "123: x",
        "1.5: x",
        "true: x",
        "null: x",
        "~: x",
        ": x",
        "'': x",
    ),
    *("x: &b [a, a]", "merge:\n  onto: original_base", "seed: 1", "!!map {}", "&top", "- x", "\tx: 1", "  seed: 2"),
    "bomb:\n" + "\n".join(f"- &l{n} [{', '.join([f'*l{n - 1}'] * 9 if n else ['x'] * 9)}]" for n in range(12)),
    "b0: &m0 {a: 1}\n" + "\n".join(f"b{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 12)),
)


def tries(count: int, seed: int) -> Tries:
    """In forks of some tries each, since what breaks a parser can end its process; those of such a fork alone."""
    # What the rules need, imported once for all forks.
    import peft  # noqa: F401
    import transformers  # noqa: F401
    from dvc.parsing import DataResolver  # noqa: F401

    for first in range(0, count, BATCH):
        numbers = list(range(first, min(first + BATCH, count)))
        with tempfile.TemporaryDirectory() as folder:
            answers = Path(folder, "answers.json")
            taken, _ = attempt(partial(_write, numbers, seed, answers), SECONDS * BATCH)
            found = json.loads(answers.read_text(encoding="utf-8")) if taken is Taken.ACCEPTED else None
            for number in numbers:
                yield _tried(found[number - first]) if found else _alone(number, seed, Path(folder))


def _alone(number: int, seed: int, folder: Path) -> Try:
    answers = folder / f"{number}.json"
    taken, said = attempt(partial(_write, [number], seed, answers), SECONDS)
    if taken is Taken.ACCEPTED:
        return _tried(json.loads(answers.read_text(encoding="utf-8"))[0])
    return Try(_made(number, seed)[1], taken, said)


def _tried(found: list[str]) -> Try:
    return Try(found[0], Taken(found[1]), found[2])


def _write(numbers: list[int], seed: int, answers: Path) -> None:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            text, what = _made(number, seed)
            Path(folder, "params.yaml").write_bytes(text)
            found.append((f"{number}: {what}", *_judged(Path(folder, "params.yaml"))))
    answers.write_text(json.dumps(found), encoding="utf-8")


def _judged(path: Path) -> tuple[str, str]:
    try:
        found = params.load_all(path)
    except UserError as error:
        said = str(error)
        plain = said.startswith(str(path)) and not re.search(
            r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", said
        )
        return (Taken.REFUSED if plain else Taken.TRACEBACK), said
    except BaseException:
        return Taken.TRACEBACK, traceback.format_exc()[-600:]
    try:
        wrong = next(params_rules.wrongs(path, found), "")
    except BaseException:
        return Taken.TRACEBACK, f"accepted, then: {traceback.format_exc()[-600:]}"
    return (Taken.SILENT if wrong else Taken.ACCEPTED), wrong


# What is broken.


def _made(number: int, seed: int) -> tuple[bytes, str]:
    """The bytes of a params.yaml, and what is broken in it."""
    random = Random(f"{seed} {number}")
    raw = _project(random)
    said = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if random.random() < 0.55:
            said.append(random.choice(VALUES)(raw, random))
    text = yaml.dump(raw, Dumper=DUMPER, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    if random.random() < 0.03:  # as it is written, comments and all
        text = (ROOT / "params.yaml").read_bytes()
        said = ["the whole file"]
    if not said or random.random() < 0.2:
        how = random.choice(TEXTS)
        text, what = how(text, random)
        said.append(what)
    return text, "; ".join(said)[:300]


_WHOLE: dict[str, Any] = {}


def _project(random: Random) -> dict[str, Any]:
    """The real file with a few blocks of each catalogue, of which the run list names some."""
    if not _WHOLE:
        _WHOLE.update(yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader=LOADER))
    raw: dict[str, Any] = json.loads(json.dumps(_WHOLE))
    for axis, most in (("models", 2), ("datasets", 3), ("methods", 4)):
        kept = {"demo", "base", *random.sample(sorted(raw[axis]), most)}
        raw[axis] = {name: block for name, block in raw[axis].items() if name in kept}
        names = [name for name in raw[axis] if random.random() < 0.6] or list(raw[axis])[:1]
        raw["run"][axis] = names
    return raw


def _places(block: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in list(block) if isinstance(block, dict) else range(len(block)):
        yield (*above, key)
        if isinstance(block[key], (dict, list)):
            yield from _places(block[key], (*above, key))


def _place(raw: Any, random: Random) -> tuple[Any, Any, str]:
    """A block, one of its keys, and where that is; sections are drawn alike, whatever their size."""
    top = random.choice(list(raw) or ["x"])
    every = [place for place in _places(raw) if place[0] == top]
    if not every:
        return {}, "x", "nothing"
    *above, key = random.choice(every)
    for part in above:
        raw = raw[part]
    return raw, key, ".".join(map(str, (*above, key)))


def _another(raw: Any, random: Random) -> str:
    block, key, where = _place(raw, random)
    block[key] = value = random.choice(WRONG)
    return f"{where} = {value!r}"[:90]


def _extreme(raw: Any, random: Random) -> str:
    block, key, where = _place(raw, random)
    old = block[key] if key != "x" else 1
    if isinstance(old, (int, float)) and not isinstance(old, bool) and abs(old) < 1e300:
        block[key] = random.choice(
            [-old, 0, old * 10 ** random.randint(1, 15), old / 10**6, old + 1, old - 1, float(old), str(old)]
        )
    else:
        block[key] = [old] if not isinstance(old, str) else old + random.choice([" ", "x", "\n", "\u200b"]) + old
    return f"{where} = {block[key]!r}"[:90]


def _missing(raw: Any, random: Random) -> str:
    block, key, where = _place(raw, random)
    if isinstance(block, (dict, list)) and key != "x":
        del block[key]
    return f"{where} missing"


def _extra(raw: Any, random: Random) -> str:
    block, key, where = _place(raw, random)
    more = random.choice(
        [*HOSTILE, f"{key}s", str(key)[::-1], 5, 1.5, True, None, "path", "config", "train", "revision"]
    )
    value = random.choice(WRONG)
    if isinstance(block, list):
        block.append(value)
    else:
        block[more] = value
    return f"{where}: beside it {more!r} = {value!r}"[:120]


def _renamed(raw: Any, random: Random) -> str:
    """A block of a catalogue under a hostile name, which the run list names too."""
    axis, name = random.choice(("models", "datasets", "methods")), random.choice(HOSTILE)
    if isinstance(raw.get(axis), dict) and raw[axis] and isinstance(raw.get("run"), dict):
        raw[axis] = dict(raw[axis])
        if random.random() < 0.8:
            raw[axis][name] = raw[axis][random.choice(list(raw[axis]))]
        raw["run"][axis] = [name]
    return f"run.{axis} names {name!r}"[:120]


def _harmful_text(raw: Any, random: Random) -> str:
    block, key, where = _place(raw, random)
    block[key] = value = random.choice(HOSTILE)
    return f"{where} = {value!r}"[:120]


def _copied(raw: Any, random: Random) -> str:
    """What stands in one place in another one too, which YAML then writes as an alias."""
    block, key, where = _place(raw, random)
    other, there, whence = _place(raw, random)
    if there != "x":
        block[key] = other[there]
        try:
            json.dumps(raw)
        except (ValueError, TypeError, RecursionError):  # it would hold itself
            block[key] = "x"
    return f"{where} = what is at {whence}"


def _method(raw: Any, random: Random) -> str:
    """A field of PEFT's with a wrong value."""
    methods = raw.get("methods")
    named = (
        [n for n, m in methods.items() if isinstance(m, dict) and isinstance(m.get("config"), dict)]
        if isinstance(methods, dict)
        else []
    )
    if not named:
        return "no method"
    name = random.choice(named)
    config = methods[name]["config"]
    key = random.choice(
        [*config, "r", "lora_alpha", "lora_dropout", "bias", "target_modules", "layers_to_transform", "rank_pattern"]
    )
    config[key] = value = random.choice(WRONG)
    if isinstance(raw.get("run"), dict):
        raw["run"]["methods"] = ["base", name]
    return f"methods.{name}.config.{key} = {value!r}"[:120]


def _bytes(text: bytes, random: Random) -> tuple[bytes, str]:
    at, count = random.randrange(len(text) + 1), random.choice((1, 1, 2, 8, 100))
    how = random.choice(("flipped", "cut", "put in", "doubled", "ended", "recoded"))
    junk = bytes(
        random.choice((random.randrange(256), *b":-#'\"[]{}&*!|>%@`\t\n\x00\xff\xfe\xc3")) for _ in range(count)
    )
    if how == "flipped" and text:
        at %= len(text)
        text = text[:at] + bytes([text[at] ^ 1 << random.randrange(8)]) + text[at + 1 :]
    elif how == "cut":
        text = text[:at] + text[at + count :]
    elif how == "put in":
        text = text[:at] + junk + text[at:]
    elif how == "doubled":
        text = text[:at] + text[at : at + count] + text[at:]
    elif how == "ended":
        text = text[:at]
    else:
        how = random.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig", "cp037"))
        text = text.decode("utf-8", "replace").encode(how, "replace")
    return text, f"bytes {how} at {at} ({count})"


def _lines(text: bytes, random: Random) -> tuple[bytes, str]:
    lines = text.decode("utf-8", "surrogatepass").split("\n")
    at = random.randrange(len(lines))
    how = random.choice(
        ("doubled", "gone", "indented", "swapped", "put in", "value", "value", "value", "comment", "crlf")
    )
    if how == "doubled":
        lines.insert(at, lines[at])
    elif how == "gone":
        del lines[at]
    elif how == "indented":
        lines[at] = random.choice((" ", "  ", "\t")) + lines[at] if random.random() < 0.7 else lines[at][1:]
    elif how == "swapped":
        other = random.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "put in":
        at, more = random.choice((0, at, len(lines))), random.choice(LINES)
        lines.insert(at, more)
        how = f"put in: {more[:30]!r}"
    elif how == "value":
        more = random.choice(LITERALS)
        key, colon, _ = lines[at].partition(": ")
        lines[at] = (
            f"{key}{colon} {more}" if colon else f"{lines[at][: len(lines[at]) - len(lines[at].lstrip())]}- {more}"
        )
        how = f"{key.strip()}: {more[:40]!r}"
    elif how == "comment":
        lines[at] = lines[at].replace(" ", " #", 1)
    else:
        return "\r\n".join(lines).encode("utf-8", "surrogatepass"), "lines end with CRLF"
    return "\n".join(lines).encode("utf-8", "surrogatepass"), f"line {at + 1} {how}"


VALUES: tuple[Callable[[Any, Random], str], ...] = (
    *(_another, _another, _extreme, _extreme, _missing, _extra, _renamed, _harmful_text, _copied, _method),
)
TEXTS: tuple[Callable[[bytes, Random], tuple[bytes, str]], ...] = (_bytes, _lines, _lines)
