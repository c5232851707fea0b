"""Runs what has changed, as `dvc repro` does, but as many steps side by side as the machine has room for.

    python -m tradeoffs.repro                    what `make run` calls
    python -m tradeoffs.repro score              that step, or that stage, and all that it depends on
    python -m tradeoffs.repro --jobs 1           one step at a time
    python -m tradeoffs.repro --keep-going       what does not depend on a step that failed goes on
    python -m tradeoffs.repro --dry              what would run, and for how long
    python -m tradeoffs.repro --print-questions  each multiple-choice question and its answer, while it is evaluated
    python -m tradeoffs.repro --ray auto         on the machines of a Ray cluster (docs/cluster.md)
    python -m tradeoffs.repro --exp -S train.lr=0.001,0.002      an experiment for each value, side by side
    python -m tradeoffs.repro --exp --preset experiments/finance_methods.yaml     one with a preset's values
    python -m tradeoffs.repro --exp              the experiments that `dvc exp run --queue` has queued

The same outputs, the same cache and the same dvc.lock as `dvc repro`, which has nothing to do afterwards. Steps whose
stage has `meta: {exclusive: true}` in dvc.yaml are measured, so they have the machine to themselves, or with `gpu`
their GPUs. How long each step took is kept in metrics/times.json, by which the next run is estimated. Experiments leave
the workspace as it is; `dvc exp show` has them, and `dvc exp apply` brings one.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from dvc.exceptions import DvcException

from tradeoffs import params
from tradeoffs.common import cores
from tradeoffs.plumbing import asked, cli, clock
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import lacking, pipeline, times
from tradeoffs.repro.cluster import connected
from tradeoffs.repro.places import Here, Place
from tradeoffs.repro.runner import Runner
from tradeoffs.repro.screen import Screen
from tradeoffs.repro.slots import Needs, Slots, gpus, shares
from tradeoffs.repro.travelling import Travelling

FAILED, INTERRUPTED = 1, 252  # the second as DVC has it


def main(
    targets: Sequence[str],
    jobs: str,
    keep_going: bool,
    dry: bool,
    ray: str | None,
    exp: bool,
    changes: Sequence[str],
    name: str | None,
    preset: Path | None = None,
    print_questions: bool = False,
) -> None:
    begun = time.monotonic()
    params.load_all()  # what is wrong in it is said as a stage would say it, not as DVC does
    if wrong := _no_use(targets, dry, ray, exp, bool(changes or preset), name):
        raise UserError(wrong)
    if print_questions:
        if ray:
            raise UserError("--print-questions: steps on other machines write to logs of their own; leave out --ray")
        os.environ[asked.WANTED] = "1"  # of the steps, too
    try:
        if exp:
            from tradeoffs.repro import together  # with celery and hydra

            failed = together.run(changes, preset, targets, name, _jobs(jobs), keep_going)
        else:
            failed = _run(targets, _jobs(jobs), keep_going, dry, ray, begun)
    except KeyboardInterrupt:
        logging.getLogger("dvc").error("interrupted by the user")
        sys.exit(INTERRUPTED)
    except DvcException:
        logging.getLogger("dvc").exception("")  # DVC's handler makes one line of it
        sys.exit(FAILED)
    if failed:
        sys.exit(FAILED)


def _no_use(targets: Sequence[str], dry: bool, ray: str | None, exp: bool, changed: bool, name: str | None) -> str:
    """What is wrong with options that do not go together; "" where they do."""
    if not exp and (changed or name):
        return "-S, --preset and --name are of experiments: add --exp"
    if exp and dry:
        return (
            "--dry: there is none of experiments. To know what one value costs, commit params.yaml, write the value "
            "into it, ask `python -m tradeoffs.repro --dry`, and take it back by `git checkout params.yaml`"
        )
    if ray == "":
        return "--ray: expected the address of a Ray cluster, auto or HOST:PORT, got nothing"
    if exp and ray:
        return "--ray: experiments run on this machine alone; leave out --exp, or --ray"
    if exp and not changed and (targets or name):
        return (
            "--exp without -S or --preset runs what is queued as it was queued: leave out TARGET and --name, or add one"
        )
    return ""


def _jobs(given: str) -> int:
    if given == "auto":
        return cores.usable()
    if given.isdecimal() and int(given) > 0:
        return int(given)
    raise UserError(f"--jobs {given}: expected auto, or a number from 1")


def _run(targets: Sequence[str], jobs: int, keep_going: bool, dry: bool, ray: str | None, begun: float) -> bool:
    """Whether anything failed."""
    with ExitStack() as held:
        steps = held.enter_context(pipeline.opened(targets, Travelling if ray else pipeline.Pipeline))
        planned, every = steps.planned, steps.steps
        if not planned:
            print(f"Nothing to run: all {len(every)} steps are up to date.")
            return False
        if not ray:
            lacking.require(params.load_all(), planned)
        memory = times.Memory()
        slots, count = Slots(jobs, gpus()), cores.usable()
        here = Here(steps, slots, (lambda name: not steps.stays(name)) if ray else None)
        places: Sequence[Place] = [here]
        cluster = held.enter_context(connected(ray, steps, here)) if ray and not dry else None
        if cluster:
            places, slots, count = cluster.places, cluster.slots, cluster.cores
        wanted = {name: Needs.of(name, steps.meta(name), 0.0) for name in every}
        share = shares({name: wanted[name] for name in planned}, slots)
        expected = times.estimate(planned, every, share, any(needs.exclusive for needs in wanted.values()))
        print("\n".join([*times.announcement(expected), ""]), flush=True)
        if dry:
            print("\n".join(planned))
            return False
        steps.remove_unfinished()
        clock.LOG.unlink(missing_ok=True)
        needs, screen = partial(_needs, steps, memory), Screen(planned, expected.seconds, share)
        expects = cluster.expects if cluster else lambda: False
        run = Runner(steps, needs, places, screen, memory.learn, keep_going, expects)
        if cluster:
            cluster.joined = run.more_room
        try:
            run.run()
        finally:
            memory.keep()
            if run.failed:
                steps.remove_unfinished()
        if not ray:  # those of several machines are not of one
            times.keep(run.took, memory, expected)
    if run.took:
        print(clock.table(time.monotonic() - begun, run.own_seconds, count))
    return bool(run.failed)


def _needs(steps: pipeline.Pipeline, memory: times.Memory, name: str) -> Needs:
    return Needs.of(name, steps.meta(name), memory.of(name))


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("targets", nargs="*", metavar="TARGET", help="a stage or a step of dvc.yaml; all by default")
    options.add_argument("--jobs", default="auto", metavar="N", help="most steps side by side; auto: one for each core")
    options.add_argument("--keep-going", action="store_true", help="go on with what does not depend on what failed")
    options.add_argument(
        "--print-questions", action="store_true", help="show each multiple-choice question as it is answered"
    )
    options.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster, as ray.init has it: auto, or HOST:PORT")
    options.add_argument("--dry", action="store_true", help="say what would run, and run nothing")
    options.add_argument("--exp", action="store_true", help="experiments: of each combination of -S, or what is queued")
    change = "KEY=VALUE[,VALUE]"
    options.add_argument("-S", dest="changes", action="append", default=[], metavar=change, help="as of dvc exp run")
    options.add_argument(
        "--preset", type=Path, metavar="FILE", help="values for all of them, below -S (tradeoffs.preset)"
    )
    options.add_argument(
        "--name", metavar="NAME", help="NAME-1, NAME-2, ..., or NAME of a single one; by default DVC's own"
    )
    cli.command(main, options)
