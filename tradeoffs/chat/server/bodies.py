"""The body of a request as an object of JSON that means the same to everybody who reads it."""

import json
import math
from typing import Any

from starlette.requests import Request

from tradeoffs.chat.server.errors import RequestError

MOST = 1_000_000  # bytes
DEEPEST = 32  # lists and objects in each other


async def read(request: Request) -> dict[str, Any]:
    """Raises RequestError for what is too long, by the bytes that came, or no object of JSON."""
    body, length = bytearray(), 0
    async for piece in request.stream():
        length += len(piece)
        if length <= MOST:
            body += piece
    if length > MOST:  # it was read to its end, so that the client reads this
        raise RequestError(413, f"the body is longer than {MOST:,} bytes")
    return parsed(bytes(body))


def parsed(body: bytes) -> dict[str, Any]:
    """Raises RequestError with the reason, never with a part of the body."""
    try:
        found = json.loads(
            body.decode("utf-8"),
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_once,
        )
        if b"\\u" in body:
            json.dumps(found, ensure_ascii=False).encode()  # raises for halves of a pair
    except UnicodeError as error:
        raise RequestError(400, "the body is not text in UTF-8, or holds a half of a character (\\ud800)") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is no JSON: {_reason(error)}") from error
    if not isinstance(found, dict):
        raise RequestError(400, "the body is no object of JSON")
    if _deep(found) > DEEPEST:
        raise RequestError(400, f"the body is no JSON: more than {DEEPEST} lists and objects in each other")
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"more than {DEEPEST} lists and objects in each other"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return str(error)


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number is too large")
    return number


def _short(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a whole number has more than 20 digits")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _deep(found: Any) -> int:
    depth, level = 0, [found]
    while level and depth <= DEEPEST:
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
        depth, level = depth + bool(level), [one for one in below if isinstance(one, (dict, list))]
    return depth
