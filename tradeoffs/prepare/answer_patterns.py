"""Whether an `answer_pattern` finds in every expected answer what exact match compares."""

import json
from collections.abc import Iterator
from pathlib import Path

from tradeoffs.common.examples import answer, picked, question
from tradeoffs.plumbing.errors import UserError

TRIED = 500  # characters of the texts that a pattern is tried on: what a model answers can be as long, and as dull
SHOWN = 80  # characters of a question, and of the end of an answer
EVALUATED = ("test", "seen")  # splits whose answers are compared


def check(folder: Path, pattern: str, where: str) -> None:
    """Raises UserError that names a row of the splits in `folder` in whose answer the pattern finds nothing, and for a
    pattern that takes too long: for one of them, or for what a model that repeats itself may answer."""
    for split in EVALUATED:
        count, without = 0, []
        with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                count += 1
                if picked(pattern, answer(json.loads(line))) is None:
                    without.append(line)
        if without:
            first = json.loads(without[0])
            asked, expected = question(first), answer(first)
            raise UserError(
                f"{where}: {pattern!r} finds nothing in {len(without)} of {count} expected answers of {split}, first "
                f"in the row that asks {asked[:SHOWN]!r}, whose answer ends with {expected[-SHOWN:]!r}; change the "
                "pattern, or leave such rows out"
            )
        for text in _dull(answer(json.loads(line))):
            picked(pattern, text)


def _dull(expected: str) -> Iterator[str]:
    """An answer, and each of its characters, again and again; the end is one that no pattern waits for."""
    for part in (expected, *sorted(set(expected))[:SHOWN]):
        yield (part * TRIED)[:TRIED] + "\0"
