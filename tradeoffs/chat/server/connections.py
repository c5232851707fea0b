"""A connection with a client, within limits of time and size that uvicorn has not got: for the head of a request, for
its body, and for who takes nothing of what is written."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tradeoffs.chat.server.errors import RequestError
from tradeoffs.chat.server.guard import HEADERS, TRUSTED

MOST = 512  # connections at a time
HEAD_SECONDS, BODY_SECONDS, STUCK_SECONDS = 10.0, 20.0, 60.0
IDLE_SECONDS, STRANGER_SECONDS = 60, 5  # between two requests; of who has not shown the token
HEAD_BYTES, BODY_BYTES = 1 << 16, 1 << 24  # of a body so much is read and thrown away, so that a client gets its 413


class Connection(HttpToolsProtocol):
    """One, kept for several requests, one after the other."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Each write that is not taken at once pauses: so one clock sees every client that does not read.
        transport.set_write_buffer_limits(high=0)
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._in_head, self._bytes = True, 0
        # Who goes first when there are too many: strangers as they came, and then who has asked nothing for longest.
        self.rank = (False, self.loop.time())
        if len(self.connections) > MOST and not self._make_room():
            self._refuse(RequestError(503, f"{MOST} connections are open; more are not taken"))
            return
        self._limit(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._late:
            self._limit(HEAD_SECONDS)
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._bytes += len(data)  # of what a request begins in, all
        if self._in_head and self._bytes > HEAD_BYTES:
            self._refuse(RequestError(431, f"the head of a request is longer than {HEAD_BYTES:,} bytes"))
        elif self._bytes > BODY_BYTES:
            self.transport.abort()

    @property
    def idle(self) -> bool:
        """There is no answer on the way."""
        return not self.cycle or self.cycle.response_complete

    def on_message_begin(self) -> None:
        if not self.idle:
            # uvicorn would keep it until then, and not notice that the client of the first one has left.
            raise ValueError
        self._in_head, self._bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/") or b"#" in self.url:
            raise ValueError  # a request to a proxy, which names a host of its own, or what no client sends
        self._in_head = False
        self._limit(BODY_SECONDS)
        super().on_headers_complete()
        self.headers = []  # what stands behind the body (trailers) is not taken for what stood before it

    def on_message_complete(self) -> None:
        self._bytes = 0
        self._limit(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.scope["state"].get(TRUSTED):
            self.rank = (True, self.loop.time())
            self.timeout_keep_alive = IDLE_SECONDS
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._stuck = self._stuck or self.loop.call_later(STUCK_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._stuck:
            self._stuck.cancel()
            self._stuck = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What httptools calls no request, a length that is given twice among it."""
        early = not self.idle and not self.cycle.more_body
        said = "a request comes after the answer to the one before it" if early else "that is no request of HTTP/1.1"
        self._refuse(RequestError(400, said))

    def _limit(self, seconds: float | None) -> None:
        if self._late:
            self._late.cancel()
        self._late = self.loop.call_later(seconds, self._too_late) if seconds else None

    def _too_late(self) -> None:
        self._late = None
        if not self.idle and not self.cycle.more_body:
            return  # its answer is on the way
        self._refuse(RequestError(408, "the request did not come to its end in time"))

    def _make_room(self) -> bool:
        """Ends another connection, so that nobody keeps others out by holding many."""
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self and one.idle]
        if not others:
            return False
        first = min(others, key=lambda one: one.rank)
        self.connections.discard(first)
        first.transport.abort()
        return True

    def _refuse(self, error: RequestError) -> None:
        """Without the application, which is not asked any more; in the middle of an answer there is nothing to say."""
        if self.idle or not self.cycle.response_started:
            self.transport.write(_written(error))
        self.transport.close()


def _written(error: RequestError) -> bytes:
    body = json.dumps(error.body()).encode()
    more: list[tuple[bytes, Any]] = [(b"content-length", len(body)), (b"retry-after", error.retry)]
    lines = [b"%b: %b\r\n" % (name, str(value).encode()) for name, value in more]
    lines += [b"%b: %b\r\n" % pair for pair in HEADERS]
    kind = b"content-type: application/json\r\nconnection: close\r\n"
    return b"".join([STATUS_LINE[error.status], kind, *lines, b"\r\n", body])
