"""One process at a time for each step: what DVC has started goes on where DVC alone is killed.

The kernel releases such a lock when its process ends, however it ends, so none is ever left behind; what is forked or
started by that process has no part in it.
"""

import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tradeoffs.plumbing.errors import UserError

FOLDER = Path(".scratch/locks")
TAKEN = (errno.EACCES, errno.EAGAIN)  # of fcntl(2), where another process has the lock
MOST_WAIT = 60.0  # seconds
PAUSE = 0.05


@contextmanager
def alone(stage: str, cell: Iterable[object]) -> Iterator[None]:
    """Holds the lock of a stage's cell, of the one that DVC has started or else by its options.

    Raises UserError where another process is at the same cell. Of the processes of one training (`accelerate launch`)
    each has a lock of its own.
    """
    step = os.environ.get("DVC_STAGE") or "@".join(filter(None, [stage, "-".join(map(str, cell))]))
    rank = os.environ.get("RANK", "0")
    name = step.replace("/", "_") + (f".{rank}" if rank != "0" else "")
    with _opened(name) as file:
        if file:
            _take(file, step)
        yield


@contextmanager
def _opened(name: str) -> Iterator[TextIO | None]:
    """None where no file can be made: then the stage can write nothing either, and says so itself."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        file = (FOLDER / name).open("a+", encoding="utf-8")
    except OSError:
        yield None
        return
    with file:
        yield file


def _take(file: TextIO, step: str) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            raise UserError(_taken(step, file)) from None
        print(f"note: {file.name} cannot be locked ({error.strerror}): start this step only once", file=sys.stderr)
        return
    with suppress(OSError):  # no room: then the process has no name
        file.truncate(0)
        file.write(f"{os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()


def _taken(step: str, file: TextIO) -> str:
    file.seek(0)
    said = file.read().strip()
    pid = said.partition(" ")[0] or "PID"
    return (
        f"{step} is being made by another process ({said or 'which has not said its number'}), which goes on though "
        f"DVC may be gone; wait for it to end, or end it (kill {pid}), and run again"
    )


def wait_for_others() -> None:
    """Until no step is being made in this folder any more. Raises UserError where one is for a minute longer."""
    end, said = time.monotonic() + MOST_WAIT, False
    for path in sorted(FOLDER.glob("*")):
        while message := _held(path):
            if time.monotonic() > end:
                raise UserError(message)
            if not said:
                print(f"waiting, for {MOST_WAIT:.0f} s at most: {message}", file=sys.stderr, flush=True)
            said = True
            time.sleep(PAUSE)


def _held(path: Path) -> str:
    """Who holds the lock of a step, and what to do; "" if nobody does."""
    with suppress(FileNotFoundError), path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return _taken(path.name, file) if error.errno in TAKEN else ""
    return ""
