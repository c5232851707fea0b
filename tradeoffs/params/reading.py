"""A value of YAML as a type of the schema; what does not fit is named with its place, all of it at once."""

import re
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from tradeoffs.plumbing.errors import near


class Loader(yaml.SafeLoader):
    """SafeLoader that also reads `2e-05` as a number.

    YAML 1.1, which PyYAML follows, asks for a dot in a float; YAML 1.2, JSON and `dvc exp run -S train.lr=2e-5` do not.
    """


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """`value` as `kind`; what does not fit is added to `problems` as `where: what is wrong`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number = read(args[0], value, where, problems)
        if isinstance(number, (int, float)) and number not in args[1]:
            problems.append(f"{where}: must be {args[1]}, is {number}")
        return number
    if origin in (UnionType, Union):
        if value is None and NoneType in args:
            return None
        kinds = [a for a in args if a is not NoneType]
        if len(kinds) == 1:
            return read(kinds[0], value, where, problems)
        words = [word for a in kinds if get_origin(a) is Literal for word in get_args(a)]
        if value in words:
            return value
        if words and isinstance(value, str):
            problems.append(f"{where}: must be a whole number or {' or '.join(words)}, is {value!r}")
            return value
        return read(kinds[0], value, where, problems)
    if origin is Literal:
        if value not in args:
            problems.append(f"{where}: unknown value {value!r}{near(value, args)}")
        return value
    if origin is list:
        if not isinstance(value, list):
            problems.append(f"{where}: must be a list, is {_describe(value)}")
            return []
        return [read(args[0], entry, f"{where}[{index}]", problems) for index, entry in enumerate(value)]
    if origin is dict or is_dataclass(kind):
        if value is None and origin is dict:
            value = {}
        if not isinstance(value, dict):
            problems.append(f"{where or 'the file'}: must be a block of keys, is {_describe(value)}")
            return {}
        if origin is dict:
            return {k: read(args[1], v, f"{where}.{k}", problems) for k, v in value.items()}
        return _read_block(kind, value, where, problems)
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        expected = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]
        problems.append(f"{where}: must be {expected}, is {_describe(value)}")
    return value


def _read_block(kind: Any, value: dict, where: str, problems: list[str]) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    unknown = {key: near(key, hints) for key in value if key not in hints}
    problems += [f"{prefix}{key}: unknown key{hint}" for key, hint in unknown.items()]
    found = {}
    for name, hint in hints.items():
        if name in value:
            found[name] = read(hint, value[name], prefix + name, problems)
        elif NoneType not in get_args(hint) and f" (did you mean {name}?)" not in unknown.values():
            problems.append(f"{prefix}{name}: missing")
    try:
        return kind(**found)
    except TypeError:  # a required field is missing: already among the problems
        return None


def _describe(value: Any) -> str:
    return (
        "empty"
        if value is None
        else f"{value!r}"
        if isinstance(value, (str, int, float))
        else f"a {type(value).__name__}"
    )
