"""What to ship of a model and data set: verdicts on quality, what it costs, what it must not lose, and the floor.

Only a variant that is good enough (`verdicts`) can be recommended. Of these the cheapest is, where what is not told
apart costs the same; of several that cost the same, the one that loses fewest guards, then the better one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Copied, Pair, Variant
from tradeoffs.results import costs, ranking, verdicts
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results
from tradeoffs.results.verdicts import GOOD, WORSE, Standing

# Costs that have a Pareto set, and that `decide.cost` can name.
WEIGHED = ("size_mb", "decode_tokens_per_second", "model_memory_mb")
KEPT, LOST, UNCLEAR = "kept", "lost", "unclear"
# What is said to have collapsed: more than half of what was said is the same, and twice as much as was asked for; at
# most so many answers exactly right where F1 is fair.
SAME, FEW_RIGHT, FAIR_F1 = 0.5, 0.05, 0.3
CUT = 0.01  # of the answers: above, F1 is one of answers that were cut


@dataclass(frozen=True)
class Guard:
    """A metric that must stay within its margin, whatever the headline metric says; `difference` is ours - theirs."""

    metric: str
    against: Variant
    difference: Interval
    margin: float
    word: str  # kept, lost or unclear


@dataclass(frozen=True)
class Floor:
    """Copying the answer of the most similar training question; `difference` is the variant's headline - copying's."""

    value: float
    difference: Interval
    margin: float
    beaten: bool  # by more than the margin


@dataclass(frozen=True)
class Decision:
    """`same_cost` are all variants that cost what the recommended one does, itself first, then the better ones.

    `pareto` holds a list of variants for each cost of WEIGHED, see `frontier`.
    """

    pair: Pair
    metric: str
    standing: Standing
    recommended: Variant
    same_cost: list[Variant]
    guards: dict[Variant, list[Guard]]
    floor: Floor | None
    pareto: dict[str, list[Variant]]
    warnings: list[str]


def decide(results: Results, pair: Pair) -> Decision:
    name, cost = ranking.headline(results, pair), results.decide.cost
    everyone = ranking.ranked(results, pair)
    standing = verdicts.standing(results, everyone, name)
    lost = {v: guards(results, v, standing.best) for v in everyone}
    pareto = {key: frontier(results, pair, key) for key in WEIGHED}
    recommended = pareto[cost][0]
    same = [v for v in everyone if v != recommended and not costs.told_apart(results, v, recommended, cost)]
    return Decision(
        pair=pair,
        metric=name,
        standing=standing,
        recommended=recommended,
        same_cost=[recommended, *same],
        guards=lost,
        floor=floor(results, recommended, name),
        pareto=pareto,
        warnings=list(warnings(results, recommended, name)),
    )


def frontier(results: Results, pair: Pair, cost: str) -> list[Variant]:
    """The Pareto set of quality and a cost, dearest first: what is as good and told apart as cheaper there is none.

    It begins with the cheapest variant that is good enough, so there is always one of those in it. Then, again and
    again, among all that are told apart as cheaper still: the cheapest that is good enough beside the best of them.
    """
    name, left, found = ranking.headline(results, pair), ranking.ranked(results, pair), list[Variant]()
    while left:
        standing = verdicts.standing(results, left, name)
        good = [v for v in left if standing.verdicts[v].word == GOOD]
        found.append(_cheapest(results, good, cost))
        left = [v for v in left if costs.cheaper(results, v, found[-1], cost)]
    return found


def _cheapest(results: Results, good: Sequence[Variant], cost: str) -> Variant:
    """Of variants, best first, the cheapest; of several that are not told apart from it, the one that loses fewest
    guards, then the one whose weights are smallest, whatever the cost that is asked about, then the better one.

    The size is in it because it is no matter of the clock: so the same variant is named on a busy machine, too, where
    fewer speeds are told apart.
    """
    sign = 1 if costs.CHEAPER[cost] == "lower" else -1
    pick = min(good, key=lambda v: sign * results.cost[v][cost])
    same = [v for v in good if not costs.told_apart(results, v, pick, cost)]
    best = good[0]
    lost = {v: sum(guard.word == LOST for guard in guards(results, v, best)) for v in same}
    same = [v for v in same if lost[v] == min(lost.values())]
    smallest = min(same, key=lambda v: results.cost[v]["size_mb"])
    return next(v for v in same if not costs.told_apart(results, v, smallest, "size_mb"))


def guards(results: Results, variant: Variant, best: Variant) -> list[Guard]:
    """What `decide.guards` says of a variant; without what was not measured, and without the base where there is none.

    What was measured of the model as trained alone (the loss on general text) is taken from there.
    """
    found = []
    for name, whom in results.decide.guards.items():
        other = best if whom == "best" else results.untouched(variant.pair)
        if other is None:
            continue
        ours, theirs = (v if results.has(v, name) else v.cell.variant(TRAINED) for v in (variant, other))
        if ours == theirs or not (results.has(ours, name) and results.has(theirs, name)):
            continue
        difference, margin = results.compare(ours, theirs, name), results.margin(name, theirs)
        low, high = (difference.low, difference.high) if _higher(name) else (-difference.high, -difference.low)
        word = KEPT if low > -margin else LOST if high < -margin else UNCLEAR
        found.append(Guard(name, theirs, difference, margin, word))
    return found


def floor(results: Results, variant: Variant, name: str) -> Floor | None:
    """The variant against copying; None where nothing is answered, or copying was not asked for."""
    copied: Copied | None = results.floor(variant.pair)
    if copied is None or not results.has(copied, name):
        return None
    difference, margin = results.compare(variant, copied, name), results.margin(name, variant)
    worst = difference.low if _higher(name) else -difference.high
    return Floor(float(results.values(copied, name)[0]), difference, margin, worst > margin)


def warnings(results: Results, variant: Variant, name: str) -> Iterator[str]:
    """What a number of quality alone does not tell of a variant: where its answers have collapsed, or were cut."""
    mine = results.columns[variant]
    test, asked = mine["split"] == "test", mine["split"] == "mmlu"
    if asked.any():
        chosen, right = (Counter(mine[column][asked].astype(int).tolist()) for column in ("chosen", "correct_option"))
        letter, count = chosen.most_common(1)[0]
        if count >= SAME * asked.sum() and count >= 2 * right[letter]:
            label = results.label(variant.dataset, "mmlu_accuracy")
            share = count / asked.sum()
            yield f"{label}: {'ABCD'[letter]} is chosen for {share:.0%} of the questions, whatever they are"
    if results.has(variant, "test_f1"):
        said, wanted = (Counter(mine[column][test].tolist()) for column in ("generated", "answer"))
        count, most = said.most_common(1)[0][1], wanted.most_common(1)[0][1]
        if count >= SAME * test.sum() and count >= 2 * most:
            yield f"answers: {count / test.sum():.0%} of them are one and the same"
        exact, f1 = (float(results.values(variant, n)[0]) for n in ("test_exact_match", "test_f1"))
        if exact <= FEW_RIGHT and f1 >= FAIR_F1:
            yield f"answers: {exact:.1%} of them are exactly right, though their F1 is {f1:.2f}"
        cut, of = results.cut(variant)
        if cut > CUT * of:
            yield f"answers: {cut} of {of} were cut at evaluate.max_new_tokens, and F1 is that of what was left"
    if name != "test_loss" and results.judged("test_loss") and results.has(variant, "test_loss"):
        by_loss = verdicts.standing(results, results.of(variant.pair), "test_loss")
        if by_loss.verdicts[variant].word == WORSE:
            best = by_loss.best
            yield f"by loss another one is best, {best.method} {best.format}, and this one is too much worse"


def table(results: Results, decisions: Sequence[Decision]) -> dict[str, dict]:
    """metrics/decision.json: numbers and names, by model and data set."""
    return {str(found.pair): _row(results, found) for found in decisions}


def _row(results: Results, found: Decision) -> dict:
    standing, copied = found.standing, found.floor
    row: dict = {
        "recommended": str(found.recommended),
        "best": str(standing.best),
        "metric": found.metric,
        "margin": standing.margin,
        "cost": results.decide.cost,
        "critical_value": standing.critical,
        "verdicts": {str(v): {"verdict": one.word} | _spread(one.difference) for v, one in standing.verdicts.items()},
        "same_cost": [str(v) for v in found.same_cost],
        "guards": {
            str(v): {
                g.metric: {"guard": g.word, "against": str(g.against), "margin": g.margin} | _spread(g.difference)
                for g in found.guards[v]
            }
            for v in found.same_cost
        },
        "pareto": {cost: [str(v) for v in some] for cost, some in found.pareto.items()},
        "warnings": found.warnings,
    }
    for v, one in standing.verdicts.items():
        row["verdicts"][str(v)] |= {} if one.items is None else {"items_to_decide": one.items}
    if copied:
        row["copying"] = {"value": copied.value, "beaten": copied.beaten} | _spread(copied.difference)
    return row


def _spread(found: Interval) -> dict[str, float]:
    return {"difference": found.value, "low": found.low, "high": found.high}


def _higher(name: str) -> bool:
    return metrics.metric(name)[1].better == "higher"
