"""A chat in the terminal, or through a pipe: lines in, answers out."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from tradeoffs.chat.messages import Event, Queued
from tradeoffs.chat.terminal import asking
from tradeoffs.chat.terminal.conversation import Answer, Settings, Side
from tradeoffs.chat.terminal.showing import PLACES, Shown
from tradeoffs.chat.variants import Talker
from tradeoffs.plumbing.errors import UserError

if TYPE_CHECKING:
    from tradeoffs.chat.engine import Engine

MOMENT = 0.5  # seconds of waiting of which nothing is said
INTERRUPTED = 130  # exit code of what Ctrl-C has ended


class OverError(Exception):
    """The chat has ended, with this exit code."""

    def __init__(self, code: int = 0) -> None:
        super().__init__(code)
        self.code = code


class Chat:
    """`engine` makes one; `shown` is where answers go; `execute` does what a line asks for that begins with a `/`."""

    def __init__(
        self,
        talkers: Sequence[Talker],
        settings: Settings,
        engine: "Callable[[], Engine]",
        shown: Shown,
        execute: Callable[["Chat", str], None],
    ) -> None:
        self.sides = [Side(talker) for talker in talkers]
        self.settings, self.shown = settings, shown
        self.written: set[str] = set()  # files that this chat has saved or loaded
        self._make, self._execute, self._failed = engine, execute, False

    def run(self, lines: Iterable[str]) -> int:
        """Answers line by line. The exit code: 1 where a line of a pipe had no answer. Raises UserError where a model
        cannot be loaded."""
        with asyncio.Runner() as runner:
            self._runner, self._engine = runner, runner.run(self._made())
            try:
                self.load()
                for line in lines:
                    self._do(line)
            except OverError as over:
                return over.code
            except KeyboardInterrupt:
                return INTERRUPTED
            finally:
                runner.run(self._engine.close())
        return int(self._failed and not self.shown.interactive)

    def load(self) -> None:
        """Loads what is to answer. Raises UserError where it cannot be, and OverError where Ctrl-C ends it."""
        self._runner.run(self._load())

    def replace(self, talkers: Sequence[Talker]) -> None:
        """Others answer from now on, each after the conversation that stood in its place; a second one that is new,
        after that of the first. Raises UserError, and changes nothing, where one cannot be loaded."""
        before = self.sides
        last = len(before) - 1
        self.sides = [Side(talker, list(before[min(at, last)].exchanges)) for at, talker in enumerate(talkers)]
        try:
            self.load()
        except BaseException:
            self.sides = before
            raise

    def _do(self, line: str) -> None:
        try:
            _check(line)
            if not line.strip():
                return
            if line.startswith("/") and not line.startswith("//"):
                self._execute(self, line)
                return
            self._runner.run(self._ask(line.removeprefix("/")))
        except UserError as error:
            self._failed = True
            self.shown.note(str(error))

    async def _made(self) -> "Engine":
        return self._make()

    async def _load(self) -> None:
        async with _interrupts() as stop:
            for side in self.sides:
                loading = asyncio.ensure_future(self._engine.model(side.name))
                stopped = asyncio.create_task(stop.wait())
                with self._waiting(f"loading {side.name}"):
                    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if not loading.done():
                    loading.cancel()
                    raise OverError(INTERRUPTED)
                side.context = loading.result().ready.result().context

    async def _ask(self, question: str) -> None:
        """Asks all sides. Ctrl-C ends the answer; a second one, or one where lines come through a pipe, the chat."""
        async with _interrupts() as stop:
            asks = self._together if self.settings.together else self._in_turn
            answers = await asks(question, stop)
        if len(answers) > 1:
            self.shown.both(answers)
        self._failed = self._failed or any(answer.reason == "failed" for answer in answers)
        if stop.count > 1 or (stop.count and not self.shown.interactive):
            raise OverError(INTERRUPTED)

    async def _in_turn(self, question: str, stop: "Interrupts") -> list[Answer]:
        """Neither is slowed by the other. Where the first is stopped, the second is not asked."""
        answers = list[Answer]()
        for side in self.sides:
            if not stop.is_set():
                answers.append(await self._answer(side, question, stop))
                self._end(side, question, answers[-1])
        return answers

    async def _together(self, question: str, stop: "Interrupts") -> list[Answer]:
        """At the same time: the first is shown while it grows, and then what the other has said meanwhile."""
        first, *others = self.sides
        said: list[list[Event]] = [[] for _ in others]
        asked = [
            asyncio.create_task(asking.answer(self._engine, side.asked(question, self.settings), kept.append, stop))
            for side, kept in zip(others, said, strict=True)
        ]
        answers = [await self._answer(first, question, stop)]
        self._end(first, question, answers[0])
        for side, events, one in zip(others, said, asked, strict=True):
            with self._waiting(f"waiting for {side.name}"):
                answers.append(await one)
            self.shown.begin(side, self._place(side))
            for event in events:
                self.shown.piece(event)
            self._end(side, question, answers[-1])
        return answers

    async def _answer(self, side: Side, question: str, stop: "Interrupts") -> Answer:
        """Shown while it grows."""
        waits, begun = True, self._waiting(f"waiting for {side.name}")

        def show(event: Event) -> None:
            nonlocal waits
            if waits and not isinstance(event, Queued):
                waits = False
                begun.__exit__(None, None, None)
                self.shown.begin(side, self._place(side))
            self.shown.piece(event)

        begun.__enter__()
        answer = await asking.answer(self._engine, side.asked(question, self.settings), show, stop)
        if waits:
            begun.__exit__(None, None, None)
            self.shown.begin(side, self._place(side))
        return answer

    def _end(self, side: Side, question: str, answer: Answer) -> None:
        side.add(question, answer)
        self.shown.end(side, question, answer)

    def _place(self, side: Side) -> str:
        return PLACES[self.sides.index(side)] if len(self.sides) > 1 else ""

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """Says what is waited for, once it has taken more than a moment."""
        timer = asyncio.get_running_loop().call_later(MOMENT, self.shown.transient, f"{what} ...")
        try:
            yield
        finally:
            timer.cancel()
            self.shown.clear()


class Interrupts(asyncio.Event):
    """Set by Ctrl-C; `count`: how often."""

    count = 0

    def again(self) -> None:
        self.count += 1
        self.set()


@asynccontextmanager
async def _interrupts() -> AsyncIterator[Interrupts]:
    """Ctrl-C is counted, and raises nothing."""
    stop, loop = Interrupts(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.again)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _check(line: str) -> None:
    """Raises UserError for what is no text."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise UserError("this line is no text in UTF-8, so it is not asked") from error
