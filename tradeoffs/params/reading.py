"""A value of YAML as a type of the schema; what does not fit is named with its place, all of it at once."""

import re
from collections.abc import Iterable
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

try:
    from yaml import CSafeLoader as SafeLoader  # ten times as fast
except ImportError:  # a PyYAML that was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

from tradeoffs.plumbing.errors import near


class Loader(SafeLoader):
    """SafeLoader that also reads `2e-05` as a number.

    YAML 1.1, which PyYAML follows, asks for a dot in a float; YAML 1.2, JSON and `dvc exp run -S train.lr=2e-5` do not.
    """


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)

EXPECTED = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
# Keys that there were, by the ends of their places, and what has taken their part.
MOVED = {"train.seed": "run.seeds", "evaluate.prompts": "datasets.<name>.prompts"}


def read(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """`value` as `kind`; what does not fit is added to `problems` as `where: what is wrong`.

    `kind` is a dataclass, a list, dict or Literal, a plain type, several of them (`X | None`), or a number with a Range
    (Annotated). `where` is the dotted place in the file, empty for the file itself. What is returned where something
    does not fit is of use for looking for further problems only; None for a dataclass.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number = read(args[0], value, where, problems)
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number not in args[1]:
            problems.append(f"{where}: must be {args[1].asked_of(number)}, is {number}")
        return number
    if origin in (UnionType, Union):
        return _read_one_of(args, value, where, problems)
    if origin is Literal:
        if value not in args:
            problems.append(f"{where}: unknown value {value!r}{near(value, args)}")
        return value
    if origin is list:
        if not isinstance(value, list):
            problems.append(f"{where}: must be a list, is {_describe(value)}")
            return []
        return [read(args[0], entry, f"{where}[{index}]", problems) for index, entry in enumerate(value)]
    if origin is dict:
        found = _block({} if value is None else value, where, problems) or {}
        if args[1] is not Any and not is_dataclass(args[1]):  # null takes out an entry that was there before
            found = {key: entry for key, entry in found.items() if entry is not None}
        return {key: read(args[1], entry, f"{where}.{key}", problems) for key, entry in found.items()}
    if is_dataclass(kind):
        block = _block(value, where, problems)
        return None if block is None else _read_dataclass(kind, block, where, problems)
    return _read_plain(kind, value, where, problems)


def _read_one_of(kinds: tuple[Any, ...], value: Any, where: str, problems: list[str]) -> Any:
    """A value that may be left empty (`X | None`), or a number or one of some words (`int | Literal["auto"]`)."""
    if value is None and NoneType in kinds:
        return None
    kind, *others = (kind for kind in kinds if kind is not NoneType)
    words = [word for other in others if get_origin(other) is Literal for word in get_args(other)]
    if value in words:
        return value
    if words and isinstance(value, str):
        problems.append(f"{where}: must be a whole number or {' or '.join(words)}, is {value!r}")
        return value
    return read(kind, value, where, problems)


def _read_plain(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """A number, a text, true or false. YAML's whole numbers are numbers too; true is no number."""
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problems.append(f"{where}: must be {EXPECTED[kind]}, is {_describe(value)}")
    return value


def _block(value: Any, where: str, problems: list[str]) -> dict[Any, Any] | None:
    if isinstance(value, dict):
        return value
    problems.append(f"{where or 'the whole file'}: must be a block of keys, is {_describe(value)}")
    return None


def _read_dataclass(kind: Any, block: dict[Any, Any], where: str, problems: list[str]) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    hinted = {key: unknown(f"{prefix}{key}", hints) for key in block if key not in hints}
    problems += [f"{prefix}{key}: unknown key{hint}" for key, hint in hinted.items()]
    found = {}
    for name, hint in hints.items():
        if name in block:
            found[name] = read(hint, block[name], prefix + name, problems)
        elif NoneType not in get_args(hint) and f" (did you mean {name}?)" not in hinted.values():
            problems.append(f"{prefix}{name}: missing")
    try:
        return kind(**found)
    except TypeError:  # a required field is missing: already among the problems
        return None


def unknown(where: str, known: Iterable[str]) -> str:
    """What is said of a key at `where` that is none of the `known` ones: what has its part now, or the near match."""
    for place, now in MOVED.items():
        if f".{where}".endswith(f".{place}"):
            return f" (it is {now} now)"
    return near(where.rpartition(".")[2], known)


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    return repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
