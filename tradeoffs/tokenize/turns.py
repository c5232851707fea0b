"""A conversation in a model's chat template as token ids: where each answer begins, and where it ends."""

from dataclasses import dataclass
from itertools import pairwise

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from tradeoffs.common import chat_templates
from tradeoffs.plumbing.errors import UserError

SHOWN = 30  # characters of a text on each side of a place in it
OTHER = "choose another `prompt` for this model in params.yaml, or give it a template of your own there (`templates`)"


@dataclass(frozen=True)
class Turns:
    """`ids` up to the end of the last answer, and from where to where each answer goes in them, with the token that
    ends it."""

    ids: list[int]
    answers: list[tuple[int, int]]


class UnsplitError(Exception):
    """In this tokenizer text does not split where an answer begins: tokenised together, prompt and answer are other
    tokens than the prompt's own with the answer's behind them."""

    def __init__(self, where: str, prompt: str, answer: str):
        super().__init__(where, prompt, answer)
        self.where, self.prompt, self.answer = where, prompt, answer

    def __str__(self) -> str:
        """Where it was met, and what would let the text split, if that is known."""
        space = self.prompt[len(self.prompt.rstrip(" ")) :]
        hint = "; the prompt ends in a space, which tokenizers give to the word behind it: take it out of the template"
        return f"{self.where}: {_around(self.prompt, self.answer)}{hint if space else ''}"


def split(tokenizer: PreTrainedTokenizerFast, messages: list[dict], stops: list[int], where: str, apart: bool) -> Turns:
    """The token ids of a conversation, and its answers in them.

    What is generated later must begin where the answer did in training. An answer begins where the prompt of the turns
    before it ends, with the mark that asks for an answer; that this is so is checked turn by turn, in token ids where
    all is tokenised together. `apart`: each prompt and each answer by itself, as what is generated follows the prompt's
    own ids. Raises UnsplitError where only the latter can be, and UserError where the template lets no answer be
    learned as it is asked for.
    """
    whole = rendered(tokenizer, messages, where)
    turns = []
    for at in (number for number, message in enumerate(messages) if message["role"] == "assistant"):
        prompt = rendered(tokenizer, messages[:at], where, asks=True)
        turn = whole if at == len(messages) - 1 else rendered(tokenizer, messages[: at + 1], where)
        turns.append((at, prompt, turn))
    cut = _apart if apart else _together
    return cut(tokenizer, whole, turns, stops, where)


def _together(
    tokenizer: PreTrainedTokenizerFast, whole: str, turns: list[tuple[int, str, str]], stops: list[int], where: str
) -> Turns:
    ids, answers = encoded(tokenizer, whole), []
    for at, prompt, turn in turns:
        asked, written = encoded(tokenizer, prompt), ids if turn == whole else encoded(tokenizer, turn)
        if written[: len(asked)] != asked:
            _must_begin(turn, prompt, where)
            raise UnsplitError(where, prompt, turn[len(prompt) :])
        end = len(asked) + _end(written[len(asked) :], stops, where)
        if ids[:end] != written[:end]:
            if whole.startswith(turn):
                raise UnsplitError(where, turn, whole[len(turn) :])
            raise UserError(_rewritten(at, where))
        answers.append((len(asked), end))
    return Turns(ids[: answers[-1][1]], answers)


def _apart(
    tokenizer: PreTrainedTokenizerFast, whole: str, turns: list[tuple[int, str, str]], stops: list[int], where: str
) -> Turns:
    for at, prompt, turn in turns:
        _must_begin(turn, prompt, where)
        if not whole.startswith(prompt):
            raise UserError(_rewritten(at, where))
    begins = [len(prompt) for _, prompt, _ in turns]
    ids, answers = encoded(tokenizer, whole[: begins[0]]), []
    for (at, _, turn), (begin, following) in zip(turns, pairwise([*begins, len(whole)]), strict=True):
        piece, alone = (encoded(tokenizer, text) for text in (whole[begin:following], turn[begin:]))
        end = _end(alone, stops, where)
        if piece[:end] != alone[:end]:
            raise UserError(_rewritten(at, where))
        answers.append((len(ids), len(ids) + end))
        ids += piece
    return Turns(ids[: answers[-1][1]], answers)


def _end(ids: list[int], stops: list[int], where: str) -> int:
    """How many ids an answer has, with the one that ends it; `ids` begin with it. What a template puts behind that one
    (often a newline) is never generated."""
    for place, token in enumerate(ids):
        if token in stops:
            return place + 1
    raise UserError(
        f"{where}: the prompt template puts no end-of-sequence token after an answer, so a model could not learn to "
        f"stop; let it write eos_token there, or {OTHER}"
    )


def _must_begin(turn: str, prompt: str, where: str) -> None:
    """Raises UserError, which says what would fit, if the text of an answered turn is not the prompt and more."""
    if turn.startswith(prompt):
        return
    same = next((at for at, (a, b) in enumerate(zip(turn, prompt, strict=False)) if a != b), len(turn))
    extra, wanted = prompt[same:], turn[same:]
    if not extra.strip():
        what = f"the prompt ends in {_called(extra)}, which is not there once the answer follows: take it out of what"
        way_out = f"{what} the template writes for add_generation_prompt, or let it write the same before an answer"
    else:
        way_out = f"let it write the same for add_generation_prompt as before an answer, or {OTHER}"
    raise UserError(
        f"{where}: the prompt template does not fit: it asks with {_around(prompt[:same], extra)}, and answers with "
        f"{_around(turn[:same], wanted)}; {way_out}"
    )


def _rewritten(at: int, where: str) -> str:
    return (
        f"{where}: the model's chat template writes message {at + 1} in another way once more messages follow (as "
        f"those do that leave out earlier thinking), so it cannot be learned where it stands; {OTHER}, or end each "
        "conversation with one answer"
    )


def _called(space: str) -> str:
    return {" ": "a space", "\n": "a line break"}.get(space, repr(space))


def _around(before: str, after: str) -> str:
    """A place in a text, as `...before|after...`, written out."""
    left, right = before[-SHOWN:], after[:SHOWN]
    text = f"{'...' if left != before else ''}{left}|{right}{'...' if right != after else ''}"
    return repr(text)


def rendered(tokenizer: PreTrainedTokenizerFast, messages: list[dict], where: str, asks: bool = False) -> str:
    """What the template makes of the messages; `asks`: with the mark that asks for an answer.

    Raises UserError where it fails, or refuses the roles.
    """
    try:
        return chat_templates.rendered(tokenizer, messages, asks)
    except (TemplateError, UserError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"{where}: the model's chat template refuses a conversation of {roles}: {error}; "
            f"change these rows, or {OTHER}"
        ) from error


def encoded(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of a text that a template wrote: whatever special token begins it stands in it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def closing(tokenizer: PreTrainedTokenizerFast) -> int:
    """How many special tokens the tokenizer puts behind a text, as those do that were made to read one as a whole."""
    return len(tokenizer("a")["input_ids"]) - len(opened(tokenizer, "a"))


def opened(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of a text that something follows: what the tokenizer puts before a text is there, what behind it is
    not."""
    whole, own = tokenizer(text, verbose=False)["input_ids"], encoded(tokenizer, text)
    places = range(len(whole) - len(own), -1, -1)
    begin = next((place for place in places if whole[place : place + len(own)] == own), len(whole) - len(own))
    return list(whole[: begin + len(own)])
