"""Bootstrap intervals cover, pairing sharpens, and the metrics are what their names say."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import sacrebleu
from scipy.stats import binomtest

from tradeoffs import metrics
from tradeoffs.metrics import answers, registry, sums
from tradeoffs.results import intervals
from tradeoffs.results.intervals import Interval

PAIRS = [
    ("the interest is 20 dollars", "the interest is 25 dollars"),
    ("", "an empty answer"),
    ("it grows by 5 % a year, then.", "It grows by 5 % a year."),
    ("no", "yes"),
]


def mean(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    return registry.ratio(draws @ np.stack([values, np.ones(len(values))], axis=-1))


def test_the_first_resample_is_the_data_itself():
    draws = intervals.resamples(items=50, count=20, seed=1)
    assert draws.shape == (21, 50)
    assert (draws[0] == 1).all()
    assert (draws.sum(axis=1) == 50).all()


def test_the_same_seed_gives_the_same_resamples():
    assert (intervals.resamples(30, 10, seed=7) == intervals.resamples(30, 10, seed=7)).all()
    assert (intervals.resamples(30, 10, seed=7) != intervals.resamples(30, 10, seed=8)).any()


def test_the_interval_of_a_mean_has_the_width_that_theory_gives():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    found = intervals.interval(mean(values, intervals.resamples(400, 4000, seed=0)))
    error = values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(error, rel=0.05)
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.03
    )


def test_the_interval_holds_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(3)
    draws = intervals.resamples(80, 400, seed=0)
    found = [intervals.interval(mean(generator.normal(1, 1, size=80), draws)) for _ in range(400)]
    covered = np.mean([i.low <= 1 <= i.high for i in found])
    assert 0.91 <= covered <= 0.98


def test_pairing_finds_a_difference_that_the_separate_intervals_hide():
    generator = np.random.default_rng(5)
    hard = generator.normal(0, 1, size=100)  # how hard an item is, the same for both variants
    ours, theirs = hard + 0.1 + generator.normal(0, 0.05, 100), hard + generator.normal(0, 0.05, 100)
    draws = intervals.resamples(100, 1000, seed=0)
    one, other = mean(ours, draws), mean(theirs, draws)
    assert intervals.interval(one).low < intervals.interval(other).high
    assert intervals.difference(one, other).excludes_0


def test_a_metric_that_is_nowhere_defined_has_no_interval():
    with pytest.raises(ValueError, match="no finite value"):
        intervals.interval(np.full(5, np.nan))


def test_the_detectable_difference_is_found_in_80_of_100_repetitions():
    generator = np.random.default_rng(11)
    true = intervals.detectable(1 / math.sqrt(50), 1.959964)
    found = np.abs(generator.normal(true, 1, size=(4000, 50)).mean(axis=1)) > 1.959964 / math.sqrt(50)
    assert found.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("ours", "theirs", "both"), [(9, 2, 5), (3, 3, 0), (0, 0, 4), (0, 7, 1), (1500, 1400, 10)])
def test_mcnemar_is_the_binomial_test_on_the_questions_that_only_one_gets_right(ours, theirs, both):
    one = np.array([1] * ours + [0] * theirs + [1] * both)
    other = np.array([0] * ours + [1] * theirs + [1] * both)
    expected = binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    assert intervals.mcnemar(one, other) == pytest.approx(expected, rel=1e-9)


def test_two_share_a_letter_exactly_when_they_are_not_told_apart():
    random = np.random.default_rng(2)
    for count in range(1, 10):
        for share in (0.0, 0.2, 0.5, 0.8, 1.0):
            pairs = list(combinations(range(count), 2))
            apart = {pair for pair in pairs if random.random() < share}
            found = intervals.letters(count, apart)
            assert all(found)
            for one, other in pairs:
                assert bool(set(found[one]) & set(found[other])) == ((one, other) not in apart)
            members = {name: {i for i in range(count) if name in found[i]} for letters in found for name in letters}
            for one, other in permutations(members, 2):
                assert not members[one] <= members[other], "a letter that says nothing new"


def test_letters_run_from_the_first():
    # 0 and 3 are told apart from each other, 1 and 2 from nobody.
    assert intervals.letters(4, [(0, 3)]) == [("a",), ("a", "b"), ("a", "b"), ("b",)]
    assert intervals.letters(2, []) == [("a",), ("a",)]
    found = intervals.letters(60, combinations(range(60), 2))
    assert len({letter for letters in found for letter in letters}) == 60
    assert found[0] == ("a",)


def test_loss_perplexity_and_bits_per_byte_of_a_text_by_hand():
    totals = np.array([-6.0, 3.0])  # 6 nats over 3 tokens, or over 3 bytes
    assert sums.loss(totals) == pytest.approx(2.0)
    assert sums.perplexity(totals) == pytest.approx(math.exp(2.0))
    assert sums.bits_per_byte(totals) == pytest.approx(2.0 / math.log(2))


@pytest.mark.parametrize(
    "pairs", [PAIRS, PAIRS * 3, PAIRS[:1], PAIRS[1:2], PAIRS[2:3], PAIRS[3:], PAIRS[:2], PAIRS[2:]]
)
def test_corpus_bleu_from_counts_is_sacrebleus(pairs):
    score = sacrebleu.metrics.BLEU(effective_order=True)
    counts = []
    for answer, expected in pairs:
        one = score.sentence_score(answer, [expected])
        counts.append([one.sys_len, one.ref_len, *one.counts, *one.totals])
    expected = sacrebleu.corpus_bleu([answer for answer, _ in pairs], [[expected for _, expected in pairs]]).score
    assert answers.bleu(np.sum(counts, axis=0)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "split", "better"),
    [
        ("test_f1", "test", "higher"),
        ("seen_loss", "seen", "lower"),
        ("kld", "test", "lower"),
        ("mmlu_accuracy", "mmlu", "higher"),
    ],
)
def test_a_metric_is_found_by_its_name_in_the_metrics_files(name, split, better):
    assert metrics.metric(name)[0] == split
    assert metrics.metric(name)[1].better == better


def test_the_sampling_error_is_that_of_independent_items():
    totals = np.ones((1, 2)) @ np.array([[4.0, 10.0], [5.0, 20.0]])
    assert sums.sampling_error(totals) == pytest.approx(math.sqrt(9) / 30)


@pytest.mark.parametrize(("right", "asked"), [(0, 300), (1, 300), (9, 300), (295, 300), (300, 300), (0, 1), (5, 12)])
def test_few_right_or_wrong_answers_have_the_exact_interval(right, asked):
    answers = np.array([1.0] * right + [0.0] * (asked - right))
    found = intervals.share(right, asked, mean(answers, intervals.resamples(asked, 200, seed=0)))
    exact = binomtest(right, asked).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert found.value == right / asked


def test_nothing_right_of_300_may_still_be_one_in_eighty():
    found = intervals.share(0, 300, np.zeros(101))
    assert found.low == 0
    assert found.high == pytest.approx(0.0122, abs=5e-5)


def test_with_enough_of_both_the_bootstrap_stays():
    answers = np.array([1.0] * 10 + [0.0] * 40)
    values = mean(answers, intervals.resamples(50, 200, seed=0))
    assert intervals.share(10, 50, values) == intervals.interval(values)


def test_a_variant_differs_from_itself_by_nothing():
    values = mean(np.arange(10.0), intervals.resamples(10, 50, seed=0))
    assert intervals.difference(values, values) == Interval(0.0, 0.0, 0.0, 0.0)
