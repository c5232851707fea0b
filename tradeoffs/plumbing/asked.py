"""Multiple choice as people read it: a question, its options, the chosen and the right letter.

`tradeoffs.questions` shows what was answered; an evaluation shows it while it runs, where the environment variable
TRADEOFFS_PRINT_QUESTIONS is set to anything but 0: what `python -m tradeoffs.repro --print-questions` sets. No output
depends on it, so it is no knob of params.yaml, and to switch it on runs nothing again.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tradeoffs.common.texts import harmless, on_a_line

Row = Mapping[str, Any]
WANTED = "TRADEOFFS_PRINT_QUESTIONS"
BAR = "? "  # before each line that is shown while an evaluation runs; no other line of a log begins so


@dataclass(frozen=True)
class Answered:
    """One question and what a variant said; probabilities and shares are those of the options, in order."""

    id: str
    subject: str
    question: str
    choices: list[str]
    probabilities: list[float]
    chosen: int
    right: int

    @classmethod
    def of(cls, asked: Row, row: Row) -> "Answered":
        """Of a question as `tokenize` has it, and its row of the items."""
        probabilities = [math.exp(logprob) for logprob in row["option_logprobs"]]
        texts = (asked["question"], asked["choices"])
        return cls(row["item"], row["subject"], *texts, probabilities, row["chosen"], row["correct_option"])

    @property
    def shares(self) -> list[float]:
        whole = sum(self.probabilities)
        return [p / whole if whole else 1 / len(self.probabilities) for p in self.probabilities]

    @property
    def is_right(self) -> bool:
        return self.chosen == self.right


def letter(option: int) -> str:
    return chr(ord("A") + option)


def shown(asked: Answered) -> Iterator[str]:
    """Lines for one question."""
    verdict = "right" if asked.is_right else f"wrong: {letter(asked.chosen)}, not {letter(asked.right)}"
    yield f"{on_a_line(asked.subject)} {on_a_line(asked.id)}  {verdict}"
    yield harmless(asked.question.strip())
    for index, choice in enumerate(asked.choices):
        marks = ("chosen" if index == asked.chosen else "") + (" right" if index == asked.right else "")
        numbers = f"{asked.probabilities[index]:9.3g}  {asked.shares[index]:6.1%}"
        first, *others = harmless(choice).split("\n")
        yield f"  {numbers}  {marks:<12}  {letter(index)}. {first}"
        yield from (f"{'':38}{line}" for line in others)  # so that none passes for another option
    yield ""


def wanted() -> bool:
    return os.environ.get(WANTED, "0") not in ("", "0")


def print_while_running(variant: str, questions: Sequence[Row], rows: Sequence[Row]) -> None:
    """What was just answered, above the progress bars; nothing unless it is wanted."""
    if not wanted():
        return
    from tqdm import tqdm

    lines: list[str] = []
    for question, row in zip(questions, rows, strict=True):
        first, *others = (line for text in shown(Answered.of(question, row)) for line in text.split("\n"))
        lines += [f"{variant}  {first}", *others]
    # At once, so that what runs beside it, or the bar below it, comes between no two of them.
    tqdm.write("\n".join(f"{BAR}{line}".rstrip() for line in lines), file=sys.stdout)
    sys.stdout.flush()  # into a log, too
