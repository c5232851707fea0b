"""The prompt template of a checkpoint, a program in Jinja, as the few strings that it puts around turns, and these as
the Go template that Ollama reads, wherever that says the same."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from tradeoffs.common import chat_templates
from tradeoffs.plumbing.errors import UserError

Messages = list[dict[str, str]]
Render = Callable[[Messages], str]  # a conversation, with the mark that asks for an answer
# What no template holds; to find what stands around it.
MARKS = tuple(f"QZX{name}XZQ" for name in ("system", "question", "answer", "further"))
TRICKY = (
    "What is 7 and 1?",
    "two\n\nparagraphs, and\n\nthree",
    "one line\nand another\twith a tab",
    "{{ bos_token }} {% if x %} {{ .Prompt }} {{- end -}}",
    "naïve 😀 <|im_end|> </s> ### Input:\n<b>",
    # What templates take out of earlier answers.
    "<think>a</think>b",
    "<think>\na\n</think>\n\nb",
    "a</think>b",
    "<thought>a</thought>b",
    "[THINK]a[/THINK]b",
    "<|channel|>analysis<|message|>a<|end|>b",
    "<tool_response>\na\n</tool_response>",
)
DAYS = datetime(2001, 1, 2), datetime(2036, 11, 25)  # what differs between them is the date
SPACED = "  spaces around, and a line break \n"


@dataclass(frozen=True)
class Pieces:
    """What stands before, between and behind the turns of a conversation that ends with a question.

    `system`, `after_system`: None where the template takes no system turn. `trims`: it cuts spaces off around a turn,
    which no template of Go can.
    """

    question: str  # before the first one, where no system turn is
    answer: str  # between a question and its answer; behind the last question too
    further: str  # between an answer and the next question
    system: str | None = None
    after_system: str | None = None
    trims: bool = False

    def written(self, messages: Messages) -> str:
        """The prompt of a conversation of (system,) question, answer, question, ..."""
        text, before = "", ""
        for message in messages:
            text += self._joint(before, message["role"]) + message["content"]
            before = message["role"]
        return text + self.answer

    def _joint(self, before: str, role: str) -> str:
        if role == "assistant":
            return self.answer
        if role == "system":
            return self.system or ""
        return {"": self.question, "system": self.after_system or "", "assistant": self.further}[before]


class _On:
    """A tokenizer whose template takes it for a certain day."""

    def __init__(self, tokenizer: Any, day: datetime) -> None:
        self._tokenizer, self._day = tokenizer, day

    def apply_chat_template(self, messages: Messages, **options: Any) -> str:
        return str(self._tokenizer.apply_chat_template(messages, strftime_now=self._day.strftime, **options))


def pieces(tokenizer: Any) -> Pieces | str:
    """What the template of a tokenizer puts around turns; or why that cannot be said by such pieces, as one that
    changes what it is given."""
    one, other = (_found(partial(_rendered, _On(tokenizer, day))) for day in DAYS)
    return one if one == other or isinstance(one, str) else "it writes the date of the day"


def _rendered(tokenizer: Any, turns: Messages) -> str:
    return chat_templates.rendered(tokenizer, turns, asks=True)


def _found(render: Render) -> Pieces | str:
    """`render` raises UserError or jinja2.TemplateError for roles that the template refuses."""
    from jinja2 import TemplateError

    system, question, answer, further = MARKS
    try:
        before, last = _around(render(_turns(question)), question)
        first, between, behind, ends = _around(render(_turns(question, answer, further)), question, answer, further)
    except (UserError, TemplateError, ValueError) as error:
        return f"it does not put a question, an answer and a further question one behind the other ({error})"
    if (before, last) != (first, between) or between != ends:
        return "it writes a conversation in another way than a first question"
    found = Pieces(before, between, behind)
    try:
        opens, after, ends = _around(render([_turn("system", system), *_turns(question)]), system, question)
        found = Pieces(before, between, behind, opens, after)
        if ends != between:
            return "it writes the question below a system turn in another way"
    except (UserError, TemplateError):
        pass  # it takes none
    except ValueError:
        return "it does not write a system turn as it stands"
    return _tried(render, found)


def _tried(render: Render, found: Pieces) -> Pieces | str:
    for text in TRICKY:
        for messages in _conversations(text, found.system is not None):
            if render(messages) != found.written(messages):
                return f"it changes what it is given, such as {text!r} in a conversation of {len(messages)} turns"
    trims = any(render(turns) != found.written(turns) for turns in _conversations(SPACED, found.system is not None))
    stripped = _conversations(SPACED.strip(), found.system is not None)
    if trims and [render(turns) for turns in _conversations(SPACED, found.system is not None)] != [
        found.written(turns) for turns in stripped
    ]:
        return f"it changes what it is given, such as {SPACED!r}"
    return Pieces(found.question, found.answer, found.further, found.system, found.after_system, trims)


def _conversations(text: str, system: bool) -> list[Messages]:
    found = [_turns(text), _turns(text, text, text), _turns("a", text, "b", text, text)]
    return found + [[_turn("system", text), *turns] for turns in found if system]


def _turns(*texts: str) -> Messages:
    return [_turn(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _around(text: str, *marks: str) -> list[str]:
    """What stands before, between and behind the marks. Raises ValueError unless each is there once, in this order."""
    found = []
    for mark in marks:
        if text.count(mark) != 1:
            raise ValueError("a turn is not written once")
        before, text = text.split(mark)
        found.append(before)
    return [*found, text]


def go_template(found: Pieces, bos: str) -> str:
    """The template of Ollama that says the same, without the `bos` at its beginning that the runtime puts there itself
    (empty: it puts none). Every piece is a quoted string, so that nothing in it is read as an action."""
    question = literal(found.question.removeprefix(bos))
    roles = f'{{{{ if eq .Role "assistant" }}}}{literal(found.answer)}'
    if found.system is not None:
        system = literal(found.system.removeprefix(bos))
        roles += f'{{{{ else if eq .Role "system" }}}}{system}'
        roles += f'{{{{ else if eq $before "system" }}}}{literal(found.after_system or "")}'
    roles += f'{{{{ else if eq $before "assistant" }}}}{literal(found.further)}{{{{ else }}}}{question}{{{{ end }}}}'
    turn = f"{roles}{{{{ .Content }}}}{{{{ $before = .Role }}}}"
    return f'{{{{ $before := "" }}}}{{{{ range .Messages }}}}{turn}{{{{ end }}}}{literal(found.answer)}'


def literal(text: str) -> str:
    """A text as an action of a Go template that writes it: an interpreted string of Go; nothing for an empty text."""
    return f"{{{{ {quoted(text)} }}}}" if text else ""


def quoted(text: str) -> str:
    """A string of Go. Braces, by which simpler readers find actions, and all but ASCII are written by their number."""
    plain = [char.isascii() and char not in "{}\x7f" for char in text]
    return (
        '"' + "".join(json.dumps(c)[1:-1] if p else f"\\U{ord(c):08x}" for c, p in zip(text, plain, strict=True)) + '"'
    )
