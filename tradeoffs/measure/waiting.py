"""How long the threads of this process waited for a core: what tells a measurement beside a busy neighbour."""

import time
from pathlib import Path

from tradeoffs.common import cores

TASKS = Path("/proc/self/task")
BUSY = 0.05  # a process whose threads waited for more than this part of its time was not alone on the machine


def waited() -> float | None:
    """Seconds that all threads of this process have waited for a core so far; None where the kernel does not tell.

    The second number of /proc/<pid>/task/<tid>/schedstat (sched-stats.rst of Linux): time spent on a run queue.
    """
    nanoseconds = [_of(task / "schedstat") for task in TASKS.glob("*")]
    known = [found for found in nanoseconds if found is not None]
    return sum(known) / 1e9 if known else None


def _of(schedstat: Path) -> int | None:
    try:
        return int(schedstat.read_text().split()[1])
    except (OSError, IndexError, ValueError):  # a thread that has ended, or a kernel without it
        return None


class Waiting:
    """From its making on: which part of their time the threads waited, of as many as there are cores for."""

    def __init__(self) -> None:
        self._begun, self._before = time.perf_counter(), waited()

    def share(self) -> float | None:
        """None where the kernel does not tell."""
        after = waited()
        if self._before is None or after is None:
            return None
        return max(0.0, after - self._before) / (time.perf_counter() - self._begun) / cores.usable()
