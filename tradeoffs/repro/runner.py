"""Runs the steps of a pipeline, as many side by side as may be, each after those that it depends on.

What is measured comes first and alone: once trainings are done, everything else can fill the cores.
"""

import signal
import sys
import time
from bisect import insort
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from queue import Empty, SimpleQueue

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import processes
from tradeoffs.repro.pipeline import Begun, Pipeline
from tradeoffs.repro.screen import Screen
from tradeoffs.repro.slots import Needs, Slots

LOGS = Path(".scratch/logs")
STOPS = {signal.SIGTERM, signal.SIGHUP}
MOST_UNWRITTEN = 60.0  # seconds of work that are not in dvc.lock yet
TICK = 0.5  # seconds between two looks at the screen


class Runner:
    """One run of what is planned. A step needs what `needs` says of it when it might start.

    `took`: seconds of each step that ran, from its start to its end; `ended` is called with its name. `failed`: what is
    wrong with each that did not end well. `own_seconds`: of DVC's work and of this, all steps together.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        needs: Callable[[str], Needs],
        slots: Slots,
        screen: Screen,
        ended: Callable[[str], None],
        keep_going: bool = False,
    ) -> None:
        self.took: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.own_seconds = 0.0
        self._pipeline, self._needs, self._slots, self._screen = pipeline, needs, slots, screen
        self._has_ended, self._keep_going = ended, keep_going
        self._order = {name: place for place, name in enumerate(pipeline.after)}
        self._planned, self._commands = set(pipeline.planned), set(pipeline.steps)
        self._sorter = TopologicalSorter(pipeline.after)
        self._exclusive: list[tuple[int, str]] = []  # that may start, by their order; the others after them
        self._others: list[tuple[int, str]] = []
        self._running: dict[str, processes.Running] = {}
        self._using: dict[str, Needs] = {}
        self._begun: dict[str, float] = {}
        self._ended: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self._skipped: set[str] = set()
        self._written = time.monotonic()

    def run(self) -> None:
        """Raises KeyboardInterrupt and SystemExit where a signal ends it. What was done until then is in dvc.lock, and
        of what was running nothing is left."""
        for stop in STOPS:  # which would end Python at once, with nothing written
            signal.signal(stop, lambda number, _: sys.exit(128 + number))
        planned = self._pipeline.planned
        commands = [line for name in planned for line in self._pipeline.command(name)]
        self._forks = processes.prepare_forks(commands)
        self._sorter.prepare()
        try:
            while self._sorter.is_active():
                begun = time.monotonic()
                self._start()
                self.own_seconds += time.monotonic() - begun
                if self._running:
                    self._wait()
                else:  # what is left depends on what failed
                    break
        finally:
            self._stop()
            self._pipeline.write()

    @property
    def _failed_for_good(self) -> bool:
        return bool(self.failed) and not self._keep_going

    def _start(self) -> None:
        """Starts whatever may start now; what needs no process is done at once."""
        while not self._failed_for_good:
            ready = self._sorter.get_ready()
            for name in ready:
                if name in self._planned:
                    insort(self._exclusive if self._needs(name).exclusive else self._others, (self._order[name], name))
                else:  # it was up to date at the beginning, and so was all that it depends on; or it has no command
                    if name not in self._commands:
                        self._pipeline.begin(name)
                    self._sorter.done(name)
            if not ready and not self._start_one():
                return

    def _start_one(self) -> bool:
        """Whether there was one that could start. What is to run alone goes first, or it would wait for ever."""
        queue = self._exclusive or self._others
        if len(self._running) >= self._slots.jobs:
            return False
        for place, (_, name) in enumerate(queue):
            if self._slots.fits(self._needs(name), self._using.values()):
                del queue[place]
                self._begin(name)
                return True
        return False

    def _begin(self, name: str) -> None:
        found = self._pipeline.begin(name)
        if found is not Begun.RUN:
            self._screen.not_run(name, found)
            self._sorter.done(name)
            return
        needs = self._needs(name)
        environment = self._pipeline.environment(name)
        log = None
        if not self._slots.alone(needs):
            log = LOGS / f"{name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
            environment.setdefault(
                "OMP_NUM_THREADS", str(self._slots.threads(len(self._running) + len(self._others) + 1))
            )
        commands = self._pipeline.command(name)
        self._screen.starts(name, commands, log)
        self._using[name], self._begun[name] = needs, time.monotonic()
        folder = self._pipeline.folder(name)
        self._running[name] = processes.Running(
            commands, folder, environment, log, self._forks, lambda code: self._ended.put((name, code))
        )

    def _wait(self) -> None:
        """For one to end; then for what else has."""
        with self._pipeline.unlocked():
            ended = None
            while ended is None:
                try:
                    ended = self._ended.get(timeout=TICK)
                except Empty:
                    self._screen.refresh()
        begun = time.monotonic()
        while ended:
            self._finish(*ended)
            ended = None if self._ended.empty() else self._ended.get()
        if time.monotonic() - self._written > MOST_UNWRITTEN:
            self._pipeline.write()
            self._written = time.monotonic()
        self.own_seconds += time.monotonic() - begun

    def _finish(self, name: str, code: int) -> None:
        if code == 0 and self._running[name].next():
            return
        del self._running[name], self._using[name]
        took = time.monotonic() - self._begun[name]
        try:
            if code:
                self._pipeline.release(name)
                command = " && ".join(self._pipeline.command(name))
                raise UserError(f"failed to reproduce '{name}': failed to run: {command}, exited with {code}")
            self._pipeline.finish(name)
        except UserError as error:
            self._fail(name, str(error))
        else:
            self.took[name] = took
            self._has_ended(name)
            self._screen.ends(name, took)
            self._sorter.done(name)

    def _fail(self, name: str, why: str) -> None:
        self.failed[name] = why
        after = self._after(name) - self._skipped
        self._skipped |= after
        rest = sorted(self._running, key=self._order.__getitem__)
        self._screen.fails(name, why, len(after), [] if self._keep_going else rest)

    def _after(self, name: str) -> set[str]:
        """The planned steps that depend on it."""
        found = {name}
        for one, before in self._pipeline.after.items():
            if not found.isdisjoint(before):
                found.add(one)
        return found - {name}

    def _stop(self) -> None:
        """Ends what is still running, and waits for that."""
        signals = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *STOPS)}
        for running in self._running.values():
            running.stop()
        while self._running:
            name, _ = self._ended.get()
            del self._running[name]
            self._pipeline.release(name)
        self._screen.close()
        for number, handler in signals.items():
            signal.signal(number, handler)
