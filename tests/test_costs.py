"""Costs are pooled over what has the same shapes, and told apart only by more than the machine's noise."""

import fake_results
import numpy as np
import pytest

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import costs
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results

SPEED, PREFILL, MEMORY = "decode_tokens_per_second", "prefill_tokens_per_second", "model_memory_mb"
LORA, FULL, BASE = (Variant("demo", "demo", method, "q4_0") for method in ("lora", "full", "base"))
LISTS = {
    "models": ["demo"],
    "datasets": ["demo", "instructions"],
    "methods": ["base", "full", "lora"],
    "precisions": ["bf16"],
    "quants": ["f16", "q4_0"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    fake_results.finished(folder, stages=[fake_results.score], **LISTS)
    return folder


@pytest.fixture
def results(folder, monkeypatch):
    return read(folder, monkeypatch)


def read(folder, monkeypatch, edit=lambda written: None) -> Results:
    """The results after `edit` has changed data/cost.json (as a dict, in place), which is then put back."""
    monkeypatch.chdir(folder)
    cfg, written = params.load_all(), files.read_json("data/cost.json")
    before = (folder / "data/cost.json").read_text()
    edit(written)
    files.write_json("data/cost.json", written)
    try:
        return Results(cfg.run, cfg.seed, 20, cfg.decide)
    finally:
        files.write_text("data/cost.json", before)


def thing(written, variant):
    return next(found for found in written["things"] if str(variant) in found["members"])


def test_what_has_the_same_shapes_costs_the_same_also_in_another_pair(results):
    other = Variant("demo", "instructions", "full", "q4_0")
    for name in ("size_mb", "load_seconds", PREFILL, SPEED, f"{costs.BATCH}16", MEMORY, "peak_memory_mb"):
        assert results.cost[LORA][name] == results.cost[FULL][name] == results.cost[other][name]
        assert not costs.told_apart(results, LORA, FULL, name)
        assert costs.interval(results, LORA, name) == costs.interval(results, other, name)


def test_a_value_is_the_median_over_the_rounds_of_all_that_are_alike(results, folder):
    things = [
        one for one in files.read_json(folder / "data/cost.json")["things"] if str(one["shapes"]).endswith("q4_0")
    ]
    assert len(things) == 2  # one of each pair
    speeds = [one[SPEED] for found in things for one in found["rounds"]]
    assert results.cost[LORA][SPEED] == pytest.approx(np.median(speeds), rel=1e-5)
    bounds = costs.interval(results, LORA, SPEED)
    assert min(speeds) < bounds.low < bounds.value < bounds.high < max(speeds)


def test_the_interval_of_five_rounds_of_one_thing_spans_them(results, folder):
    """Their range holds the true median with 1 - 2 / 2**5 = 94 %: a narrower one would promise too much."""
    trained = Variant("demo", "demo", "lora", "trained")
    bounds = costs.interval(results, trained, "eval_samples_per_second")
    found = thing(files.read_json(folder / "data/cost.json"), trained)["rounds"]
    speeds = [one["eval_samples_per_second"] for one in found]
    assert (bounds.low, bounds.high) == pytest.approx((min(speeds), max(speeds)))


def test_a_slow_round_moves_no_value_by_much(folder, monkeypatch):
    def slow(written):
        for found in written["things"]:
            found["rounds"][0] |= {name: found["rounds"][0][name] / 5 for name in (SPEED, PREFILL)}

    before, after = read(folder, monkeypatch), read(folder, monkeypatch, slow)
    for variant in before.variants:
        assert after.cost[variant][SPEED] == pytest.approx(before.cost[variant][SPEED], rel=0.1)


def test_a_size_is_exact_and_has_no_interval(results):
    assert costs.interval(results, LORA, "size_mb") is None
    assert costs.cheaper(results, LORA, Variant("demo", "demo", "lora", "f16"), "size_mb")


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "apart"),
    [
        (SPEED, (80, 90, 100), (50, 60, 70), True),
        (SPEED, (80, 90, 100), (75, 79, 81), False),  # overlapping
        (SPEED, (99, 100, 101), (91, 92, 93), False),  # less than the tolerance apart
        (MEMORY, (99, 100, 101), (91, 92, 93), True),
        (MEMORY, (99.9, 100, 100.1), (96, 97, 98), False),
        ("size_mb", (2.000,) * 3, (2.010,) * 3, False),
        ("size_mb", (2.000,) * 3, (2.030,) * 3, True),
    ],
)
def test_two_are_told_apart_beyond_the_tolerance_and_without_overlap(results, name, ours, theirs, apart):
    for variant, (low, value, high) in ((LORA, ours), (BASE, theirs)):
        results.cost[variant][name] = value
        bounds = {} if name == "size_mb" else {name: Interval(value, low, high, 1.0)}
        results.costs.intervals[variant] = bounds
    assert costs.told_apart(results, LORA, BASE, name) == costs.told_apart(results, BASE, LORA, name) == apart
    first_is_cheaper = (ours[1] < theirs[1]) == (costs.CHEAPER[name] == "lower")
    assert costs.cheaper(results, LORA, BASE, name) == (apart and first_is_cheaper)
    assert costs.cheaper(results, BASE, LORA, name) == (apart and not first_is_cheaper)


def test_what_one_of_two_lacks_tells_nothing_apart(results):
    name = f"{costs.BATCH}16"
    trained = Variant("demo", "demo", "lora", "trained")  # so many at a time did not fit
    assert name not in results.cost[trained]
    assert not costs.told_apart(results, LORA, trained, name)


def test_latency_is_the_time_to_the_first_token_and_a_step_for_each_further_one(folder, monkeypatch):
    def fixed(written):
        for one in thing(written, LORA)["rounds"]:
            one |= {"prompts_ttft_seconds": [0.5] * 5, SPEED: 10}

    plain = read(folder, monkeypatch, fixed)
    assert plain.cost[LORA]["answer_tokens_p50"] == 12
    assert plain.cost[LORA]["ttft_seconds"] == pytest.approx(0.5)
    # It ended by itself: after its first token eleven more, and the one that says so.
    assert plain.cost[LORA]["latency_p50_seconds"] == pytest.approx(0.5 + 12 * 0.1)


def test_an_answer_that_was_cut_took_a_step_less(results, folder):
    columns, facts = {LORA: results.columns[LORA]}, results.facts[LORA]
    ended, cut = (
        costs.read({LORA: facts | {"max_new_tokens": limit}}, columns).numbers[LORA]["latency_p50_seconds"]
        for limit in (13, 12)
    )
    rounds = thing(files.read_json(folder / "data/cost.json"), LORA)["rounds"]
    assert ended - cut == pytest.approx(np.median([1 / one[SPEED] for one in rounds]))


def test_a_timed_prompt_that_was_not_answered_is_an_error(results):
    fewer = {
        name: column[results.columns[LORA]["item"] != "test0003"] for name, column in results.columns[LORA].items()
    }
    with pytest.raises(
        UserError, match=r"prompts were timed that data/items/demo-demo-lora-q4_0\.parquet has no answers"
    ):
        costs.read({LORA: results.facts[LORA]}, {LORA: fewer})


def test_a_longer_answer_takes_longer_at_the_same_speed(results):
    longer = {name: column.copy() for name, column in results.columns[LORA].items()}
    longer["generated_tokens"] = longer["generated_tokens"] * 2
    measured = costs.read({LORA: results.facts[LORA]}, {LORA: longer}).numbers[LORA]
    assert measured["ttft_seconds"] == results.cost[LORA]["ttft_seconds"]
    assert measured["latency_p50_seconds"] > 1.5 * results.cost[LORA]["latency_p50_seconds"]
    assert measured["answer_tokens_p50"] == 24


def test_costs_of_other_files_are_refused(folder, monkeypatch):
    with pytest.raises(
        UserError, match=r"data/cost\.json: not measured with the present data/facts/demo-demo-lora-q4_0"
    ):
        read(folder, monkeypatch, lambda written: thing(written, LORA)["members"].remove(str(LORA)))


def test_the_machine_says_how_often_it_was_busy(folder, monkeypatch):
    assert read(folder, monkeypatch).costs.machine["busy"] == pytest.approx(0.2)

    def unknown(written):
        for found in written["things"]:
            for one in found["rounds"]:
                del one["waited"]

    assert read(folder, monkeypatch, unknown).costs.machine["busy"] is None


def test_every_cost_but_the_length_of_answers_has_a_cheaper_end():
    assert set(costs.CHEAPER) == set(costs.COST) - {"answer_tokens_p50"}
    assert costs.CHEAPER["size_mb"] == costs.CHEAPER["ttft_seconds"] == "lower"
    assert costs.CHEAPER[SPEED] == "higher"
