"""One loop for all answers of a model: they join when there is room, and leave when they end, from step to step."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tradeoffs.chat.messages import Asked, Begun, Ended, Event, Logprob, Queued, Reason, Said
from tradeoffs.chat.worker.decoder import Decoder
from tradeoffs.chat.worker.prompts import Prompt
from tradeoffs.chat.worker.sampling import Sampler, logprobs
from tradeoffs.chat.worker.text import Text
from tradeoffs.common import memory


@dataclass
class Answer:
    """One that is worked on, or waits."""

    asked: Asked
    prompt: Prompt
    since: float  # time.monotonic() when it was asked
    text: Text
    sampler: Sampler
    place: int = -1
    waiting: list[int] = field(default_factory=list)  # ids that the model has not read yet
    cached: int = 0
    began: float = 0.0
    first: float = 0.0
    reason: Reason | None = None


class Loop:
    """Works on answers in the thread that calls `run`; other threads add them and take them back. `send` gets the
    events of a step."""

    def __init__(self, decoder: Decoder, stop_ids: Sequence[int], send: Callable[[list[Event]], None]) -> None:
        self._decoder, self._stop_ids, self._send = decoder, set(stop_ids), send
        self._queue: deque[Answer] = deque()
        self._running: list[Answer] = []
        self._left: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False

    def add(self, answer: Answer) -> None:
        with self._changed:
            self._queue.append(answer)
            self._changed.notify()

    def leave(self, name: str) -> None:
        """Nobody waits for the answer of this id any more."""
        with self._changed:
            self._left.add(name)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        """Until it is closed."""
        while True:
            with self._changed:
                while not (self._queue or self._running or self._closed):
                    self._left.clear()
                    self._changed.wait()
                if self._closed:
                    return
            self._send(self._step())

    def _step(self) -> list[Event]:
        said = [*self._drop(), *self._admit()]
        if not self._running:
            return said
        parts, wanted = self._parts()
        logits = self._decoder.feed(parts, wanted)
        for answer in list(self._running):
            if answer.place in logits:
                said += self._grow(answer, logits[answer.place])
        return said

    def _drop(self) -> list[Event]:
        """What nobody waits for any more, or has had its time."""
        with self._changed:
            left, self._left = self._left, set()
            waiting = list(self._queue)
        now, said = time.monotonic(), list[Event]()
        for answer in [*self._running, *waiting]:
            if answer.asked.id in left or now - answer.since > answer.asked.seconds:
                answer.reason = "left" if answer.asked.id in left else "time"
                if answer.place < 0:
                    self._queue.remove(answer)
                said.append(self._end(answer))
        return said

    def _admit(self) -> list[Event]:
        said = list[Event]()
        while self._queue and len(self._running) < self._decoder.places:
            answer = self._queue[0]
            ids = answer.prompt.ids
            if not (found := self._decoder.begin(ids, len(ids) + answer.prompt.max_tokens)):
                break
            self._queue.popleft()
            answer.place, answer.cached = found
            answer.waiting, answer.began = ids[answer.cached :], time.monotonic()
            self._running.append(answer)
            said.append(Begun(answer.asked.id, len(ids), answer.cached, answer.prompt.left_out))
        return said + [Queued(answer.asked.id, place) for place, answer in enumerate(self._queue, 1)]

    def _parts(self) -> tuple[dict[int, Sequence[int]], set[int]]:
        """What is read in this step: a token of each answer that grows, and of prompts what else a step can take."""
        parts, wanted = dict[int, Sequence[int]](), set[int]()
        room = self._decoder.step_tokens - sum(len(answer.waiting) == 1 for answer in self._running)
        for answer in self._running:
            count = 1 if len(answer.waiting) == 1 else min(len(answer.waiting), max(room, 0))
            if not count:
                continue
            room -= count if len(answer.waiting) > 1 else 0
            parts[answer.place], answer.waiting = answer.waiting[:count], answer.waiting[count:]
            if not answer.waiting:
                wanted.add(answer.place)
        return parts, wanted

    def _grow(self, answer: Answer, logits: np.ndarray) -> list[Event]:
        token = answer.sampler.pick(logits)
        answer.first = answer.first or time.monotonic()
        if token in self._stop_ids:
            answer.reason = "stop"
            return [self._end(answer)]
        text = answer.text.add(token)
        if answer.text.stopped:
            answer.reason = "stop"
        elif len(answer.text.ids) == answer.prompt.max_tokens:
            answer.reason = "length"
            text += answer.text.rest()
        answer.waiting = [token]
        said: list[Event] = [Said(answer.asked.id, text, len(answer.text.ids), self._logprobs(answer, logits, token))]
        return [*said, self._end(answer)] if answer.reason else said

    def _logprobs(self, answer: Answer, logits: np.ndarray, token: int) -> tuple[Logprob, ...]:
        if answer.asked.logprobs is None:
            return ()
        top = np.argsort(-logits, kind="stable")[: answer.asked.logprobs].tolist()
        own, *others = logprobs(logits, [token, *top])
        named = [(answer.text.piece(one), value) for one, value in zip(top, others, strict=True)]
        return (Logprob(answer.text.piece(token), own, tuple(named)),)

    def _end(self, answer: Answer) -> Ended:
        now = time.monotonic()
        if answer.place >= 0:
            self._decoder.end(answer.place)
            self._running.remove(answer)
        assert answer.reason
        return Ended(
            answer.asked.id,
            answer.reason,
            answer.text.whole,
            len(answer.prompt.ids),
            answer.cached,
            len(answer.text.ids),
            (answer.began or now) - answer.since,
            (answer.first or now) - answer.since,
            now - answer.since,
            memory.resident_mb(),
        )
