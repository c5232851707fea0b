"""Which models are in memory: they are loaded on first use, and leave by least recent use where memory is short."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from tradeoffs.chat.inbox import Inbox
from tradeoffs.chat.messages import Ready
from tradeoffs.chat.process import Process
from tradeoffs.plumbing.errors import UserError

TRIES = 3  # of loading a model, where others take its place at once, or it ends at once
RECENT = 60.0  # seconds of answers that tell how long a queue takes
LOADING = 900.0  # seconds that it may take to load: what a disk reads in that time fits in no memory
CLOSED = "the chat is closed"


class TooLargeError(UserError):
    """A model that can never be loaded in the memory that all may have."""


class Model:
    """A variant, whose process comes and goes."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.process: Process | None = None
        self.loading: asyncio.Task[None] | None = None
        self.estimate_mb: float | None = None  # what it takes, as far as that is known
        self.estimated = True  # it was never loaded
        self.wanted = 0  # how many wait for it to be loaded
        self.leaving = False  # others need its memory: it takes no more questions
        self.used = 0.0  # when it was loaded, or its last answer ended
        self.inboxes: dict[str, Inbox] = {}  # of answers that somebody reads, or waits for it to be loaded
        self.ends: deque[float] = deque(maxlen=64)  # when answers ended

    @property
    def alive(self) -> bool:
        """Whether it has a process, and so memory."""
        return self.process is not None and self.process.alive

    @property
    def ready(self) -> Ready | None:
        """None: not loaded, or about to end."""
        process = self.process
        return process.ready.result() if process and process.open and process.ready.done() else None

    @property
    def idle(self) -> bool:
        """Who has just seen it loaded keeps it; not who waits for it to be loaded again, since it is leaving."""
        entering = self.wanted and self.loading and self.loading.done()
        return bool(self.process and self.ready and not self.process.answers and not entering)

    @property
    def memory_mb(self) -> float:
        """What it has, or will have once it is loaded."""
        if not self.process or not self.process.alive:
            return 0.0
        now = self.process.memory_mb
        return now if self.process.ready.done() else max(now, self.estimate_mb or 0.0)

    @property
    def running(self) -> int:
        return self.process.running if self.process else 0

    @property
    def waiting(self) -> int:
        return sum(not (inbox.begun or inbox.ended) for inbox in self.inboxes.values())

    def patience(self) -> int:
        """Seconds after which a queue as long as now has been worked off, by the recent pace."""
        now = time.monotonic()
        recent = [end for end in self.ends if now - end < RECENT]
        each = (now - recent[0]) / len(recent) if recent else 0.1
        return math.ceil(min(max(each * self.waiting, 1), RECENT))


class Models:
    """All of them by variant. `most_mb`: of their processes together, resident, in 1e6 bytes: what they have on a GPU
    is not counted. `command` starts a process, `estimate` says what a variant will take there."""

    def __init__(self, most_mb: float, command: Sequence[str], estimate: Callable[[str], float]) -> None:
        self.most_mb, self._command, self._estimate = most_mb, command, estimate
        self._models: dict[str, Model] = {}
        self._starting = asyncio.Lock()  # whose turn it is to make room: in the order in which they came
        self._changed = asyncio.Event()
        self._shrinking: asyncio.Task[None] | None = None
        self.closed = False

    def __getitem__(self, variant: str) -> Model:
        return self._models.setdefault(variant, Model(variant))

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def changed(self) -> None:
        """To be called when an answer has ended: others may wait for the memory, or a model may have grown."""
        self._changed.set()
        if self._used() > self.most_mb and (not self._shrinking or self._shrinking.done()):
            self._shrinking = asyncio.create_task(self._shrink())

    async def close(self) -> None:
        """Ends all, those that load as well. None is loaded any more."""
        self.closed = True
        for model in self:
            if model.loading:
                model.loading.cancel()
        await asyncio.gather(*(self._end(model) for model in self))

    async def loaded(self, model: Model) -> Process:
        """Its process once it is loaded. All who ask meanwhile wait for the same one, and fail with it."""
        model.wanted += 1
        try:
            for _ in range(TRIES):
                loading = model.loading
                if not loading or loading.done():
                    if model.process and model.ready and not model.leaving:
                        return model.process
                    loading = model.loading = asyncio.create_task(self._load(model))
                    loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # all may leave
                await asyncio.wait([loading])
                if self.closed:
                    raise UserError(CLOSED)
                loading.result()
                if model.process and model.ready:
                    return model.process
            raise UserError(f"{model.variant}: its process ends as soon as it is loaded")
        finally:
            model.wanted -= 1
            self._changed.set()

    async def _load(self, model: Model) -> None:
        async with self._starting:
            if self.closed or model.ready:
                return
            if model.estimate_mb is None:
                model.estimate_mb = await asyncio.to_thread(self._estimated, model.variant)
            check_size(model.variant, model.estimate_mb, self.most_mb, model.estimated)
            await self._make_room(model, model.estimate_mb)
            process = model.process = Process(model.variant)
            await process.start(self._command)
            process.ended.add_done_callback(lambda _: self._changed.set())
        try:
            async with asyncio.timeout(LOADING):
                await asyncio.shield(process.ready)
            model.used, model.estimate_mb, model.estimated = time.monotonic(), process.memory_mb, False
            check_size(model.variant, model.estimate_mb, self.most_mb, model.estimated)
        except (UserError, TimeoutError) as error:
            await process.close()
            if isinstance(error, TimeoutError):
                raise UserError(f"{model.variant}: it was not loaded in {LOADING:.0f} seconds") from error
            raise
        finally:
            self._changed.set()
        await self._shrink()

    def _estimated(self, variant: str) -> float:
        """Raises UserError, whatever is wrong with what it reads: who waits is told."""
        try:
            return self._estimate(variant)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{variant}: what it takes cannot be told ({type(error).__name__}: {error})") from error

    async def _make_room(self, model: Model, needed: float) -> None:
        """Ends models that were not used for longest until there are `needed` MB. One that answers ends what it has
        begun; what is asked of it meanwhile waits until this one is loaded. So each has its turn."""
        try:
            while (excess := self._used() + needed - self.most_mb) > 0:
                others = [other for other in self._by_use() if other is not model]
                for other in others:
                    other.leaving, excess = excess > 0, excess - other.memory_mb
                if idle := [other for other in others if other.leaving and other.idle]:
                    await self._end(idle[0])
                    continue
                if not model.wanted:
                    raise UserError(f"{model.variant}: nobody waits for it any more")
                self._changed.clear()
                await self._changed.wait()
        finally:
            for other in self:
                other.leaving = False

    async def _shrink(self) -> None:
        """Where models have become larger than was thought: all but the last one used leave, if they are idle."""
        for model in self._by_use()[:-1]:
            if self._used() > self.most_mb and model.idle:
                await self._end(model)

    async def _end(self, model: Model) -> None:
        if model.process:
            await model.process.close()
        self._changed.set()

    def _used(self) -> float:
        return sum(model.memory_mb for model in self)

    def _by_use(self) -> list[Model]:
        """That have a process, the one that was not used for longest first."""
        return sorted((model for model in self if model.alive), key=lambda model: model.used)


def check_size(variant: str, takes_mb: float, most_mb: float, estimated: bool) -> None:
    """Raises TooLargeError."""
    if takes_mb > most_mb:
        takes = f"about {takes_mb:.0f} MB (estimated)" if estimated else f"{takes_mb:.0f} MB"
        raise TooLargeError(
            f"{variant} takes {takes}, and all models may have {most_mb:.0f} MB together; "
            "allow more (--max-memory), or take a smaller variant"
        )
