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

Lot = list[tuple[int, Event]]  # events of several answers, each with the number of its answer
SLACK_SECONDS = 60.0  # more than an answer may take, for a model that is loaded, or that does not keep its time
ALIVE_SECONDS = 15.0  # after which a stream says that it still waits: proxies end what is silent
AT_ONCE = 4  # prompts of one request that are asked at a time: those of others come in between
JSON = [(b"content-type", b"application/json")]
# Proxies that gather what is written would keep the words back.
ALIVE = ": it waits\n\n"  # a comment, which clients pass over
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class Answers:
    """The response to what is `wanted`. A client that leaves ends its answers."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine, self._wanted = engine, wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RequestError as long as nothing is sent."""
        async with aclosing(lots(self._engine, self._wanted.asked, receive)) as events:
            await (self._streamed if self._wanted.stream else self._whole)(events, send)

    async def _whole(self, events: AsyncIterator[Lot], send: Send) -> None:
        reply = Reply(self._wanted)
        async for lot in events:
            for at, event in lot:
                reply.add(at, event)
            if reply.complete:
                break
        body = json.dumps(reply.whole()).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [*JSON, (b"content-length", str(len(body)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _streamed(self, events: AsyncIterator[Lot], send: Send) -> None:
        reply, begun = Reply(self._wanted), False
        async for lot in events:
            said, failed = _said(reply, lot)
            if failed and not (begun or said):
                raise failed  # with a status of its own
            if not begun:
                await send({"type": "http.response.start", "status": 200, "headers": STREAM})
                begun = True
            if not lot:
                said = ALIVE
            if ended := failed is not None or reply.complete:
                said += replies.error(failed) if failed else reply.end()
            if said:
                await send({"type": "http.response.body", "body": said.encode(), "more_body": not ended})
            if ended:
                return
        raise RuntimeError("an answer without an end")


def _said(reply: Reply, lot: Lot) -> tuple[str, RequestError | None]:
    """What is sent of these events, and what failed after it."""
    said = ""
    try:
        for at, event in lot:
            said += reply.chunk(at, event)
    except RequestError as error:
        return said, error
    return said, None


async def lots(engine: Engine, asked: Sequence[Asked], receive: Receive) -> AsyncGenerator[Lot, None]:
    """Events of all answers, each with its number; together those that came while the last ones were written, so a
    client that reads slowly holds up nobody; none where nothing came for ALIVE_SECONDS. The last one has failed where
    there is no end in time. Raises ClientDisconnect once the client is gone."""
    ready: Lot = []
    more, places = asyncio.Event(), asyncio.Semaphore(AT_ONCE)
    seconds = asked[0].seconds + SLACK_SECONDS
    end = asyncio.get_running_loop().time() + seconds

    async def follow(at: int, one: Asked) -> None:
        try:
            async with places:
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
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    await more.wait()
            except TimeoutError:
                yield []
            more.clear()
            if gone.done() and asyncio.get_running_loop().time() >= end:
                yield [(0, Failed(asked[0].id, "late", f"there was no answer in {seconds:.0f} seconds"))]
                return
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
