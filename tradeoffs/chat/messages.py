"""What is asked of a variant, and what it says to it: what goes between a model's process and who talks with it.

A line of JSON each way: a request, or a list of the events of one step of the model, each `[KIND, *FIELDS]`. A step of
many answers is one line, and the values alone are a third of what an object with names takes, in time and in bytes.

What people wrote and models said is in no `repr`: a traceback, or a note of asyncio's, would put it into a log.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

Reason = Literal["stop", "length", "left", "time"]  # why an answer ended; left: nobody waits for it any more
# Why there is none. invalid, too_long: what was asked cannot be answered. busy: too many wait. late: not within the
# seconds that were asked for, be it that the model hangs. unloaded: the model cannot be loaded. too_large: it never can
# be, in the memory that all models may have. broken: it computes no numbers, or its cache has no room although it
# should. died: its process ended in the middle; the next question starts another. stopped: the engine was closed.
Fault = Literal["invalid", "too_long", "busy", "late", "unloaded", "too_large", "broken", "died", "stopped"]


@dataclass(frozen=True)
class Turn:
    role: Literal["system", "user", "assistant"]
    content: str = field(repr=False)


@dataclass(frozen=True)
class Asked:
    """One answer of `variant` to a conversation, or to `text` as it is, or to token `ids` as they are.

    `max_tokens` None: as many as an evaluated answer may have. `window`: so many questions of the conversation, the
    last one counted, are kept at most; None: as many as fit the context. `temperature` 0 is greedy. `stop`: texts
    before which it ends. `logprobs`: of so many of the most likely tokens, beside those of the answer; None: of none.
    `echo`: those of the prompt as well, in Ended. `seconds`: how long it may take, waiting counted.
    """

    id: str
    variant: str
    turns: tuple[Turn, ...] = ()
    text: str | None = field(default=None, repr=False)
    ids: tuple[int, ...] | None = field(default=None, repr=False)
    max_tokens: int | None = None
    window: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    logprobs: int | None = None
    echo: bool = False
    seconds: float = 300.0

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Asked":
        turns, stop = tuple(Turn(**turn) for turn in found["turns"]), tuple(found["stop"])
        ids = None if found.get("ids") is None else tuple(found["ids"])
        return cls(**found | {"turns": turns, "stop": stop, "ids": ids})


@dataclass(frozen=True)
class Ready:
    """The model is loaded. `places`: answers that it works on at a time."""

    kind: ClassVar[str] = "ready"
    runtime: str
    device: str
    context: int
    places: int
    max_tokens: int
    seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Queued:
    """It waits for a place; `place` 1 is the next."""

    kind: ClassVar[str] = "queued"
    id: str
    place: int


@dataclass(frozen=True)
class Begun:
    """What the model reads: `prompt_tokens`, of which it knew `cached_tokens` already; of the conversation the oldest
    `left_out` questions with their answers did not fit into the model's `context`. The answer has at most `max_tokens`.
    """

    kind: ClassVar[str] = "begun"
    id: str
    prompt_tokens: int
    cached_tokens: int
    left_out: int
    context: int = 0
    max_tokens: int = 0


@dataclass(frozen=True)
class Logprob:
    """Of a token, and the most likely tokens in its place: (text, log-probability) each. None for the first token of a
    prompt, before which there is nothing."""

    token: str = field(repr=False)
    logprob: float | None
    top: tuple[tuple[str, float], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Said:
    """More of an answer, `tokens` in all until now. A text may lag behind its tokens: a part of a character, or of what
    may become one of the texts that end the answer, is held back."""

    kind: ClassVar[str] = "said"
    id: str
    text: str = field(repr=False)
    tokens: int
    logprobs: tuple[Logprob, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Ended:
    """An answer is complete: `text` is all of it. `tokens`: of the answer, without the one that ended it. Times are
    seconds since it was asked, the waiting in the queue among them; `memory_mb` is what the model's process has. `ids`:
    of the answer's tokens. `prompt_logprobs`: of each token of the prompt, where `Asked.echo` is set."""

    kind: ClassVar[str] = "ended"
    id: str
    reason: Reason
    text: str = field(repr=False)
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    seconds_waited: float
    seconds_to_first: float
    seconds: float
    memory_mb: float
    ids: tuple[int, ...] = field(default=(), repr=False)
    prompt_logprobs: tuple[Logprob, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Failed:
    """There is no answer, or no more of it. `retry`: after so many seconds it is worth to ask again."""

    kind: ClassVar[str] = "failed"
    id: str
    fault: Fault
    message: str = field(repr=False)
    retry: int | None = None


Event = Ready | Queued | Begun | Said | Ended | Failed


def request(asked: Asked, since: float) -> bytes:
    """One line that asks; `since`: time.monotonic() when it was asked, which the machine's processes have in common."""
    return _encoded({"asked": asked, "since": since}).encode() + b"\n"


def leave(name: str) -> bytes:
    """One line that ends an answer."""
    return _encoded({"leave": name}).encode() + b"\n"


def line(events: Sequence[Event]) -> bytes:
    """One line of events."""
    return _encoded([[event.kind, *vars(event).values()] for event in events]).encode() + b"\n"


def events(line: bytes) -> Iterable[Event]:
    """Those of one line."""
    for kind, *values in json.loads(line):
        yield MADE[kind](*values)


def _said(name: str, text: str, tokens: int, logprobs: list[dict[str, Any]]) -> Said:
    return Said(name, text, tokens, _logprobs(logprobs)) if logprobs else Said(name, text, tokens)


def _ended(*values: Any) -> Ended:
    found = Ended(*values)
    return replace(found, ids=tuple(found.ids), prompt_logprobs=_logprobs(values[-1]))


def _logprobs(found: list[dict[str, Any]]) -> tuple[Logprob, ...]:
    return tuple(Logprob(one["token"], one["logprob"], tuple(map(tuple, one["top"]))) for one in found)


MADE: dict[str, Callable[..., Event]] = {
    **{kind.kind: kind for kind in (Ready, Queued, Begun, Failed)},
    Said.kind: _said,
    Ended.kind: _ended,
}
_encoded = json.JSONEncoder(separators=(",", ":"), default=vars).encode  # vars: of a dataclass within another
