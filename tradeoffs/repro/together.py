"""Experiments side by side: the steps of all of them as those of one run, so that they share cores, memory and GPU, and
what is measured has the machine to itself whatever it belongs to.

Each has a folder of its own, and its steps are named after it: `lora-1/finetune@demo-demo-lora-42`. What two of them
would do alike is done once: the other waits for it, and takes it from DVC's cache.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from dvc.exceptions import DvcException

from tradeoffs.plumbing import clock
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import experiments, stops, times
from tradeoffs.repro.experiments import Experiment
from tradeoffs.repro.pipeline import Begun
from tradeoffs.repro.places import Here
from tradeoffs.repro.runner import Runner
from tradeoffs.repro.screen import Screen
from tradeoffs.repro.slots import Needs, Slots, gpus, shares

MOST = 16  # at a time: each has a folder with its data


class Together:
    """What a Runner asks of a Pipeline, for the steps of several experiments.

    `failed`: what is wrong with those of which no step is to blame. `held`: as of a Pipeline, for all of them.
    """

    def __init__(self, found: Sequence[Experiment], held: int, say: Callable[[str], None]) -> None:
        self.say, self.held = say, held
        self.failed: dict[str, str] = {}
        self._open = {one.name: one for one in found}
        self._of = {f"{one.name}/{step}": (one, step) for one in found for step in one.steps.dependencies}
        self.dependencies = {
            f"{one.name}/{step}": {f"{one.name}/{other}" for other in before}
            for one in found
            for step, before in one.steps.dependencies.items()
        }
        self.planned = [f"{one.name}/{step}" for one in found for step in one.steps.planned]
        self.steps = [f"{one.name}/{step}" for one in found for step in one.steps.steps]
        # That are still to be seen to, also what has no command.
        self._left = {one.name: set(one.steps.dependencies) - _unchanged(one) for one in found}

    def step(self, name: str) -> str:
        """As dvc.yaml has it."""
        return self._of[name][1]

    def work(self) -> dict[str, str]:
        """Of each planned step, the first that most likely does the same."""
        first: dict[str, str] = {}
        works = {one.name: one.steps.work() for one in self._open.values()}
        return {name: first.setdefault(works[self.experiment(name)][self.step(name)], name) for name in self.planned}

    def experiment(self, name: str) -> str:
        return self._of[name][0].name

    def command(self, name: str) -> list[str]:
        one, step = self._of[name]
        return one.steps.command(step)

    def environment(self, name: str) -> dict[str, str]:
        one, step = self._of[name]
        return one.steps.environment(step)

    def folder(self, name: str) -> str:
        one, step = self._of[name]
        return one.steps.folder(step)

    def meta(self, name: str) -> Mapping[str, object]:
        one, step = self._of[name]
        return one.steps.meta(step)

    def begin(self, name: str) -> Begun:
        one, step = self._of[name]
        with one.here():
            found = one.steps.begin(step)
        if found in (Begun.UNCHANGED, Begun.DONE):
            self._left[one.name].discard(step)
        return found

    def finish(self, name: str) -> None:
        one, step = self._of[name]
        with one.here():
            one.steps.finish(step)
        self._left[one.name].discard(step)

    def release(self, name: str) -> None:
        one, step = self._of[name]
        one.steps.release(step)

    def learn(self, name: str, memory: times.Memory) -> None:
        """What the step itself has noted of its memory."""
        one, step = self._of[name]
        with one.here():
            memory.learn(step)

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        with ExitStack() as all_of_them:
            for one in self._open.values():
                all_of_them.enter_context(one.steps.unlocked())
            yield

    def write(self) -> None:
        """Nothing before an experiment is complete: its folder is of no use to anyone else."""

    def settle(self) -> None:
        """What is complete becomes an experiment of the project."""
        for one in list(self._open.values()):
            if not self._left[one.name]:
                _keep_times(one)
                del self._open[one.name]
                try:
                    one.commit()
                    self.say(f"Experiment '{one.name}' is complete: dvc exp apply {one.name}")
                except Exception as error:  # the others go on
                    self.failed[one.name] = str(error) or repr(error)
                    one.fail(self.failed[one.name])

    def close(self, failed: Mapping[str, str]) -> None:
        """What is not complete has failed if one of its steps has, or else goes back to where it was."""
        self.settle()
        to_blame = {self.experiment(name): why for name, why in failed.items()}
        back = []
        for one in self._open.values():
            _keep_times(one)
            if one.name in to_blame:
                self.failed[one.name] = to_blame[one.name]
                one.fail(to_blame[one.name])
            else:
                one.put_back()
                back.append(one.name)
        self._open.clear()
        for name, why in self.failed.items():
            print(f"ERROR: experiment '{name}' failed: {why}", file=sys.stderr, flush=True)
        if back:
            print(f"back on the queue, for --exp or dvc queue start: {', '.join(back)}", file=sys.stderr, flush=True)


def run(changes: Sequence[str], targets: Sequence[str], name: str | None, jobs: int, keep_going: bool) -> bool:
    """Runs an experiment for each combination of `changes`, or without any those that are queued; whether one failed.

    Raises UserError where something is wrong with one of the combinations; then none is run.
    """
    begun = time.monotonic()
    failed, own_seconds = False, 0.0
    with experiments.project() as held, stops.interrupting():
        revs = experiments.queue(changes, targets, name) if changes else None
        if revs:
            print("\n".join([*revs.values(), ""]), flush=True)
        found = experiments.taken(revs, MOST)
        if not found:
            print("Nothing is queued: name what to change by -S, or queue it by dvc exp run --queue.")
            return False
        clock.LOG.unlink(missing_ok=True)
        while found:
            opened = _opened(found)
            failed |= len(opened) < len(found)
            if opened:
                together = Together(opened, held, print)
                own_seconds += _run(together, jobs, keep_going)
                failed |= bool(together.failed)
            found = experiments.taken(revs, MOST)
    if clock.LOG.exists():
        print(clock.table(time.monotonic() - begun, own_seconds))
    return failed


def _run(together: Together, jobs: int, keep_going: bool) -> float:
    """Seconds of DVC's work. However it ends, nothing is left of what it has taken."""
    failed: Mapping[str, str] = {}
    try:
        runner, memory = _runner(together, jobs, keep_going)
        failed = runner.failed
        try:
            runner.run()
        finally:
            memory.keep()
    finally:
        together.close(failed)
    return runner.own_seconds


def _runner(together: Together, jobs: int, keep_going: bool) -> tuple[Runner, times.Memory]:
    """All is said of it that is said before it begins."""
    memory, slots = times.Memory(), Slots(jobs, gpus())

    def needs(name: str) -> Needs:
        return Needs.of(together.step(name), together.meta(name), memory.of(together.step(name)))

    share = shares({name: needs(name) for name in together.planned}, slots)
    seconds = _announced(together, share)
    screen = Screen(together.planned, seconds, share)
    together.say = screen.says
    here = Here(together, slots)
    return Runner(together, needs, [here], screen, lambda name: together.learn(name, memory), keep_going), memory


def _announced(together: Together, share: Mapping[str, float]) -> dict[str, float]:
    """Seconds that each step adds to the run; of those that do the same, the first alone."""
    step = together.step
    plain = {step(name): share[name] for name in together.planned}
    expected = times.estimate(list(plain), [*dict.fromkeys(map(step, together.steps))], plain)
    seconds = {
        name: expected.seconds[step(name)] if name == first else 0.0
        for name, first in together.work().items()
        if step(name) in expected.seconds
    }
    named = [step(name) for name in together.planned], [step(name) for name in together.steps]
    print("\n".join([*times.announcement(replace(expected, planned=named[0], every=named[1], seconds=seconds)), ""]))
    sys.stdout.flush()
    return seconds


def _opened(found: Sequence[Experiment]) -> list[Experiment]:
    """Those that can be run. Of each other it is said why it cannot."""
    in_flight: set[str] = set()
    ready: list[Experiment] = []
    waiting = list(found)
    try:
        while waiting:
            try:
                waiting[0].open(in_flight)
                ready.append(waiting[0])
            except (UserError, DvcException, OSError) as error:
                print(f"ERROR: experiment '{waiting[0].name}' failed: {error}", file=sys.stderr, flush=True)
                waiting[0].fail(str(error))
            del waiting[0]
    except BaseException:
        for one in [*ready, *waiting]:
            one.put_back()
        raise
    return ready


def _unchanged(one: Experiment) -> set[str]:
    """What has a command that need not run."""
    return set(one.steps.steps) - set(one.steps.planned)


def _keep_times(one: Experiment) -> None:
    """Before its folder is removed, for the table of the whole run."""
    with one.here():
        noted = clock.LOG.read_text(encoding="utf-8") if clock.LOG.exists() else ""
    if noted:
        clock.LOG.parent.mkdir(exist_ok=True)
        with clock.LOG.open("a", encoding="utf-8") as log:
            log.write(noted)
