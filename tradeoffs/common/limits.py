"""Limits for what strangers' files make a library do: how long it may take, and how much memory."""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tradeoffs.plumbing.errors import UserError

SECONDS, MEMORY = 60.0, 4 << 30


@contextmanager
def limited(what: str, seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Raises UserError, which names `what`, once the block takes more than `seconds`, or `memory` bytes more than the
    process has. Only the main thread has a clock to stop it with, and only Linux says what a process has."""
    try:
        with _memory(memory), _time(seconds):
            yield
    except _OverTime as error:
        raise UserError(f"{what} takes more than {seconds:g} seconds") from error
    except MemoryError as error:
        raise UserError(f"{what} takes more than {memory >> 20:,} MB of memory") from error


class _OverTime(BaseException):
    """No Exception, so that what catches everything in the block lets it through."""


@contextmanager
def _time(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise _OverTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory(more: int) -> Iterator[None]:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + more
    lower = min((limit for limit in (soft, hard, wanted) if limit != resource.RLIM_INFINITY), default=wanted)
    resource.setrlimit(resource.RLIMIT_AS, (lower, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
