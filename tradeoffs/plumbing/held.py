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
    file = _locked(FOLDER / name, step)
    try:
        yield
    finally:
        if file:
            (FOLDER / name).unlink(missing_ok=True)  # while it is locked: who waits for it looks whether it is there
            os.close(file)


def _locked(path: Path, step: str) -> int | None:
    """The open file, with the lock; None where no file can be made: then the stage can write nothing, and says so."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError as error:  # another user's, say
            _note(path, error)
            return None
        except OSError:
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            said = _said(file)
            os.close(file)
            if error.errno in TAKEN:
                raise UserError(_taken(step, said)) from None
            _note(path, error)
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(file), path.stat()):
                with suppress(OSError):  # no room: then the process has no name
                    os.ftruncate(file, 0)
                    os.write(file, f"{os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}{_here()}".encode())
                return file
        os.close(file)  # who had it has removed it meanwhile


def _note(path: Path, error: OSError) -> None:
    print(f"note: {path} cannot be locked ({error.strerror}): start this step only once", file=sys.stderr)


def _here() -> str:
    """Which machine this is: of a folder that several share, a process's number alone says nothing."""
    return f" on {os.uname().nodename}"


def _said(file: int) -> str:
    return os.pread(file, 200, 0).decode("utf-8", errors="replace").strip()


def _taken(step: str, said: str) -> str:
    pid = said.partition(" ")[0]
    where = f" (kill {pid})" if said.endswith(_here()) else " on its machine"
    return (
        f"{step} is being made by another process ({said or 'which has not said its number'}), which goes on though "
        f"DVC may be gone; wait for it to end, or end it{where if pid else ''}, and run again"
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
    """Who holds the lock of a step, and what to do; "" if nobody does, or nobody knows, of another user's."""
    with suppress(OSError), path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return _taken(path.name, _said(file.fileno())) if error.errno in TAKEN else ""
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # it is the next one's meanwhile
            return _held(path)
        path.unlink()
    return ""
