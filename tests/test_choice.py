"""The choice among variants is that of every pair looked at by itself, over hundreds of tables that were drawn."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from test_verdicts import formats, made_up

from benchmarks.drawn import F1, Drawn
from tradeoffs.results import choice, limits, verdicts
from tradeoffs.results.choice import BEST, GOOD, ONE, UNDECIDED, UNFIT, WORSE, Table

COSTS = ("size_mb", "decode_tokens_per_second", "model_memory_mb")
LIMITS = ("max_size_mb", "max_memory_mb", "min_tokens_per_second", "max_loss_of.mmlu_accuracy")
TABLES = 400


def drawn(random: np.random.Generator, seeds: bool = True) -> Table:
    """Values with ties and without, errors of 0 among them, costs that overlap in any way, numbers that are absent."""
    count, ties = int(random.integers(1, 12)), random.random() < 0.5
    value = -np.sort(-random.normal(0, random.choice([0.01, 0.05, 0.3]), count))
    value = np.round(value, 1 if ties else 12)
    width = np.abs(random.normal(0, random.choice([0.002, 0.02, 0.1]), (count, count)))
    width = np.maximum(width, width.T) * (random.random() < 0.9)
    np.fill_diagonal(width, 0)
    value_of = {cost: np.round(random.uniform(1, 4, count), int(random.integers(0, 3))) for cost in COSTS}
    reach = {cost: random.uniform(0, 1, count) for cost in COSTS}
    cheaper = {
        cost: value_of[cost][:, None] + reach[cost][:, None] < value_of[cost][None, :] - reach[cost] for cost in COSTS
    }
    limited = {limit: np.round(random.uniform(0.1, 4, count), 1) for limit in LIMITS}
    for column in limited.values():
        column[random.random(count) < 0.1] = math.nan
    return Table(
        value=value,
        width=width,
        margin=np.full(count, 0.02) if ties else 0.05 * np.abs(value),
        method=random.integers(0, 4, count),
        once=(random.random(count) < 0.3) & seeds,
        names=[f"variant{place}" for place in range(count)],
        cheaper=cheaper,
        lost=random.integers(0, 3, (count, count)),
        limited=limited,
        runtime=random.choice(["llama.cpp", "transformers"], count).tolist(),
        there=random.random(count) < 0.8 if random.random() < 0.3 else None,
    )


def some_limits(random: np.random.Generator) -> dict[str, float | str]:
    asked = {name: float(np.round(random.uniform(0.5, 4), 1)) for name in LIMITS if random.random() < 0.4}
    return asked | ({"runtime": "llama.cpp"} if random.random() < 0.3 else {})


# --- the same in other words: every rule by itself, of plain numbers


def can_run(table, place):
    return table.there is None or bool(table.there[place])


def keeps(table, place, name, limit):
    if name == "runtime":
        return table.runtime[place] == limit
    value = float(table.limited[name][place])
    if math.isnan(value):
        return False
    return value >= limit if name == "min_tokens_per_second" else value <= limit


def word_of(table, place, among):
    best = next(u for u in among if all(table.value[u] >= table.value[w] for w in among))
    if place not in among:
        return UNFIT
    differences = [(table.value[place] - table.value[u], table.width[place, u]) for u in among]
    margin = table.margin[best]
    if any(difference + width < -margin for difference, width in differences):
        return WORSE
    shown = all(difference - width > -margin for difference, width in differences)
    if place == best:
        return GOOD if shown else BEST
    if table.method[place] != table.method[best] and (table.once[place] or table.once[best]):
        return ONE
    return GOOD if shown else UNDECIDED


def best_buy(table, among, cost):
    """Of what can be taken all that nobody undercuts, then by each further rule, until the first is left."""
    best = next(u for u in among if all(table.value[u] >= table.value[w] for w in among))
    left = [v for v in among if word_of(table, v, among) in (GOOD, BEST)]

    def undercut(some, by):
        return [v for v in some if all(not table.cheaper[by][other][v] for other in some)]

    left = undercut(left, cost)
    left = [v for v in left if table.lost[v][best] == min(table.lost[u][best] for u in left)]
    for by in COSTS:
        left = undercut(left, by)
    return min(left)


def pareto(table, among, cost):
    found = []
    while among:
        found.append(best_buy(table, among, cost))
        among = [v for v in among if table.cheaper[cost][v][found[-1]]]
    return found


def test_a_choice_is_that_of_brute_force():
    random = np.random.default_rng(11)
    seen, chosen, longest = set(), set(), 0
    for _ in range(TABLES):
        table, limits = drawn(random), some_limits(random)
        able = [v for v in range(len(table.names)) if can_run(table, v)]
        among = [v for v in able if all(keeps(table, v, *one) for one in limits.items())]
        missed = choice.misses(table, limits)
        assert [v for v, one in enumerate(missed) if not one] == among
        fits = np.array([not one for one in missed])
        for cost in COSTS:
            found = choice.choose(table, fits, cost)
            if not among:
                assert found is None
                continue
            assert found.judged.words == [word_of(table, v, among) for v in range(len(table.names))]
            assert found.recommended == best_buy(table, among, cost)
            assert found.frontier == pareto(table, among, cost)
            assert found.judged.best == next(v for v in among if table.value[v] == max(table.value[among]))
            assert set(found.passed_over) == set(found.judged.eligible) - {found.recommended}
            seen |= set(found.judged.words)
            chosen |= set(found.passed_over.values())
            longest = max(longest, len(found.frontier))
        seen |= {None} if not among else set()
    assert seen == {GOOD, BEST, UNDECIDED, WORSE, ONE, UNFIT, None}
    assert chosen == {*COSTS, choice.GUARDS, choice.RANK}
    assert longest > 2


def test_what_misses_least_is_nearest():
    random = np.random.default_rng(12)
    nothing = 0
    for _ in range(TABLES):
        table, limits = drawn(random), some_limits(random)
        missed = choice.misses(table, limits)
        if not all(missed):
            continue
        nothing += 1

        def far(place, table=table, limits=limits):
            """How many limits no number tells how far off it is, and the largest part that it is beyond another."""
            unknown, largest = int(not can_run(table, place)), 0.0
            for name, limit in limits.items():
                if keeps(table, place, name, limit):
                    continue
                if name == "runtime" or math.isnan(table.limited[name][place]):
                    unknown += 1
                else:
                    largest = max(largest, abs(float(table.limited[name][place]) - limit) / limit)
            return unknown, largest, place

        assert choice.nearest(missed) == min(range(len(table.names)), key=far)
    assert nothing > 20


def test_limits_only_take_away_and_what_is_chosen_keeps_them():
    random = np.random.default_rng(13)
    for _ in range(TABLES):
        table, limits = drawn(random), some_limits(random)
        every = {v for v, one in enumerate(choice.misses(table, limits)) if not one}
        for name, limit in limits.items():
            factor = 1 if isinstance(limit, str) else 1.5 if name in choice.MINIMA else 0.7
            stricter = limits | {name: limit if factor == 1 else limit * factor}
            fewer = {v for v, one in enumerate(choice.misses(table, stricter)) if not one}
            assert fewer <= every
            rest = {other: most for other, most in limits.items() if other != name}
            assert every <= {v for v, one in enumerate(choice.misses(table, rest)) if not one}
        fits = np.array([v in every for v in range(len(table.names))])
        found = choice.choose(table, fits, "size_mb")
        assert found is None or set(found.frontier) | set(found.judged.eligible) <= every


def test_more_that_fit_never_make_one_good_enough_that_was_not():
    random = np.random.default_rng(14)
    turned = 0
    for _ in range(TABLES):
        table = drawn(random, seeds=False)
        if table.margin[0] != table.margin[-1]:
            table.margin[:] = np.sort(table.margin)  # of a loss: the better, the smaller is a part of it
        many = random.random(len(table.names)) < 0.8
        few = many & (random.random(len(table.names)) < 0.6)
        if not few.any():
            continue
        before, after = choice.judge(table, few).words, choice.judge(table, many).words
        turned += sum(before[v] == GOOD != after[v] for v in np.flatnonzero(few))
        assert not [v for v in np.flatnonzero(few) if before[v] != GOOD and after[v] == GOOD]
    assert turned > 20


def test_what_is_good_enough_within_limits_is_so_of_a_run_list_of_what_fits_alone():
    """The critical value of all variants is no smaller than that of some of them."""
    random = np.random.default_rng(15)
    seen = set()
    for _ in range(40):
        scores = formats(*made_up(random, int(random.integers(3, 9)), random.choice([0.003, 0.02]), 0.4))
        results, order = Drawn(scores, resamples=200), list(scores)
        fits = random.random(len(order)) < 0.6
        if not fits.any():
            continue
        whole = verdicts.compared(results, order, F1)
        some = [v for v, fit in zip(order, fits, strict=True) if fit]
        alone, within = verdicts.standing(results, some, F1), verdicts.among(whole, fits)
        assert whole.critical >= alone.critical
        assert within.best == alone.best
        for v in some:
            seen.add((within.verdicts[v].word, alone.verdicts[v].word))
            assert within.verdicts[v].word != GOOD or alone.verdicts[v].word == GOOD
            assert within.verdicts[v].word != WORSE or alone.verdicts[v].word == WORSE
    assert (UNDECIDED, UNDECIDED) in seen and (GOOD, GOOD) in seen


def test_a_number_that_is_absent_does_not_fit_a_limit_on_it_and_no_other():
    table = replace(drawn(np.random.default_rng(16)), there=None)
    count = len(table.names)
    table.limited["max_memory_mb"][:] = math.nan
    assert choice.misses(table, {"max_memory_mb": 10**6}) == [{"max_memory_mb": math.inf}] * count
    assert choice.misses(table, {}) == [{}] * count


def test_a_limit_that_is_met_exactly_is_kept():
    table = drawn(np.random.default_rng(17))
    for name in LIMITS:
        column = table.limited[name]
        for place in np.flatnonzero(~np.isnan(column)):
            assert name not in choice.misses(table, {name: float(column[place])})[place]


def test_an_unknown_limit_is_an_error():
    with pytest.raises(KeyError):
        choice.misses(drawn(np.random.default_rng(18)), {"max_size": 3.0})


def test_a_table_read_back_from_json_is_decided_alike():
    random = np.random.default_rng(19)
    for _ in range(50):
        table, limits = drawn(random), some_limits(random)
        raw = json.loads(json.dumps(table.as_json(), allow_nan=False))
        arrays = {name: np.array(raw[name]) for name in ("value", "width", "margin", "method", "once", "lost")}
        arrays["once"] = arrays["once"].astype(bool)
        columns = {name: np.array(some, np.float64) for name, some in raw["limited"].items()}
        cheaper = {cost: np.array(rows, bool) for cost, rows in raw["cheaper"].items()}
        there = np.array(raw["there"], bool) if "there" in raw else None
        words = {"names": raw["names"], "runtime": raw["runtime"]}
        again = Table(**arrays, **words, cheaper=cheaper, limited=columns, there=there)
        missed = choice.misses(table, limits)
        assert choice.misses(again, limits) == missed
        fits = np.array([not one for one in missed])
        one, other = (choice.choose(some, fits, "size_mb") for some in (table, again))
        assert (one is None) == (other is None)
        if one:
            assert (one.recommended, one.frontier, one.judged.words) == (
                other.recommended,
                other.frontier,
                other.judged.words,
            )


def test_a_stricter_limit_can_leave_what_was_good_enough_with_one_training():
    """Two formats of method A, and one of B: without A's better one the best is B's, and trainings count."""
    table = Table(
        value=np.array([0.90, 0.897, 0.895]),
        width=np.zeros((3, 3)),
        margin=np.full(3, 0.02),
        method=np.array([0, 1, 0]),
        once=np.ones(3, bool),
        names=["a1", "b", "a2"],
        cheaper={cost: np.zeros((3, 3), bool) for cost in COSTS},
        lost=np.zeros((3, 3), int),
        limited={},
        runtime=["llama.cpp"] * 3,
    )
    assert choice.judge(table, np.ones(3, bool)).words[2] == GOOD
    assert choice.judge(table, np.array([False, True, True])).words[2] == ONE


def test_a_limit_is_written_as_it_was_typed_and_a_miss_of_many_times_is_no_percentage():
    assert limits.said({"max_size_mb": 2.235389, "max_memory_mb": 5000.0}) == [
        "size at most 2.235389 MB",
        "memory at most 5,000 MB",
    ]
    table = drawn(np.random.default_rng(0))
    table.limited["max_size_mb"][0] = 925.0
    assert limits.misses(table, 0, {"max_size_mb": 924.0}) == ["size 925 MB (925 times the limit)"]
