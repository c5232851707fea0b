"""The way from a model's events to a client: as they come, several in one write where they are ready together."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from tradeoffs.chat.engine import Engine
from tradeoffs.chat.messages import Asked, Event, Failed
from tradeoffs.chat.server import replies
from tradeoffs.chat.server.asks import Wanted
from tradeoffs.chat.server.errors import RequestError
from tradeoffs.chat.server.replies import Reply
from tradeoffs.plumbing.errors import UserError

SLACK_SECONDS = 60.0  # more than an answer may take, for a model that is loaded, or that does not keep its time
JSON = [(b"content-type", b"application/json")]
# Proxies that gather what is written would keep the words back.
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class Answers:
    """The response to what is `wanted`. A client that leaves ends its answers."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine, self._wanted = engine, wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RequestError as long as nothing is sent."""
        async with aclosing(lots(self._engine, self._wanted.asked, receive)) as events:
            await (self._streamed if self._wanted.stream else self._whole)(events, send)

    async def _whole(self, events: AsyncIterator[list[tuple[int, Event]]], send: Send) -> None:
        reply = Reply(self._wanted)
        async for lot in events:
            for at, event in lot:
                reply.add(at, event)
        body = json.dumps(reply.whole()).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [*JSON, (b"content-length", str(len(body)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _streamed(self, events: AsyncIterator[list[tuple[int, Event]]], send: Send) -> None:
        reply, begun, failed = Reply(self._wanted), False, None
        try:
            async for lot in events:
                said: list[str] = []
                try:
                    for at, event in lot:
                        said.append(reply.chunk(at, event))
                except RequestError as error:
                    failed = error
                if not begun:
                    if failed and not any(said):
                        break
                    await send({"type": "http.response.start", "status": 200, "headers": STREAM})
                    begun = True
                if text := "".join(said):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                if failed:
                    break
        except RequestError as error:  # no end in time
            failed = error
        if failed and not begun:
            raise failed  # with a status of its own
        await send({"type": "http.response.body", "body": (replies.error(failed) if failed else reply.end()).encode()})


async def lots(
    engine: Engine, asked: Sequence[Asked], receive: Receive
) -> AsyncGenerator[list[tuple[int, Event]], None]:
    """Events of all answers, each with its number; together those that came while the last ones were written, so a
    client that reads slowly holds up nobody. Raises ClientDisconnect once the client is gone, and RequestError where
    there is no end in time."""
    ready: list[tuple[int, Event]] = []
    more = asyncio.Event()
    seconds = asked[0].seconds + SLACK_SECONDS
    end = asyncio.get_running_loop().time() + seconds

    async def follow(at: int, one: Asked) -> None:
        try:
            async for event in engine.ask(one):
                ready.append((at, event))
                more.set()
        except UserError as error:
            ready.append((at, Failed(one.id, "unloaded", str(error))))

    async def wait_until_gone() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while (await receive())["type"] != "http.disconnect":
                    pass

    tasks = [asyncio.create_task(follow(at, one)) for at, one in enumerate(asked)]
    gone = asyncio.create_task(wait_until_gone())
    for task in (*tasks, gone):
        task.add_done_callback(lambda _: more.set())
    try:
        while ready or not all(task.done() for task in tasks):
            await more.wait()
            more.clear()
            if gone.done() and asyncio.get_running_loop().time() >= end:
                raise RequestError(408, f"there was no answer in {seconds:.0f} seconds", code="late")
            if gone.done():
                raise ClientDisconnect
            if ready:
                lot = ready.copy()
                ready.clear()
                yield lot
        for task in tasks:
            task.result()
    finally:
        for task in (*tasks, gone):
            task.cancel()
        await asyncio.gather(*tasks, gone, return_exceptions=True)
