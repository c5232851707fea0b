"""Test questions with what was expected and what variants answered: every text once, as many as there is room for."""

from dataclasses import dataclass
from typing import Any

from tradeoffs.common.cells import Pair
from tradeoffs.common.texts import harmless
from tradeoffs.explore.writing import size
from tradeoffs.results import answers
from tradeoffs.results.answers import Asked
from tradeoffs.results.results import Results

LONGEST = 2000  # characters of a text; of what is longer the page has the beginning, and says so


@dataclass(frozen=True)
class Items:
    """The answers of all variants of a pair, in their order, to the same questions; `order`: which are kept first."""

    rows: list[list[Asked]]
    order: list[int]

    def most(self, count: int) -> dict[str, Any]:
        """`count` of the questions, in the order they were asked.

        `texts` holds each text once. `questions` and `expected` are places in it; of each variant `answers` are such
        places, `f1` thousandths, and `exact` a letter for each question: 1 where it is exactly right.
        """
        texts: dict[str, int] = {}

        def place(text: str) -> int:
            return texts.setdefault(_short(text), len(texts))

        kept = sorted(self.order[:count])
        some = [[row[number] for number in kept] for row in self.rows]
        return {
            "asked": len(self.order),
            "questions": [place(one.question) for one in some[0]],
            "expected": [place(one.expected) for one in some[0]],
            "answers": [[place(one.generated) for one in row] for row in some],
            "f1": [[round(1000 * one.f1) for one in row] for row in some],
            "exact": ["".join("1" if one.exact else "0" for one in row) for row in some],
            "texts": list(texts),
        }


def of_pair(results: Results, pair: Pair, seed: int) -> Items | None:
    """None of a text, which asks nothing. Raises UserError if the variants were not all asked the same."""
    rows = [answers.asked(results, variant) for variant in results.of(pair)]
    if not rows[0]:
        return None
    for other in rows[1:]:
        answers.beside(rows[0], other)
    places = {one.id: number for number, one in enumerate(rows[0])}
    return Items(rows, [places[one.id] for one in answers.drawn(rows[0], len(places), seed)])


def fitting(every: list[Items | None], room: int) -> list[dict[str, Any] | None]:
    """As many questions of each, but none of what has none, as fit into `room` bytes of JSON together."""
    low, high = 0, max((len(one.order) for one in every if one), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if size([one.most(middle) if one else None for one in every]) <= room:
            low = middle
        else:
            high = middle - 1
    return [one.most(low) if one else None for one in every]


def _short(text: str) -> str:
    shown = harmless(text)
    more = len(shown) - LONGEST
    return shown if more <= 0 else f"{shown[:LONGEST]} ... ({more:,} more characters)"
