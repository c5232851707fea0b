"""Runs the steps of a pipeline, as many side by side as may be, each after those that it depends on.

What is measured comes first and alone: once trainings are done, everything else can fill the cores.
"""

import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from graphlib import TopologicalSorter
from itertools import chain, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from dvc.exceptions import DvcException

from tradeoffs.common import machine
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.lacking import lacking
from tradeoffs.repro.guard import Guard
from tradeoffs.repro.pipeline import Begun, Pipeline
from tradeoffs.repro.places import Place, Running
from tradeoffs.repro.screen import Screen
from tradeoffs.repro.slots import Needs

if TYPE_CHECKING:
    from tradeoffs.repro.together import Together

LOGS = Path(".scratch/logs")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_UNWRITTEN = 60.0  # seconds of work that are not in dvc.lock yet,
WRITING = 0.05  # unless writing it takes more of the time than this
TICK = 0.5  # seconds between two looks at the screen
PATIENCE = 10.0  # seconds that a step has to end when it is told to
MOST_LOST = 2  # machines that may be lost under a step: it could be the step that does it


class Runner:
    """One run of what is planned, at `places`. A step needs what `needs` says of it when it might start.

    `took`: seconds of each step that ran, from its start to its end; `ended` is called with its name. `failed`: what is
    wrong with each that did not end well. `own_seconds`: of DVC's work and of this, all steps together.
    """

    def __init__(
        self,
        pipeline: "Pipeline | Together",
        needs: Callable[[str], Needs],
        places: Sequence[Place],
        screen: Screen,
        ended: Callable[[str], None],
        keep_going: bool = False,
        expects: Callable[[], bool] = lambda: False,
    ) -> None:
        self.took: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.own_seconds = 0.0
        self._pipeline, self._needs, self._places, self._screen = pipeline, needs, places, screen
        self._has_ended, self._keep_going, self._expects = ended, keep_going, expects
        self._planned, self._commands = set(pipeline.planned), set(pipeline.steps)
        self._sorter = TopologicalSorter(pipeline.dependencies)
        # That may start, in the order in which they came to that; the others after those that run alone.
        self._exclusive: list[str] = []
        self._others: list[str] = []
        self._later: list[str] = []  # until one of the running has ended
        self._running: dict[str, Running] = {}
        self._using: dict[str, tuple[Place, Needs]] = {}
        self._lost: Counter[str] = Counter()  # how often a step had to begin again
        self._begun: dict[str, float] = {}
        # Names of steps of which a command has ended; "": a signal, or there is more room.
        self._events: SimpleQueue[str] = SimpleQueue()
        self._left_out: set[str] = set()
        self._signal = 0
        self._next_write = time.monotonic() + MOST_UNWRITTEN

    def run(self, guarded: bool = False) -> None:
        """Raises KeyboardInterrupt and SystemExit where a signal ends it. What was done until then is in dvc.lock, and
        of what was running nothing is left. `guarded`: this process has a guard already."""
        machine.pass_on()  # or each step would ask for itself, and wait where a driver hangs
        # Before the process that forks: its mark is that of the forks.
        guard = None if guarded else Guard(self._pipeline.held)
        before = {number: signal.getsignal(number) for number in STOPS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._told_to_stop)
        self._sorter.prepare()
        try:
            while not self._signal:
                self._start()
                if not self._running and not self._may_still_start():
                    self._blame_places()
                    break  # all is done, or what is left depends on what failed
                self._wait()
        finally:
            try:
                self._stop()
            finally:
                self._pipeline.write()
                for number, handler in before.items():
                    signal.signal(number, handler)
        if guard:
            guard.dismiss()
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal:
            sys.exit(128 + self._signal)

    def more_room(self) -> None:
        """A place was added; from any thread."""
        self._events.put("")

    def _told_to_stop(self, number: int, _: object) -> None:
        """DVC's work is not cut short: it is done with one step at a time, and then this is looked at. Who cannot wait
        for that says it twice."""
        if self._signal:
            signal.signal(number, signal.SIG_IGN)  # the ending itself is not cut short
            raise KeyboardInterrupt
        self._signal = number
        self._events.put("")

    def _start(self) -> None:
        """Starts whatever may start now; what needs no process is done at once."""
        more = True
        while more and not self._signal:
            begun = time.monotonic()
            self._write_now_and_then()
            self._pipeline.settle()
            more = self._take_up() or self._start_one()
            self.own_seconds += time.monotonic() - begun

    def _take_up(self) -> bool:
        """Whether there were steps that now may start, since all that they depend on is done."""
        ready = self._sorter.get_ready()
        for name in ready:
            if name in self._planned or not self._may_start(name):
                self._queue_up(name)
                continue
            # It was up to date at the beginning, and so was all that it depends on; or it has no command.
            with self._failing(name):
                if name not in self._commands:
                    self._pipeline.begin(name)
                self._sorter.done(name)
        return bool(ready)

    def _queue_up(self, name: str) -> None:
        if self._may_start(name):
            (self._exclusive if self._needs(name).exclusive else self._others).append(name)

    def _may_start(self, name: str) -> bool:
        """Whether nothing has failed in its experiment, or that shall stop nothing."""
        return self._keep_going or self._pipeline.experiment(name) not in map(self._pipeline.experiment, self.failed)

    def _start_one(self) -> bool:
        """Whether there was one that could start. At each place what is to run alone goes first, or it would wait for
        ever; the place where least runs comes first."""
        for place in sorted(self._places, key=lambda place: len(self._used(place))):
            using = self._used(place)
            if len(using) >= place.slots.jobs:
                continue
            first = [name for name in self._exclusive if place.takes(name, self._needs(name))]
            for name in first or self._others:
                needs = self._needs(name)
                if place.takes(name, needs) and place.slots.fits(needs, using):
                    (self._exclusive if first else self._others).remove(name)
                    with self._failing(name):
                        self._begin(name, place)
                    return True
        return False

    def _may_still_start(self) -> bool:
        return bool(self._exclusive or self._others) and self._expects()

    def _used(self, place: Place) -> list[Needs]:
        return [needs for where, needs in self._using.values() if where is place]

    def _blame_places(self) -> None:
        """Of what could start and has not, it says that there is no machine for it."""
        if not self.failed or self._keep_going:
            for name in [*self._exclusive, *self._others]:
                with self._failing(name):
                    raise UserError("no machine of the cluster is left that could run it")

    def _begin(self, name: str, place: Place) -> None:
        found = self._pipeline.begin(name)
        if found is Begun.LATER:
            self._later.append(name)
            return
        if found is not Begun.RUN:
            self._screen.not_run(name, found)
            self._sorter.done(name)
            return
        needs, log = self._needs(name), None
        environment = {}
        if place.name or self._pipeline.experiment(name) or not place.slots.alone(needs):
            log = LOGS / f"{name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
        if place.name and "OMP_NUM_THREADS" in os.environ:  # as it is here
            environment["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
        elif not place.slots.alone(needs) and "OMP_NUM_THREADS" not in os.environ:
            waiting = map(self._needs, islice(chain(self._exclusive, self._others), 4 * place.slots.jobs))
            environment["OMP_NUM_THREADS"] = str(place.slots.threads(needs, self._used(place), waiting))
        environment |= place.slots.take(name, needs)
        self._screen.starts(name, self._pipeline.command(name), log, place.name)
        self._using[name], self._begun[name] = (place, needs), time.monotonic()
        self._running[name] = place.start(name, environment, log, lambda: self._events.put(name))

    def _wait(self) -> None:
        """For one to end; then for what else has."""
        ended: str | None = None
        with self._pipeline.unlocked():
            while ended is None:
                try:
                    ended = self._events.get(timeout=TICK)
                except Empty:
                    self._screen.refresh()
        begun = time.monotonic()
        while ended is not None:
            if ended:
                self._finish(ended)
            ended = None if self._events.empty() else self._events.get()
        self.own_seconds += time.monotonic() - begun

    def _finish(self, name: str) -> None:
        running = self._running[name]
        if self._signal and (running.code or running.commands):
            return  # it was told to end, as all of this
        took = time.monotonic() - self._begun[name]
        with self._failing(name):
            if running.again and self._again(name):
                return
            if running.code:
                running.end()
                command = " && ".join(self._pipeline.command(name))
                raise UserError(running.why or f"failed to run: {command}, exited with {running.code}")
            if running.commands:
                running.next()
                return
            running.deliver()
            self._pipeline.finish(name)
            self._forget(name)
            self.took[name] = took
            self._has_ended(name)
            self._screen.ends(name, took)
            self._sorter.done(name)

    def _again(self, name: str) -> bool:
        """Whether it may run elsewhere, as the first of all that wait; not where it has lost too many machines."""
        place, needs = self._using[name]
        place.give_back(name)
        self._lost[name] += 1
        if self._lost[name] > MOST_LOST:
            return False
        self._screen.again(name, place.name, self._running[name].why)
        self._forget(name)
        (self._exclusive if needs.exclusive else self._others).insert(0, name)
        return True

    def _forget(self, name: str) -> None:
        self._running.pop(name, None)
        place, _ = self._using.pop(name, (None, None))
        if place:
            place.slots.release(name)
        self._pipeline.release(name)
        later, self._later = self._later, []
        for one in later:
            self._queue_up(one)

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """What goes wrong inside is said of the step, and the run goes on without it and what depends on it."""
        try:
            yield
        except Exception as error:  # as DVC has it: not all that its libraries raise are its own
            self._forget(name)
            lacks = "" if isinstance(error, UserError) else lacking(error)
            if not (lacks or isinstance(error, (UserError, DvcException, OSError))):
                traceback.print_exc()  # of theirs or of ours, a bug
            self.failed[name] = f"failed to reproduce '{name}': {lacks or error or repr(error)}"
            self._exclusive, self._others = (
                [one for one in queue if self._may_start(one)] for queue in (self._exclusive, self._others)
            )
            dependents = self._dependents(name) - self._left_out
            self._left_out |= dependents
            rest = [] if self._signal else [one for one in self._running if not self._may_start(one)]
            self._screen.fails(name, self.failed[name], dependents, rest)

    def _dependents(self, name: str) -> set[str]:
        """The planned steps that depend on it."""
        found = {name}
        for one, before in self._pipeline.dependencies.items():
            if one in self._planned and not found.isdisjoint(before):
                found.add(one)
        return found - {name}

    def _write_now_and_then(self) -> None:
        begun = time.monotonic()
        if begun > self._next_write:
            self._pipeline.write()
            ended = time.monotonic()
            self._next_write = ended + max(MOST_UNWRITTEN, (ended - begun) / WRITING)

    def _stop(self) -> None:
        """Ends what is still running; what had ended well is kept."""
        done = set()
        while not self._events.empty():
            done.add(self._events.get())
        for name, running in self._running.items():
            if name not in done:
                running.stop()
        if self._running:
            with suppress(OSError):  # nobody reads any more
                print(f"\nending {', '.join(self._running)}", file=sys.stderr, flush=True)
        end = time.monotonic() + PATIENCE
        for name, running in list(self._running.items()):
            running.wait(max(0.0, end - time.monotonic()))
            if name in done and not running.code and not running.commands:
                self._finish(name)
            self._forget(name)
        with suppress(OSError):
            self._screen.close()
