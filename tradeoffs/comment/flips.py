"""Test questions whose answer was right in one commit and is wrong in another, of what each recommends."""

from collections.abc import Sequence
from dataclasses import dataclass

from tradeoffs.comment.texts import shown
from tradeoffs.common.cells import Variant
from tradeoffs.report.formatting import Lines
from tradeoffs.results import answers
from tradeoffs.results.answers import Asked
from tradeoffs.results.results import Results

SHOWN = 5  # of each kind
QUESTION, ANSWER = 90, 60  # characters of each


@dataclass(frozen=True)
class Flips:
    """Pairs of one answer before and one after, to the same question."""

    asked: int
    lost: list[tuple[Asked, Asked]]
    won: list[tuple[Asked, Asked]]

    @property
    def count(self) -> int:
        return len(self.lost) + len(self.won)


def flips(before: Results, old: Variant, after: Results, new: Variant) -> Flips | str:
    """Between two variants of two commits, which may be the same one; or why there are none to show."""
    mine, other = answers.asked(before, old), answers.asked(after, new)
    if not mine or not other:
        return "nothing is answered on this data set"
    if _questions(mine) != _questions(other):
        return "the two commits were not asked the same test questions"
    both = list(zip(mine, other, strict=True))
    lost = [pair for pair in both if pair[0].exact and not pair[1].exact]
    won = [pair for pair in both if pair[1].exact and not pair[0].exact]
    # Those first whose answers are furthest from each other.
    lost.sort(key=lambda pair: (pair[1].f1, pair[1].id))
    won.sort(key=lambda pair: (pair[0].f1, pair[0].id))
    return Flips(len(both), lost, won)


def _questions(some: Sequence[Asked]) -> list[tuple[str, str, str]]:
    return [(one.id, one.question, one.expected) for one in some]


def section(found: Flips | str) -> Lines:
    """How many there are, and the first few of each kind, each on a line."""
    if isinstance(found, str):
        return [f"None to show: {found}."]
    if not found.count:
        return [f"None: of {found.asked:,} test questions the same ones are answered exactly right."]
    moved = f"{len(found.lost)} went from right to wrong, {len(found.won)} from wrong to right"
    lines = [f"Of {found.asked:,} test questions {moved}."]
    for word, some, place in (("right → wrong", found.lost, 1), ("wrong → right", found.won, 0)):
        if some:
            lines += ["", f"**{word}**{f', {SHOWN} of {len(some)}' if len(some) > SHOWN else ''}", ""]
        lines += [
            f"- {shown(pair[0].question, QUESTION)}: expected {shown(pair[0].expected, ANSWER)}, "
            f"{'now' if place else 'before'} {shown(pair[place].generated, ANSWER)}"
            for pair in some[:SHOWN]
        ]
    return lines
