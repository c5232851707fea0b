"""What to ship of a model and data set: verdicts on quality, what it costs, what it must not lose, and the floor.

Only the best found and what is good enough (`verdicts`) can be recommended. Of these the cheapest is, where what is
not told apart costs the same; of several that cost the same, the one that loses fewest guards, then the smallest, the
fastest, the lightest in memory, then the better one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Copied, Pair, Variant
from tradeoffs.results import costs, ranking, verdicts
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import MANY_CUT, Results
from tradeoffs.results.verdicts import WORSE, Standing

# Costs that have a Pareto set, and that `decide.cost` can name. Where it leaves several, the others decide, in order.
WEIGHED = ("size_mb", "decode_tokens_per_second", "model_memory_mb")
KEPT, LOST, UNCLEAR = "kept", "lost", "unclear"
# What is said to have collapsed: more than half of what was said is the same, and twice as much as was asked for; at
# most so many answers exactly right where F1 is fair.
SAME, FEW_RIGHT, FAIR_F1 = 0.5, 0.05, 0.3


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
    """Copying the answer of the most similar training question; `difference` is the variant's metric - copying's.

    `metric` is the headline, or F1 where that says nothing of answers. `better`: copying is, whatever the margin.
    """

    metric: str
    value: float
    difference: Interval
    margin: float
    beaten: bool  # by more than the margin
    better: bool


@dataclass(frozen=True)
class Decision:
    """`same_cost` are all variants that cost what the recommended one does, itself first, then the better ones.

    `pareto` holds a list of variants for each cost of WEIGHED, see `frontier`; `unchecked` the guards that nothing is
    known of: what was not measured, or is held to a base that the run list lacks.
    """

    pair: Pair
    metric: str
    standing: Standing
    recommended: Variant
    same_cost: list[Variant]
    guards: dict[Variant, list[Guard]]
    unchecked: list[str]
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
        unchecked=[n for n in results.decide.guards if _held_to(results, recommended, standing.best, n) is None],
        floor=floor(results, recommended, name),
        pareto=pareto,
        warnings=list(warnings(results, recommended, name)),
    )


def frontier(results: Results, pair: Pair, cost: str) -> list[Variant]:
    """The Pareto set of quality and a cost, dearest first: what is as good and told apart as cheaper there is none.

    It begins with the cheapest of the best found and all that are good enough. Then, again and again, among all that
    are told apart as cheaper still: the cheapest of their best and those that are good enough beside it.
    """
    name, left, found = ranking.headline(results, pair), ranking.ranked(results, pair), list[Variant]()
    while left:
        standing = verdicts.standing(results, left, name)
        found.append(_cheapest(results, standing.eligible, cost))
        left = [v for v in left if costs.cheaper(results, v, found[-1], cost)]
    return found


def _cheapest(results: Results, good: Sequence[Variant], cost: str) -> Variant:
    """Of variants, best first, one that no other is told apart from as cheaper; of several the one that loses fewest
    guards, then the smallest, whatever the cost that is asked about, then the fastest, then the lightest in memory,
    then the better one.

    The size comes first because it is no matter of the clock: so the same variant is named on a busy machine, too,
    where fewer speeds are told apart. What is of one size may differ tenfold in speed: an f16 GGUF, a folder in bf16.
    """
    same = [v for v in good if not any(costs.cheaper(results, other, v, cost) for other in good)]
    lost = {v: sum(guard.word == LOST for guard in guards(results, v, good[0])) for v in same}
    same = [v for v in same if lost[v] == min(lost.values())]
    for weighed in WEIGHED:
        same = [v for v in same if not any(costs.cheaper(results, other, v, weighed) for other in same)]
    return same[0]


def guards(results: Results, variant: Variant, best: Variant) -> list[Guard]:
    """What `decide.guards` says of a variant; nothing of what is not known, nor of a variant held to itself."""
    found = []
    for name in results.decide.guards:
        pair = _held_to(results, variant, best, name)
        if pair is None or pair[0] == pair[1]:
            continue
        difference, margin = verdicts.against(results, *pair, name).difference, results.margin(name, pair[1])
        low, high = _better_is_higher(difference, name)
        word = KEPT if low > -margin else LOST if high < -margin else UNCLEAR
        found.append(Guard(name, pair[1], difference, margin, word))
    return found


def _held_to(results: Results, variant: Variant, best: Variant, name: str) -> tuple[Variant, Variant] | None:
    """Who is compared with whom by a guard; None where there is no base, or where one of them was not measured.

    What was measured of the model as trained alone (the loss on general text) is taken from there.
    """
    other = best if results.decide.guards[name] == "best" else results.untouched(variant.pair)
    if other is None:
        return None
    ours, theirs = (v if results.has(v, name) else v.cell.variant(TRAINED) for v in (variant, other))
    return (ours, theirs) if results.has(ours, name) and results.has(theirs, name) else None


def floor(results: Results, variant: Variant, name: str) -> Floor | None:
    """The variant against copying; None where nothing is answered, or copying was not asked for."""
    copied: Copied | None = results.floor(variant.pair)
    if copied is None:
        return None
    name = name if results.has(copied, name) else "test_f1"
    difference, margin = verdicts.against(results, variant, copied, name).difference, results.margin(name, variant)
    low, high = _better_is_higher(difference, name)
    return Floor(name, float(results.values(copied, name)[0]), difference, margin, low > margin, high < 0)


def warnings(results: Results, variant: Variant, name: str) -> Iterator[str]:
    """What a number of quality alone does not tell of a variant: where its answers have collapsed, or were cut."""
    mine = results.columns[variant]
    asked = mine["split"] == "mmlu"
    if asked.any():
        chosen, right = (Counter(mine[column][asked].astype(int).tolist()) for column in ("chosen", "correct_option"))
        letter, count = chosen.most_common(1)[0]
        if count > SAME * asked.sum() and count >= 2 * right[letter]:
            label = results.label(variant.dataset, "mmlu_accuracy")
            share = count / asked.sum()
            of_it = right[letter] / asked.sum()
            yield f"{label}: {'ABCD'[letter]} is chosen for {share:.0%} of the questions, and right for {of_it:.0%}"
    if results.has(variant, "test_f1"):
        yield from _of_answers(results, variant)
    for other in ("test_loss", "test_f1"):
        if other != name and results.judged(other) and results.has(variant, other):
            found = verdicts.standing(results, results.of(variant.pair), other)
            if found.verdicts[variant].word == WORSE:
                best, label = found.best, results.label(variant.dataset, other)
                yield f"by {label} another one is best, {best.method} {best.format}, and this one is too much worse"


def _of_answers(results: Results, variant: Variant) -> Iterator[str]:
    mine = results.columns[variant]
    test, prompts = mine["split"] == "test", mine["generated"][mine["split"] == "prompt"].tolist()
    said, wanted = (Counter(mine[column][test].tolist()) for column in ("generated", "answer"))
    count, most = said.most_common(1)[0][1], wanted.most_common(1)[0][1]
    if count > SAME * test.sum() and count >= 2 * most:
        yield f"answers: {count / test.sum():.0%} of them are one and the same"
    if len(prompts) > 1 and len(set(prompts)) == 1:
        yield f"answers: all {len(prompts)} prompts got the same one"
    exact, f1 = (float(results.values(variant, name)[0]) for name in ("test_exact_match", "test_f1"))
    if exact <= FEW_RIGHT and f1 >= FAIR_F1:
        yield f"answers: {exact:.1%} of them are exactly right, though their F1 is {f1:.2f}"
    for (count, of), what in (
        (results.cut(variant), "were cut at evaluate.max_new_tokens, and what was left is scored"),
        (results.too_long(variant.pair), "expected ones are longer than evaluate.max_new_tokens lets any be"),
    ):
        if count > MANY_CUT * of:
            yield f"answers: {count} of {of} {what}"


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
        "guards_not_checked": found.unchecked,
        "pareto": {cost: [str(v) for v in some] for cost, some in found.pareto.items()},
        "warnings": found.warnings,
    }
    for v, one in standing.verdicts.items():
        row["verdicts"][str(v)] |= {} if one.items is None else {"items_to_decide": one.items}
    if copied:
        row["copying"] = {"metric": copied.metric, "value": copied.value, "margin": copied.margin}
        row["copying"] |= {"beaten": copied.beaten} | _spread(copied.difference)
    return row


def _spread(found: Interval) -> dict[str, float]:
    return {"difference": found.value, "low": found.low, "high": found.high}


def _better_is_higher(found: Interval, name: str) -> tuple[float, float]:
    """The ends of a difference, signed so that better is higher."""
    return (found.low, found.high) if metrics.metric(name)[1].better == "higher" else (-found.high, -found.low)
