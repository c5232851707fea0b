"""The reward of a methods block: what its functions, and the code of its files, say of an answer."""

import inspect
import linecache
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import ModuleType
from typing import Any

from tradeoffs.common.texts import on_a_line
from tradeoffs.plumbing.errors import UserError
from tradeoffs.rewards.functions import FUNCTIONS, exact_match_of
from tradeoffs.rewards.names import FUNCTION, is_file

SHOWN = 60  # characters of an answer that a message quotes


@dataclass(frozen=True)
class Scoring:
    """`functions`, each called with an answer, what was expected and the prompt, and how much each counts."""

    functions: dict[str, Callable[[str, str, str], float | None]]
    weights: dict[str, float]

    def each(self, answer: str, expected: str, prompt: str) -> dict[str, float | None]:
        """What every function says; None: nothing. Raises UserError where a file's own fails, or gives no number."""
        return {name: function(answer, expected, prompt) for name, function in self.functions.items()}

    def total(self, found: dict[str, float | None]) -> float | None:
        """The weighted sum over those that say something, as TRL has it; None where none does."""
        said = [self.weights[name] * value for name, value in found.items() if value is not None]
        return sum(said) if said else None

    def known(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of `answer` and `prompt` that can earn something: of that very answer some function says a number."""
        return [r for r in rows if self.total(self.each(r["answer"], r["answer"], r["prompt"])) is not None]


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
    module = ModuleType(f"own_reward_{abs(hash(name))}")
    module.__file__ = name
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)  # for tracebacks: as it ran
    try:
        exec(compile(text, name, "exec"), module.__dict__)
    except Exception as error:
        raise UserError(f"{name}: does not run: {_said(error, name)}") from error
    made = getattr(module, FUNCTION)
    takes_prompt = _takes_three(made)

    def own(answer: str, expected: str, prompt: str) -> float | None:
        try:
            found = made(answer, expected, prompt) if takes_prompt else made(answer, expected)
        except Exception as error:
            raise UserError(f"{name}: {_said(error, name)}, of the answer {_quoted(answer)}") from error
        if found is None:
            return None
        if not isinstance(found, Real) or not math.isfinite(found):
            raise UserError(
                f"{name}: {FUNCTION} gave {_quoted(repr(found))} for the answer {_quoted(answer)}; it must give "
                "a finite number, or None where it has nothing to say"
            )
        return float(found)

    return own


def _takes_three(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind("", "", "")
    except TypeError:
        return False
    return True


def _said(error: Exception, name: str) -> str:
    """The error with the line of the file that it came from."""
    lines = []
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == name:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {_quoted(str(error), 200)}"


def _quoted(text: str, most: int = SHOWN) -> str:
    return on_a_line(text if len(text) <= most else f"{text[:most]}...")
