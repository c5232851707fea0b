"""What a gate says: a row for each number that was judged, the variants and decisions they are of, and the verdict."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.gate.policy import Policy
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results
from tradeoffs.revisions import Revision

PASS: Final = "PASS"
BETTER: Final = "BETTER"
SAME: Final = "SAME"
WORSE: Final = "WORSE"
NOT_SHOWN: Final = "NOT SHOWN"
NOT_COMPARED: Final = "NOT COMPARED"
LEFT_OUT: Final = "LEFT OUT"  # said, and of no effect: a speed that another machine measured
Word = Literal["PASS", "BETTER", "SAME", "WORSE", "NOT SHOWN", "NOT COMPARED", "LEFT OUT"]
Verdict = Literal["PASS", "WORSE", "NOT SHOWN"]
Moved = Literal["", "better", "worse"]
EXIT: dict[Verdict, int] = {PASS: 0, WORSE: 1, NOT_SHOWN: 2}


@dataclass(frozen=True)
class Row:
    """A number of a variant, on both sides.

    `difference` is head less base in the number's own sign. Its ends are one-sided 95 % bounds: it is above `low`, and
    it is below `high`, each with 95 %. `margin` is how much worse is no loss, in the number's own unit. `items` is how
    many test items would decide what is NOT SHOWN; None where nothing is open, or no number would. `moved`: by the
    simultaneous interval it is not what it was, which can be within the margin. `needed`: by how many
    standard errors any row of this gate has to lie beyond its margin to be WORSE.
    """

    name: str
    label: str
    kind: Literal["quality", "cost"]
    base: float | None
    head: float | None
    difference: Interval | None
    margin: float | None
    word: Word
    items: int | None = None
    note: str = ""
    moved: Moved = ""
    needed: float | None = None


@dataclass(frozen=True)
class Gated:
    """A variant of both sides. Without rows there was nothing to compare, and `note` says why.

    `missing`: it should have been compared and could not be.
    """

    variant: Variant
    rows: list[Row]
    note: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Decided:
    """What is recommended of a model and data set on each side, and the one held against the other.

    No rows where both are the same variant: its own are those of `Gated`.
    """

    pair: Pair
    before: str | None
    after: str | None
    rows: list[Row]
    note: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Gate:
    """`notes` are what a reader has to know of the comparison; `before` and `after` are what both sides measured."""

    base: Revision
    head: Revision
    policy: Policy
    gated: list[Gated]
    decisions: list[Decided]
    notes: list[str]
    before: Results = field(repr=False)
    after: Results = field(repr=False)

    @property
    def compared(self) -> list[Gated | Decided]:
        return [*self.gated, *self.decisions]

    def rows(self) -> Iterator[tuple[Gated | Decided, Row]]:
        """Every row with what it is of."""
        for one in self.compared:
            for row in one.rows:
                yield one, row

    @property
    def verdict(self) -> Verdict:
        words = [row.word for _, row in self.rows()]
        if WORSE in words:
            return WORSE
        judged = any(row.kind == "quality" and row.word != LEFT_OUT for _, row in self.rows())
        missing = any(one.missing for one in self.compared)
        return NOT_SHOWN if missing or not judged or {NOT_SHOWN, NOT_COMPARED} & set(words) else PASS

    @property
    def exit_code(self) -> int:
        return EXIT[self.verdict]
