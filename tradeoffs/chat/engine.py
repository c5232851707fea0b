"""All models that are talked with: a process for each, which loads on first use; what is asked goes there, and what it
says comes back."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count

from tradeoffs.chat.messages import Asked, Begun, Ended, Event, Failed, Queued, Ready, Said, events
from tradeoffs.plumbing.errors import UserError

LINE = 64 << 20  # bytes of a line of events at most


class Model:
    """The process of one variant."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._waiting: dict[str, asyncio.Queue[Event]] = {}

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tradeoffs.chat.worker", self.variant, "--fd", str(theirs.fileno())]
        self.process = await asyncio.create_subprocess_exec(
            *command, pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE)
        self._task = asyncio.create_task(self._read())

    async def ask(self, asked: Asked) -> AsyncIterator[Event]:
        queue = self._waiting[asked.id] = asyncio.Queue()
        self._send(asdict(asked))
        ended = False
        try:
            while not ended:
                event = await queue.get()
                ended = isinstance(event, (Ended, Failed))
                yield event
        finally:
            self._waiting.pop(asked.id, None)
            if not ended:
                self._send({"leave": asked.id})

    def leave(self, name: str) -> None:
        """Ends an answer; what it has until then still comes."""
        self._send({"leave": name})

    async def close(self) -> None:
        self._writer.close()
        await self.process.wait()

    def _send(self, message: dict) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> None:
        while text := await self._reader.readline():
            for event in events(text):
                if isinstance(event, Ready):
                    self.ready.set_result(event)
                elif queue := self._waiting.get(event.id):
                    queue.put_nowait(event)
        await self.process.wait()
        said = f"{self.variant}: its process ended with {self.process.returncode}"
        if not self.ready.done():
            self.ready.set_exception(UserError(said))
        for name, queue in self._waiting.items():
            queue.put_nowait(Failed(name, "died", said))


class Engine:
    """`ask` is all that most need: models start when they are asked for the first time."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._numbers = count()

    async def ask(self, asked: Asked) -> AsyncIterator[Queued | Begun | Said | Ended | Failed]:
        """Events of an answer; the last one is Ended or Failed. Who leaves the iterator early ends the answer."""
        model = await self.model(asked.variant)
        async for event in model.ask(replace(asked, id=f"{asked.id}-{next(self._numbers)}")):
            yield event  # type: ignore[misc]

    async def model(self, variant: str) -> Model:
        """That of a variant, loaded. Raises UserError where it cannot be."""
        if variant not in self._models or self._models[variant].process.returncode is not None:
            model = self._models[variant] = Model(variant)
            await model.start()
        await self._models[variant].ready
        return self._models[variant]

    async def close(self) -> None:
        for model in self._models.values():
            with suppress(ProcessLookupError):
                await model.close()
