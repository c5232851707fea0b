"""A conversation as the token ids that a model goes on from, cut to what its context holds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tradeoffs.chat.messages import Asked, Turn
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError
from tradeoffs.tokenize import turns


@dataclass(frozen=True)
class Prompt:
    """`ids` to go on from; `left_out` questions, the oldest, with their answers, did not fit. `max_tokens` of the
    answer."""

    ids: list[int]
    left_out: int
    max_tokens: int


class Prompts:
    """Prompts of a variant, in the template that it was tuned and evaluated with."""

    def __init__(self, variant: Variant, context: int) -> None:
        base = variant.cell.base
        checkpoints.require(base, "chat_template.jinja")
        self._tokenizer = checkpoints.load_tokenizer(base, str(base))
        self._where, self._context = str(base / "chat_template.jinja"), context
        self.tokenizer = self._tokenizer.backend_tokenizer
        self.stop_ids: list[int] = files.read_json(variant.cell.tokens / "info.json")["stop_ids"]
        self.max_tokens: int = files.read_json(variant.facts).get("max_new_tokens", 128)

    def of(self, asked: Asked) -> Prompt:
        """Raises UserError where even the last question does not fit by itself, with both lengths."""
        most = asked.max_tokens or self.max_tokens
        if asked.text is not None:
            return self._fitting(turns.opened(self._tokenizer, asked.text), most, 0)
        system, rest = split_system(asked.turns)
        questions = [at for at, turn in enumerate(rest) if turn.role == "user"]
        begins = questions[-asked.window :] if asked.window else questions
        for begin in begins[:-1]:
            ids = self._ids([*system, *rest[begin:]])
            if len(ids) + most <= self._context:
                return Prompt(ids, questions.index(begin), most)
        return self._fitting(self._ids([*system, *rest[questions[-1] :]]), most, len(questions) - 1)

    def _ids(self, conversation: Sequence[Turn]) -> list[int]:
        messages = [asdict(turn) for turn in conversation]
        return turns.encoded(self._tokenizer, turns.rendered(self._tokenizer, messages, self._where, asks=True))

    def _fitting(self, ids: list[int], most: int, left_out: int) -> Prompt:
        if len(ids) + most > self._context:
            raise UserError(
                f"the question has {len(ids)} tokens and its answer may have {most}; together that is more than the "
                f"model's context of {self._context}"
            )
        return Prompt(ids, left_out, most)


def split_system(conversation: Sequence[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The system messages that a conversation begins with, and the rest of it."""
    count = next((at for at, turn in enumerate(conversation) if turn.role != "system"), len(conversation))
    return list(conversation[:count]), list(conversation[count:])
