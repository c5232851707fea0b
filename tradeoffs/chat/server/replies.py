"""What a variant says in the forms of OpenAI's API: in chunks, or as a whole."""

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from tradeoffs.chat.messages import Begun, Ended, Event, Failed, Logprob, Queued, Said
from tradeoffs.chat.server.asks import Wanted
from tradeoffs.chat.server.errors import RequestError

DONE = "data: [DONE]\n\n"
# There is no word for an answer that had its time: like the longest one it goes on, and is cut.
FINISHED = {"stop": "stop", "length": "length", "time": "length", "left": "length"}
UNFINISHED = "\ufffd"  # what stands for a part of a character


class Reply:
    """To one request. `chunk` of every event, or `add` each and then `whole`."""

    def __init__(self, wanted: Wanted) -> None:
        self._asked = wanted.asked
        self._chat, self._usage = wanted.form == "chat.completion", wanted.usage
        self._form = "chat.completion.chunk" if self._chat and wanted.stream else wanted.form
        self._facts: dict[str, Any] = {
            "id": ("chatcmpl-" if self._chat else "cmpl-") + secrets.token_hex(12),
            "object": self._form,
            "created": int(time.time()),
            "model": wanted.asked[0].variant,
        }
        count = len(wanted.asked)
        self._begun: list[dict[str, Any]] = [{} for _ in range(count)]
        self._logprobs: list[list[Logprob]] = [[] for _ in range(count)]
        self._offsets = [0] * count  # characters of the tokens of each answer until now
        self._ended: list[Ended | None] = [None] * count
        self._with_logprobs = wanted.asked[0].logprobs is not None
        self._plain = [self._around(at) for at in range(count)]

    def chunk(self, at: int, event: Event) -> str:
        """What is sent of an event of the answer `at`; may be nothing. Raises RequestError where there is no answer."""
        if isinstance(event, Said) and event.text and not event.logprobs:  # nothing else is said so often
            before, between, after = self._plain[at]
            return f"{before}{quoted(event.text)}{between}{event.tokens}{after}"
        self.add(at, event)
        match event:
            case Said() if event.text or event.logprobs:
                logprobs = self._probabilities(event.logprobs, self._offsets[at])
                self._offsets[at] += sum(len(one.token) for one in event.logprobs)
                return self._chunk(at, event.text, logprobs, tokens=event.tokens)
            case Queued():
                return self._chunk(at, queued=event.place)
            case Begun():
                return self._chunk(at, role="assistant", begun=self._begun[at])
            case Ended():
                return self._chunk(at, reason=FINISHED[event.reason], ended=facts(event))
        return ""

    def add(self, at: int, event: Event) -> None:
        """Raises RequestError where there is no answer."""
        if isinstance(event, Failed):
            raise RequestError.by(event)
        if isinstance(event, Begun):
            self._begun[at] = facts(event)
        if isinstance(event, Said):
            self._logprobs[at] += event.logprobs
        if isinstance(event, Ended):
            if event.reason == "time" and not event.tokens:
                raise RequestError(408, f"there was no answer in {event.seconds:.0f} seconds", code="late")
            self._ended[at] = event

    @property
    def complete(self) -> bool:
        return all(self._ended)

    def end(self) -> str:
        """Of a stream."""
        return (_event(self._facts | {"choices": [], "usage": self._used()}) if self._usage else "") + DONE

    def whole(self) -> dict[str, Any]:
        """Once every answer has ended."""
        choices, extras = [], []
        for at, ended in enumerate(self._ended):
            assert ended
            text = self._prompt(at, ended) + ended.text
            said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
            found = [*ended.prompt_logprobs, *self._logprobs[at]]
            if self._asked[at].echo and not self._logprobs[at]:
                found.append(
                    Logprob("", None)
                )  # clients take the last one for the answer's: none of the prompt is lost
            logprobs = self._probabilities(found, 0) if self._with_logprobs else None
            choices.append({"index": at, **said, "logprobs": logprobs, "finish_reason": FINISHED[ended.reason]})
            extras.append({"begun": self._begun[at], "ended": facts(ended)})
        extra = extras[0] if len(extras) == 1 else {"answers": extras}
        return {**self._facts, "choices": choices, "usage": self._used(), "tradeoffs": extra}

    def _chunk(
        self,
        at: int,
        text: str = "",
        logprobs: dict[str, Any] | None = None,
        *,
        role: str | None = None,
        reason: str | None = None,
        **extra: Any,
    ) -> str:
        delta: dict[str, Any] = {"role": role, "content": text} if role else {"content": text} if text else {}
        said: dict[str, Any] = {"delta": delta} if self._chat else {"text": text}
        choice = {"index": at, **said, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self._usage else {}
        return _event(self._facts | {"choices": [choice], "tradeoffs": extra} | usage)

    def _around(self, at: int) -> tuple[str, str, str]:
        """A chunk of an answer, without its text and the number of its tokens."""
        before, _, rest = self._chunk(at, "TEXT", tokens="TOKENS").partition('"TEXT"')
        between, _, after = rest.partition('"TOKENS"')
        return before, between, after

    def _probabilities(self, found: Sequence[Logprob], offset: int) -> dict[str, Any] | None:
        if not found and not self._with_logprobs:
            return None
        if self._chat:
            return {"content": [_in_chat(one) for one in found], "refusal": None}
        return _in_text(found, offset)

    def _prompt(self, at: int, ended: Ended) -> str:
        """What is said again before the answer."""
        asked = self._asked[at]
        if not asked.echo:
            return ""
        return "".join(one.token for one in ended.prompt_logprobs) if asked.text is None else asked.text

    def _used(self) -> dict[str, Any]:
        ended = [one for one in self._ended if one]
        read, written = sum(one.prompt_tokens for one in ended), sum(one.tokens for one in ended)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in ended)},
        }


def error(found: RequestError) -> str:
    """What ends a stream that has begun."""
    return _event(found.body())


def _event(found: dict[str, Any]) -> str:
    return f"data: {json.dumps(found)}\n\n"


def facts(event: Any) -> dict[str, Any]:
    """Its fields, without whose it is, and without what stands elsewhere in the reply."""
    return {key: value for key, value in vars(event).items() if key not in ("id", "prompt_logprobs")}


def _in_chat(one: Logprob) -> dict[str, Any]:
    top = [_named(token, logprob) for token, logprob in one.top]
    return _named(one.token, one.logprob) | {"top_logprobs": top}


def _named(token: str, logprob: float | None) -> dict[str, Any]:
    known = UNFINISHED not in token  # of a part of a character the bytes are not known
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()) if known else None}


def _in_text(found: Iterable[Logprob], offset: int) -> dict[str, Any]:
    tokens, logprobs, tops, offsets = [], [], [], []
    for one in found:
        tokens.append(one.token)
        logprobs.append(one.logprob)
        top: dict[str, float] = {}
        for token, logprob in (*one.top, (one.token, one.logprob)):
            if logprob is not None:
                top.setdefault(token, logprob)  # two tokens can have one text: the likelier
        tops.append(top or None)  # of the first token of a prompt nothing is known
        offsets.append(offset)
        offset += len(one.token)
    return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}
