"""What to ship of a model and data set: verdicts on quality, what it costs, what it must not lose, and the floor.

Of what keeps all limits (`limits`) only the best found and what is good enough (`verdicts`) can be recommended. Of
these the cheapest is, where what is not told apart costs the same; of several that cost the same, the one that loses
fewest guards, then the smallest, the fastest, the lightest in memory, then the better one. How is in `choice`; here a
table is filled for it from what was measured.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tradeoffs import metrics
from tradeoffs.common.cells import Copied, Pair, Variant
from tradeoffs.formats.names import AUTO
from tradeoffs.results import choice, costs, limits, ranking, verdicts
from tradeoffs.results.choice import DEVICE, RUNTIME, UNFIT, Table
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import MANY_CUT, Results
from tradeoffs.results.verdicts import WORSE, Compared, Standing

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
class Candidates:
    """The variants of a pair, best first by `metric`, and all that a choice among them is made of."""

    order: list[Variant]
    metric: str
    compared: Compared
    table: Table


@dataclass(frozen=True)
class Decision:
    """`recommended` is None where nothing keeps all limits; `nearest` is then what misses least. `missed` are the
    limits that each variant is beyond, and by which part of the limit, see `choice.misses`; `passed_over` is why those
    that could be recommended were not, see `choice.Choice`.

    `same_cost` are all variants that fit and cost what the one shown does, itself first, then the better ones. `pareto`
    holds a list of variants for each cost of WEIGHED, see `choice.frontier`; `unchecked` the guards that nothing is
    known of: what was not measured, or is held to a base that the run list lacks.
    """

    pair: Pair
    metric: str
    candidates: Candidates
    standing: Standing
    recommended: Variant | None
    nearest: Variant | None
    missed: dict[Variant, dict[str, float]]
    passed_over: dict[Variant, str]
    same_cost: list[Variant]
    guards: dict[Variant, list[Guard]]
    unchecked: list[str]
    floor: Floor | None
    pareto: dict[str, list[Variant]]
    warnings: list[str]

    @property
    def shown(self) -> Variant:
        """What a page is about: what is recommended, or what comes nearest to that."""
        found = self.recommended or self.nearest
        assert found is not None
        return found

    @property
    def fit(self) -> list[Variant]:
        """What keeps all limits, best first."""
        return [v for v, missed in self.missed.items() if not missed]


def candidates(results: Results, pair: Pair, losses: Sequence[str] = ()) -> Candidates:
    """Of a pair; the table can be held against limits of costs, of what `decide.limits` has, and of `losses`."""
    name, order = ranking.headline(results, pair), ranking.ranked(results, pair)
    compared = verdicts.compared(results, order, name)
    losses = list(dict.fromkeys([*(results.decide.limits.max_loss_of or {}), *losses]))
    table = Table(
        **vars(compared.quality),
        names=[str(v) for v in order],
        cheaper={
            key: np.array([[costs.cheaper(results, ours, theirs, key) for theirs in order] for ours in order])
            for key in WEIGHED
        },
        lost=_lost(results, order),
        limited=limits.held_against(results, pair, order, losses),
        runtime=[results.facts[v]["runtime"] for v in order],
        there=_there(results, order),
    )
    return Candidates(order, name, compared, table)


def _there(results: Results, order: Sequence[Variant]) -> np.ndarray | None:
    """Which were measured on the device that is decided for, the first of `run.devices`; None if all were."""
    found = np.array([v in results.costs.machine["devices"] for v in order])
    return None if found.all() else found


def _lost(results: Results, order: Sequence[Variant]) -> np.ndarray:
    """How many guards the row loses, were the column the best; (V, V)."""
    if "best" not in results.decide.guards.values():
        counts = [sum(guard.word == LOST for guard in guards(results, v, order[0])) for v in order]
        return np.repeat(np.array(counts)[:, None], len(order), axis=1)
    return np.array([[sum(g.word == LOST for g in guards(results, v, best)) for best in order] for v in order])


def decide(results: Results, pair: Pair) -> Decision:
    found, cost = candidates(results, pair), results.decide.cost
    order, table = found.order, found.table
    missed = choice.misses(table, limits.flat(results.decide.limits))
    fits = np.array([not one for one in missed])
    chosen = choice.choose(table, fits, cost)
    standing = verdicts.among(found.compared, fits if chosen else np.ones(len(order), bool))
    if chosen is None:
        standing = replace(standing, verdicts={v: replace(one, word=UNFIT) for v, one in standing.verdicts.items()})
    shown = order[chosen.recommended if chosen else choice.nearest(missed)]
    same = [v for v, fit in zip(order, fits.tolist(), strict=True) if fit and v != shown]
    return Decision(
        pair=pair,
        metric=found.metric,
        candidates=found,
        standing=standing,
        recommended=shown if chosen else None,
        nearest=None if chosen else shown,
        missed=dict(zip(order, missed, strict=True)),
        passed_over={order[place]: why for place, why in chosen.passed_over.items()} if chosen else {},
        same_cost=[shown, *(v for v in same if not costs.told_apart(results, v, shown, cost))],
        guards={v: guards(results, v, standing.best) for v in order},
        unchecked=_unchecked(results, shown, standing.best),
        floor=floor(results, shown, found.metric),
        pareto={key: [order[place] for place in choice.frontier(table, fits, key)] for key in WEIGHED},
        warnings=list(warnings(results, shown, found.metric)),
    )


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


def _unchecked(results: Results, shown: Variant, best: Variant) -> list[str]:
    """Guards that nothing is known of. What is measured as trained alone, an untouched model cannot lose."""
    return [
        name
        for name in results.decide.guards
        if _held_to(results, shown, best, name) is None
        and not (shown.method == "base" and name.startswith("general_") and results.decide.guards[name] == "base")
    ]


def _held_to(results: Results, variant: Variant, best: Variant, name: str) -> tuple[Variant, Variant] | None:
    """Who is compared with whom by a guard; None where there is no base, or where one of them was not measured.

    What was measured of the model as trained alone (the loss on general text) is taken from there.
    """
    other = best if results.decide.guards[name] == "best" else results.untouched(variant.pair)
    if other is None:
        return None
    ours, theirs = (limits.measured_as(results, v, name) for v in (variant, other))
    return (ours, theirs) if ours and theirs else None


def floor(results: Results, variant: Variant, name: str) -> Floor | None:
    """The variant against copying; None where nothing is answered, or copying was not asked for."""
    copied: Copied | None = results.floor(variant.pair)
    if copied is None:
        return None
    name = name if results.has(copied, name) else "test_f1"
    difference, margin = verdicts.against(results, variant, copied, name).difference, results.margin(name, variant)
    low, high = _better_is_higher(difference, name)
    return Floor(name, float(results.values(copied, name)[0]), difference, margin, low > margin, high < 0)


def by_others(results: Results, pair: Pair, name: str) -> dict[str, Standing]:
    """The variants of a pair by the metrics that a decision by `name` is warned of."""
    some = results.of(pair)
    wanted = [other for other in ("test_loss", "test_f1") if other != name and results.judged(other)]
    return {other: verdicts.standing(results, some, other) for other in wanted if results.has(some[0], other)}


def warnings(
    results: Results, variant: Variant, name: str, others: Mapping[str, Standing] | None = None
) -> Iterator[str]:
    """What a number of quality alone does not tell of a variant: where its answers have collapsed, or were cut.

    `others` is what `by_others` gives, where many variants are asked about.
    """
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
    for other, found in (by_others(results, variant.pair, name) if others is None else others).items():
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
    return {str(found.pair): row(results, found) for found in decisions}


def row(results: Results, found: Decision) -> dict:
    """What metrics/decision.json says of a pair. `recommended` is not there where nothing fits."""
    standing, copied = found.standing, found.floor
    said: dict = {"recommended": str(found.recommended)} if found.recommended else {}
    said |= {"nearest_miss": str(found.nearest)} if found.nearest else {}
    said |= {
        "best": str(standing.best),
        "metric": found.metric,
        "margin": standing.margin,
        "cost": results.decide.cost,
        **({} if results.run.devices == [AUTO] else {"device": results.run.devices[0]}),
        "critical_value": standing.critical,
        **_limits(results, found),
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
        said["verdicts"][str(v)] |= {} if one.items is None else {"items_to_decide": one.items}
        said["verdicts"][str(v)] |= {"beyond": _beyond(results, v, found.missed[v])} if found.missed[v] else {}
    if copied:
        said["copying"] = {"metric": copied.metric, "value": copied.value, "margin": copied.margin}
        said["copying"] |= {"beaten": copied.beaten} | _spread(copied.difference)
    return said


def _limits(results: Results, found: Decision) -> dict:
    """Those that were set, and how many variants fit; nothing where there are none."""
    asked = results.decide.limits
    losses = {"max_loss_of": dict(asked.max_loss_of)} if asked.max_loss_of else {}
    single = {name: limit for name, limit in limits.flat(asked).items() if not name.startswith(choice.LOSS)}
    return {"limits": {**single, **losses}, "fit": len(found.fit)} if single or losses else {}


def _beyond(results: Results, variant: Variant, missed: dict[str, float]) -> dict[str, float | str]:
    """By which part of each limit a variant misses it, or why that is no number."""
    absent = {RUNTIME: results.facts[variant]["runtime"], DEVICE: f"not measured on {results.run.devices[0]}"}
    return {n: float(by) if np.isfinite(by) else absent.get(n, "not measured") for n, by in missed.items()}


def _spread(found: Interval) -> dict[str, float]:
    return {"difference": found.value, "low": found.low, "high": found.high}


def _better_is_higher(found: Interval, name: str) -> tuple[float, float]:
    """The ends of a difference, signed so that better is higher."""
    return (found.low, found.high) if metrics.metric(name)[1].better == "higher" else (-found.high, -found.low)
