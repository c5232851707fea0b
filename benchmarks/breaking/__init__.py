"""What is broken on purpose, one module for each kind of thing: params, data, checkpoints, GGUFs, kills, disks.

Each has `tries(count, seed)`, which yields what was broken and how the product took it. The same count and seed break
the same.
"""

import json
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from tradeoffs.plumbing.errors import UserError


class Taken(StrEnum):
    """How it was taken. Only the first two are as it should be."""

    REFUSED = "refused"  # one message, exit code 1, nothing half-written
    ACCEPTED = "accepted"  # and by a rule, which its module states, it means what it says
    TRACEBACK = "traceback"  # or an abort of the process
    HANG = "hang"
    SILENT = "silent wrong result"
    LOST = "bytes lost or different"
    MANUAL = "manual step"


WELL = (Taken.REFUSED, Taken.ACCEPTED)


@dataclass(frozen=True)
class Try:
    """`what` was broken, in words by which it can be found again; `said`: the message, or the end of a traceback."""

    what: str
    taken: Taken
    said: str = ""


Tries = Iterator[Try]


def attempt(call: Callable[[], None], seconds: float = 20, memory: int | None = None) -> tuple[Taken, str]:
    """Calls it in a fork of this process, as a stage is run: how it was taken, and what it said.

    ACCEPTED where it returns: its caller judges what it has made. More than `seconds` is a HANG; `memory`: bytes of
    address space that it may take. Whatever it prints is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        child = os.fork()
        if not child:
            _in_the_fork(call, answer, memory)
        ended = _wait(child, seconds)
        if ended is None:
            return Taken.HANG, f"more than {seconds:g} s"
        if not answer.exists():
            how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
            return Taken.TRACEBACK, f"the process ended with {how}"
        taken, said = json.loads(answer.read_text(encoding="utf-8"))
        return Taken(taken), said


def _in_the_fork(call: Callable[[], None], answer: Path, memory: int | None) -> NoReturn:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        call()
        found = (Taken.ACCEPTED, "")
    except UserError as error:
        found = (Taken.REFUSED, str(error))
    except SystemExit as error:  # as cli.explained ends
        said = str(error)
        found = (Taken.REFUSED if said.startswith("error: ") else Taken.TRACEBACK, said)
    except BaseException:
        found = (Taken.TRACEBACK, traceback.format_exc()[-600:])
    with suppress(OSError):
        answer.write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)


def _wait(child: int, seconds: float) -> int | None:
    """The exit code of a process, below 0 the signal that ended it; None, and it is ended, where it takes longer."""
    end = time.monotonic() + seconds
    pause = 0.001
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
