"""One loop for all answers of a model: they join when there is room, and leave when they end, from step to step."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from tradeoffs.chat.messages import Event, Failed, Fault, Queued
from tradeoffs.chat.worker.answer import Answer
from tradeoffs.chat.worker.decoder import Decoder, NoRoomError
from tradeoffs.chat.worker.sampling import BrokenError

STEP = 0.25  # seconds that a step takes at most while answers grow: a longer prompt is read in several
PIECE = 64  # tokens of prompts that a step takes all the same
ECHOED = 1 << 18  # log-probabilities of a prompt at most: they go out in one line, of some 10 MB
ECHO = 128  # tokens of a prompt whose logits are wanted, in a step: 80 MB of them with a vocabulary of 150,000
SHARED = 32  # tokens that are worth to wait for until another prompt has read them
TELL = 0.5  # seconds after which those who wait are told their new places


class Loop:
    """Works on answers in the thread that calls `run`; other threads add them and take them back. `send` gets the
    events of a step."""

    def __init__(
        self,
        decoder: Decoder,
        stop_ids: Sequence[int],
        send: Callable[[list[Event]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoder, self._stop_ids, self._send, self._clock = decoder, set(stop_ids), send, clock
        self._changed = threading.Condition()  # guards what other threads write: these three
        self._added: list[Answer] = []
        self._left: set[str] = set()
        self._closed = False
        self._queue: OrderedDict[str, Answer] = OrderedDict()
        self._running: list[Answer] = []
        self._looked = self._told = 0.0  # when the queue was last looked through for what is late, and for its places
        self._full = False  # until an answer ends
        self._seconds = 0.0  # of a token of a prompt

    def add(self, answer: Answer) -> None:
        with self._changed:
            self._added.append(answer)
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
                while not (self._added or self._left or self._queue or self._running or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
            self._send(self.step())  # nothing, too: a prompt may take many steps, in which it is alive

    def step(self) -> list[Event]:
        """A token more of each answer that grows; what came of it."""
        with self._changed:
            (added, self._added), (left, self._left) = (self._added, []), (self._left, set())
        self._queue.update((answer.id, answer) for answer in added)
        said = [*self._drop(left), *self._admit(), *self._places()]
        if self._running:
            said += self._read()
        return said

    def _drop(self, left: set[str]) -> list[Event]:
        """Ends what nobody waits for any more, or has had its time."""
        now = self._clock()
        dropped = [answer for answer in self._running if answer.id in left or _late(answer, now)]
        dropped += [self._queue[name] for name in left if name in self._queue]
        if now - self._looked >= TELL:  # with thousands of them not in each step
            dropped += [answer for answer in self._queue.values() if answer.id not in left and _late(answer, now)]
            self._looked = now
        said = list[Event]()
        for answer in dropped:
            self._queue.pop(answer.id, None)
            answer.reason = "left" if answer.id in left else "time"
            said += self._end(answer)
        return said

    def _admit(self) -> list[Event]:
        said, out = list[Event](), list[Answer]()
        for answer in self._queue.values():
            if self._full or len(self._running) == self._decoder.places:
                break
            ids, most = answer.prompt.ids, answer.prompt.max_tokens
            if wrong := self._wrong(answer):
                out.append(answer)
                said.append(Failed(answer.id, *wrong))
                continue
            if self._being_read(ids):
                continue
            # What is to be echoed is computed anew from its first token on.
            found = self._decoder.begin(ids[:1] if answer.asked.echo else ids, len(ids) + most)
            if not found:
                if self._running:
                    self._full = True
                    break
                out.append(answer)
                said.append(Failed(answer.id, "too_long", f"no room for {len(ids)} tokens and {most} of an answer"))
                continue
            out.append(answer)
            self._running.append(answer)
            said.append(answer.begin(*found, self._decoder.context, self._clock()))
        for answer in out:
            del self._queue[answer.id]
        return said

    def _being_read(self, ids: Sequence[int]) -> bool:
        """Whether a prompt goes on like this one behind what the model has read of it: that is shared once it is read.
        So many who ask at once after the same long instructions cost what one does."""
        for other in self._running:
            end = len(other.prompt.ids) - len(other.unread) + SHARED
            if other.reads and end < min(len(ids), len(other.prompt.ids)) and ids[:end] == other.prompt.ids[:end]:
                return True
        return False

    def _wrong(self, answer: Answer) -> tuple[Fault, str] | None:
        """Why a prompt cannot be read: one that fails in the model would end the answers beside it too."""
        ids, most, each = answer.prompt.ids, answer.prompt.max_tokens, 1 + (answer.asked.logprobs or 0)
        if not len(ids):
            return "invalid", "the prompt is empty"
        if len(ids) + most > self._decoder.context:
            lengths = f"the prompt has {len(ids)} tokens and its answer may have {most}"
            return "too_long", f"{lengths}; together that is more than the model's context of {self._decoder.context}"
        if answer.asked.echo and len(ids) * each > ECHOED:
            return "too_long", f"{each} log-probabilities of {len(ids)} tokens are more than the {ECHOED} of one answer"
        if min(ids) < 0 or max(ids) >= self._decoder.vocabulary:
            return "invalid", f"the prompt has token ids that are not in the vocabulary of {self._decoder.vocabulary}"
        return None

    def _places(self) -> list[Event]:
        """Those that wait and have not been told their place, or not this one."""
        waiting = list[Answer]()
        now = self._clock()
        if now - self._told >= TELL:
            waiting, self._told = list(self._queue.values()), now
        else:  # the new ones stand at the end
            for answer in reversed(self._queue.values()):
                if answer.told:
                    break
                waiting.insert(0, answer)
        said = list[Event]()
        for place, answer in enumerate(waiting, len(self._queue) - len(waiting) + 1):
            if answer.told != place:
                answer.told = place
                said.append(Queued(answer.id, place))
        return said

    def _read(self) -> list[Event]:
        """A step of the model."""
        parts = self._parts()
        wanted = {answer.place for answer in self._running if not answer.unread and answer.place in parts}
        said = self._echo()
        begun = self._clock()
        try:
            logits = self._decoder.feed(parts, wanted) if parts else {}
        except NoRoomError:
            return said + self._give_way(parts)
        growing = sum(not answer.reads for answer in self._running)
        tokens = sum(map(len, parts.values()))
        if tokens - growing >= PIECE // 2:
            self._seconds = (self._clock() - begun) / tokens
        for answer in list(self._running):
            if answer.place in logits:
                said += self._grow(answer, logits[answer.place])
        return said

    def _parts(self) -> dict[int, Sequence[int]]:
        """What is read in this step: a token of each answer that grows, and of prompts what else a step can take.

        Half of that is for the prompt that came first, and short ones go before long ones: none waits for ever, and
        none waits long for a long one.
        """
        growing = [answer for answer in self._running if not answer.reads]
        reading = [answer for answer in self._running if answer.reads and not answer.asked.echo]
        parts: dict[int, Sequence[int]] = {answer.place: answer.take(1) for answer in growing}
        if not reading:
            return parts
        room = max(self._decoder.step_tokens - len(growing), 1)
        if growing and self._seconds:
            room = min(room, max(int(STEP / self._seconds), PIECE))
        counts = dict.fromkeys((answer.place for answer in reading), 0)
        shortest = sorted(reading, key=lambda answer: len(answer.unread))
        for answer, most in [(reading[0], (room + 1) // 2), *((answer, room) for answer in shortest)]:
            count = min(len(answer.unread) - counts[answer.place], most, room)
            counts[answer.place] += count
            room -= count
        return parts | {answer.place: answer.take(counts[answer.place]) for answer in reading if counts[answer.place]}

    def _echo(self) -> list[Event]:
        """A piece of the first prompt whose log-probabilities are wanted, and its answer's first token after the last
        piece."""
        answer = next((answer for answer in self._running if answer.echoes), None)
        if not answer:
            return []
        try:
            logits = self._decoder.every(answer.place, answer.take(ECHO))
        except NoRoomError:
            return self._fail(answer)
        answer.echo(logits)
        return [] if answer.unread else self._grow(answer, logits[-1])

    def _grow(self, answer: Answer, logits: np.ndarray) -> list[Event]:
        try:
            said = answer.grow(logits, self._stop_ids, self._clock())
        except BrokenError:
            self._free(answer)
            return [Failed(answer.id, "broken", "the model computes no numbers for this text")]
        return [*([said] if said else []), *(self._end(answer) if answer.reason else [])]

    def _give_way(self, parts: dict[int, Sequence[int]]) -> list[Event]:
        """The cache has no room although it was promised: the answer that came last ends, the others go on."""
        for answer in self._running:
            if answer.place in parts:
                answer.unread = [*parts[answer.place], *answer.unread]
        return self._fail(self._running[-1])

    def _fail(self, answer: Answer) -> list[Event]:
        self._free(answer)
        return [Failed(answer.id, "broken", "the model's cache has no room for it")]

    def _end(self, answer: Answer) -> list[Event]:
        rest = answer.rest()
        self._free(answer)
        return [*([rest] if rest else []), answer.end(self._clock())]

    def _free(self, answer: Answer) -> None:
        if answer.place >= 0:
            self._full = False
            self._decoder.end(answer.place)
            self._running.remove(answer)


def _late(answer: Answer, now: float) -> bool:
    return now - answer.since > answer.asked.seconds
