"""What an example of a prepared data set asks, what it expects, and what an `answer_pattern` finds in an answer."""

import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tradeoffs.plumbing.errors import UserError

PATIENCE = 5  # CPU seconds that a pattern may take for one text; a sound one takes some millionths of that
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")


def question(example: dict[str, Any]) -> str:
    """All that stands before the answer that is evaluated: the question, or a conversation with who says each turn."""
    if "prompt" in example:
        return example["prompt"]
    *before, _ = example["messages"]
    if len(before) == 1:
        return before[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in before)


def answer(example: dict[str, Any]) -> str:
    """The answer that is evaluated: of a conversation the last one, of a pair the chosen one."""
    return example["answer"] if "answer" in example else example["messages"][-1]["content"]


def picked(pattern: str, text: str) -> str | None:
    """What the one group of a pattern holds where it matches first; None where it matches nowhere or holds nothing.

    The first and without the commas of a number, as GSM8K's authors read `1,234` (grade-school-math, dataset.py,
    extract_answer): a model that goes on after its answer asks itself further questions. Without what ends a sentence,
    or a part of it, behind the number, where lm-evaluation-harness drops a full stop.

    Raises UserError where it takes more than PATIENCE.
    """
    with _patience(pattern, text):
        found = re.search(pattern, text)
    return _THOUSANDS.sub("", (found[1] or "").strip().rstrip(".,").rstrip()) or None if found else None


@contextmanager
def _patience(pattern: str, text: str) -> Iterator[None]:
    """Ends a search that goes on for PATIENCE: some patterns try as many ways as there are atoms in the universe."""
    if threading.current_thread() is not threading.main_thread():  # signals are its alone
        yield
        return

    def too_long(*_: object) -> None:
        raise UserError(
            f"answer_pattern {pattern!r} takes more than {PATIENCE} s on {text[:80]!r} ({len(text)} characters); "
            "change it: what is slow is a repetition within another that matches the same, as (a+)+"
        )

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# In info.json of data/tokens, and in data/lengths, of a tokenizer in which text does not split where it must: what is
# tokenised apart from what it follows, in all rows.
APART = "tokenised_apart"
_APART = {"answers": "a prompt and its answer", "letters": "a multiple-choice question and the letter of an option"}


def tokenised_apart(found: Mapping[str, Any]) -> list[str]:
    """What such a file names, in words; nothing where all is tokenised together."""
    return [_APART[name] for name in found.get(APART, ())]
