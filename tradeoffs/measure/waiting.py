"""How long the threads of this process waited for a core: what tells a measurement beside a busy neighbour."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

Found = TypeVar("Found")
TASKS = Path("/proc/self/task")
# A repetition that waited for more than this part of its time was measured against a neighbour ...
CALM = 0.03
AGAIN = 4  # ... and is repeated at most so often


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


class Clock:
    """Repeats what is measured until the machine was calm, within bounds; `waited` and `seconds` of what was kept."""

    def __init__(self) -> None:
        self.waited = self.seconds = 0.0
        self.known = waited() is not None

    def median(self, measure: Callable[[], float], repetitions: int) -> float:
        """The median of so many calm repetitions of `measure`, which gives seconds."""
        return median(self.calm(measure) for _ in range(repetitions))

    def calm(self, measure: Callable[[], Found]) -> Found:
        """What `measure` gives when its threads wait for no core, or the one time of several at which they wait least.

        The threads' waiting is set against all the time that `measure` takes.
        """
        tries: list[tuple[float, float, Found]] = []  # share waited, seconds in all, what is measured
        while not tries or (tries[-1][0] > CALM and len(tries) <= AGAIN):
            before, begun = waited(), time.perf_counter()
            found = measure()
            passed, after = time.perf_counter() - begun, waited()
            lost = 0.0 if before is None or after is None else max(0.0, after - before)
            tries.append((lost / passed, passed, found))
        share, passed, found = min(tries, key=lambda one: one[0])
        self.waited += share * passed
        self.seconds += passed
        return found
