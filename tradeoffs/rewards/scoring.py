"""The reward of a methods block: what its functions, and the code of its files, say of an answer."""

import hashlib
import linecache
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from traceback import walk_tb
from types import ModuleType
from typing import Any

from tradeoffs.common.texts import on_a_line
from tradeoffs.plumbing.errors import UserError
from tradeoffs.rewards.functions import FUNCTIONS, exact_match_of
from tradeoffs.rewards.names import ARGUMENTS, FUNCTION, given_prompt, is_file

SHOWN = 60  # characters of an answer that a message quotes
TRIED = 100  # rows of which answers are tried out, before anything is trained


@dataclass(frozen=True)
class Scoring:
    """`functions`, each called with an answer, what was expected and the prompt, and how much each counts.

    Answers to a question are compared with each other, so each of them is paid by the same functions: by those that say
    something of the expected one.
    """

    functions: dict[str, Callable[[str, str, str], float | None]]
    weights: dict[str, float]
    _says: dict[tuple[str, str, str], bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def one(self, name: str, answer: str, expected: str, prompt: str) -> float | None:
        """What a function says of an answer; None where it has nothing to say of the question.

        Raises UserError where a file's own function fails or gives no number, and where it says something of some
        answers to a question and nothing of others.
        """
        found = self.functions[name](answer, expected, prompt)
        if (name, expected, prompt) not in self._says:
            of_expected = found if answer == expected else self.functions[name](expected, expected, prompt)
            self._says[name, expected, prompt] = of_expected is not None
        if (found is not None) != self._says[name, expected, prompt]:
            said, other = ("a number", "None") if found is not None else ("None", "a number")
            raise UserError(
                f"{name}: {FUNCTION} gave {said} for the answer {_text(answer)} and {other} for the expected "
                f"{_text(expected)}; answers to one question are compared, so it says something of all of them or of "
                "none: give a number, 0 for what is worth nothing"
            )
        return found

    def each(self, answer: str, expected: str, prompt: str) -> dict[str, float | None]:
        """What every function says. Raises as `one` does."""
        return {name: self.one(name, answer, expected, prompt) for name in self.functions}

    def total(self, found: dict[str, float | None]) -> float | None:
        """The weighted sum over those that say something, as TRL has it; None where none does."""
        said = [self.weights[name] * value for name, value in found.items() if value is not None]
        return sum(said) if said else None

    def known(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of `answer` and `prompt` that can earn something: of that very answer some function says a number."""
        return [r for r in rows if self.total(self.each(r["answer"], r["answer"], r["prompt"])) is not None]

    def try_out(self, rows: Sequence[dict[str, Any]]) -> None:
        """Asks about answers as a model may give them to the first of these rows: none, one that was cut off, the right
        one to another question. Raises as `one` does."""
        for row, other in zip(rows[:TRIED], [*rows[1:], *rows[:1]], strict=False):
            for answer in ("", row["answer"][: len(row["answer"]) // 2], other["answer"]):
                self.each(answer, row["answer"], row["prompt"])


def scoring(weights: dict[str, float], answer_pattern: str | None, code: dict[str, str]) -> Scoring:
    """Of a block's `functions`. `exact_match` goes by a data set's `answer_pattern`, as the metric does; `code` holds
    the text of each file that is named. Raises UserError for code that does not run."""
    return Scoring({name: _function(name, answer_pattern, code) for name in weights}, dict(weights))


def _function(name: str, answer_pattern: str | None, code: dict[str, str]) -> Callable[[str, str, str], float | None]:
    if is_file(name):
        return _own(name, code[name])
    plain = exact_match_of(answer_pattern) if name == "exact_match" and answer_pattern else FUNCTIONS[name]
    return lambda answer, expected, _: plain(answer, expected)


def _own(name: str, text: str) -> Callable[[str, str, str], float | None]:
    """The function of a file, with what goes wrong in it said as one message."""
    module = ModuleType(f"own_reward_{hashlib.sha256(name.encode()).hexdigest()[:16]}")
    module.__file__ = name
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)  # for tracebacks: as it ran
    sys.modules[module.__name__] = module  # where dataclasses look for what an annotation means
    with _said(name, "does not run: "):
        exec(compile(text, name, "exec"), module.__dict__)
        made = getattr(module, FUNCTION)
    given = given_prompt(text)

    def own(answer: str, expected: str, prompt: str) -> float | None:
        third = (prompt,) if given == "third" else ()
        named = {ARGUMENTS[2]: prompt} if given == "named" else {}
        with _said(name, "", f", of the answer {_text(answer)}"):
            found = made(answer, expected, *third, **named)
            number = float(found) if isinstance(found, Real) else math.nan
            wrong = None if found is None or math.isfinite(number) else repr(found)
        if wrong is not None:
            raise UserError(
                f"{name}: {FUNCTION} gave {_quoted(wrong)} for the answer {_text(answer)}; it must give "
                "a finite number, or None where it has nothing to say of the question"
            )
        return None if found is None else number

    return own


@contextmanager
def _said(name: str, before: str, after: str = "") -> Iterator[None]:
    """Turns whatever ends the code of a file into one message, with the line that it came from.

    `sys.exit()` too, which no training is to end by without a word; not the interrupt of whoever sits there.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is KeyboardInterrupt:
            raise
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == name]
        where = f"line {lines[-1]}: " if lines else ""
        what = f": {_quoted(str(error), 200)}" if str(error) else ""
        raise UserError(f"{name}: {before}{where}{type(error).__name__}{what}{after}") from error


def _text(answer: str) -> str:
    """An answer in a message: in quotes, or nobody sees one that is empty."""
    return f"'{_quoted(answer)}'"


def _quoted(text: str, most: int = SHOWN) -> str:
    return on_a_line(text if len(text) <= most else f"{text[:most]}...")
