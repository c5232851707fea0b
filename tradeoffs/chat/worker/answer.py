"""An answer while it is worked on: what it reads, what it says, why it ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tradeoffs.chat.messages import Asked, Begun, Ended, Logprob, Reason, Said
from tradeoffs.chat.worker.prompts import Prompt
from tradeoffs.chat.worker.sampling import Sampler
from tradeoffs.chat.worker.text import Text
from tradeoffs.common import memory
from tradeoffs.evaluate.runtime import Rows
from tradeoffs.llama_cpp.scores import score_rows

LOWEST = -9999.0  # in place of minus infinity, which JSON cannot say


@dataclass(eq=False)
class Answer:
    """One that is worked on, or waits."""

    asked: Asked
    prompt: Prompt
    since: float  # time.monotonic() when it was asked
    text: Text
    sampler: Sampler
    place: int = -1  # in the decoder; none while it waits
    told: int = 0  # its place in the queue, as it was last said
    unread: Sequence[int] = ()  # ids that the model has not read yet
    cached: int = 0
    began: float = 0.0
    first: float = 0.0
    reason: Reason | None = None
    prompt_logprobs: list[Logprob] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.asked.id

    @property
    def reads(self) -> bool:
        """Whether its prompt is not read yet."""
        return not self.first

    @property
    def echoes(self) -> bool:
        """Whether the logits of its prompt are wanted."""
        return self.asked.echo and self.reads

    def begin(self, place: int, cached: int, context: int, now: float) -> Begun:
        self.place, self.cached, self.began = place, cached, now
        self.unread = self.prompt.ids[cached:]
        if self.asked.echo:
            self.prompt_logprobs.append(Logprob(self.text.piece(self.prompt.ids[0]), None))
        prompt = self.prompt
        return Begun(self.id, len(prompt.ids), cached, prompt.left_out, context, prompt.max_tokens)

    def take(self, count: int) -> Sequence[int]:
        """The next ids that the model reads."""
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def grow(self, logits: np.ndarray, stop_ids: set[int], now: float) -> Said | None:
        """The next token, by logits float32 (vocabulary,); what can be said then. Sets `reason` where it is the last.

        Raises BrokenError where the logits are no numbers.
        """
        self.first = self.first or now
        if not self.prompt.max_tokens:
            self.reason = "length"
            return None
        token = self.sampler.pick(logits)
        if token in stop_ids:
            self.reason = "stop"
            return None
        text = self.text.add(token)
        self.unread = (token,)
        if self.text.stopped:
            self.reason = "stop"
        elif len(self.text.ids) >= self.prompt.max_tokens:
            self.reason = "length"
        found = () if self.asked.logprobs is None else self._logprobs(logits[None], [token])
        return Said(self.id, text, len(self.text.ids), tuple(found))

    def echo(self, logits: np.ndarray) -> None:
        """Logits of the last ids that were read of the prompt, float32 (ids, vocabulary): each says what the next id
        may be."""
        begin = len(self.prompt_logprobs)
        nexts = self.prompt.ids[begin : begin + len(logits)]
        self.prompt_logprobs += self._logprobs(logits[: len(nexts)], nexts)

    def rest(self) -> Said | None:
        """What was held back, where there is some and nothing comes any more."""
        text = self.text.rest()
        if self.text.stopped and self.reason == "length":
            self.reason = "stop"
        return Said(self.id, text, len(self.text.ids)) if text else None

    def end(self, now: float) -> Ended:
        assert self.reason
        return Ended(
            self.id,
            self.reason,
            self.text.whole,
            len(self.prompt.ids),
            self.cached,
            len(self.text.ids),
            (self.began or now) - self.since,
            (self.first or now) - self.since,
            now - self.since,
            memory.resident_mb(),
            tuple(self.text.ids),
            tuple(self.prompt_logprobs),
        )

    def _logprobs(self, logits: np.ndarray, ids: Sequence[int]) -> list[Logprob]:
        """Of each of `ids` by its row of logits: as evaluation computes them."""
        if not len(ids):
            return []
        scores = score_rows(logits, Rows(np.asarray(ids), None, None, self.asked.logprobs or 0, None))
        tops: list[tuple[tuple[str, float], ...]] = [()] * len(ids)
        if scores.at_ids is not None and scores.at_logprob is not None:
            tops = [
                tuple((self.text.piece(one), max(value, LOWEST)) for one, value in zip(of, values, strict=True))
                for of, values in zip(scores.at_ids.tolist(), scores.at_logprob.tolist(), strict=True)
            ]
        own = scores.logprob.tolist()
        return [
            Logprob(self.text.piece(one), max(value, LOWEST), top)
            for one, value, top in zip(ids, own, tops, strict=True)
        ]
