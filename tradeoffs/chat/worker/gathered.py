"""What a fast model says goes out in fewer pieces: more than fifty a second nobody sees, and each costs all who pass it
on more than a small model takes for the token."""

import math
import threading
import time
from collections.abc import Callable, Sequence

from tradeoffs.chat.messages import Ended, Event, Failed, Said

SECONDS = 0.02
ALIVE = 1.0  # seconds after which a step goes out that said nothing, too


class Gathered:
    """Takes the events of each step. The first words of an answer go out at once, and so does its end; in between what
    is said in SECONDS goes out together. A model whose steps take longer is not held up."""

    def __init__(
        self,
        send: Callable[[Sequence[Event]], None],
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._seconds, self._clock = send, seconds, clock
        self._lock = threading.Lock()  # held while events go out: they stay in their order
        self._held: dict[str, Said] = {}  # by the answer's id
        self._sent: dict[str, float] = {}  # when its last words went out
        self._some = threading.Event()  # is held
        self._spoke = -math.inf  # when something went out

    def send(self, events: Sequence[Event]) -> None:
        with self._lock:
            now = self._clock()
            ready = [out for event in events for out in self._out(event, now)]
            if ready or now - self._spoke >= ALIVE:
                self._spoke = now
                self._send(ready)
            if self._held:
                self._some.set()

    def run(self) -> None:
        """Without an end, in a thread of its own: what is held goes out in time, however long the next step takes."""
        while True:
            self._some.wait()
            time.sleep(self._seconds)
            self.send_held()

    def send_held(self) -> None:
        with self._lock:
            self._some.clear()
            if self._held:
                self._sent |= dict.fromkeys(self._held, self._clock())
                ready, self._held = list(self._held.values()), {}
                self._send(ready)

    def _out(self, event: Event, now: float) -> list[Event]:
        if isinstance(event, Said):
            if before := self._held.pop(event.id, None):
                text, logprobs = before.text + event.text, before.logprobs + event.logprobs
                event = Said(event.id, text, event.tokens, logprobs)
            if now - self._sent.get(event.id, -math.inf) < self._seconds:
                self._held[event.id] = event
                return []
            if event.text:
                self._sent[event.id] = now
        elif isinstance(event, Ended | Failed):
            self._sent.pop(event.id, None)
            if before := self._held.pop(event.id, None):
                return [before, event]
        return [event]
