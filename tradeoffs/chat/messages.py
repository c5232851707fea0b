"""What is asked of a variant, and what it says to it: what goes between a model's process and who talks with it.

A line of JSON each way: a request, or a list of the events of one step of the model, each `{"kind": NAME, ...}`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

Reason = Literal["stop", "length", "left", "time"]  # why an answer ended; left: nobody waits for it any more
# why there is none; broken: the model computes no numbers, or its cache has no room although it should
Fault = Literal["invalid", "too_long", "busy", "broken", "died", "stopped"]


@dataclass(frozen=True)
class Turn:
    role: Literal["system", "user", "assistant"]
    content: str


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
    text: str | None = None
    ids: tuple[int, ...] | None = None
    max_tokens: int | None = None
    window: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
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
    `left_out` questions with their answers did not fit."""

    kind: ClassVar[str] = "begun"
    id: str
    prompt_tokens: int
    cached_tokens: int
    left_out: int


@dataclass(frozen=True)
class Logprob:
    """Of a token, and the most likely tokens in its place: (text, log-probability) each. None for the first token of a
    prompt, before which there is nothing."""

    token: str
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Said:
    """More of an answer, `tokens` in all until now. A text may lag behind its tokens: a part of a character, or of what
    may become one of the texts that end the answer, is held back."""

    kind: ClassVar[str] = "said"
    id: str
    text: str
    tokens: int
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Ended:
    """An answer is complete: `text` is all of it. `tokens`: of the answer, without the one that ended it. Times are
    seconds since it was asked, the waiting in the queue among them; `memory_mb` is what the model's process has. `ids`:
    of the answer's tokens. `prompt_logprobs`: of each token of the prompt, where `Asked.echo` is set."""

    kind: ClassVar[str] = "ended"
    id: str
    reason: Reason
    text: str
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
    """There is no answer, or no more of it."""

    kind: ClassVar[str] = "failed"
    id: str
    fault: Fault
    message: str


Event = Ready | Queued | Begun | Said | Ended | Failed
KINDS: dict[str, Any] = {kind.kind: kind for kind in (Ready, Queued, Begun, Said, Ended, Failed)}


def line(events: Sequence[Event]) -> bytes:
    """One line of events."""
    return (
        json.dumps([{"kind": event.kind} | asdict(event) for event in events], separators=(",", ":")).encode() + b"\n"
    )


def events(line: bytes) -> Iterable[Event]:
    """Those of one line."""
    for found in json.loads(line):
        kind = KINDS[found.pop("kind")]
        for name in ("logprobs", "prompt_logprobs"):
            if name in found:
                found[name] = tuple(
                    Logprob(of["token"], of["logprob"], tuple(map(tuple, of["top"]))) for of in found[name]
                )
        if "ids" in found:
            found["ids"] = tuple(found["ids"])
        yield kind(**found)
