"""Which of some variants to take: the best that fits, the cheapest that is good enough beside it, and what is between.

Of arrays alone, read from nowhere, so that tables of any numbers can be decided, and in few enough lines that the page
decides in the browser as `python -m tradeoffs.decide` does. tradeoffs.results.decision fills a Table from what was
measured. V variants of one model and data set stand in their rank, the best first; better is higher in all values.

The critical value in `width` is that of all V, whatever fits: it is no smaller than that of any part of them. So what
is good enough beside some that fit is no longer so only because more fit: limits may take away what a variant is held
against, and nothing else makes it easier. A stricter limit can also turn "good enough" to "one training": where it
takes the best of a variant's own method away, what is left is held against another method, whose training counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradeoffs.results import simultaneous

GOOD, UNDECIDED, WORSE, ONE = "good enough", "undecided", "too much worse", "one training"
BEST = "best found"
UNFIT = "beyond a limit"
# Why something that could be taken was not, beside a cost that it is told apart in as dearer.
GUARDS, RANK = "guards", "rank"
RUNTIME, DEVICE = "runtime", "device"
MINIMA = ("min_tokens_per_second",)  # limits from below; all others but the runtime are from above
LOSS = "max_loss_of."  # and a metric's name: a limit of how much worse it may be


@dataclass(frozen=True)
class Quality:
    """V variants by one metric, on the same items. `width` is the critical value times the standard error."""

    value: np.ndarray  # (V,), higher is better
    width: np.ndarray  # (V, V), of the bounds of a difference
    margin: np.ndarray  # (V,), how much worse is good enough, were this one the best
    method: np.ndarray  # (V,), a number for each tuning method
    once: np.ndarray  # (V,), bool: its method was trained with one seed, so nobody knows what another would give


@dataclass(frozen=True)
class Table(Quality):
    """All that a choice is made of. `limited`: what each limit is held against, the worse end of its interval; NaN
    where it was not measured.
    """

    names: Sequence[str]
    cheaper: Mapping[str, np.ndarray]  # (V, V) by the name of a cost, bool: row is told apart from column as cheaper
    lost: np.ndarray  # (V, V), how many guards the row loses, were the column the best
    limited: Mapping[str, np.ndarray]  # (V,) by the name of a limit
    runtime: Sequence[str]
    there: np.ndarray | None = None  # (V,), bool: can run on the device that is decided for; None: all can

    def as_json(self) -> dict[str, Any]:
        """This table as the page reads it: all fields by their names, in rank.

        names, runtime: V texts; value, margin: V numbers; method: V integers; once: V of 0 or 1; width: V rows of V
        numbers; cheaper: by the name of a cost V rows of V of 0 or 1, [row][column]: row is cheaper; lost: V rows of V
        counts, [variant][best]; limited: by the name of a limit (`max_size_mb`, `max_memory_mb`,
        `min_tokens_per_second`, `max_loss_of.METRIC`) V numbers, null where not measured. Numbers have all their
        digits, so that ends that meet a margin exactly do so there, too. The order of `cheaper` decides among equals.
        there: V of 0 or 1, and no such field where all can run.
        """
        there = {} if self.there is None else {"there": self.there.astype(int).tolist()}
        return there | {
            "names": list(self.names),
            "value": self.value.tolist(),
            "width": self.width.tolist(),
            "margin": self.margin.tolist(),
            "method": self.method.astype(int).tolist(),
            "once": self.once.astype(int).tolist(),
            "cheaper": {cost: found.astype(int).tolist() for cost, found in self.cheaper.items()},
            "lost": self.lost.astype(int).tolist(),
            "limited": {
                limit: [None if np.isnan(one) else float(one) for one in found] for limit, found in self.limited.items()
            },
            "runtime": list(self.runtime),
        }


@dataclass(frozen=True)
class Judged:
    """Verdicts on V variants against the best that fits: `lower` and `upper` (V,) bound the distance from it.

    `words` is UNFIT for what does not fit; its bounds are those of its difference from the best alone.
    """

    best: int
    words: list[str]
    lower: np.ndarray
    upper: np.ndarray

    @property
    def eligible(self) -> list[int]:
        """What can be recommended, best first: what is good enough, and the best found, since nothing better is known.

        In the order of the table.
        """
        return [place for place, found in enumerate(self.words) if found in (GOOD, BEST)]


@dataclass(frozen=True)
class Choice:
    """What to take of what fits. `frontier`: it, then what is cheaper and worse, see `frontier`; `passed_over`: why
    each of the others that could be taken was not: a cost's name, GUARDS or RANK.
    """

    judged: Judged
    recommended: int
    frontier: list[int]
    passed_over: dict[int, str]


def word(lower: float, upper: float, margin: float, unknown: bool) -> str:
    """The verdict that bounds of the distance from the best amount to.

    `unknown`: two methods of which one was trained once, so that nobody knows how much the seed matters; too much worse
    over items alone is said all the same.
    """
    if upper < -margin:
        return WORSE
    if unknown:
        return ONE
    return GOOD if lower > -margin else UNDECIDED


def judge(quality: Quality, fits: np.ndarray) -> Judged:
    """The verdict on each variant (V,) against the best of those that fit. Raises ValueError if none does.

    What does not fit is compared with the best that does alone.
    """
    among = np.flatnonzero(fits)
    if not len(among):
        raise ValueError("nothing fits, so there is no best")
    best = int(among[np.argmax(quality.value[among])])
    difference = quality.value[:, None] - quality.value[None, :]
    lower, upper = simultaneous.bounds(difference, quality.width, fits)
    lower = np.where(fits, lower, (difference - quality.width)[:, best])
    upper = np.where(fits, upper, (difference + quality.width)[:, best])
    margin, words = float(quality.margin[best]), []
    for place, fit in enumerate(fits):
        apart = bool(quality.method[place] != quality.method[best] and (quality.once[place] or quality.once[best]))
        found = word(float(lower[place]), float(upper[place]), margin, apart)
        # By its value alone nobody is good enough: luck may have put one of two that are hard to tell apart first.
        words.append(UNFIT if not fit else found if place != best or found == GOOD else BEST)
    return Judged(best, words, lower, upper)


def choose(table: Table, fits: np.ndarray, cost: str) -> Choice | None:
    """The cheapest, by a cost, of the best of those that fit (V,) and all that are good enough; None if none fits."""
    if not fits.any():
        return None
    judged = judge(table, fits)
    recommended, passed_over = cheapest(table, judged, cost)
    return Choice(judged, recommended, frontier(table, fits, cost), passed_over)


def cheapest(table: Table, judged: Judged, cost: str) -> tuple[int, dict[int, str]]:
    """Of what can be taken one that no other is told apart from as cheaper, and why each of the others is not it.

    Of several the one that loses fewest guards, then the smallest, whatever the cost that is asked about, then the
    fastest, then the lightest in memory, then the better one. The size comes first because it is no matter of the
    clock: so the same variant is named on a busy machine, too, where fewer speeds are told apart. What is of one size
    may differ tenfold in speed: an f16 GGUF, a folder in bf16.
    """
    left, out = judged.eligible, dict[int, str]()
    for why in (cost, GUARDS, *table.cheaper, RANK):
        if why == GUARDS:
            fewest = min(int(table.lost[v, judged.best]) for v in left)
            kept = [v for v in left if table.lost[v, judged.best] == fewest]
        else:
            kept = left[:1] if why == RANK else _undercut(table, left, why)
        out |= {v: why for v in left if v not in kept}
        left = kept
    return left[0], out


def _undercut(table: Table, some: Sequence[int], cost: str) -> list[int]:
    """Those that no other of them is told apart from as cheaper."""
    return [v for v in some if not any(table.cheaper[cost][other, v] for other in some)]


def frontier(table: Table, fits: np.ndarray, cost: str) -> list[int]:
    """The Pareto set of quality and a cost, dearest first: what is as good and told apart as cheaper there is none.

    It begins with the cheapest of the best that fits and all that are good enough. Then, again and again, among all
    that are told apart as cheaper still: the cheapest of their best and those that are good enough beside it.
    """
    left, found = fits.copy(), list[int]()
    while left.any():
        found.append(cheapest(table, judge(table, left), cost)[0])
        left = left & table.cheaper[cost][:, found[-1]]
    return found


def misses(table: Table, limits: Mapping[str, float | str]) -> list[dict[str, float]]:
    """Of each variant the limits that it is beyond, and by which part of the limit; infinitely where that cannot be
    said: another runtime, what was not measured, or what cannot run on the device that is decided for, which no limit
    has to ask. What has an entry does not fit.

    `limits` by the names of `limited`, and RUNTIME. Raises KeyError for one that the table does not know.
    """
    found = list[dict[str, float]]()
    for place in range(len(table.names)):
        over = {} if table.there is None or table.there[place] else {DEVICE: np.inf}
        for name, limit in limits.items():
            if isinstance(limit, str):
                by = 0.0 if table.runtime[place] == limit else np.inf
            else:
                value = float(table.limited[name][place])
                by = (limit - value if name in MINIMA else value - limit) / limit
            if not by <= 0:
                over[name] = np.inf if np.isnan(by) else by
        found.append(over)
    return found


def nearest(missed: Sequence[Mapping[str, float]]) -> int:
    """Of variants that each miss something the one that misses least: fewest limits infinitely, then the smallest part
    of the limit that it is furthest beyond, then the better one.
    """

    def far(place: int) -> tuple[int, float]:
        known = [by for by in missed[place].values() if np.isfinite(by)]
        return len(missed[place]) - len(known), max(known, default=0.0)

    return min(range(len(missed)), key=far)
