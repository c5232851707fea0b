"""Runs what has changed, as `dvc repro` does, but as many steps side by side as the machine has room for.

    python -m tradeoffs.repro                    what `make run` calls
    python -m tradeoffs.repro score              that step, or that stage, and all that it depends on
    python -m tradeoffs.repro --jobs 1           one step at a time
    python -m tradeoffs.repro --keep-going       what does not depend on a step that failed goes on
    python -m tradeoffs.repro --dry              what would run, and for how long

The same outputs, the same cache and the same dvc.lock as `dvc repro`, which has nothing to do afterwards. Steps whose
stage has `meta: {exclusive: true}` in dvc.yaml are measured, so they have the machine to themselves, or with `gpu`
their GPUs. How long each step took is kept in metrics/times.json, by which the next run is estimated.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from dvc.exceptions import DvcException

from tradeoffs import params
from tradeoffs.common import cores
from tradeoffs.plumbing import cli, clock
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import pipeline, times
from tradeoffs.repro.runner import Runner
from tradeoffs.repro.screen import Screen
from tradeoffs.repro.slots import Needs, Slots, gpus

FAILED, INTERRUPTED = 1, 252  # the second as DVC has it


def main(targets: Sequence[str], jobs: str, keep_going: bool, dry: bool) -> None:
    begun = time.monotonic()
    params.load_all()  # what is wrong in it is said as a stage would say it, not as DVC does
    try:
        failed = _run(targets, _jobs(jobs), keep_going, dry, begun)
    except KeyboardInterrupt:
        logging.getLogger("dvc").error("interrupted by the user")
        sys.exit(INTERRUPTED)
    except DvcException:
        logging.getLogger("dvc").exception("")  # DVC's handler makes one line of it
        sys.exit(FAILED)
    if failed:
        sys.exit(FAILED)


def _jobs(given: str) -> int:
    if given == "auto":
        return cores.usable()
    if given.isdecimal() and int(given) > 0:
        return int(given)
    raise UserError(f"--jobs {given}: expected auto, or a number from 1")


def _run(targets: Sequence[str], jobs: int, keep_going: bool, dry: bool, begun: float) -> bool:
    """Whether anything failed."""
    with pipeline.opened(targets) as steps:
        planned, every = steps.planned, steps.steps
        if not planned:
            print(f"Nothing to run: all {len(every)} steps are up to date.")
            return False
        memory = times.Memory()
        slots = Slots(jobs, gpus())
        share = _shares({name: Needs.of(name, steps.meta(name), 0.0) for name in planned}, slots)
        expected = times.estimate(planned, every, share)
        print("\n".join([*times.announcement(expected), ""]), flush=True)
        if dry:
            print("\n".join(planned))
            return False
        clock.LOG.unlink(missing_ok=True)
        needs, screen = partial(_needs, steps, memory), Screen(planned, expected.seconds, share)
        run = Runner(steps, needs, slots, screen, memory.learn, keep_going)
        try:
            run.run()
        finally:
            memory.keep()
        times.keep(run.took, memory, expected)
    if run.took:
        print(clock.table(time.monotonic() - begun, run.own_seconds))
    return bool(run.failed)


def _shares(needs: Mapping[str, Needs], slots: Slots) -> dict[str, float]:
    """The part of its own time that each step adds to the run: of those of one stage, some go on at a time.

    Raises UserError where one needs more GPUs than there are.
    """
    slots.check(needs)
    alike = Counter(name.partition("@")[0] for name in needs)
    return {name: 1 / min(slots.side_by_side(one), alike[name.partition("@")[0]]) for name, one in needs.items()}


def _needs(steps: pipeline.Pipeline, memory: times.Memory, name: str) -> Needs:
    return Needs.of(name, steps.meta(name), memory.of(name))


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("targets", nargs="*", metavar="TARGET", help="a stage or a step of dvc.yaml; all by default")
    options.add_argument("--jobs", default="auto", metavar="N", help="most steps side by side; auto: one for each core")
    options.add_argument("--keep-going", action="store_true", help="go on with what does not depend on what failed")
    options.add_argument("--dry", action="store_true", help="say what would run, and run nothing")
    cli.command(main, options)
