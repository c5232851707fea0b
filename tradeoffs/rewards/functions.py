"""What an answer earns by what was expected, from 0 to 1: the functions that params.yaml names.

They are their own, and not the metrics of the same names: a metric can be added or changed without anything being
trained again. tests/test_rewards.py holds that they say the same.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

from tradeoffs.common.examples import picked

Function = Callable[[str, str], float | None]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, expected: str) -> float:
    """1 where both are the same after SQuAD's normalisation (lower case, no punctuation, no articles), else 0."""
    return float(_normalised(answer) == _normalised(expected))


def exact_match_of(pattern: str) -> Function:
    """The same for a data set with an `answer_pattern`: whether it finds the same in both, case aside."""

    def matches(answer: str, expected: str) -> float:
        ours, theirs = picked(pattern, answer), picked(pattern, expected)
        return float(ours is not None and theirs is not None and ours.casefold() == theirs.casefold())

    return matches


def f1(answer: str, expected: str) -> float:
    """Token F1 of the official SQuAD 2.0 evaluation script: if either text has no token left, 1 when both have none."""
    ours, theirs = _normalised(answer).split(), _normalised(expected).split()
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * sum((Counter(ours) & Counter(theirs)).values()) / (len(ours) + len(theirs))


def json_right(answer: str, expected: str) -> float | None:
    """Half for an answer that is one JSON object and nothing else, half for the share of its fields that are right.

    A field too many counts as one wrong. None where no JSON object is expected.
    """
    wanted, given = _object(expected), _object(answer)
    if wanted is None:
        return None
    if given is None:
        return 0.0
    names = wanted.keys() | given.keys()
    right = sum(_written(wanted, name) == _written(given, name) for name in names)
    return 0.5 + 0.5 * (right / len(names) if names else 1.0)


def length(answer: str, expected: str) -> float:
    """The shorter of the two lengths over the longer one, in characters; 1 where both are empty."""
    longer = max(len(answer), len(expected))
    return min(len(answer), len(expected)) / longer if longer else 1.0


FUNCTIONS: dict[str, Function] = {"exact_match": exact_match, "f1": f1, "json": json_right, "length": length}


def _normalised(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _written(fields: dict[str, Any], name: str) -> str:
    return json.dumps(fields[name], sort_keys=True) if name in fields else ""


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, or None; NaN and Infinity, which Python would read, are no JSON (RFC 8259)."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
