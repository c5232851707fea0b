"""All models that are talked with: a process for each, which loads on first use; what is asked goes there, and what it
says comes back.

    engine = Engine(max_memory_mb=8000)
    async for event in engine.ask(Asked("1", "demo-demo-lora-q4_0", (Turn("user", "What is 7 and 1?"),))):
        ...                     # Queued, Begun, Said, ..., and at last Ended or Failed
    await engine.close()

All of it belongs to one event loop. Who stops reading (`aclose()` of the iterator, a cancelled task) ends the answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from tradeoffs.chat import room, variants
from tradeoffs.chat.inbox import Inbox
from tradeoffs.chat.messages import Asked, Begun, Ended, Failed, Queued, Ready, Said
from tradeoffs.chat.models import CLOSED, Model, Models, TooLargeError, check_size
from tradeoffs.chat.process import COMMAND, Process
from tradeoffs.chat.variants import Talker
from tradeoffs.plumbing.errors import UserError

WAITING = 256  # questions of a model that wait at most
LATE = 5.0  # seconds after its time is up in which an answer has to end by itself: a step of a large model takes some


@dataclass(frozen=True)
class State:
    """Of a model: `ready` None: not loaded, or not yet. `memory_mb` resident now. Answers that run and that wait."""

    variant: str
    ready: Ready | None
    memory_mb: float
    running: int
    waiting: int
    pid: int | None


class Engine:
    """`ask` is all that most need: models start when they are asked for the first time.

    `max_memory_mb`: of all models' processes together, in 1e6 bytes; None: a share of the machine's. `waiting`:
    questions of a model that wait at most. `command` starts a model's process, and `estimate` says what it will take;
    the defaults are for variants of the run list.
    """

    def __init__(
        self,
        max_memory_mb: float | None = None,
        waiting: int = WAITING,
        command: Sequence[str] | None = None,
        estimate: Callable[[str], float] | None = None,
    ) -> None:
        most_mb = room.limit_mb() if max_memory_mb is None else max_memory_mb
        command = command or (*COMMAND, "--memory", f"{most_mb:.0f}")
        self._models = Models(most_mb, command, estimate or (lambda variant: _estimate(variant, most_mb)))
        self._waiting = waiting
        self._inboxes: dict[str, Inbox] = {}  # of all answers that have not ended
        self._numbers = count()

    async def ask(self, asked: Asked) -> AsyncIterator[Queued | Begun | Said | Ended | Failed]:
        """Events of an answer; the last one is Ended or Failed, whatever happens. Their `id` is the engine's own."""
        name, since = f"{asked.id}-{next(self._numbers)}", time.monotonic()
        model = self._models[asked.variant]
        if refused := self._refused(model, name):
            yield refused
            return
        inbox, process = Inbox(), None
        self._inboxes[name] = model.inboxes[name] = inbox
        late = Failed(name, "late", f"{asked.variant}: no answer within {asked.seconds:g} s")
        timer = asyncio.get_running_loop().call_later(asked.seconds + LATE, inbox.put, late)
        try:
            async with asyncio.timeout(asked.seconds):
                process = await self._models.loaded(model)
            process.ask(replace(asked, id=name), since, inbox)
            while True:
                for event in await inbox.get():
                    if isinstance(event, Ended):
                        model.ends.append(time.monotonic())
                    elif event is late:
                        process.end_if_hung()
                    yield event  # type: ignore[misc]
                    if isinstance(event, Ended | Failed):
                        return
        except TimeoutError:
            yield replace(late, message=f"{late.message}: it could not be loaded in that time")
        except TooLargeError as error:
            yield Failed(name, "too_large", str(error))
        except UserError as error:
            yield Failed(name, "stopped" if self._models.closed else "unloaded", str(error))
        finally:
            timer.cancel()
            del self._inboxes[name], model.inboxes[name]
            if process:
                process.forget(name)
                model.used = time.monotonic()
            self._models.changed()

    def leave(self, name: str) -> None:
        """Ends the answer whose events have this id; what it has until then still comes, with Ended."""
        for model in self._models:
            if model.process and name in model.process.answers:
                model.process.leave(name)

    async def model(self, variant: str) -> Process:
        """That of a variant, loaded: `ready.result()` says what it is. Raises UserError where it cannot be."""
        return await self._models.loaded(self._models[variant])

    def states(self) -> dict[str, State]:
        """Of the models that were asked for, by variant."""
        return {
            model.variant: State(
                model.variant,
                model.ready,
                model.process.memory_mb if model.process and model.alive else 0.0,
                model.running,
                model.waiting,
                model.process.pid if model.process and model.alive else None,
            )
            for model in self._models
        }

    async def close(self) -> None:
        """Ends all answers and all processes. Nothing can be asked afterwards."""
        for name, inbox in self._inboxes.items():
            inbox.put(Failed(name, "stopped", CLOSED))
        await self._models.close()

    def _refused(self, model: Model, name: str) -> Failed | None:
        if self._models.closed:
            return Failed(name, "stopped", CLOSED)
        if model.waiting < self._waiting:
            return None
        retry = model.patience()
        said = f"{model.variant}: {model.waiting} questions wait already; try again in {retry} seconds"
        return Failed(name, "busy", said, retry)


def require_room(talkers: Sequence[Talker], max_memory_mb: float | None) -> None:
    """Raises UserError for one that can never be loaded, as far as that is known before it is."""
    most_mb = room.limit_mb() if max_memory_mb is None else max_memory_mb
    for talker in talkers:
        check_size(str(talker), _size(talker, most_mb), most_mb, estimated=True)


def _estimate(variant: str, most_mb: float) -> float:
    """Raises UserError for what is no variant of the run list."""
    (known,) = variants.chosen([variant])
    return _size(known, most_mb)


def _size(talker: Talker, most_mb: float) -> float:
    return room.estimate_mb(talker.variant, talker.numbers.get("peak_memory_mb"), most_mb)
