"""Limits for what strangers' files make a library do: how long it may take, and how much memory."""

import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tradeoffs.plumbing.errors import UserError

SECONDS, MEMORY = 60.0, 4 << 30
Made = TypeVar("Made")


def limited(what: str, call: Callable[[], Made], seconds: float = SECONDS, memory: int = MEMORY) -> Made:
    """What `call` returns. Raises UserError, which names `what`, once it takes more than `seconds`, or `memory` bytes
    more than the process has. Only the main thread has a clock to stop it with, and only Linux says what a process has.
    """
    try:
        with _memory(memory):
            return _timed(call, seconds)
    except _OverTime as error:
        raise UserError(f"{what} takes more than {seconds:g} seconds") from error
    except MemoryError as error:
        raise UserError(f"{what} takes more than {memory >> 20:,} MB of memory") from error


class _OverTime(BaseException):
    """No Exception, so that what catches everything on its way lets it through."""


def _timed(call: Callable[[], Made], seconds: float) -> Made:
    """No context manager: what is late inside C code is stopped at the next line of Python, which may be its end."""
    if threading.current_thread() is not threading.main_thread():
        return call()

    def stop(*_: Any) -> None:
        raise _OverTime

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
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
    lower = min(limit for limit in (soft, hard, wanted) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (lower, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
