"""Untouched models on tasks alone: a data set that has nothing at all goes through every stage, and a task decides."""

import importlib.util
from pathlib import Path

import pytest
import quick_yaml
from test_asked_alone import MODELS, evaluated, over, reported, set_up

from tradeoffs import compare, params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.explore import __main__ as explore
from tradeoffs.export import card, judged
from tradeoffs.export.chosen import Chosen
from tradeoffs.metrics import registry

REPO = Path(__file__).parents[1]
SLOW_FIXTURES = {"finished"}  # read by conftest.py
pytestmark = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-evaluation-harness")
ALONE = {
    "run": {"datasets": ["alone"], "models": list(MODELS), "precisions": ["bf16"], "quants": ["q4_0"]},
    "evaluate": {"tasks": ["facts"], "harness": {"folder": str(REPO / "examples/tasks"), "limit": 12}},
    "decide": {"metric": "facts_acc", "margins": {"facts_acc": 0.1}, "guards": {"facts_acc": "base"}},
    "datasets": {"alone": {"kind": "questions"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    before = dict(registry.METRICS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TQDM_DISABLE", "1")
        set_up(folder)
        raw = quick_yaml.load(Path("params.yaml").read_text())
        raw["decide"]["guards"] = {}
        files.write_text("params.yaml", quick_yaml.dump(over(raw, ALONE)))
        (folder / "examples").symlink_to(REPO / "examples")
        evaluated("alone", ["q4_0"], ["facts"])
        reported("alone")
        yield folder
    registry.METRICS.clear()
    registry.METRICS.update(before)


def test_the_decision_is_by_the_task_with_its_guard_on_the_model_as_it_is(finished):
    for model in MODELS:
        found = files.read_json("metrics/decision.json")[f"{model}-alone"]
        assert found["metric"] == "facts_acc" and found["recommended"].startswith(f"{model}-alone-base-")
        assert found["guards_not_checked"] == []


def test_quality_is_of_the_task_and_costs_are_measured_without_a_question(finished):
    quality, cost = (files.read_json(f"metrics/{name}.json") for name in ("quality", "cost"))
    assert set(quality) == {f"{model}-alone-base-{form}" for model in MODELS for form in ("trained", "bf16", "q4_0")}
    for variant, row in quality.items():
        assert {name for name in row if not name.startswith("facts_")} == set(), variant
        assert {"facts_acc", "facts_acc_norm"} <= set(row)
        assert cost[variant]["decode_tokens_per_second"] > 0 and cost[variant]["model_memory_mb"] >= 0
        assert not {"ttft_seconds", "latency_p50_seconds", "eval_samples_per_second"} & set(cost[variant])
    assert files.read_json("metrics/mmlu.json") == {}


def test_the_report_says_nothing_of_what_was_not_asked(finished):
    pages = {path.stem: path.read_text() for path in Path("report").glob("*.md")}
    assert set(pages) >= {"report", "grid", "formats", "tasks", "reading"}
    for name, text in pages.items():
        assert "nan" not in text.lower().split(), name
        for word in ("test F1", "test loss", "bits per byte", "KLD", "MMLU", "multiple choice"):
            assert word not in text, (name, word)
    assert "ship `base" in pages["report"]
    assert all("facts acc" in pages[name] for name in ("report", "grid", "formats", "data"))


def test_commands_take_it(finished, capsys):
    compare.main("one-alone-base-q4_0", "two-alone-base-q4_0", [])
    assert "facts acc" in capsys.readouterr().out
    explore.main(Path("explore.html"), [])
    assert Path("explore.html").stat().st_size > 10_000


def test_a_card_says_what_was_measured_and_nothing_of_what_was_not(finished):
    chosen = Chosen(Variant.parse("two-alone-base-q4_0"), params.load_all(), {})
    own = chosen.numbers()
    assert card.tested(chosen, []) == "Asked by tasks of lm-evaluation-harness: `facts` (12 items)."
    assert "on 12 items of the task facts" in card.headline(chosen)
    table = "\n".join(card._table(chosen, own, None))
    assert "facts acc" in table and "facts acc_norm" in table and "weights, MB" in table
    assert {"facts_acc", "facts_acc_norm"} <= set(card._defined(chosen, own))
    said = "\n".join([*card.example(chosen), *card.limits(chosen), card.tested(chosen, [])])
    assert "multiple-choice" not in said and "letter" not in said and "Answers were cut" not in said
    assert card.benchmark(chosen) == []
    assert judged._not_compared(chosen, own).startswith("Nothing was measured besides the task itself")
