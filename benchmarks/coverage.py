"""Whether intervals and verdicts keep their word, on made-up answers whose true quality is known.

    python -m benchmarks.coverage [--quick]

No model and no peer: the project's own functions, many times on new items, counted. One seed, so the figures are the
same on every machine. A quick run repeats everything a few times.
"""

from argparse import Namespace

import numpy as np

from benchmarks import common
from benchmarks.drawn import EXACT, F1, Drawn
from tradeoffs.common.cells import Cell
from tradeoffs.results import intervals, verdicts

CELL = Cell("demo", "demo", "lora")
MARGIN = 0.02
ITEMS = 300
SEED = 0
MANY, FEWER = 10_000, 1000  # repetitions


def main(arguments: Namespace) -> None:
    times = 40 if arguments.quick else 1
    random = np.random.default_rng(SEED)
    held = {
        "f1_of_100": f1(random, MANY // times),
        "share_0.005_of_300": exact(random, MANY // times),
        "seeds_3": seeds(random, 2 * FEWER // times, spread=0.02),
        "seeds_3_of_no_effect": seeds(random, 2 * FEWER // times, spread=0.0),
    }
    wrong = {
        "good_of_2": wrongly(random, FEWER // times, others=0, differ=0.1),
        "good_of_2_alike": wrongly(random, FEWER // times, others=0, differ=0.0),
        "good_of_20": wrongly(random, FEWER // times, others=18, differ=0.1),
        "good_of_20_alike": wrongly(random, FEWER // times, others=18, differ=0.002),
        "good_of_2_right_or_wrong": wrongly(random, FEWER // times, others=0, differ=0.0, name=EXACT),
        "good_of_20_right_or_wrong": wrongly(random, FEWER // times, others=18, differ=0.1, name=EXACT),
    }
    called = {name: share for name, (share, _) in wrong.items()}
    common.write(
        "coverage",
        None,
        None,
        {"f1_off": held["f1_of_100"] - 0.95} | held | called,
        quick=arguments.quick,
        at_least={"share_0.005_of_300": 0.95, "seeds_3": 0.94, "seeds_3_of_no_effect": 0.94},
        at_most={"f1_off": 0.01} | dict.fromkeys(called, 0.05),
        came_out_best={name: share for name, (_, share) in wrong.items()},
        margin=MARGIN,
        repetitions={"of intervals": MANY, "of good enough": FEWER, "of seeds": 2 * FEWER},
    )


def answers(random: np.random.Generator, size: int | tuple[int, ...]) -> np.ndarray:
    """F1 of answers as they are found: a fifth wholly wrong, two fifths wholly right, the others in between."""
    kind = random.random(size)
    return np.where(kind < 0.2, 0.0, np.where(kind < 0.6, 1.0, random.beta(2, 2, size)))


def f1(random: np.random.Generator, repetitions: int) -> float:
    """How often the interval of a mean F1 over 100 answers holds the true mean, 0.6."""
    draws: dict[int, np.ndarray] = {}
    variant = CELL.variant("trained")
    hits = 0
    for _ in range(repetitions):
        found = Drawn({variant: answers(random, 100)}, draws=draws).interval(variant, F1)
        hits += found.low <= 0.6 <= found.high
    return hits / repetitions


def exact(random: np.random.Generator, repetitions: int) -> float:
    """How often the interval of a share of right answers holds the true one, 0.005 of 300."""
    values = np.zeros(21)
    hits = 0
    for right in random.binomial(300, 0.005, repetitions):
        values[:] = right / 300
        found = intervals.share(int(right), 300, values)
        hits += found.low <= 0.005 <= found.high
    return hits / repetitions


def wrongly(
    random: np.random.Generator, repetitions: int, others: int, differ: float, name: str = F1
) -> tuple[float, float]:
    """How often one that is worse than the best by a little more than the margin is called good enough.

    And how often it is the best found, by which it can be recommended without being called so.

    Besides the two there are `others`, all of them as good as the best, so that any may come out first; each has
    answers of its own to a share `differ` of the items. The worse one has some wholly wrong beyond that.
    """
    behind = 1.01 * MARGIN
    variants = [CELL.variant(f"q{place}") for place in range(others + 2)]
    draws: dict[int, np.ndarray] = {}
    wrong = first = 0
    for _ in range(repetitions):
        hard = answers(random, ITEMS)
        scores = [np.where(random.random(ITEMS) < differ, answers(random, ITEMS), hard) for _ in variants]
        lost = random.random(ITEMS) < behind / 0.6  # of a mean of 0.6
        scores[-1] = np.where(lost, 0.0, scores[-1])
        if name == EXACT:
            scores = [(values > 0.5).astype(np.float64) for values in scores]
        results = Drawn(dict(zip(variants, scores, strict=True)), name=name, margin=MARGIN, draws=draws)
        standing = verdicts.standing(results, variants, name)
        first += standing.best == variants[-1]
        wrong += standing.verdicts[variants[-1]].word == verdicts.GOOD
    return wrong / repetitions, first / repetitions


def seeds(random: np.random.Generator, repetitions: int, spread: float) -> float:
    """How often the interval of a difference of two methods holds the true one, 0: three seeds of each.

    A seed moves a method by `spread` (standard deviation); every training has answers of its own to a tenth of the
    items.
    """
    draws: dict[int, np.ndarray] = {}
    cells = [Cell("demo", "demo", method) for method in ("full", "lora")]
    hits = 0
    for _ in range(repetitions):
        hard = answers(random, ITEMS)
        trainings = {cell: [_training(random, hard, spread) for _ in range(3)] for cell in cells}
        first = {cell.variant("trained"): some[0] for cell, some in trainings.items()}
        further = {
            cell: {cell.variant(f"seed{n}"): values for n, values in enumerate(some[1:])}
            for cell, some in trainings.items()
        }
        results = Drawn(first, further=further, draws=draws)
        ours, theirs = results.variants
        found = verdicts.against(results, ours, theirs, F1).difference
        hits += found.low <= 0 <= found.high
    return hits / repetitions


def _training(random: np.random.Generator, hard: np.ndarray, spread: float) -> np.ndarray:
    own = np.where(random.random(len(hard)) < 0.1, answers(random, len(hard)), hard)
    return own + random.normal(0, spread)


if __name__ == "__main__":
    common.run(main)
