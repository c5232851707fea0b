"""`dvc repro`, with how long it will take said first, which step of how many it is at, and where its time went.

    python -m tradeoffs.run        what `make run` calls

Runs what has changed, as `dvc repro` does and with what that leaves: the same outputs, the same dvc.lock. How long each
step took is kept in metrics/times.json, by which the next run is estimated.
"""

import logging
import sys
import time

from dvc.exceptions import DvcException

from tradeoffs import params
from tradeoffs.plumbing import cli, clock
from tradeoffs.run import steps, times

FAILED, INTERRUPTED = 255, 252  # exit codes of DVC


def main() -> None:
    begun = time.monotonic()
    params.load_all()  # what is wrong in it is said as a stage would say it, not as DVC does
    clock.LOG.unlink(missing_ok=True)
    try:
        _run(begun)
    except KeyboardInterrupt:
        logging.getLogger("dvc").error("interrupted by the user")
        sys.exit(INTERRUPTED)
    except DvcException:
        logging.getLogger("dvc").exception("")  # DVC's handler makes one line of it
        sys.exit(FAILED)


def _run(begun: float) -> None:
    with steps.opened() as repo:
        planned, every = steps.plan(repo)
        if not planned:
            print(f"Nothing to run: all {len(every)} steps are up to date.")
            return
        expected = times.estimate(planned, every)
        print("\n".join([*times.announcement(expected), ""]), flush=True)
        run = steps.Steps(planned, expected.seconds)
        run.run(repo)
        times.keep(run.took, expected)
    if run.took:
        print(clock.table(time.monotonic() - begun))


if __name__ == "__main__":
    cli.command(main)
