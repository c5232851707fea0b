"""Good enough, too much worse, undecided: what bounds are made of, what adding variants may do, what seeds mean."""

import math
from itertools import permutations

import numpy as np
import pytest

from benchmarks.drawn import EXACT, F1, Drawn
from tradeoffs.common.cells import Cell, Copied, Variant
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import intervals, ranking, simultaneous, verdicts
from tradeoffs.results.verdicts import BEST, GOOD, ONE, UNDECIDED, WORSE

CELL = Cell("demo", "demo", "lora")
ITEMS = 120


def formats(*scores: np.ndarray, cell: Cell = CELL) -> dict[Variant, np.ndarray]:
    """Forms of one training."""
    return {cell.variant("trained" if place == 0 else f"q{place}"): values for place, values in enumerate(scores)}


def seeds(cell: Cell, *scores: np.ndarray) -> dict[Variant, np.ndarray]:
    """What further seeds of a method's training scored, under names of their own."""
    return {cell.variant(f"seed{place}"): values for place, values in enumerate(scores)}


def standing(scores, **options):
    return verdicts.standing(Drawn(scores, **options), list(scores), options.get("name", F1))


def words(scores, **options) -> dict[Variant, str]:
    return {variant: found.word for variant, found in standing(scores, **options).verdicts.items()}


def made_up(random: np.random.Generator, count: int, spread: float, alike: float) -> list[np.ndarray]:
    """Scores of some variants: correlated, some nearly identical, some better and some worse."""
    hard = random.beta(0.6, 0.4, ITEMS)
    found = [np.clip(hard + random.normal(shift, 0.15, ITEMS), 0, 1) for shift in random.normal(0, spread, count)]
    for place in range(1, count):
        if random.random() < alike:
            found[place] = found[place - 1].copy()
            found[place][random.integers(ITEMS, size=random.integers(0, 4))] = random.random()
    return found


# --- what bounds are made of


def test_the_bounds_are_those_of_a_loop_over_every_pair_and_resample():
    scores = formats(*made_up(np.random.default_rng(3), 5, 0.03, 0.4))
    results = Drawn(scores, resamples=200)
    draws = results.resample(ITEMS)
    values = {v: draws @ some / ITEMS for v, some in scores.items()}
    found = standing(scores, resamples=200)

    error = {}
    for v, u in ((v, u) for v in values for u in values if v != u):
        changed = np.abs(scores[v] - scores[u])
        size = (changed**2).sum() / changed.sum() if changed.any() else 0  # of a change of an answer
        least = math.sqrt(max(0, 0.02 * size - 0.02**2) / ITEMS)  # were they the margin apart by such changes
        error[v, u] = max((values[v] - values[u])[1:].std(), least)
    quantiles = []
    for b in values:
        largest = [
            max(abs((values[u] - values[b])[r] - (values[u] - values[b])[0]) / error[u, b] for u in values if u != b)
            for r in range(1, 201)
        ]
        quantiles.append(np.quantile(largest, 0.95))
    critical = max(quantiles)
    assert found.critical == pytest.approx(critical)

    def difference(v, u):
        return values[v][0] - values[u][0]

    for v in values:
        pairs = [u for u in values if u != v]
        lower = min(0.0, *(difference(v, u) - critical * error[v, u] for u in pairs))
        upper = min(0.0, *(difference(v, u) + critical * error[v, u] for u in pairs))
        assert found.verdicts[v].difference.value == pytest.approx(difference(v, found.best))
        assert found.verdicts[v].difference.low == pytest.approx(lower)
        assert found.verdicts[v].difference.high == pytest.approx(0.0 if v == found.best else upper)


def test_one_that_is_surely_worse_than_another_is_so_whichever_is_the_best():
    """From the best found it differs by much luck, from its own source by none."""
    random = np.random.default_rng(1)
    best, source = random.beta(0.6, 0.4, (2, ITEMS))
    source += best.mean() - 0.01 - source.mean()
    found = standing(formats(best, source, source - 0.05)).verdicts
    assert found[CELL.variant("q1")].word == UNDECIDED
    last = found[CELL.variant("q2")]
    assert last.word == WORSE
    assert last.difference.high < -0.04


def test_fifty_six_variants_are_compared_in_no_more_memory_than_one_matrix():
    results = Drawn(formats(*made_up(np.random.default_rng(0), 56, 0.02, 0.3)))
    measured = verdicts.measure(results, results.variants, F1)
    assert measured.values.shape == (56, 1001)
    assert measured.largest(0).shape == (1000,)
    assert len(verdicts.standing(results, results.variants, F1).verdicts) == 56


def test_the_best_found_is_good_enough_only_if_it_is_shown_to_be():
    """Two that answer differently and are about as good: luck says which of them comes out first."""
    one, other = np.random.default_rng(4).random((2, ITEMS))
    other += one.mean() - 0.001 - other.mean()
    found = standing(formats(one, other, one - 0.5))
    assert {found.verdicts[v].word for v in formats(one, other)} == {BEST, UNDECIDED}
    assert found.verdicts[found.best].word == BEST
    assert found.verdicts[found.best].difference.low <= -0.02
    assert found.eligible == [found.best]
    assert standing(formats(one, one - 0.001, one - 0.5)).eligible == list(formats(one, one))


@pytest.mark.parametrize(("behind", "word"), [(0.0, GOOD), (0.019, GOOD), (0.021, WORSE), (0.5, WORSE)])
def test_without_luck_the_margin_is_the_edge(behind, word):
    base = np.random.default_rng(0).uniform(0.5, 1, ITEMS)
    assert words(formats(base, base - behind))[CELL.variant("q1")] == word


def test_a_loss_has_a_margin_that_is_a_part_of_the_bests(monkeypatch):
    results = Drawn(formats(np.full(ITEMS, 0.5), np.full(ITEMS, 0.4)))
    results.decide.margins["loss"] = 0.05
    monkeypatch.setattr(results, "values", lambda variant, name: np.array([2.0]))
    assert results.margin("test_loss", CELL.variant("q1")) == pytest.approx(0.1)
    assert results.margin("general_loss", 3.0) == pytest.approx(0.15)
    results.decide.margins["general_loss"] = 0.1
    assert results.margin("general_loss", 3.0) == pytest.approx(0.3), "its own name comes first"
    assert results.margin(F1, 0.5) == 0.02
    with pytest.raises(ValueError, match=r"decide\.margins has none for test_bleu"):
        results.margin("test_bleu", 1.0)


# --- adding variants


@pytest.mark.parametrize("name", [F1, EXACT])
def test_adding_variants_never_makes_one_good_enough_that_was_not(name):
    random = np.random.default_rng(7)
    seen = set()
    for _ in range(60):
        scores = made_up(
            random, int(random.integers(3, 12)), random.choice([0.003, 0.02, 0.1]), random.choice([0, 0.6])
        )
        if name == EXACT:
            scores = [(values > 0.5).astype(float) for values in scores]
        every = formats(*scores)
        some = dict(list(every.items())[: random.integers(2, len(every))])
        options = {"name": name, "margin": float(random.choice([0.005, 0.03, 0.1])), "resamples": 200}
        before, after = words(some, **options), words(every, **options)
        for variant, word in before.items():
            seen.add((word, after[variant]))
            assert word == GOOD or after[variant] != GOOD
    assert {(GOOD, GOOD), (GOOD, UNDECIDED), (UNDECIDED, UNDECIDED), (WORSE, WORSE)} <= seen


def test_adding_methods_with_seeds_never_makes_one_good_enough_that_was_not():
    random = np.random.default_rng(8)
    seen = set()
    for _ in range(40):
        every, further = {}, {}
        for method in ("base", "full", "lora", "qlora"):
            cell, ability = Cell("demo", "demo", method), random.normal(0.6, 0.02)
            mine = [np.clip(random.normal(ability + random.normal(0, 0.003), 0.05, ITEMS), 0, 1) for _ in range(5)]
            every |= formats(*mine[:2], cell=cell)
            further |= {} if method == "base" else {cell: seeds(cell, *mine[2:])}
        some = dict(list(every.items())[: random.integers(2, 8)])
        options = {"margin": float(random.choice([0.01, 0.05])), "resamples": 100, "further": further}
        before, after = words(some, **options), words(every, **options)
        seen |= set(before.values())
        assert not [v for v, word in before.items() if word != GOOD and after[v] == GOOD]
    assert seen >= {GOOD, UNDECIDED, WORSE}


# --- what degenerates


def test_the_same_answers_to_few_questions_do_not_show_that_two_are_equal():
    right = (np.random.default_rng(0).random(40) < 0.5).astype(float)
    found = standing(formats(right, right.copy()), name=EXACT).verdicts[CELL.variant("q1")]
    least = math.sqrt(1 / 42 / 42)  # Agresti and Min: half a question to either side, of 42
    assert found.difference.error == pytest.approx(least)
    assert found.word == UNDECIDED
    many = np.repeat(right, 50)
    assert words(formats(many, many.copy()), name=EXACT)[CELL.variant("q1")] == GOOD


def test_the_same_scores_otherwise_are_exactly_no_difference():
    values = np.random.default_rng(0).random(40)
    found = standing(formats(values, values.copy())).verdicts[CELL.variant("q1")]
    assert (found.word, found.difference.low, found.difference.high) == (GOOD, 0.0, 0.0)


def test_rounding_of_sums_is_no_standard_error():
    values = np.random.default_rng(0).random(40)
    results = Drawn(formats(values, values - 0.1))
    measured = verdicts.measure(results, results.variants, F1)
    assert (measured.errors() == 0).all()
    assert simultaneous.with_best(measured) == simultaneous.LEAST


def test_two_that_differ_in_few_answers_have_the_error_of_two_a_margin_apart():
    right = np.ones(300)
    for wrong, word in ((0, GOOD), (1, GOOD), (2, UNDECIDED), (6, UNDECIDED), (40, WORSE)):
        other = right.copy()
        other[:wrong] = 0
        found = standing(formats(right, other), name=EXACT).verdicts[CELL.variant("q1")]
        assert found.difference.error >= math.sqrt(0.02 * 0.98 / 300)
        assert found.word == word, wrong


def test_a_question_that_stands_twice_is_one_item():
    """As some of MMLU do, with the same options: both rows are counted, and what is said of them is a number."""
    right, other = np.ones(8), np.ones(8)
    other[7] = 0
    results = Drawn(formats(right, other), name=EXACT)
    for columns in results.columns.values():
        columns["item"][1] = columns["item"][0]
    found = verdicts.standing(results, results.variants, EXACT).verdicts[CELL.variant("q1")]
    assert found.difference.value == -1 / 8
    assert 0 < found.difference.error < 1


def test_resamples_in_which_the_metric_is_undefined_are_left_out(monkeypatch):
    scores = formats(*made_up(np.random.default_rng(2), 3, 0.05, 0))
    results, other = Drawn(scores), Drawn(scores)
    together = results.together

    def broken(some, name):
        items, values = together(some, name)
        values[:, 7] = np.nan
        return items, values

    monkeypatch.setattr(results, "together", broken)
    found, whole = (verdicts.standing(some, list(scores), F1) for some in (results, other))
    assert found.best == whole.best
    for variant, verdict in found.verdicts.items():
        assert verdict.difference.low == pytest.approx(whole.verdicts[variant].difference.low, abs=0.01)


def test_what_is_nowhere_defined_cannot_be_compared(monkeypatch):
    results = Drawn(formats(np.ones(5), np.ones(5)))
    monkeypatch.setattr(results, "together", lambda some, name: (["a"], np.full((len(some), 6), np.nan)))
    with pytest.raises(ValueError, match="test_f1: no finite value"):
        verdicts.standing(results, results.variants, F1)


def test_two_that_were_asked_different_items_are_not_compared():
    results = Drawn(formats(np.ones(5), np.ones(6)))
    with pytest.raises(UserError, match="were evaluated on different items"):
        verdicts.standing(results, results.variants, F1)


# --- how many items would decide


@pytest.mark.parametrize("behind", [0.0, 0.008, 0.035])
def test_with_so_many_items_it_is_decided_half_of_the_time(behind):
    random = np.random.default_rng(5)
    best = random.beta(0.6, 0.4, 100)
    other = best - behind + random.normal(0, 0.2, 100)
    other += best.mean() - behind - other.mean()
    sample = formats(best, other)
    found = standing(sample).verdicts[CELL.variant("q1")]
    assert found.word == UNDECIDED
    assert found.items > 100
    assert found.items % 10 ** (len(str(found.items)) - 2) == 0, "two digits"
    decided, repeated = 0, 60
    for _ in range(repeated):
        drawn = random.integers(100, size=found.items)
        decided += UNDECIDED not in words({v: values[drawn] for v, values in sample.items()}, resamples=300).values()
    assert 0.3 < decided / repeated < 0.8


def test_what_no_number_of_items_would_decide_names_none():
    random = np.random.default_rng(5)
    best = random.beta(0.6, 0.4, 100)
    other = best + random.normal(0, 0.2, 100)
    other += best.mean() - 0.02 - other.mean()  # just the margin
    found = standing(formats(best, other)).verdicts[CELL.variant("q1")]
    assert (found.word, found.items) == (UNDECIDED, None)


def test_one_of_equals_is_the_best_whatever_the_order_in_which_they_are_named():
    """The smallest, and of one size the first of the run list; by a standing as by a ranking."""
    right = (np.random.default_rng(0).random(490) < 0.5).astype(float)
    results = Drawn(formats(right, right.copy(), right.copy(), 1 - right), name=EXACT)
    trained, first, second, other = results.variants
    results.cost = {trained: {"size_mb": 3.0}} | {v: {"size_mb": 2.0} for v in (first, second, other)}
    for some in permutations((trained, first, second)):
        assert ranking.best_first(results, some, EXACT) == [first, second, trained]
        found = verdicts.standing(results, some, EXACT)
        assert found.best == first and list(found.verdicts) == list(some)
        assert [v for v, one in found.verdicts.items() if one.word == BEST] in ([], [first])


# --- one pair, and all pairs


def test_one_pair_alone_has_the_plain_interval():
    results = Drawn(formats(*made_up(np.random.default_rng(4), 2, 0.05, 0)))
    found = verdicts.against(results, *results.variants, F1)
    assert found.difference == results.compare(*results.variants, F1)


def test_one_pair_that_differs_in_few_answers_has_the_interval_that_its_verdict_is_made_of():
    right = (np.random.default_rng(0).random(40) < 0.5).astype(float)
    results = Drawn(formats(right, right.copy()), name=EXACT)
    found = verdicts.against(results, *results.variants, EXACT)
    reach = simultaneous.LEAST * math.sqrt(1 / 42 / 42)
    assert (found.word, found.difference.value) == (UNDECIDED, 0.0)
    assert (found.difference.low, found.difference.high) == pytest.approx((-reach, reach))


@pytest.mark.parametrize("judged", [True, False])
def test_that_two_answer_few_questions_alike_shows_nothing_with_a_margin_or_without(judged):
    right = (np.random.default_rng(0).random(20) < 0.5).astype(float)
    results = Drawn(formats(right, right.copy()), name=EXACT)
    results.decide.margins.update({"exact_match": 0.0001})
    if not judged:
        results.decide.margins.clear()
    found = verdicts.paired(results, *results.variants, EXACT)
    assert results.judged(EXACT) == judged and results.compare(*results.variants, EXACT).high == 0
    assert (found.low, found.value, found.high) == pytest.approx((-found.high, 0.0, simultaneous.LEAST / 22))


def test_two_formats_of_one_training_have_the_same_interval_whatever_other_seeds_there_are():
    random = np.random.default_rng(4)
    scores = formats(*made_up(random, 2, 0.05, 0))
    further = {CELL: seeds(CELL, *random.random((6, ITEMS)))}  # whose mean is rounded
    several, one = (verdicts.against(Drawn(scores, further=more), *scores, F1) for more in (further, {}))
    assert several == one


def test_copying_is_what_trains_nothing_and_the_seeds_of_what_is_held_against_it_count():
    random = np.random.default_rng(0)
    scores, further = methods(random, {"lora": 0.6}, spread=0.05)
    for more, word in ((further, GOOD), ({}, ONE)):
        results, ours, floor = Drawn(scores, further=more), CELL.variant("trained"), Copied("demo")
        results.columns[floor] = results.columns[ours] | {"f1": random.normal(0.2, 0.05, ITEMS)}
        found, plain = verdicts.against(results, ours, floor, F1), results.compare(ours, floor, F1)
        every = [scores[ours], *more.get(CELL, {}).values()]
        assert found.word == word
        assert found.difference.value == pytest.approx(np.mean(every) - results.values(floor, F1)[0])
        assert (found.difference.error > 2 * plain.error) == bool(more)


def test_of_fifty_equal_variants_hardly_any_are_told_apart():
    random = np.random.default_rng(0)
    plain = together = 0
    for _ in range(10):
        results = Drawn(formats(*random.normal(size=(50, 100))), resamples=200)
        apart = verdicts.told_apart(results, results.variants, F1)
        together += bool(apart)
        best = max(results.variants, key=lambda v: results.values(v, F1)[0])
        plain += sum(results.compare(best, v, F1).excludes_0 for v in results.variants)
    assert plain > 100
    assert together <= 2


def test_a_clear_difference_is_told_apart():
    random = np.random.default_rng(0)
    scores = formats(*(random.normal(shift, 0.1, 100) for shift in (0, 0, 0.3)))
    results = Drawn(scores)
    one, other, best = scores
    assert verdicts.told_apart(results, list(scores), F1) == {frozenset((one, best)), frozenset((other, best))}


# --- seeds


def methods(random, abilities, spread=0.0, count=3, noise=0.05):
    """Methods of some abilities with several seeds each; (scores, further seeds)."""
    scores, further = {}, {}
    for method, ability in abilities.items():
        cell = Cell("demo", "demo", method)
        mine = [random.normal(ability + random.normal(0, spread), noise, ITEMS) for _ in range(count)]
        scores |= formats(mine[0], mine[0] - 0.001, cell=cell)
        further |= {cell: seeds(cell, *mine[1:])}
    return scores, further


def test_with_one_seed_only_what_is_too_much_worse_has_a_verdict_across_methods():
    random = np.random.default_rng(0)
    hard = random.random(ITEMS)
    lora, full, qlora, base = (Cell("demo", "demo", method) for method in ("lora", "full", "qlora", "base"))
    scores = formats(hard, hard - 0.001, cell=lora) | formats(hard - 0.002, cell=full)
    scores |= formats(hard - 0.4, cell=qlora) | formats(hard - 0.003, cell=base)
    assert list(words(scores).values()) == [GOOD, GOOD, ONE, WORSE, ONE]
    results = Drawn(scores)
    assert verdicts.against(results, full.variant("trained"), lora.variant("trained"), F1).word == ONE
    assert verdicts.against(results, lora.variant("q1"), lora.variant("trained"), F1).word == GOOD
    assert verdicts.seed_share(results, lora.variant("trained"), F1) is None
    assert verdicts.over_seeds(results, lora.variant("trained"), F1) is None


def test_the_base_has_no_seeds_of_its_own():
    hard = np.random.default_rng(0).random(ITEMS)
    scores = formats(hard, cell=Cell("demo", "demo", "base")) | formats(hard - 0.001, cell=Cell("tiny", "demo", "base"))
    assert list(words(scores).values()) == [GOOD, GOOD]


def test_a_methods_value_is_the_mean_of_its_trainings_and_a_format_keeps_its_distance():
    random = np.random.default_rng(0)
    scores, further = methods(random, {"lora": 0.6, "full": 0.5}, spread=0.05)
    measured = verdicts.measure(Drawn(scores, further=further), list(scores), F1)
    for method, cell in enumerate(further):
        every = np.array([scores[cell.variant("trained")].mean(), *(v.mean() for v in further[cell].values())])
        assert measured.values[2 * method, 0] == pytest.approx(every.mean())
        assert measured.values[2 * method + 1, 0] == pytest.approx(every.mean() - 0.001)
        assert measured.seeds[method] == pytest.approx(every.var(ddof=1) / 3)
        # Drawn with replacement and stretched, the trainings have that variance.
        assert measured.shifts[method, 1:].var() == pytest.approx(measured.seeds[method], rel=0.15)
    assert measured.errors()[0, 1] < 1e-9, "within one training no seed enters"
    assert measured.errors()[0, 2] ** 2 == pytest.approx(measured.item_errors[0, 2] ** 2 + measured.seeds.sum())


def test_what_trainings_draw_depends_on_no_other_method():
    random = np.random.default_rng(0)
    scores, further = methods(random, {"lora": 0.6, "full": 0.5}, spread=0.05)
    results = Drawn(scores, further=further)
    every, last = (verdicts.measure(results, some, F1).shifts for some in (list(scores), list(scores)[2:]))
    assert (every[1] == last[0]).all()


def test_few_seeds_have_the_wide_critical_value_of_few_degrees_of_freedom():
    random = np.random.default_rng(0)
    for count, least, most in ((3, 3.5, 6.0), (30, 1.9, 2.5)):
        scores, further = methods(random, {"lora": 0.6, "full": 0.6}, spread=0.05, count=count)
        measured = verdicts.measure(Drawn(scores, further=further), list(scores), F1)
        found = measured.criticals(2.2)
        assert found[0, 1] == 2.2
        assert least < found[0, 2] < most
        assert (measured.criticals(2.5) >= found).all()


def test_methods_that_seeds_move_by_more_than_the_margin_are_undecided_and_no_items_help():
    scores, further = methods(np.random.default_rng(1), {"lora": 0.6, "full": 0.6}, spread=0.05)
    found = standing(scores, further=further)
    other = next(v for v in scores if v.method != found.best.method)
    assert (found.verdicts[other].word, found.verdicts[other].items) == (UNDECIDED, None)
    one = standing(scores)
    assert one.verdicts[next(v for v in scores if v.method != one.best.method)].word in (ONE, WORSE)


def test_methods_that_no_seed_moves_are_good_enough():
    hard = np.random.default_rng(0).random(ITEMS)
    lora, full = (Cell("demo", "demo", method) for method in ("lora", "full"))
    scores = formats(hard, cell=lora) | formats(hard - 0.001, cell=full)
    further = {cell: seeds(cell, hard - 0.0005, hard + 0.0005) for cell in (lora, full)}
    assert list(words(scores, further=further).values()) == [GOOD, GOOD]


def test_the_seeds_share_is_all_where_items_are_alike_and_nothing_where_seeds_are():
    random = np.random.default_rng(2)
    scores, further = methods(random, {"lora": 0.6}, spread=0.1, noise=1e-6)
    assert verdicts.seed_share(Drawn(scores, further=further), CELL.variant("trained"), F1) > 0.99
    same = random.random(ITEMS)
    results = Drawn(formats(same), further={CELL: seeds(CELL, same, same)})
    assert verdicts.seed_share(results, CELL.variant("trained"), F1) == 0
    over = verdicts.over_seeds(results, CELL.variant("trained"), F1)
    plain = intervals.interval(results.values(CELL.variant("trained"), F1))
    assert (over.value, over.error) == pytest.approx((plain.value, plain.error))
    assert (over.low, over.high) == pytest.approx((plain.low, plain.high), abs=0.01)
