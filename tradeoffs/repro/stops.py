"""Being told to stop (Ctrl-C, SIGTERM, the end of a terminal) where that is not for the Runner to hear."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tradeoffs.repro.runner import STOPS


@contextmanager
def interrupting() -> Iterator[None]:
    """Inside, each of them is KeyboardInterrupt, so that whatever has to be put back is."""
    with _heard_by(signal.default_int_handler):
        yield


@contextmanager
def put_off() -> Iterator[None]:
    """Inside is what shall not be cut short: KeyboardInterrupt comes at its end, or at once if it is said twice."""
    told: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        if told:
            raise KeyboardInterrupt
        told.append(number)

    with _heard_by(hear):
        yield
    if told:
        raise KeyboardInterrupt


@contextmanager
def _heard_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPS}
    for number, other in before.items():
        if other is not signal.SIG_IGN:  # nohup
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)
