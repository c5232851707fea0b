"""One question to a model: its events as they come, until the end or until the user has had enough."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from tradeoffs.chat.messages import Asked, Begun, Ended, Event, Failed, Said
from tradeoffs.chat.terminal.conversation import Answer

if TYPE_CHECKING:
    from tradeoffs.chat.engine import Engine

PATIENCE = 2.0  # seconds that an answer may take to end, once the user has stopped it


async def answer(engine: "Engine", asked: Asked, show: Callable[[Event], None], stop: asyncio.Event) -> Answer:
    """The answer; `show` gets its events as they come. Once `stop` is set it ends with what it has."""
    since, begun, parts, tokens, first = time.monotonic(), None, list[str](), 0, 0.0
    async with aclosing(_events(engine, asked, stop)) as events:
        async for event in events:
            show(event)
            match event:
                case Begun():
                    begun = event
                case Said():
                    first = first or time.monotonic() - since
                    parts.append(event.text)
                    tokens = event.tokens
                case Failed():
                    return Answer("".join(parts), "failed", tokens, message=event.message)
                case Ended():
                    return Answer(
                        event.text,
                        event.reason,
                        event.tokens,
                        event.prompt_tokens,
                        event.cached_tokens,
                        begun.left_out if begun else 0,
                        event.seconds_waited,
                        event.seconds_to_first,
                        event.seconds,
                        event.memory_mb,
                    )
    read, known, left_out = (begun.prompt_tokens, begun.cached_tokens, begun.left_out) if begun else (0, 0, 0)
    took = time.monotonic() - since
    return Answer("".join(parts), "left", tokens, read, known, left_out, 0.0, first or took, took)


async def _events(engine: "Engine", asked: Asked, stop: asyncio.Event) -> AsyncGenerator[Event, None]:
    stream: Any = engine.ask(asked)
    stopped, name, left = asyncio.create_task(stop.wait()), "", False
    try:
        while True:
            step = asyncio.create_task(_next(stream))
            if not left:
                await asyncio.wait({step, stopped}, return_when=asyncio.FIRST_COMPLETED)
                left = stopped.done()
                if left and name:
                    engine.leave(name)
            if not step.done():
                await asyncio.wait({step}, timeout=PATIENCE if name else 0)
            if not step.done():  # it is not loaded yet, or does not listen
                step.cancel()
                await asyncio.wait({step})
                return
            if (event := step.result()) is None:
                return
            name = "" if isinstance(event, Ended | Failed) else getattr(event, "id", "")
            yield event
    finally:
        stopped.cancel()
        await stream.aclose()  # not some time later


async def _next(stream: AsyncIterator[Event]) -> Event | None:
    return await anext(stream, None)
