"""Whether an `answer_pattern` finds in every expected answer what exact match compares."""

import json
from pathlib import Path

from tradeoffs.common.examples import answer, picked, question
from tradeoffs.plumbing.errors import UserError

SHOWN = 80  # characters of a question, and of the end of an answer
EVALUATED = ("test", "seen")  # splits whose answers are compared


def check(folder: Path, pattern: str, where: str) -> None:
    """Raises UserError that names a row of the splits in `folder` in whose answer the pattern finds nothing."""
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
