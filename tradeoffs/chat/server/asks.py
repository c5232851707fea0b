"""What a body of OpenAI's API asks for: https://platform.openai.com/docs/api-reference/chat and /completions.

What is not there is refused by its name; only what asks for nothing is let through.
"""

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from tradeoffs.chat.messages import Asked, Turn
from tradeoffs.chat.server.errors import RequestError
from tradeoffs.plumbing.errors import near

TURNS, PROMPTS, STOPS, STOP_LENGTH, TOP = 2000, 128, 16, 200, 20
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What clients send unasked, or of their own users, and no answer depends on.
WITHOUT_MEANING = ("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user")
# What is not there, by the values with which it asks for nothing.
NOT_THERE: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Wanted:
    """`asked`: one answer for each prompt. `usage`: what they took, at the end of a stream."""

    form: Literal["chat.completion", "text_completion"]
    asked: tuple[Asked, ...]
    stream: bool
    usage: bool


class Fields:
    """Of one object, each taken once; null is absent. Raises RequestError, which names the field."""

    def __init__(self, found: dict[str, Any], within: str = "") -> None:
        self._left, self._within = {key: value for key, value in found.items() if value is not None}, within

    def take(self, name: str, default: Value, check: Callable[[Any], bool], expected: str) -> Value:
        """A value for which `check` holds. Raises RequestError for any other, with what was `expected`."""
        if name not in self._left:
            return default
        value = self._left.pop(name)
        if not check(value):
            raise RequestError(400, f"{self._within}{name}: expected {expected}", f"{self._within}{name}")
        return cast(Value, value)

    def needed(self, name: str) -> Any:
        if name not in self._left:
            raise RequestError(400, f"{self._within}{name}: missing", f"{self._within}{name}")
        return self._left.pop(name)

    def flag(self, name: str) -> bool:
        return self.take(name, False, lambda value: isinstance(value, bool), "true or false")

    def number(self, name: str, default: float, most: float) -> float:
        return self.take(name, default, lambda value: _number(value) and 0 <= value <= most, f"0 to {most:g}")

    def count(self, name: str, low: int, high: int) -> int | None:
        expected = f"a whole number from {low} to {high}"
        return self.take(name, None, lambda value: _whole(value) and low <= value <= high, expected)

    def done(self) -> None:
        """Raises RequestError for a field that is left, unless it asks for nothing."""
        for name, value in self._left.items():
            if name in WITHOUT_MEANING or any(_same(value, one) for one in NOT_THERE.get(name, ())):
                continue
            named = f"{self._within}{name}"
            if name in NOT_THERE:
                only = " or ".join(map(repr, NOT_THERE[name]))
                raise RequestError(400, f"{named}: not supported here; leave it out (or: {only})", named, "unsupported")
            raise RequestError(400, f"{named[:100]}: unknown field", named[:100], "unknown_field")


def chat(body: dict[str, Any], known: Collection[str]) -> Wanted:
    """Raises RequestError."""
    fields = Fields(body)
    variant = _variant(fields, known)
    turns = tuple(_turns(fields.needed("messages")))
    top = fields.count("top_logprobs", 0, TOP)
    logprobs = fields.flag("logprobs")
    if top is not None and not logprobs:
        raise RequestError(400, "top_logprobs: needs logprobs true", "top_logprobs")
    most = fields.count("max_completion_tokens", 1, 1 << 30)
    stream, usage = _stream(fields)
    asked = _asked(fields, variant, top or 0 if logprobs else None, most, turns=turns)
    return Wanted("chat.completion", (asked,), stream, usage)


def completion(body: dict[str, Any], known: Collection[str]) -> Wanted:
    """Raises RequestError."""
    fields = Fields(body)
    variant = _variant(fields, known)
    prompts = _prompts(fields.needed("prompt"))
    logprobs = fields.count("logprobs", 0, TOP)
    stream, usage = _stream(fields)
    echo = fields.flag("echo")
    if echo and stream:
        raise RequestError(400, "echo: not in a stream", "echo", "unsupported")
    first = _asked(fields, variant, logprobs, None, echo=echo)
    asked = tuple(
        replace(first, id=_id(), text=one) if isinstance(one, str) else replace(first, id=_id(), ids=one)
        for one in prompts
    )
    return Wanted("text_completion", asked, stream, usage)


def _asked(fields: Fields, variant: str, logprobs: int | None, most: int | None, **prompt: Any) -> Asked:
    """What both have in common."""
    tokens = fields.count("max_tokens", 1, 1 << 30)
    if most and tokens and most != tokens:
        raise RequestError(400, "max_tokens: max_completion_tokens says something else", "max_tokens")
    temperature, top_p = fields.number("temperature", 0.0, 2.0), fields.number("top_p", 1.0, 1.0)
    seed = fields.count("seed", -(1 << 63), (1 << 64) - 1)
    stop = fields.take(
        "stop", (), _stops, f"a text, or a list of at most {STOPS}; each of 1 to {STOP_LENGTH} characters"
    )
    own = Fields(fields.take("tradeoffs", {}, lambda value: isinstance(value, dict), "an object"), "tradeoffs.")
    window = own.count("window", 1, 1 << 30)
    own.done()
    fields.done()
    return Asked(
        id=_id(),
        variant=variant,
        max_tokens=most or tokens,
        window=window,
        temperature=float(temperature),
        top_p=float(top_p),
        seed=None if seed is None else seed % (1 << 64),  # a generator takes no negative one
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logprobs=logprobs,
        **prompt,
    )


def _variant(fields: Fields, known: Collection[str]) -> str:
    found = fields.needed("model")
    if not isinstance(found, str) or found not in known:
        said = near(found[:200], known) if isinstance(found, str) else ": expected the name of a variant"
        raise RequestError(404, f"model: no variant of the run list{said}", "model", "model_not_found")
    return found


def _stream(fields: Fields) -> tuple[bool, bool]:
    stream = fields.flag("stream")
    options = Fields(
        fields.take("stream_options", {}, lambda value: stream and isinstance(value, dict), "an object, beside stream"),
        "stream_options.",
    )
    usage = options.flag("include_usage")
    options.flag("include_obfuscation")  # against who watches the lengths of encrypted packets
    options.done()
    return stream, usage


def _turns(messages: Any) -> list[Turn]:
    if not isinstance(messages, list) or not 1 <= len(messages) <= TURNS:
        raise RequestError(400, f"messages: expected a list of 1 to {TURNS}", "messages")
    turns = [_turn(message, f"messages[{at}]") for at, message in enumerate(messages)]
    asks = [turn.role for turn in turns if turn.role != "system"]
    if not asks or asks[0] != "user" or asks[-1] != "user":
        raise RequestError(
            400, "messages: beside system messages the first and the last one are the user's", "messages"
        )
    return turns


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, dict):
        raise RequestError(400, f"{where}: expected an object", where)
    fields = Fields({key: value for key, value in message.items() if value not in ([], {})}, f"{where}.")
    role = fields.needed("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestError(400, f"{where}.role: expected one of {', '.join(ROLES)}", f"{where}.role")
    fields.take("name", None, lambda value: isinstance(value, str), "a text")  # templates here have no place for it
    content = fields.needed("content")
    fields.done()
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{at}]") for at, part in enumerate(content))
    if not isinstance(content, str):
        raise RequestError(400, f"{where}.content: expected a text, or a list of parts of it", f"{where}.content")
    return Turn(cast(Any, ROLES[role]), content)


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RequestError(
            400, f"{where}: expected {{'type': 'text', 'text': ...}}; models here read text alone", where
        )
    return cast(str, part["text"])


def _prompts(found: Any) -> list[str | tuple[int, ...]]:
    """One or several, each a text or token ids."""
    many = found if isinstance(found, list) and found and not _whole(found[0]) else [found]
    if len(many) > PROMPTS:
        raise RequestError(400, f"prompt: expected {PROMPTS} at most", "prompt")
    for one in many:
        if not isinstance(one, str) and not (isinstance(one, list) and one and all(map(_token, one))):
            raise RequestError(400, "prompt: expected a text, token ids, or a list of either", "prompt")
    return [one if isinstance(one, str) else tuple(one) for one in many]


def _stops(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return (
        isinstance(texts, list)
        and len(texts) <= STOPS
        and all(isinstance(text, str) and 1 <= len(text) <= STOP_LENGTH for text in texts)
    )


def _same(value: Any, other: Any) -> bool:
    """As JSON sees it: true is no 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or isinstance(value, float)


def _token(value: Any) -> bool:
    return _whole(value) and 0 <= value < 1 << 31


def _id() -> str:
    return secrets.token_hex(12)
