"""How a model's process ends: with whoever started it, as the first where memory runs out, and without telling anybody
what people wrote to it."""

import ctypes
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SOONER = "500"  # proc_pid_oom_score_adj(5), of -1000 to 1000: than who started it, who can start another


def set_up() -> None:
    """To be called first: for the whole life of the process."""
    # An image of its memory would hold what was written. 1, since where a program gets the image, it does so at 0, too:
    # core(5), "Piping core dumps to a program".
    with suppress(ValueError):  # it is 0, and can be no more
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    sys.excepthook = _hook
    threading.excepthook = lambda found: _hook(found.exc_type, found.exc_value, found.exc_traceback)
    with suppress(AttributeError, OSError):  # only Linux has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(SOONER, encoding="ascii")


def or_end(work: Callable[..., Any]) -> Callable[..., None]:
    """`work` for a thread without which the process is of no use: where it fails, all ends, and is started again."""

    def done(*arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            report(error)
            end(1)

    return done


def end(code: int) -> NoReturn:
    """At once, whatever other threads are at."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def report(error: BaseException) -> None:
    """A traceback on stderr of the places in the code alone: an exception's text may hold what somebody wrote."""
    print(f"{told(error)}", file=sys.stderr, flush=True)


def told(error: BaseException) -> str:
    causes = list[BaseException]()
    one: BaseException | None = error
    while one and one not in causes:
        causes.insert(0, one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    parts = []
    for cause in causes:
        places = "".join(traceback.format_tb(cause.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{places}{type(cause).__qualname__}")
    return "\n\nand then\n\n".join(parts)


def _hook(kind: type[BaseException], error: BaseException | None, _trace: TracebackType | None) -> None:
    report(error or kind())
