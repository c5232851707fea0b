"""The text of params.yaml as plain values: only what every reader of YAML takes for the same, and no more than is sane.

DVC reads the file too, by YAML 1.2 where PyYAML goes by 1.1, so `010`, `yes` and a key that stands twice would be one
thing to it and another to the stages: they are refused. So is what is there to break a reader: blocks that hold
themselves or each other many times over, nesting without end, tags.
"""

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tradeoffs.params.reading import Loader
from tradeoffs.plumbing.errors import UserError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000  # an alias counts as all that it stands for
MOST_DEPTH = 50  # libyaml ends the process at some ten thousand
MOST_NUMBER = 2**63 - 1
MOST_SHOWN = 1000  # characters of a problem
MERGE = "tag:yaml.org,2002:merge"
KINDS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")} | {MERGE}
# Numbers, true and false as YAML 1.1, YAML 1.2 and JSON have them.
PLAIN_NUMBER = re.compile(
    r"[-+]?(?:0|[1-9][0-9_]*)|[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
PLAIN_BOOL = re.compile("true|True|TRUE|false|False|FALSE")
# What one of them reads as a number, a time, or true and false: of YAML 1.2, YAML 1.1 and the YAMLs before that.
OTHERWISE = re.compile(
    r"[-+]?[0-9_]*[0-9][0-9_]*|[-+]?0[box][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9_]+\.?[0-9_]*[eE][-+]?[0-9]+"
)
UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # in no text that anybody writes
# What a terminal obeys, or nobody can tell from nothing; some of it is part of a text.
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def parsed(path: Path, named: object = None) -> Any:
    """What the file holds. Raises UserError, with the line where there is one, for what is no such YAML; `named` is
    what the message calls the file."""
    named = named or path
    if not path.is_file():
        raise UserError(f"{named}: not found in {Path.cwd()}; run from the folder that holds dvc.yaml")
    try:
        return plain(path.read_bytes(), named)
    except OSError as error:
        raise UserError(f"{named}: cannot be read: {error.strerror}") from error


def plain(raw: bytes, named: object) -> Any:
    """What the bytes of a file hold, as `parsed`."""
    text = _text(raw, named)
    try:
        _check_events(text)
        loader = Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check(root, {})
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:  # the latter: more digits than Python takes
        said = error if isinstance(error, _Refused) else _in_words(text, error)
        mark = getattr(said, "problem_mark", None)
        place = f" line {mark.line + 1}:" if mark else ""
        why = " ".join(str(getattr(said, "problem", None) or said).split())
        raise UserError(f"{named}:{place} not valid YAML: {shown(why)}") from error


def _text(raw: bytes, named: object) -> str:
    if len(raw) > MOST_BYTES:
        raise UserError(f"{named}: {len(raw):,} bytes; params.yaml takes at most {MOST_BYTES:,}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{named}: line {line}: not valid YAML: {error}; save the file as UTF-8") from error


def _in_words(text: str, error: Exception) -> Exception:
    """The error that PyYAML's own parser has for the text: it says more than libyaml's."""
    try:
        yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as same:
        return same
    except Exception:  # its parser raises anything at all
        pass
    return error


class _Refused(yaml.MarkedYAMLError):
    """What is YAML, and may not stand in params.yaml."""

    def __init__(self, problem: str, node: Any) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


def _check_events(text: str) -> None:
    """What must be known before blocks are put together."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise _Refused(f"nested more than {MOST_DEPTH} deep", event)
        if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
            raise _Refused("a directive (%); params.yaml takes none", event)


def _check(node: Any, sizes: dict[int, int]) -> int:
    """How many values the node holds, aliases written out; 0 in `sizes` stands for one that is being counted."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise _Refused("a block that holds itself, by an alias", node)
        return sizes[id(node)]
    if node.tag not in KINDS or (isinstance(node, yaml.ScalarNode) and not _is_plain(node)):
        raise _Refused(_why_not(node), node)
    sizes[id(node)] = 0
    inside = 1 + sum(_check(child, sizes) for child in _children(node))
    if inside > MOST_VALUES:
        raise _Refused(f"more than {MOST_VALUES:,} values, aliases (*) written out", node)
    sizes[id(node)] = inside
    return inside


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in ("tag:yaml.org,2002:str", MERGE):
                what = f"{shown(key.value)}: " if isinstance(key, yaml.ScalarNode) else ""
                raise _Refused(f"{what}a key must be a text; write it in quotes", key)
            if key.value in seen:
                raise _Refused(f"{shown(key.value)} stands twice; only one of the two would count", key)
            seen.add(key.value)
            yield key
            yield value


def _is_plain(node: yaml.ScalarNode) -> bool:
    """Whether all take the scalar for the same, and nothing but its text says what it is."""
    kind = node.tag.rpartition(":")[2]
    if node.style:
        return bool(kind == "str")
    if kind in ("int", "float"):
        return bool(PLAIN_NUMBER.fullmatch(node.value))
    if kind == "bool":
        return bool(PLAIN_BOOL.fullmatch(node.value))
    if kind == "str":
        return not any(known.fullmatch(node.value) for known in (OTHERWISE, PLAIN_NUMBER, PLAIN_BOOL))
    return bool(kind == "merge" and node.value == "<<") or node.value in ("", "~", "null", "Null", "NULL")


def _why_not(node: Any) -> str:
    kind = node.tag.rpartition(":")[2]
    if isinstance(node, yaml.ScalarNode) and kind in ("str", "int", "float", "bool", "timestamp", "value"):
        is_text = kind == "str" and not OTHERWISE.fullmatch(node.value)
        if not is_text:
            return (
                f"{shown(node.value)} is one thing to one reader of YAML and another to the next; "
                "write a text in quotes, a number in plain digits, and true or false"
            )
    return f"the tag {shown(node.tag)}; params.yaml takes none"


def shown(text: object) -> str:
    """A text of the file in a message: on one line, cut where it is long, with nothing that a terminal obeys."""
    visible = HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))
    return visible if len(visible) <= MOST_SHOWN else f"{visible[:MOST_SHOWN]} ..."


def problems_of(value: Any, where: str = "") -> Iterator[str]:
    """What no value may be, wherever it stands, as `where: what is wrong`."""
    if isinstance(value, dict):
        for key, entry in value.items():
            place = f"{where}.{key}" if where else str(key)
            if not isinstance(key, str):
                yield f"{place}: a key must be a text; write it in quotes"
            else:
                yield from (f"{place}: {problem}" for problem in _of_text(key))
                yield from problems_of(entry, place)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from problems_of(entry, f"{where}[{index}]")
    elif isinstance(value, str):
        yield from (f"{where}: {problem}" for problem in _of_text(value))
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: must be a finite number, is {value}"
    elif isinstance(value, int) and abs(value) > MOST_NUMBER:
        yield f"{where}: a number of {_digits(value)} digits; no count is that large"
    elif not isinstance(value, (bool, int, float, type(None))):
        yield f"{where}: must be a number, a text, true or false, a list or a block, is a {type(value).__name__}"


def _of_text(text: str) -> Iterator[str]:
    if found := UNSEEN.search(text):
        yield f"holds the control character U+{ord(found[0]):04X}; take it out"


def _digits(value: int) -> int:
    return int(value.bit_length() * math.log10(2)) + 1 if abs(value) > sys.maxsize else len(str(abs(value)))
