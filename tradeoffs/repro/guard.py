"""Ends what a run has started when the run itself was killed (SIGKILL, no memory left), which leaves it no time to.

What a run starts carries a mark in its environment, and so does what that starts, whatever session or group it is put
into. The guard is a process that waits for the end of a pipe whose other end the run alone holds, and then ends all
that carries the mark.
"""

import itertools
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "TRADEOFFS_RUN"  # RUN/STEP, of one length for all steps; step 0 is what belongs to none
PAUSE = 0.05  # seconds
_numbers = itertools.count(1)


class Guard:
    """The guard of this process. From here on all that this starts is marked.

    The guard holds the open file `held`, too: a lock on it lasts until all has ended. Raises OSError where no process
    can be started.
    """

    def __init__(self, held: int | None = None) -> None:
        run = uuid.uuid4().hex
        self._process = subprocess.Popen(
            # Its source in place of its name: who ends processes by the name of the run would end their guard, too.
            [sys.executable, "-c", f"{Path(__file__).read_text(encoding='utf-8')}\n\nwait()", run],
            # No mark of another run, in a step of which this one is: that run's guard would end this one first.
            env={name: value for name, value in os.environ.items() if name != MARK},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[] if held is None else [held],
            start_new_session=True,  # Ctrl-C and the end of a terminal are for the run
        )
        os.environ[MARK] = _mark(run, 0)

    def dismiss(self) -> None:
        """The run has ended by itself: what it has left on purpose stays."""
        self._process.kill()
        self._process.communicate()


def mark_step(environment: dict[str, str]) -> str:
    """Gives an environment the mark of a new step of this run; that mark."""
    environment[MARK] = _mark(os.environ[MARK].partition("/")[0], next(_numbers))
    return environment[MARK]


def _mark(run: str, step: int) -> str:
    return f"{run}/{step:08}"


def marked(mark: str) -> list[psutil.Process]:
    """The processes whose mark begins so, as far as this user may know; of one that has ended, nothing is known."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK, "").startswith(mark):
                found.append(process)
    return found


def end(mark: str) -> None:
    """Kills the processes whose mark begins so, until none is left: one may start another meanwhile."""
    while found := marked(mark):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(PAUSE)


def show(mark: str) -> None:
    """Gives this process, a fork, its mark in /proc, too.

    There it has the environment that the process which it was forked from began with, and so has what it forks in turn.
    Raises OSError and ValueError where that cannot be changed; what it starts otherwise is marked all the same.
    """
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    first, last = int(fields[47]), int(fields[48])  # env_start and env_end of proc_pid_stat(5)
    entry = f"{MARK}={mark}".encode()
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(first)
        place = memory.read(last - first).index(entry.rpartition(b"/")[0])  # of the same length
        memory.seek(first + place)
        memory.write(entry)


def wait() -> None:
    """What the guard does."""
    sys.stdin.read()
    end(sys.argv[1])
