"""`dvc repro` step by step, by DVC's own API: each step says which of how many it is and about how long is left.

DVC reads and writes the whole dvc.lock after every step, which for a hundred of them takes longer than most steps. Here
it is written for all that ran in the last minute at once, at the end, and whatever stops the run. After a power cut
what is not in it yet is in DVC's run cache, so it is not computed again.
"""

import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage import PipelineStage, Stage

from tradeoffs.run.times import spoken

PIPELINE = "dvc.yaml"
SPEAKERS = ("dvc.stage", "dvc.stage.run", "dvc.stage.cache")  # DVC's loggers that tell of a step
WRITE_EVERY = 60.0  # seconds between two writings of dvc.lock
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
        self._written = time.monotonic()

    def run(self, repo: Repo) -> None:
        """Raises what `dvc repro` raises; what ran until then is in dvc.lock."""
        speakers = [logging.getLogger(name) for name in SPEAKERS]
        for speaker in speakers:
            speaker.addFilter(self)
        try:
            repo.reproduce(PIPELINE, repro_fn=self._step)
        finally:
            self._write()
            for speaker in speakers:
                speaker.removeFilter(self)

    def _step(self, stage: Stage, **options: object) -> Stage | None:
        """In place of DVC's own function for a step, which differs in writing the lock file each time."""
        self._now, self._ran = stage.addressing, False
        begun = time.monotonic()
        done: Stage | None = stage.reproduce(**options)
        if self._ran:
            self.took[self._now] = time.monotonic() - begun
        if done and isinstance(done, PipelineStage):
            self._unwritten.append(done)
        elif done:  # one with a file of its own: dvc import, dvc add
            done.dump(update_pipeline=False)
        if self._now == self._planned[-1] or time.monotonic() - self._written > WRITE_EVERY:
            self._write()
        return done

    def _write(self) -> None:
        """Puts what ran into dvc.lock. Ctrl-C waits meanwhile: DVC writes the file in place."""
        stages, self._unwritten = self._unwritten, []
        if stages:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
            finally:
                signal.signal(signal.SIGINT, before)
        self._written = time.monotonic()

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
