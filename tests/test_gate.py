"""The gate: equals do not fail it, a loss does, what is unlike is not compared, and nothing that is missing passes."""

import dataclasses

import numpy as np
import pytest
from fake_gate import REPO, VARIANT, Side, items, measured, rows

from tradeoffs import metrics, params
from tradeoffs.gate import measuring, pairing
from tradeoffs.gate.measuring import Sample
from tradeoffs.gate.pairing import Pairing
from tradeoffs.gate.policy import directed
from tradeoffs.gate.quality import Quality, finished
from tradeoffs.gate.rows import BETTER, NOT_COMPARED, PASS, SAME, WORSE
from tradeoffs.metrics import registry

GATED = [name for name in directed()[1] if not name.startswith("seen_")]
# As params.yaml has them: a part of the value where lower is better.
MARGINS = {name: 0.05 if metrics.metric(name)[1].better == "lower" else 0.02 for name in GATED}
MARGINS |= {"kld": 0.2, "test_bleu": 1.0}
# What a model is measured by where it is as good as it can be, and where it is bad; nothing of the registry is in it.
GOOD_AND_BAD: dict[str, tuple[float, float]] = {
    "log_likelihood": (-2.0, -20.0),
    "correct_tokens": (9.0, 2.0),
    "kld": (0.01, 3.0),
    "same_top": (9.0, 2.0),
    "correct": (1.0, 0.0),
    "bertscore": (0.99, 0.2),
    "cosine": (0.99, 0.1),
}
EXPECTED, WRONG = '{"room": 4, "name": "Rosa Winter"}', "It grows over time."


def copied(columns):
    return {name: values.copy() for name, values in columns.items()}


def drawn(columns, places):
    """The items at some places, each with an id of its own."""
    found = {name: values[places] for name, values in columns.items()}
    found["item"] = np.array([f"{n}" for n in range(len(places))], object)
    return found


def mixed(ours, theirs, luck):
    """Two that are equal, since chance says for each item which of both is whose."""
    first = luck.random(len(ours["item"])) < 0.5
    fixed = ("split", "item", "tokens", "bytes", "items", "prompt", "answer", "subject", "correct_option")
    pick = lambda one, other, name: one[name] if name in fixed else np.where(first, one[name], other[name])  # noqa: E731
    return {n: pick(ours, theirs, n) for n in ours}, {n: pick(theirs, ours, n) for n in ours}


def model(kind: int, count: int = 60):
    """Items of a model that is good (0) or bad (1) in all that is measured; a third of the others are in between."""
    found = items(count, count)
    test = found["split"] == "test"
    for column, ends in GOOD_AND_BAD.items():
        there = ~np.isnan(found[column])
        found[column][there] = ends[kind]
        if column not in ("correct",):
            found[column] = found[column] * np.random.default_rng(1).uniform(0.9, 1.0, len(test))
    found["tokens"][:] = 10.0
    said = (EXPECTED, WRONG)[kind]
    for metric in metrics.scored():
        if metric.score is None:
            continue
        value = np.atleast_1d(np.array(metric.score(said, EXPECTED), float))
        for place, column in enumerate(c for c in metric.columns if c != "items"):
            found[column] = np.where(test, value[place], np.nan)
    return found


@pytest.fixture(scope="module")
def good():
    return model(0)


@pytest.fixture(scope="module")
def bad():
    return model(1)


def test_every_metric_that_has_a_better_end_is_worse_of_a_bad_model_and_better_the_other_way_round(good, bad):
    assert {name: row.word for name, row in rows(good, bad, MARGINS).items()} == dict.fromkeys(GATED, WORSE)
    assert {name: row.word for name, row in rows(bad, good, MARGINS).items()} == dict.fromkeys(GATED, BETTER)


@pytest.mark.parametrize("bare", directed()[0])
def test_a_flipped_direction_of_any_metric_is_caught_by_the_test_above(bare, good, bad, monkeypatch):
    metric = registry.METRICS[bare]
    other = {"higher": "lower", "lower": "higher"}[metric.better]
    monkeypatch.setitem(registry.METRICS, bare, registry.replace(metric, better=other))
    mine = {name: MARGINS[name] for name in GATED if metrics.metric(name)[1].name == bare}
    assert mine
    assert WORSE not in {row.word for row in rows(good, bad, mine).values()}


def test_no_item_of_both_differs_so_nothing_is_tested():
    mine = items(40, 40)
    found = rows(mine, copied(mine), MARGINS)
    assert {row.word for row in found.values()} == {SAME}
    assert {(row.difference.low, row.difference.high) for row in found.values()} == {(0.0, 0.0)}


@pytest.mark.slow
def test_of_a_thousand_gates_over_equals_no_more_than_one_in_twenty_fails():
    luck, pool, others = np.random.default_rng(7), items(2000, 1000, 1), items(2000, 1000, 2)
    failed, draws = 0, {}
    for _ in range(1000):
        places = np.concatenate([luck.choice(2000, 150), 2000 + luck.choice(2000, 150), 4000 + luck.choice(1000, 100)])
        found = rows(*mixed(drawn(pool, places), drawn(others, places), luck), MARGINS, draws=draws)
        words = {row.word for row in found.values()}
        assert len(found) == len(GATED) and not words & {NOT_COMPARED, SAME}
        failed += WORSE in words
    print(f"{failed} of 1000 gates over equals fail")
    assert failed <= 50


def lost(columns, name, luck):
    """The items as they are, and those of a model that truly loses margin and 2.8 standard errors by a metric."""
    split, metric = metrics.metric(name)
    mine = columns["split"] == split
    count, after = mine.sum(), copied(columns)
    noise = np.where(mine, luck.normal(0.0, 1.0, len(mine)), 0.0)
    if metric.right_or_wrong:  # a few get right what was wrong, more get wrong what was right
        column, come = metric.columns[0], 0.03
        right = columns[column] == 1
        loss = MARGINS[name] + 2.8 * (0.12 / count) ** 0.5
        gone = (loss + come) / right[mine].mean()
        flips = luck.random(len(mine)) < np.where(right, gone, come / (1 - right[mine].mean()))
        after[column] = np.where(mine & flips, 1 - columns[column], columns[column])
    elif metric.better == "lower":
        tokens, spread = columns["tokens"], 0.3
        value = -columns["log_likelihood"][mine].sum() / tokens[mine].sum()
        error = spread * np.sqrt((tokens[mine] ** 2).sum()) / tokens[mine].sum()
        after["log_likelihood"] = columns["log_likelihood"] - tokens * np.where(
            mine, MARGINS[name] * value + 2.8 * error + spread * noise, 0.0
        )
    else:
        spread = 0.15
        after[metric.columns[0]] = columns[metric.columns[0]] - np.where(
            mine, MARGINS[name] + 2.8 * spread / count**0.5 + spread * noise, 0.0
        )
    return after


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_exact_match", "mmlu_accuracy", "test_f1", "test_loss", "general_loss"])
def test_a_true_loss_of_margin_and_2_8_standard_errors_fails_in_four_of_five_gates(name):
    """With all others gated, too, which are those of an equal model."""
    luck, pool, others = np.random.default_rng(11), items(2000, 1000, 1), items(2000, 1000, 2)
    found, draws, rounds = 0, {}, 150
    for _ in range(rounds):
        places = np.concatenate([luck.choice(2000, 300), 2000 + luck.choice(2000, 300), 4000 + luck.choice(1000, 300)])
        before, after = mixed(drawn(pool, places), drawn(others, places), luck)
        worse = lost(before, name, luck)
        columns = {*metrics.metric(name)[1].columns} - {"items", "tokens", "bytes"}
        mine = before["split"] == metrics.metric(name)[0]
        for column in columns:
            after[column] = np.where(mine, worse[column], after[column])
        words = {one: row.word for one, row in rows(before, after, MARGINS, draws=draws).items()}
        assert NOT_COMPARED not in words.values()
        found += words[name] == WORSE
    print(f"{name}: {found} of {rounds} gates fail")
    assert found >= 0.8 * rounds


# ---- what is not the same is not compared


def changed(name, value, where="test", place=0):
    def change(columns):
        columns[name][np.flatnonzero(columns["split"] == where)[place]] = value

    return change


def without(split):
    def change(columns):
        place = np.flatnonzero(columns["split"] == split)[0]
        for name in columns:
            columns[name] = np.delete(columns[name], place)

    return change


def swapped(columns):
    for name in columns:
        columns[name][[0, 1]] = columns[name][[1, 0]]


OF_TEST = [name for name in GATED if metrics.metric(name)[0] == "test"]
PER_TOKEN = [name for name in GATED if "tokens" in metrics.metric(name)[1].columns]
UNLIKE = {
    "an item less": (without("test"), OF_TEST, "other test items (1 of base and 0 of head alone)"),
    "a question less": (without("mmlu"), ["mmlu_accuracy"], "other mmlu items (1 of base and 0 of head alone)"),
    "another item": (changed("item", "new"), OF_TEST, "other test items (1 of base and 1 of head alone)"),
    "another order": (swapped, OF_TEST, "other test items (in another order)"),
    "another prompt": (changed("prompt", "What?"), OF_TEST, "other test items (their prompt)"),
    "another answer expected": (changed("answer", "No."), OF_TEST, "other test items (their answer)"),
    "another option is right": (changed("correct_option", 2.0, "mmlu"), ["mmlu_accuracy"], "their correct_option"),
    "another text": (changed("bytes", 3.0), OF_TEST, "other test items (their bytes)"),
    "other tokens": (changed("tokens", 3.0), [n for n in PER_TOKEN if n in OF_TEST], "other tokens"),
    "a loss that is no number": (changed("log_likelihood", np.nan), None, "a value of head is not a number"),
    "an infinite loss": (changed("log_likelihood", -np.inf), None, "a value of head is not a number"),
    "a score less": (changed("f1", np.nan), ["test_f1"], "measured on other items"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("case", UNLIKE)
def test_what_is_unlike_is_not_compared_and_the_rest_is(case):
    change, names, why = UNLIKE[case]
    before, after = items(30, 30), items(30, 30)
    change(after)
    found = rows(before, after, MARGINS)
    names = names or ["test_loss", "test_perplexity", "test_bits_per_byte"]
    assert {name for name, row in found.items() if row.word == NOT_COMPARED} == set(names)
    assert all(why in found[name].note and found[name].difference is None for name in names)


def test_bits_per_byte_stays_where_the_tokens_are_others():
    before, after = items(30, 30), items(30, 30)
    changed("tokens", 3.0)(after)
    assert rows(before, after, MARGINS)["test_bits_per_byte"].word == PASS


@pytest.mark.parametrize(
    "setting, names",
    [
        ({"max_new_tokens": 9}, [n for n in GATED if metrics.metric(n)[1].column]),
        ({"mmlu": {"shots": 0}}, ["mmlu_accuracy"]),
        ({"kld_top_k": 9}, ["kld", "same_top_token"]),
        ({"embedding": "other"}, ["test_bertscore", "test_cosine"]),
        ({"cost": {"rounds": 9}}, []),
        ({"bootstrap": 50}, []),
        ({"brand_new": 1}, GATED),
    ],
)
def test_another_setting_leaves_out_the_metrics_that_it_makes_others(setting, names):
    before, after = items(30, 30), items(30, 30)
    changed("log_likelihood", -9.0)(after)
    found = rows(before, after, MARGINS, sides=(Side("base"), Side("head", **setting)))
    assert [name for name, row in found.items() if row.word == NOT_COMPARED] == [n for n in MARGINS if n in names]
    assert all("another evaluate." in found[name].note for name in names)


def test_every_setting_of_evaluate_is_known_to_the_gate():
    """A new one leaves out every metric until somebody says which ones it makes others."""
    known = {key for key in pairing.flat(load_all_evaluate()) if not key.startswith("cost.")}
    assert known == set(pairing.SETTINGS)


def load_all_evaluate():
    return dataclasses.asdict(params.load_all(REPO / "params.yaml").evaluate)


def test_a_row_that_only_one_side_has_is_not_compared():
    before, after = items(30, 30), items(30, 30)
    after["log_likelihood"][:] -= 0.1
    after["kld"][:] = np.nan
    row = rows(before, after, MARGINS)["kld"]
    assert (row.word, row.note, row.base is None, row.head) == (NOT_COMPARED, "not measured in head", False, None)


# ---- what is shown of arrays


def sample(value, error, items=300, margin=0.02, seeds=0.0, freedom=0.0, resamples=400):
    noise = np.random.default_rng(3).normal(0.0, error, resamples)
    return Sample(np.concatenate([[value], value + noise]), error, items, margin, seeds, freedom)


def test_a_single_item_shows_nothing_however_good_it_is():
    [found] = measuring.shown([sample(0.5, 0.01, items=1)])
    assert not found.passes and not found.worse


def test_a_loss_without_any_error_is_what_it_is():
    one, other = measuring.shown([sample(-0.03, 0.0), sample(-0.01, 0.0)])
    assert (one.worse, one.passes, other.worse, other.passes) == (True, False, False, True)


def test_what_the_seeds_add_is_in_what_is_shown():
    alone, with_seeds = (measuring.shown([sample(0.0, 0.005, seeds=s, freedom=2.0)])[0] for s in (0.0, 0.01**2))
    assert alone.passes and not with_seeds.passes
    assert with_seeds.items is None  # no number of items makes up for three seeds


def test_so_many_items_decide_what_is_open():
    [found] = measuring.shown([sample(0.0, 0.02, items=300)])
    assert not found.passes
    assert found.items is not None
    for part, passes in ((0.7, False), (1.3, True)):
        items = int(part * found.items)
        [then] = measuring.shown([sample(0.0, 0.02 * (300 / items) ** 0.5, items)])
        assert then.passes == passes


def test_of_a_metric_of_some_answers_the_test_items_are_counted_that_hold_so_many():
    both = [items(120, 8, seed=1), items(120, 8)]
    without = [place for place, split in enumerate(both[0]["split"]) if split == "test"][::2]
    for side in both:
        side["fields"][without] = np.nan
    others = np.setdiff1d(np.arange(len(both[0]["split"])), without)
    alone = rows(*(drawn(side, others) for side in both), {"test_fields": 0.02})["test_fields"]
    among = rows(*both, {"test_fields": 0.02})["test_fields"]
    assert among.difference == alone.difference
    assert alone.items is not None and 2 * alone.items <= among.items <= 2.2 * alone.items


def test_of_more_rows_it_takes_more_to_fail_and_no_more_to_pass():
    few = measuring.shown([sample(-0.06, 0.02)])
    many = measuring.shown([sample(-0.06, 0.02), *(noise_of(n) for n in range(40))])
    assert few[0].worse and not many[0].worse
    assert measuring.shown([sample(0.02, 0.015)])[0].passes
    assert measuring.shown([sample(0.02, 0.015), *(noise_of(n) for n in range(40))])[0].passes


def noise_of(seed):
    drawn = np.concatenate([[0.0], np.random.default_rng(seed).normal(0.0, 0.02, 400)])
    return Sample(drawn, 0.02, 300, 0.001)


# ---- several trainings


def with_seeds(shifts, made):
    """Results of a method with a training for each shift of its loss; the format gated is made of the first."""
    seeds = [42 + place for place in range(len(shifts))]
    trained = VARIANT.cell.variant("trained")
    further = VARIANT.cell.further(seeds)
    columns = {}
    for variant, shift in zip([trained, *further], shifts, strict=True):
        columns[variant] = items(60, 30)
        columns[variant]["log_likelihood"] -= shift * columns[variant]["tokens"]
    columns[VARIANT] = {name: values.copy() for name, values in columns[trained].items()}
    found = measured(columns, 200, made, {})
    found.run.seeds, found._further = seeds, {VARIANT.cell: further}
    return found


def judged(before, after):
    quality = Quality(Pairing(Side("base"), Side("head"), before, after), {"test_loss": 0.05}, set())
    [[row]] = finished([quality.rows(VARIANT, VARIANT)])
    return row, list(quality.notes)


def test_with_several_trainings_the_mean_is_compared_and_what_the_seeds_add_is_in_the_error():
    before = with_seeds([0.0, 0.01, -0.01], 0)
    row, notes = judged(before, with_seeds([0.01, 0.09, -0.01], 1))
    assert row.difference.value == pytest.approx(0.03)
    spread = (np.var([0.0, 0.01, -0.01], ddof=1) / 3 + np.var([0.01, 0.09, -0.01], ddof=1) / 3) ** 0.5
    assert row.difference.error == pytest.approx(spread, rel=1e-3)
    assert row.difference.high > 0.03 + 2 * spread  # Student's t of few seeds
    assert not notes


def test_weights_of_one_training_are_judged_as_they_are_and_that_is_said():
    row, notes = judged(with_seeds([0.0], 0), with_seeds([0.01], 1))
    assert row.word == PASS and "one training on a side" in notes[0]
    row, notes = judged(with_seeds([0.0], 0), with_seeds([0.01], 0))  # another format of the same training
    assert row.word == PASS and not notes


def test_where_one_side_was_trained_once_its_seed_matters_as_much_as_those_of_the_other():
    row, notes = judged(with_seeds([0.0], 0), with_seeds([0.01, 0.09, -0.01], 1))
    spread = np.var([0.01, 0.09, -0.01], ddof=1) * (1 + 1 / 3)
    assert row.difference.error == pytest.approx(spread**0.5, rel=1e-3) and notes


def test_few_items_show_nothing_to_be_worse_and_one_item_nothing_at_all():
    assert not any(measuring.shown([sample(-0.5, 0.01, items=count)])[0].worse for count in (12, 29))
    assert measuring.shown([sample(-0.5, 0.01, items=30)])[0].worse
    certain = measuring.shown([sample(0.5, 0.0, items=1), sample(-0.5, 0.0, items=1)])
    assert not any(found.passes or found.worse or found.moved for found in certain)


def test_of_few_items_no_score_that_changed_does_not_show_that_none_will():
    mine, other = items(30, 30), items(30, 30)
    other["log_likelihood"] -= 0.1  # so that it is not all the same
    assert rows(mine, other, {"test_f1": 0.02})["test_f1"].word == "NOT SHOWN"
    mine, other = items(400, 30), items(400, 30)
    other["log_likelihood"] -= 0.1
    assert rows(mine, other, {"test_f1": 0.02})["test_f1"].word == PASS
