"""All models that are talked with: a process for each, which loads on first use; what is asked goes there, and what it
says comes back.

    engine = Engine(max_memory_mb=8000)
    async for event in engine.ask(Asked("1", "demo-demo-lora-q4_0", (Turn("user", "What is 7 and 1?"),))):
        ...                     # Queued, Begun, Said, ..., and at last Ended or Failed
    await engine.close()

All of it belongs to one event loop. Who stops reading (`aclose()` of the iterator, a cancelled task) ends the answer.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from tradeoffs.chat import room, variants
from tradeoffs.chat.inbox import Inbox
from tradeoffs.chat.messages import Asked, Begun, Ended, Failed, Queued, Ready, Said
from tradeoffs.chat.process import COMMAND, Process
from tradeoffs.plumbing.errors import UserError

WAITING = 256  # questions of a model that wait at most
LATE = 5.0  # seconds after its time is up in which an answer has to end by itself: a step of a large model takes some
TRIES = 3  # of loading a model, where others take its place at once, or it ends at once
CLOSED = "the chat is closed"
RECENT = 60.0  # seconds of answers that tell how long a queue takes


@dataclass(frozen=True)
class State:
    """Of a model: `ready` None: not loaded, or not yet. `memory_mb` resident now. Answers that run and that wait."""

    variant: str
    ready: Ready | None
    memory_mb: float
    running: int
    waiting: int
    pid: int | None


class Model:
    """A variant, whose process comes and goes."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.process: Process | None = None
        self.loading: asyncio.Task[None] | None = None
        self.estimate_mb: float | None = None  # what it takes, as far as that is known
        self.wanted = 0  # how many wait for it to be loaded
        self.leaving = False  # others need its memory: it takes no more questions
        self.used = 0.0  # when it was asked last
        self.answers = 0  # that have not ended, those that wait for it to be loaded among them
        self.ends: deque[float] = deque(maxlen=64)  # when answers ended

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def ready(self) -> Ready | None:
        return self.process.ready.result() if self.process and self.alive and self.process.ready.done() else None

    @property
    def idle(self) -> bool:
        """Who has just seen it loaded keeps it; not who waits for it to be loaded again, since it is leaving."""
        entering = self.wanted and self.loading and self.loading.done()
        return bool(self.process and self.ready and not self.process.answers and not entering)

    @property
    def memory_mb(self) -> float:
        """What it has, or will have once it is loaded."""
        now = self.process.memory_mb if self.process and self.alive else 0.0
        return max(now, self.estimate_mb or 0.0) if self.alive and not self.ready else now

    @property
    def running(self) -> int:
        return self.process.running if self.process else 0

    @property
    def waiting(self) -> int:
        return self.answers - self.running

    def patience(self) -> int:
        """Seconds after which a queue as long as now has been worked off, by the recent pace."""
        now = time.monotonic()
        recent = [end for end in self.ends if now - end < RECENT]
        each = (now - recent[0]) / len(recent) if recent else 0.1
        return math.ceil(min(max(each * self.waiting, 1), RECENT))


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
        command: Sequence[str] = COMMAND,
        estimate: Callable[[str], float] | None = None,
    ) -> None:
        self.max_memory_mb = room.limit_mb() if max_memory_mb is None else max_memory_mb
        self._waiting, self._command, self._estimate = waiting, command, estimate or _estimate
        self._models: dict[str, Model] = {}
        self._inboxes: dict[str, Inbox] = {}  # of all answers that have not ended
        self._numbers = count()
        self._starting = asyncio.Lock()  # whose turn it is to make room: in the order in which they came
        self._changed = asyncio.Event()
        self._closed = False

    async def ask(self, asked: Asked) -> AsyncIterator[Queued | Begun | Said | Ended | Failed]:
        """Events of an answer; the last one is Ended or Failed, whatever happens. Their `id` is the engine's own."""
        name, since = f"{asked.id}-{next(self._numbers)}", time.monotonic()
        model = self._models.setdefault(asked.variant, Model(asked.variant))
        if refused := self._refused(model, name):
            yield refused
            return
        inbox, process = self._inboxes.setdefault(name, Inbox()), None
        late = Failed(name, "late", f"{asked.variant}: no answer within {asked.seconds:g} seconds")
        timer = asyncio.get_running_loop().call_later(asked.seconds + LATE, inbox.put, late)
        model.answers += 1
        try:
            async with asyncio.timeout(asked.seconds):
                process = await self._loaded(model)
            model.used = time.monotonic()
            process.ask(replace(asked, id=name), since, inbox)
            while True:
                for event in await inbox.get():
                    if isinstance(event, Ended):
                        model.ends.append(time.monotonic())
                    yield event  # type: ignore[misc]
                    if isinstance(event, Ended | Failed):
                        return
        except TimeoutError:
            yield replace(late, message=f"{late.message}: it could not be loaded in that time")
        except UserError as error:
            yield Failed(name, "stopped" if self._closed else "unloaded", str(error))
        finally:
            timer.cancel()
            model.answers -= 1
            del self._inboxes[name]
            if process:
                process.forget(name)
            self._changed.set()
            if self._used() > self.max_memory_mb:
                self._shrinking = asyncio.create_task(self._shrink(model))

    def leave(self, name: str) -> None:
        """Ends the answer whose events have this id; what it has until then still comes, with Ended."""
        for model in self._models.values():
            if model.process and name in model.process.answers:
                model.process.leave(name)

    async def model(self, variant: str) -> Process:
        """That of a variant, loaded: `ready.result()` says what it is. Raises UserError where it cannot be."""
        return await self._loaded(self._models.setdefault(variant, Model(variant)))

    def states(self) -> dict[str, State]:
        """Of the models that were asked for, by variant."""
        return {
            name: State(
                name,
                model.ready,
                model.process.memory_mb if model.process and model.alive else 0.0,
                model.running,
                model.waiting,
                model.process.pid if model.process and model.alive else None,
            )
            for name, model in self._models.items()
        }

    async def close(self) -> None:
        """Ends all answers and all processes. Nothing can be asked afterwards."""
        self._closed = True
        for name, inbox in self._inboxes.items():
            inbox.put(Failed(name, "stopped", CLOSED))
        for model in self._models.values():
            if model.loading:
                model.loading.cancel()
        await asyncio.gather(*(self._end(model) for model in self._models.values()))

    def _refused(self, model: Model, name: str) -> Failed | None:
        if self._closed:
            return Failed(name, "stopped", CLOSED)
        if model.waiting < self._waiting:
            return None
        retry = model.patience()
        said = f"{model.variant}: {model.waiting} questions wait already; try again in {retry} seconds"
        return Failed(name, "busy", said, retry)

    async def _loaded(self, model: Model) -> Process:
        """Its process once it is loaded. All who ask meanwhile wait for the same one, and fail with it."""
        model.wanted += 1
        try:
            for _ in range(TRIES):
                if not model.loading or model.loading.done():
                    if model.process and model.ready and not model.leaving:
                        return model.process
                    model.loading = asyncio.create_task(self._load(model))
                await asyncio.wait([model.loading])
                if model.loading.cancelled():
                    raise UserError(CLOSED)
                model.loading.result()
                if model.process and model.ready:
                    return model.process
            raise UserError(f"{model.variant}: its process ends as soon as it is loaded")
        finally:
            model.wanted -= 1
            self._changed.set()

    async def _load(self, model: Model) -> None:
        async with self._starting:
            if model.ready:
                return
            if model.estimate_mb is None:
                model.estimate_mb = await asyncio.to_thread(self._estimate, model.variant)
            self._check(model, model.estimate_mb)
            await self._make_room(model, model.estimate_mb)
            process = model.process = Process(model.variant)
            await process.start(self._command)
        try:
            await process.ready
            model.used, model.estimate_mb = time.monotonic(), process.memory_mb
            self._check(model, model.estimate_mb)
        except UserError:
            await process.close()
            raise
        finally:
            self._changed.set()
        await self._shrink(model)

    def _check(self, model: Model, takes_mb: float) -> None:
        if takes_mb > self.max_memory_mb:
            raise UserError(
                f"{model.variant} takes {takes_mb:.0f} MB, and all models may have {self.max_memory_mb:.0f} MB "
                "together; allow more (--max-memory), or take a smaller variant"
            )

    async def _make_room(self, model: Model, needed: float) -> None:
        """Ends models that were not used for longest until there are `needed` MB. One that answers ends what it has
        begun; what is asked of it meanwhile waits until this one is loaded. So each has its turn."""
        try:
            while (excess := self._used() + needed - self.max_memory_mb) > 0:
                for other in self._others(model):
                    other.leaving, excess = excess > 0, excess - other.memory_mb
                if idle := [other for other in self._others(model) if other.leaving and other.idle]:
                    await self._end(idle[0])
                    continue
                if not model.wanted:
                    raise UserError(f"{model.variant}: nobody waits for it any more")
                self._changed.clear()
                await self._changed.wait()
        finally:
            for other in self._models.values():
                other.leaving = False

    async def _shrink(self, model: Model) -> None:
        """Where models have become larger than was thought: others than this one leave, if they are idle."""
        for other in self._others(model):
            if self._used() > self.max_memory_mb and other.idle:
                await self._end(other)

    async def _end(self, model: Model) -> None:
        if model.process:
            await model.process.close()
        self._changed.set()

    def _used(self) -> float:
        return sum(model.memory_mb for model in self._models.values())

    def _others(self, model: Model) -> list[Model]:
        """That have a process, the one that was not used for longest first."""
        others = [other for other in self._models.values() if other.alive and other is not model]
        return sorted(others, key=lambda other: other.used)


def _estimate(variant: str) -> float:
    """Raises UserError for what is no variant of the run list."""
    (known,) = variants.chosen([variant])
    return room.estimate_mb(known.variant, known.numbers.get("peak_memory_mb"))
