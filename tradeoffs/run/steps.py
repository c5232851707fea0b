"""`dvc repro` step by step, by DVC's own API: each step says which of how many it is and about how long is left.

DVC reads and writes the whole dvc.lock after every step, which for a hundred of them takes longer than most steps. Here
it is written once what is not in it yet has taken a minute, at the end, and when the run is stopped or a step fails. So
a power cut loses a minute of work at most, and DVC's run cache has much of that.
"""

import logging
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage import PipelineStage, Stage

from tradeoffs.run.times import spoken

PIPELINE = "dvc.yaml"
SPEAKERS = ("dvc.stage", "dvc.stage.run", "dvc.stage.cache")  # DVC's loggers that tell of a step
STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
MOST_UNWRITTEN = 60.0  # seconds of work that are not in dvc.lock yet
STEADY = 60.0  # seconds: the pace of so much work is taken from the times that are known, not from this run


@contextmanager
def opened() -> Iterator[Repo]:
    """The project in the working directory, locked for this process as `dvc repro` locks it."""
    with Repo() as repo, lock_repo(repo):
        yield repo


def plan(repo: Repo) -> tuple[list[str], list[str]]:
    """The steps that may run, in their order, and all there are: what changed, and what follows from that.

    Fewer may: where a step leaves what was there before, DVC runs nothing after it.
    """
    graph = get_active_graph(repo.index.graph)
    stages: list[Stage] = plan_repro(graph, repo.stage.collect(PIPELINE))
    planned: set[Stage] = set()
    for stage in stages:
        if not planned.isdisjoint(graph.successors(stage)) or stage.changed():  # successors: what it depends on
            planned.add(stage)
    steps = [stage for stage in stages if stage.cmd]  # not what `dvc add` and `dvc import` made
    return [stage.addressing for stage in steps if stage in planned], [stage.addressing for stage in steps]


class Steps(logging.Filter):
    """One run of the `planned` steps, of which `expected` says what some will take, in seconds.

    `took` is what those took that ran, DVC's own work on them counted; what came from its cache is not among them.
    """

    def __init__(self, planned: Sequence[str], expected: Mapping[str, float]) -> None:
        super().__init__()
        self.took: dict[str, float] = {}
        self._planned, self._expected = list(planned), expected
        self._now, self._ran = "", False
        self._unwritten: list[Stage] = []
        self._seconds = 0.0  # that these took

    def run(self, repo: Repo) -> None:
        """Raises what `dvc repro` raises, and SystemExit where a signal ends it; what ran until then is in dvc.lock."""
        speakers = [logging.getLogger(name) for name in SPEAKERS]
        for speaker in speakers:
            speaker.addFilter(self)
        for ends in STOPS - {signal.SIGINT}:  # which would end Python at once, with nothing written
            signal.signal(ends, lambda number, _: sys.exit(128 + number))
        try:
            repo.reproduce(PIPELINE, repro_fn=self._step)
        finally:
            self._write()
            for speaker in speakers:
                speaker.removeFilter(self)

    def _step(self, stage: Stage, **options: object) -> Stage | None:
        """In place of DVC's own function for a step, which differs in writing the lock file each time."""
        if stage.frozen and not stage.is_import:
            logging.getLogger("dvc").warning("%s is frozen. Its dependencies are not going to be reproduced.", stage)
        self._now, self._ran = stage.addressing, False
        begun = time.monotonic()
        done: Stage | None = stage.reproduce(**options)
        self._seconds += time.monotonic() - begun
        if self._ran:
            self.took[self._now] = time.monotonic() - begun
        if done and isinstance(done, PipelineStage):
            self._unwritten.append(done)
        elif done:  # one with a file of its own: dvc import, dvc add
            done.dump(update_pipeline=False)
        if self._now == self._planned[-1] or self._seconds > MOST_UNWRITTEN:
            self._write()
        return done

    def _write(self) -> None:
        """Puts what ran into dvc.lock. What would stop it waits meanwhile: DVC writes the file in place."""
        if self._unwritten:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            try:
                self._unwritten[0].dvcfile.dump_stages(self._unwritten, update_pipeline=False)
                self._unwritten.clear()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._seconds = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Puts its number before what DVC says of the step, and lets nothing be said of one that was up to date
        all along. All else stays as it is."""
        if record.args != (self._now,):
            return True
        if self._now not in self._planned:
            return "didn't change" not in record.msg
        number = f"[{self._planned.index(self._now) + 1}/{len(self._planned)}]"
        if record.msg.startswith("Running stage"):
            self._ran = True
            record.msg, record.args = f"{number} {self._now}{self._left()}", ()
        else:
            record.msg = f"{number} {record.msg}"
        return True

    def _left(self) -> str:
        """How long this step and those after it will take, as far as that is known."""
        here = self._planned.index(self._now)
        rest = [self._expected[name] for name in self._planned[here:] if name in self._expected]
        if not rest:
            return ""
        timed = [name for name in self.took if name in self._expected]
        spent, due = sum(self.took[name] for name in timed), sum(self._expected[name] for name in timed)
        seconds = sum(rest) * (spent + STEADY) / (due + STEADY)
        sort = "about" if len(rest) == len(self._planned) - here else "at least"
        return f", {sort} {spoken(seconds)} left"
