"""Experiments side by side: the steps of all of them as those of one run, so that they share cores, memory and GPU, and
what is measured has the machine to itself whatever it belongs to.

Each has a folder of its own, and its steps are named after it: `lora-1/finetune@demo-demo-lora-42`. What two of them
would do alike is done once: the other waits for it, and takes it from DVC's cache.
"""

import errno
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError

from tradeoffs import preset as presets
from tradeoffs.plumbing import clock
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import experiments, stops, times
from tradeoffs.repro.experiments import Experiment
from tradeoffs.repro.guard import Guard
from tradeoffs.repro.pipeline import Begun
from tradeoffs.repro.places import Here
from tradeoffs.repro.runner import Runner
from tradeoffs.repro.screen import Screen
from tradeoffs.repro.slots import Needs, Slots, gpus, shares

MOST = 16  # at a time: each has a folder with its data
NUMBERS = "aggregate"  # the step that has all of them
FEW = 4  # experiments that are named at the end
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EIO)


class Together:
    """What a Runner asks of a Pipeline, for the steps of several experiments.

    `complete`: those that are, and whether they came as far as the numbers. `failed`: what is wrong with those that
    have. `refused`: those that could not begin, and `back`: those that are on
    the queue again. `held`: as of a Pipeline, for all of them.
    """

    def __init__(self, held: int, say: Callable[[str], None]) -> None:
        self.say, self.held = say, held
        self.complete: dict[str, bool] = {}
        self.failed: dict[str, str] = {}
        self.refused: list[str] = []
        self.back: list[str] = []
        self.planned: list[str] = []
        self.steps: list[str] = []
        self.dependencies: dict[str, set[str]] = {}
        self._open: dict[str, Experiment] = {}
        self._of: dict[str, tuple[Experiment, str]] = {}
        self._works: dict[str, dict[str, str]] = {}
        self._broken: dict[str, str] = {}  # the step that has failed, by its key in DVC's run cache
        self._left: dict[str, set[str]] = {}  # that are still to be seen to, also what has no command

    def open(self, found: Sequence[Experiment], check: Callable[[Mapping[str, Needs]], None]) -> bool:
        """Whether there are some that can be run. Of each other it is said why it cannot.

        Raises UserError where that is no fault of an experiment.
        """
        self._open = {one.name: one for one in found}
        in_flight: set[str] = set()
        for one in found:
            try:
                one.open(in_flight)
                check({step: Needs.of(step, one.steps.meta(step), None) for step in one.steps.planned})
                self._works[one.name] = one.steps.work()
            except Exception as error:  # as the Runner has it
                why = str(error) or repr(error)
                if _of_this_machine(error):
                    raise UserError(f"experiment '{one.name}' cannot begin: {why}; mend that, and run --exp") from error
                if not isinstance(error, (UserError, DvcException, OSError)):
                    traceback.print_exc()
                print(f"ERROR: experiment '{one.name}' failed: {why}", file=sys.stderr, flush=True)
                one.fail(why)
                self.refused.append(one.name)
                del self._open[one.name]
            else:
                self._add(one)
        return bool(self._open)

    def _add(self, one: Experiment) -> None:
        steps, name = one.steps, one.name
        self._of |= {f"{name}/{step}": (one, step) for step in steps.dependencies}
        for step, before in steps.dependencies.items():
            self.dependencies[f"{name}/{step}"] = {f"{name}/{other}" for other in before}
        self.planned += [f"{name}/{step}" for step in steps.planned]
        self.steps += [f"{name}/{step}" for step in steps.steps]
        self._left[name] = set(steps.dependencies) - (set(steps.steps) - set(steps.planned))

    def step(self, name: str) -> str:
        """As dvc.yaml has it."""
        return self._of[name][1]

    def work(self) -> dict[str, str]:
        """Of each planned step, the first that most likely does the same."""
        first: dict[str, str] = {}
        return {
            name: first.setdefault(self._works[self.experiment(name)][self.step(name)], name) for name in self.planned
        }

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
        if twin := self._broken.get(one.steps.key(step)):
            raise UserError(f"the same has failed as {twin}")
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
        if key := one.steps.key(step):  # it has not ended well
            self._broken.setdefault(key, name)
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
        for one in [one for one in self._open.values() if self._left.get(one.name) == set()]:
            _keep_times(one)
            del self._open[one.name]
            try:
                one.commit()
                self.complete[one.name] = NUMBERS in one.steps.steps
                self.say(f"Experiment '{one.name}' is complete: dvc exp apply {one.name}")
            except Exception as error:  # the others go on
                why = str(error) or repr(error)
                if _of_this_machine(error):
                    self.say(f"Experiment '{one.name}' is complete, but could not be kept: {why}")
                    self._put_back(one)
                else:
                    self.failed[one.name] = why
                    one.fail(why)

    def close(self, failed: Mapping[str, str]) -> None:
        """What is not complete has failed if one of its steps has, or else goes back to where it was."""
        self.settle()
        to_blame = {self.experiment(name): why for name, why in failed.items()}
        for one in self._open.values():
            if one.name in self._left:  # it has begun
                _keep_times(one)
            if one.name in to_blame:
                self.failed[one.name] = to_blame[one.name]
                one.fail(to_blame[one.name])
            else:
                self._put_back(one)
        self._open.clear()
        for name, why in self.failed.items():
            print(f"ERROR: experiment '{name}' failed: {why}", file=sys.stderr, flush=True)
        if self.back:
            names = ", ".join(self.back)
            print(f"back on the queue, for --exp or dvc queue start: {names}", file=sys.stderr, flush=True)

    def _put_back(self, one: Experiment) -> None:
        one.put_back()
        self.back.append(one.name)


def run(
    changes: Sequence[str],
    preset: Path | None,
    targets: Sequence[str],
    name: str | None,
    jobs: int,
    keep_going: bool,
) -> bool:
    """Runs an experiment for each combination of `changes` over a preset, or without either those that are queued;
    whether one failed.

    Raises UserError where something is wrong with one of the combinations; then none is run.
    """
    begun = time.monotonic()
    failed, own_seconds = False, 0.0
    complete: dict[str, bool] = {}
    with experiments.project() as held, stops.interrupting():
        below = presets.overrides(presets.read(preset)) if preset else []
        revs = experiments.queue(changes, targets, name, below) if changes or below else None
        if revs:
            print("\n".join([*revs.values(), ""]), flush=True)
        found = experiments.taken(revs, MOST)
        if not found:
            print("Nothing is queued: name what to change by -S, or queue it by dvc exp run --queue.")
            return False
        clock.LOG.unlink(missing_ok=True)
        guard = Guard(held)  # one for all: what forks is started once, and its mark is that of the forks
        while found:
            together = Together(held, print)
            own_seconds += _run(together, found, jobs, keep_going)
            complete |= together.complete
            failed |= bool(together.failed or together.refused or together.back)
            found = [] if together.back else experiments.taken(revs, MOST)
        guard.dismiss()
    if clock.LOG.exists():
        print(clock.table(time.monotonic() - begun, own_seconds))
    print("".join(f"{line}\n" for line in _next(complete)), end="")
    return failed


def _next(complete: Mapping[str, bool]) -> list[str]:
    """Commands that tell what the experiments say, for a shell."""
    if not complete:
        return []
    if not (named := [shlex.quote(name) for name, has_numbers in complete.items() if has_numbers]):
        return ["Beside each other: python -m tradeoffs.experiments"]
    others = ", ".join(named[1:FEW]) + (", ..." if len(named) > FEW else "")
    return [
        "What each setting changes: python -m tradeoffs.experiments --ablation",
        f"Better or worse than HEAD: python -m tradeoffs.gate --base HEAD --head {named[0]}"
        + (f"    (likewise {others})" if others else ""),
    ]


def _run(together: Together, found: Sequence[Experiment], jobs: int, keep_going: bool) -> float:
    """Seconds of DVC's work. However it ends, nothing is left of what it has taken."""
    failed: Mapping[str, str] = {}
    try:
        slots = Slots(jobs, gpus())
        if not together.open(found, slots.check):
            return 0.0
        runner, memory = _runner(together, slots, keep_going)
        failed = runner.failed
        try:
            runner.run(guarded=True)
        finally:
            memory.keep()
    finally:
        together.close(failed)
    return runner.own_seconds


def _runner(together: Together, slots: Slots, keep_going: bool) -> tuple[Runner, times.Memory]:
    """All is said of it that is said before it begins."""
    memory = times.Memory()

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


def _of_this_machine(error: BaseException | None) -> bool:
    """Whether it is no fault of an experiment, but of what another command holds, or of what is full."""
    while error:
        if isinstance(error, (LockError, MemoryError)) or (isinstance(error, OSError) and error.errno in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _keep_times(one: Experiment) -> None:
    """Before its folder is removed, for the table of the whole run."""
    with one.here():
        noted = clock.LOG.read_text(encoding="utf-8") if clock.LOG.exists() else ""
    if noted:
        clock.LOG.parent.mkdir(exist_ok=True)
        with clock.LOG.open("a", encoding="utf-8") as log:
            log.write(noted)
