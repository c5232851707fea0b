"""A conversation as the token ids that a model goes on from, cut to what its context holds.

The oldest questions go, each with its answers, until what is left and the longest allowed answer fit; what a
conversation begins with as its system stays. They go several at a time (`window_begin`): until the next ones go, a
conversation begins as it did, and the model has read that beginning already.
"""

import os
import sys
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, pairwise
from typing import Any

from tradeoffs.chat.messages import Asked, Turn
from tradeoffs.common import chat_templates, files
from tradeoffs.common.cells import Variant
from tradeoffs.common.examples import APART
from tradeoffs.formats.names import QUANTS
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError

# Nothing here imports transformers before a tokenizer is loaded: see `spare_torch`.

STEP = 4  # questions go by this part of the room that all have
CHARACTERS = 8  # that a token stands for at most, in most texts
REMEMBERED = 4096  # texts whose number of tokens is kept
TOO_MANY = 1.5  # so many times the context is too much, whatever else is in a text: see `_read`
INSTEAD = "put it into the question instead"


class TooLongError(UserError):
    """A question has no room in the context by itself."""


@dataclass(frozen=True)
class Prompt:
    """`ids` to go on from; `left_out` questions, the oldest, with their answers, did not fit. `max_tokens` of the
    answer."""

    ids: list[int]
    left_out: int
    max_tokens: int


class Prompts:
    """Prompts of a variant, in the template that it was tuned and evaluated with: token by token what `tokenize` makes
    of the same conversation."""

    def __init__(self, variant: Variant, context: int) -> None:
        base, info = variant.cell.base, variant.cell.tokens / "info.json"
        checkpoints.require(base, "chat_template.jinja")
        files.must_exist(info)
        made = files.read_facts(info)
        self._tokenizer = checkpoints.load_tokenizer(base, str(base))
        self._where, self._context = str(base / "chat_template.jinja"), context
        self._apart = "answers" in made.get(APART, ())
        self.tokenizer = self._tokenizer.backend_tokenizer
        self.stop_ids: list[int] = made["stop_ids"]
        self.max_tokens = _max_tokens(variant)
        self._counts: OrderedDict[str, int] = OrderedDict()  # tokens of texts, by their ids: no text is kept

    def of(self, asked: Asked) -> Prompt:
        """Raises TooLongError where even the last question does not fit by itself, with both lengths, and UserError
        for what can be asked of no model, or not by this one's template."""
        if asked.ids is not None:
            return self._alone(self._known(asked.ids), asked.max_tokens, 0, "the prompt")
        if asked.text is not None:
            return self._alone(self._opened(asked.text), asked.max_tokens, 0, "the text")
        system, rest = split_system(asked.turns)
        questions = [at for at, turn in enumerate(rest) if turn.role == "user"]
        if not questions or rest[-1].role != "user":
            raise UserError("a conversation has to end with a question (role user), which the model answers")
        last = rest[questions[-1] :]
        if system and self._rendered([*system, *last]) == self._rendered(last):
            raise UserError(f"{self._where}: the model's chat template leaves a system message out; {INSTEAD}")
        begins = [0, *questions[1:]]  # an answer that nobody asked for goes with the first question
        room = self._context - (self.max_tokens if asked.max_tokens is None else asked.max_tokens)
        first = max(len(begins) - asked.window, 0) if asked.window else 0
        if first < len(begins) - 1 and (found := self._longest(system, rest, begins, first, room)):
            ids, left_out = found
            return Prompt(ids, left_out, self._context - room)
        what = "the question and the system message" if system else "the question"
        return self._alone(self._ids([*system, *last]), asked.max_tokens, len(begins) - 1, what)

    def _longest(
        self, system: list[Turn], rest: list[Turn], begins: list[int], first: int, room: int
    ) -> tuple[list[int], int] | None:
        """Ids of the conversation from one of its questions on, the `first` or a later one, which have `room`, and
        which question that is; None if no more than the last one would be left, and that does not fit."""
        made = cache(lambda at: self._ids([*system, *rest[begins[at] :]]))
        characters = sum(len(turn.content) for turn in (*system, *rest[begins[first] :]))
        if characters <= CHARACTERS * room and len(made(first)) <= room:  # mostly all fits, and nothing need be counted
            return made(first), first
        before, each = self._around
        sizes = [
            sum(self._count(turn.content) + each for turn in rest[begin:end])
            for begin, end in pairwise([*begins, len(rest)])
        ]
        ahead = before + sum(self._count(turn.content) + each for turn in system)
        if ahead + sum(sizes[first:]) <= room * 1.25 and len(made(first)) <= room:
            return made(first), first
        at = max(first, window_begin(sizes, room - ahead))
        if len(made(at)) > room:  # sizes are estimates: a template may write a turn in any way
            later = range(at + 1, len(begins))
            place = bisect_left(later, True, key=lambda one: len(made(one)) <= room)
            if place == len(later):
                return None
            at = later[place]
        return made(at), at

    def _alone(self, ids: list[int], max_tokens: int | None, left_out: int, what: str) -> Prompt:
        """A prompt that nothing can be left out of. Where no length of the answer was asked for, the answer ends with
        the context at the latest, as that of an evaluated prompt does."""
        if not ids:
            raise UserError(f"no token of {what} is left for the model to go on from")
        left = self._context - len(ids)
        wanted = self.max_tokens if max_tokens is None else max_tokens
        most = min(wanted, max(left, 1)) if max_tokens is None else wanted
        if most > left:
            count = f"at least {len(ids)}" if len(ids) > TOO_MANY * self._context else len(ids)
            way_out = f"allow an answer of at most {left}" if left > 0 else "shorten it"
            raise TooLongError(
                f"{what} {'have' if ' and ' in what else 'has'} {count} tokens and the answer may have {wanted}: "
                f"together more than the model's context of {self._context}; {way_out}"
            )
        return Prompt(ids, left_out, most)

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Raises UserError for what is no token of the model."""
        count = self.tokenizer.get_vocab_size()
        if wrong := [token for token in ids if not 0 <= token < count]:
            raise UserError(f"{wrong[0]} is no token of this model, which has 0 to {count - 1}")
        return list(ids)

    def _ids(self, conversation: Sequence[Turn]) -> list[int]:
        """As tokenize makes them, of all in one or, in a tokenizer that wants it, of prompts and answers each apart."""
        whole = self._rendered(conversation)
        if not self._apart:
            return self._encoded(whole)
        answers = [at for at, turn in enumerate(conversation) if turn.role == "assistant"]
        prompts = [self._rendered(conversation[:at]) for at in answers if at]
        # Where a template writes earlier turns in another way once more follow, there is no such place.
        cuts = [len(prompt) for prompt in prompts if whole.startswith(prompt)]
        parts = pairwise([0, *sorted({*cuts} - {0, len(whole)}), len(whole)])
        return [token for begin, end in parts for token in self._encoded(whole[begin:end])]

    def _rendered(self, conversation: Sequence[Turn], asks: bool = True) -> str:
        from jinja2 import TemplateError

        try:
            return chat_templates.rendered(
                self._tokenizer, [{"role": turn.role, "content": turn.content} for turn in conversation], asks
            )
        except (TemplateError, UserError) as error:
            roles = ", ".join(turn.role for turn in conversation[:6]) + (", ..." if len(conversation) > 6 else "")
            system = conversation[0].role == "system"
            what = "a conversation with a system message" if system else "this conversation"
            way_out = INSTEAD if system else "ask each question alone (stateless)"
            raise UserError(
                f"{self._where}: the model's chat template refuses {what} (turns: {roles}): {error}; {way_out}"
            ) from error

    def _encoded(self, text: str) -> list[int]:
        from tradeoffs.tokenize import turns

        return self._read(text, turns.encoded)

    def _opened(self, text: str) -> list[int]:
        from tradeoffs.tokenize import turns

        return self._read(text, turns.opened)

    def _read(self, text: str, how: Callable[[Any, str], list[int]]) -> list[int]:
        """The ids of a text; of one far above the context those of its beginning, which are too many by themselves. To
        read a megabyte takes a second, in which nobody else gets an answer."""
        begin = CHARACTERS * self._context
        if len(text) > begin and len(ids := how(self._tokenizer, text[:begin])) > TOO_MANY * self._context:
            return ids
        return how(self._tokenizer, text)

    def _count(self, text: str) -> int:
        """How many tokens a text has by itself."""
        key = files.content_id(text)
        count = self._counts.pop(key, None)
        self._counts[key] = len(self._encoded(text)) if count is None else count
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)
        return self._counts[key]

    @cached_property
    def _around(self) -> tuple[int, int]:
        """How many tokens the template puts before a conversation, and around each turn; about, since it may do as it
        likes."""
        turn = [Turn("user", "a"), Turn("assistant", "b")]
        one, two = (len(self._ids([*turn * count, turn[0]])) for count in (1, 2))
        each = max(-(-(two - one - self._count("a") - self._count("b")) // 2), 0)
        return max(one - 3 * each - 2 * self._count("a") - self._count("b"), 0), each


def window_begin(sizes: Sequence[int], room: int) -> int:
    """With which question a conversation begins, if each has so many tokens, its answers counted, and all together are
    to have `room`.

    As many go as have together at least what is too much, rounded up to a whole STEP-th of the room. While a
    conversation grows by less than that, it begins with the same question.
    """
    over = sum(sizes) - room
    if over <= 0:
        return 0
    step = max(room // STEP, 1)
    gone = -(-over // step) * step
    before = accumulate(sizes[:-1], initial=0)
    return next((at for at, tokens in enumerate(before) if tokens >= gone), len(sizes) - 1)


def split_system(conversation: Sequence[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The system messages that a conversation begins with, and the rest of it."""
    count = next((at for at, turn in enumerate(conversation) if turn.role != "system"), len(conversation))
    return list(conversation[:count]), list(conversation[count:])


def spare_torch(variant: Variant) -> None:
    """Lets transformers find no torch, which it would import to read a tokenizer: 200 MB and a second that llama.cpp
    needs nothing of. For a process that is of this variant alone, before anything is imported that imports either."""
    if variant.format in QUANTS and not {"torch", "transformers"} & set(sys.modules):
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # that there is no torch
        modules: dict[str, Any] = sys.modules  # type: ignore[assignment]
        modules["torch"] = None  # what importlib takes for not to be found


def _max_tokens(variant: Variant) -> int:
    """As many as an evaluated answer has had at most, or would have."""
    found = files.read_facts(variant.facts) if variant.facts.is_file() else {}
    if "max_new_tokens" in found:
        return int(found["max_new_tokens"])
    from tradeoffs import params

    return params.load_all().evaluate.max_new_tokens
