"""Where questions come in and events go out: the socket between a model's process and whoever started it.

A thread reads it, whatever the others are at: who leaves is out before the next step, and when nobody is at the other
end any more the process ends, in the middle of a step or while it loads.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

from tradeoffs.chat import messages
from tradeoffs.chat.messages import Asked, Event
from tradeoffs.chat.worker import lifetime


class Pipe:
    """`leave` is called with the id of an answer that nobody waits for any more."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._sending, self._changing = threading.Lock(), threading.Lock()
        self._questions: SimpleQueue[tuple[Asked, float]] = SimpleQueue()
        self._unread: dict[str, bool] = {}  # questions that came, not yet handed over; whether somebody waits
        self.leave: Callable[[str], None] = lambda name: None
        threading.Thread(target=lifetime.or_end(self._listen), daemon=True).start()

    def send(self, events: Sequence[Event]) -> None:
        try:
            with self._sending:
                self._socket.sendall(messages.line(events))
        except OSError:  # nobody is there
            lifetime.end(0)

    def questions(self) -> Iterator[tuple[Asked, float]]:
        """Each with the time.monotonic() at which it was asked. Without an end: the process ends first."""
        while True:
            yield self._questions.get()

    @contextmanager
    def handed_over(self, name: str) -> Iterator[None]:
        """Within it a question becomes an answer that can be left, or an end of it."""
        with self._changing:
            yield
            if not self._unread.pop(name):
                self.leave(name)

    def _listen(self) -> None:
        # ConnectionError: whoever is gone had not read all that was sent.
        with suppress(ConnectionError), self._socket.makefile("rb") as lines:
            for text in lines:
                self._take(json.loads(text))
        lifetime.end(0)

    def _take(self, found: dict[str, Any]) -> None:
        with self._changing:
            if "asked" in found:
                asked = Asked.of(found["asked"])
                self._unread[asked.id] = True
                self._questions.put((asked, found["since"]))
            elif found["leave"] in self._unread:
                self._unread[found["leave"]] = False
            else:
                self.leave(found["leave"])
