"""Requests to the API of GitHub or GitLab: bounded in time and in number, and without a trace of the token.

What may pass is tried again: 5xx, a lost connection, 429 and what else says how long to wait. A redirect is not
followed, since it would take the token elsewhere.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

from tradeoffs.common.texts import on_a_line
from tradeoffs.plumbing.errors import UserError

TIMEOUT = 30  # seconds, for each answer
TRIES = 5
LONGEST_WAIT = 60  # seconds between two tries; who asks for more is not waited for
LARGEST = 50_000_000  # bytes of an answer: a hundred comments of the greatest length are 7 MB
SHOWN = 300  # characters of what the other side says, in a message
pause = time.sleep


class RefusedError(Exception):
    """An answer that says no: its status, what it says, and the request in a few words."""

    def __init__(self, status: int, said: str, what: str) -> None:
        super().__init__(f"{what}: {status}{f', {said}' if said else ''}")
        self.status, self.said = status, said


@dataclass(frozen=True)
class Answer:
    value: Any
    headers: Mapping[str, str]


class Api:
    """Asks below `root`, with `headers` that hold the token; `secret` is never part of a message.

    Raises UserError if `root` is no web address or the token is no word of printable characters.
    """

    def __init__(self, root: str, headers: Mapping[str, str], secret: str) -> None:
        parts = urlsplit(root)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise UserError(f"{root}: no address of an API, which begins with https://")
        if not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise UserError("the token holds a space, a line break or another character that no token has; set it anew")
        self._root, self._headers, self._secret = root.rstrip("/"), dict(headers), secret
        self._opener = urllib.request.build_opener(_NoRedirects)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | int) -> Answer:
        """The answer to one request. Raises RefusedError if it is no, UserError if there is none after all tries."""
        what = f"{method} {path}"
        address = f"{self._root}{path}{f'?{urlencode(query)}' if query else ''}"
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "llm-tradeoffs"}
        request = urllib.request.Request(address, data, sent | self._headers, method=method)
        for number in range(TRIES):
            try:
                with self._opener.open(request, timeout=TIMEOUT) as answer:
                    return Answer(self._read(answer.read(LARGEST + 1), what), answer.headers)
            except urllib.error.HTTPError as error:
                refused = RefusedError(error.code, self._said(error), what)
                wait = _wait(error.code, error.headers, number)
                if wait is None:
                    raise refused from None
                problem = str(refused)
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                wait, problem = 2.0**number, f"{what}: no answer ({self._clean(f'{type(reason).__name__}: {reason}')})"
            if wait > LONGEST_WAIT:
                raise UserError(f"{problem}; it asks to wait {wait:.0f} seconds: run the job again then")
            if number + 1 < TRIES:
                pause(wait)
        raise UserError(f"{problem}; tried {TRIES} times: run the job again")

    def _read(self, content: bytes, what: str) -> Any:
        if len(content) > LARGEST:
            raise UserError(f"{what}: an answer of more than {LARGEST // 1_000_000} MB; that is no API's")
        try:
            return json.loads(content) if content.strip() else None
        except ValueError:
            raise UserError(f"{what}: the answer is no JSON; is {self._root} the address of the API?") from None

    def _said(self, error: urllib.error.HTTPError) -> str:
        """What the body of a refusal says, if it can be read."""
        try:
            content = error.read(100_000).decode("utf-8", "replace")
        except (OSError, HTTPException):
            return ""
        try:
            found = json.loads(content)
            found = {key: found[key] for key in ("message", "error", "errors") if key in found}
            content = "; ".join(one if isinstance(one, str) else json.dumps(one) for one in found.values())
        except (ValueError, TypeError):
            pass
        return self._clean(content)

    def _clean(self, text: str) -> str:
        return on_a_line(text.replace(self._secret, "***") if self._secret else text)[:SHOWN]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> NoReturn:
        where = on_a_line(newurl)[:SHOWN]
        raise UserError(
            f"{req.get_method()} {urlsplit(req.full_url).path}: moved to {where}, where no token is sent; was the "
            "repository renamed, or does the address of the API lack https?"
        )


def _wait(status: int, headers: Mapping[str, str] | Message, number: int) -> float | None:
    """Seconds until what was refused may be asked again; None: never.

    GitHub says 403 for too many requests as well: then there is Retry-After, or no request is left until a reset.
    """
    after = headers.get("Retry-After", "")
    if status in (403, 429) or status >= 500:
        if after.isascii() and after.isdigit():
            return float(after)
        if headers.get("X-RateLimit-Remaining") == "0" and (reset := headers.get("X-RateLimit-Reset", "")).isdigit():
            return max(0.0, float(reset) - time.time())
    return 2.0**number if status == 429 or status >= 500 else None
