"""What `make run` ends with: the decision of metrics/ in ten lines, and what there is most reason to change."""

import copy
import json
from pathlib import Path

import fake_results
import pytest

from tradeoffs import params
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import ending

SLOW_FIXTURES = {"grid"}  # read by conftest.py


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A folder with the results of one model on one data set."""
    folder = tmp_path_factory.mktemp("one")
    fake_results.finished(folder, methods=["base", "full", "lora"], precisions=["bf16"], quants=["q8_0", "q4_0"])
    return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """The same of two models on three data sets, one of them text."""
    folder = tmp_path_factory.mktemp("grid")
    models, datasets = ["demo", "stories260k"], ["demo", "instructions", "stories"]
    fake_results.finished(
        folder, models=models, datasets=datasets, methods=["base", "lora"], precisions=[], quants=["q4_0"]
    )
    return folder


@pytest.fixture
def said(one, monkeypatch):
    """The lines, the row of decision.json, and the numbers of what it recommends."""
    monkeypatch.chdir(one)
    found = ending.read()
    row = found.decision["demo-demo"]
    return ending.lines(found, params.load_all()), row, found.quality[row["recommended"]]


def test_one_decision_is_told_in_ten_lines(said):
    lines, row, quality = said
    ours = Variant.parse(row["recommended"])
    assert len(lines) <= 10 and all(lines)
    assert lines[0].startswith(f"demo on demo: ship `{ours.method} {ours.format}`, test ")
    assert f" {quality[row['metric']]:.3f}; the best found" in lines[0]


def test_what_it_costs_and_what_is_beaten_are_the_numbers_of_the_files(said):
    lines, row, _ = said
    cost = json.loads(Path("metrics/cost.json").read_text())[row["recommended"]]
    base = json.loads(Path("metrics/quality.json").read_text())["demo-demo-base-trained"]
    assert lines[1].startswith(f"Costs: {cost['size_mb']:.3g} MB, ")
    assert f"Untouched base: {base[row['metric']]:.3f}. " in lines[2]
    assert f"training answer: {row['copying']['value']:.3f}" in lines[2]


def test_every_variant_is_counted_by_its_verdict(said):
    lines, row, _ = said
    words = [one["verdict"] for one in row["verdicts"].values()]
    assert lines[3].startswith(f"Of {len(words)} variants: {words.count('good enough')} good enough, ")


def test_the_last_lines_say_where_to_look_and_what_to_do(said):
    lines, row, _ = said
    assert f"python -m tradeoffs.compare {row['recommended']} demo-demo-" in lines[-3]
    assert lines[-3].startswith("Next: report/explore.html ")
    assert f"compare {row['recommended']} {row['recommended']}" not in lines[-3]
    assert lines[-2].startswith("Change first, in params.yaml, then `make run`: `")
    assert "docs/data.md" in lines[-1] and Path(__file__).parents[1].joinpath("docs/data.md").is_file()


def test_of_many_pairs_the_first_have_a_line_each_and_the_others_are_counted(grid, monkeypatch):
    monkeypatch.chdir(grid)
    found = ending.read()
    lines = ending.lines(found, params.load_all())
    assert len(lines) <= 10
    assert [line.partition(": ship")[0] for line in lines[:5]] == [
        f"{model} on {dataset}" for model, dataset in (pair.split("-") for pair in list(found.decision)[: ending.MOST])
    ]
    assert lines[5] == "and 1 other pair, in the report"
    assert lines[-2].startswith("Change first, in params.yaml, then `make run` (demo on demo): `")


def recommends(row, method):
    row["recommended"] = f"demo-demo-{method}-q4_0"


def guarded(row, word):
    row["guards"] = {row["recommended"]: {"mmlu_accuracy": {"guard": word, "difference": -0.1}}}


@pytest.fixture
def calm(one, monkeypatch):
    """A decision with nothing to complain of, and the params."""
    monkeypatch.chdir(one)
    row = copy.deepcopy(ending.read().decision["demo-demo"])
    row["copying"]["beaten"] = True
    row["verdicts"] = {name: {"verdict": "good enough"} for name in row["verdicts"]}
    recommends(row, "lora")
    guarded(row, "kept")
    return row, params.load_all()


def test_where_nothing_is_wrong_the_question_itself_can_be_changed(calm):
    row, cfg = calm
    assert ending.change(row, cfg) == (
        "`decide.cost` (now size_mb) and `decide.margins`, if other things count for you: docs/numbers.md"
    )


def test_too_few_items_to_decide_ask_for_more(calm):
    row, cfg = calm
    row["verdicts"]["demo-demo-full-q4_0"] = {"verdict": "undecided", "items_to_decide": 5000}
    assert ending.change(row, cfg).startswith(f"`evaluate.splits.test` (now {cfg.evaluate.splits.test}) up to 5,000")


def test_a_single_training_asks_for_more_seeds_before_more_items(calm):
    row, cfg = calm
    row["verdicts"]["demo-demo-full-q4_0"] = {"verdict": "undecided", "items_to_decide": 5000}
    row["verdicts"]["demo-demo-full-bf16"] = {"verdict": "one training"}
    assert ending.change(row, cfg) == "`run.seeds` to [42, 43, 44], since 1 variants hang on a single training"


def test_what_tuning_lost_asks_for_less_of_it(calm):
    row, cfg = calm
    row["verdicts"]["demo-demo-full-bf16"] = {"verdict": "one training"}
    guarded(row, "lost")
    assert "to less, since multiple choice got worse: docs/sweeps.md" in ending.change(row, cfg)


def test_a_value_stands_where_its_method_has_it(calm):
    row, cfg = calm
    guarded(row, "lost")
    cfg.methods["lora"] = params.Method(peft="LORA", train={"lr": 0.5})
    assert ending.change(row, cfg).startswith("`methods.lora.train.lr` (now 0.5) to less")


def test_a_base_that_nothing_beats_asks_for_another_rate(calm):
    row, cfg = calm
    recommends(row, "base")
    assert ending.change(row, cfg).startswith("`train.lr` (now ")


def test_copying_that_is_not_beaten_comes_first(calm):
    row, cfg = calm
    recommends(row, "base")
    row["copying"]["beaten"] = False
    assert ending.change(row, cfg).startswith(
        f"`train.steps` from {cfg.train.steps} to {2 * cfg.train.steps}, since copy"
    )


def test_results_that_are_not_there_yet_are_one_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"metrics/decision\.json: not found in .*; run after `dvc repro`"):
        ending.main()
