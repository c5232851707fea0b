"""Any two variants of a run list against each other: the numbers are those of the report, and misuse is one message."""

import os
import subprocess
import sys
from pathlib import Path

import fake_results
import numpy as np
import pytest

from stages import score
from tradeoffs import compare, metrics, params
from tradeoffs.common.cells import Variant, variants
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.formats import trained_only
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report import formatting
from tradeoffs.results import verdicts

REPO = Path(__file__).parents[1]
LORA, BASE = (Variant("demo", "demo", method, fmt) for method, fmt in (("lora", "q4_0"), ("base", "trained")))
TESTED = ("test_exact_match", "seen_exact_match", "mmlu_accuracy")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two models and two data sets, up to `score`; tests read it only."""
    folder = tmp_path_factory.mktemp("compared")
    lists = {"models": ["demo", "stories260k"], "datasets": ["demo", "instructions"], "methods": ["base", "lora"]}
    with pytest.MonkeyPatch.context() as patch:
        fake_results.params_file(folder, REPO / "params.yaml", **lists, precisions=[], quants=["f16", "q4_0"])
        patch.chdir(folder)
        fake_results.write(folder, params.load_all().run, items=20, questions=8)
        score.main()
    return folder


@pytest.fixture
def results(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return fake_results.read()


def rows(text: str) -> dict[str, list[str]]:
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in found}


def test_the_differences_are_those_of_the_whole_run(finished, results, capsys):
    compare.main(str(LORA), str(BASE))
    found = rows(capsys.readouterr().out)
    for name in ("test_f1", "seen_loss", "mmlu_accuracy", "cosine_to_base", "test_exact_match"):
        row = found[formatting.full_label(results, "demo", name)]
        assert row[:2] == [formatting.quality_of(results, v, name) for v in (LORA, BASE)]
        judged = verdicts.against(results, LORA, BASE, name) if results.judged(name) else None
        difference = judged.difference if judged else verdicts.paired(results, LORA, BASE, name)
        assert row[2] == formatting.difference(difference, name)
        assert row[3] == (judged.word if judged else "")
    assert found["test F1"][2].endswith(", excludes 0")
    assert found["test loss"][3] == verdicts.ONE


def test_what_is_too_much_worse_over_the_items_alone_is_said_of_one_training_too(results):
    assert rows("\n".join(compare.comparison(results, BASE, LORA)))["test F1"][3] == verdicts.WORSE


def test_two_formats_of_one_training_have_a_verdict(results):
    other = Variant("demo", "demo", "lora", "f16")
    assert rows("\n".join(compare.comparison(results, other, LORA)))["test loss"][3] == verdicts.GOOD
    assert rows("\n".join(compare.comparison(results, LORA, other)))["test loss"][3] == verdicts.WORSE


def test_every_quality_metric_of_either_is_there(results):
    found = rows("\n".join(compare.comparison(results, LORA, BASE)))
    for name in (*metrics.names("quality"), *metrics.names("summary")):
        if results.has(LORA, name):
            assert formatting.full_label(results, "demo", name) in found
    assert found["KLD"][1:] == ["", "", "", ""]  # the base as trained is its own reference


def test_accuracies_have_mcnemars_p_and_nothing_else_does(results):
    found = rows("\n".join(compare.comparison(results, LORA, BASE)))
    tested = {name for name, cells in found.items() if len(cells) == 5 and cells[4] not in ("", "p", "---:")}
    assert tested == {formatting.full_label(results, "demo", name) for name in TESTED}
    assert found["multiple choice"][4] == f"{results.mcnemar(LORA, BASE, 'mmlu_accuracy'):.2g}"


def test_costs_are_ratios_of_the_first_to_the_second(results):
    found = rows("\n".join(compare.comparison(results, LORA, BASE)))
    assert found["size MB"][-1] == formatting.short(results.cost[LORA]["size_mb"] / results.cost[BASE]["size_mb"])
    assert {"decode tok/s", "prefill tok/s", "p50 latency s", "memory of the model MB"} <= set(found)
    assert "GPU memory MB" not in found


def test_a_batch_that_only_one_had_the_memory_for_has_no_ratio(results):
    found = rows("\n".join(compare.comparison(results, LORA, BASE)))
    assert found["decode tok/s, 4 at a time"][2]
    ours, theirs, ratio = found["decode tok/s, 16 at a time"]
    assert ours
    assert theirs == ratio == ""


def test_speeds_that_are_not_told_apart_are_called_so_one_at_a_time_and_in_batches(results):
    found = rows("\n".join(compare.comparison(results, LORA, Variant("demo", "demo", "base", "q4_0"))))
    names = ("decode tok/s", "decode tok/s, 4 at a time", "decode tok/s, 16 at a time")
    assert [found[name][2] for name in names] == ["1, not told apart"] * 3
    assert found["p50 answer tokens"][2] == "1", "how long answers are is no cost"


def test_what_counts_tokens_is_left_out_between_tokenizers(results):
    other = Variant("stories260k", "demo", "lora", "q4_0")
    assert "test loss" in rows("\n".join(compare.comparison(results, LORA, other)))
    results.columns[other]["tokens"] = np.nan_to_num(results.columns[other]["tokens"]) + 1
    found = rows("\n".join(compare.comparison(results, LORA, other)))
    assert not {"test loss", "test perplexity", "seen token accuracy", "KLD"} & set(found)
    assert {"test bits per byte", "test F1"} <= set(found)


def test_only_the_two_are_read(finished, tmp_path, monkeypatch, capsys):
    for name in ("data/items/{}.parquet", "data/facts/{}.json"):
        for variant in (LORA, BASE):
            path = tmp_path / name.format(variant)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(finished / name.format(variant))
    for name in ("params.yaml", "data/scores.parquet", "data/cost.json", "data/training", "data/prepared"):
        (tmp_path / name).symlink_to(finished / name)
    monkeypatch.chdir(tmp_path)
    compare.main(str(LORA), str(BASE))
    assert "| test F1 |" in capsys.readouterr().out


def test_a_variant_that_could_not_be_made_is_answered_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = [Variant("demo", "demo", "prompt_tuning", fmt) for fmt in ("trained", "q4_0")]
    trained_only.write_evaluation(listed[1], ITEMS, "it trains vectors", trained_only.KEY)
    with pytest.raises(UserError) as error:
        compare.named(str(listed[1]), listed)
    assert str(error.value) == (
        "demo-demo-prompt_tuning-q4_0: there is none, its method exists as trained only: it trains vectors; name "
        "demo-demo-prompt_tuning-trained"
    )
    assert compare.named(str(listed[0]), listed) == listed[0]


def test_general_text_is_compared_between_trained_models_of_one_base_only(results):
    trained = [Variant("demo", "demo", method, "trained") for method in ("lora", "base")]
    assert rows("\n".join(compare.comparison(results, *trained)))["general loss"][2].endswith(", excludes 0")
    other = Variant("stories260k", "demo", "lora", "trained")
    assert "general loss" not in rows("\n".join(compare.comparison(results, trained[0], other)))
    # Of another format it was not measured; their tokenizers are the same all the same.
    found = "\n".join(compare.comparison(results, trained[0], LORA))
    assert rows(found)["general loss"][1] == ""
    assert "tokenizers differ" not in found


def test_an_unknown_variant_gets_the_near_match(finished, monkeypatch):
    monkeypatch.chdir(finished)
    with pytest.raises(UserError, match=r"demo-demo-lora-q4_1: no variant.*did you mean demo-demo-lora-q4_0\?"):
        compare.named("demo-demo-lora-q4_1", variants(params.load_all().run))


def test_two_models_are_compared_on_the_items_that_both_have(results):
    other = Variant("stories260k", "demo", "lora", "q4_0")
    before = results.compare(LORA, other, "test_f1")
    mine = results.columns[other]
    mine["f1"][np.flatnonzero(mine["split"] == "test")[3]] = np.nan
    results._values.clear()
    results._sums.clear()
    found = results.compare(LORA, other, "test_f1")
    scores = [results.columns[v]["f1"][results.columns[v]["split"] == "test"] for v in (LORA, other)]
    both = ~np.isnan(scores[1])
    assert found.value == pytest.approx(scores[0][both].mean() - scores[1][both].mean()) != before.value
    assert found.value == pytest.approx(-results.compare(other, LORA, "test_f1").value)


def test_two_models_that_share_no_item_are_refused(results):
    other = Variant("stories260k", "demo", "lora", "q4_0")
    results.columns[other]["item"] = np.array([f"other {item}" for item in results.columns[other]["item"]], object)
    with pytest.raises(UserError, match=r"different items"):
        compare.comparison(results, LORA, other)


def test_variants_of_different_data_sets_are_refused(results):
    with pytest.raises(UserError, match="different data sets"):
        compare.comparison(results, LORA, Variant("demo", "instructions", "lora", "q4_0"))


def test_a_variant_is_not_compared_with_itself(results):
    with pytest.raises(UserError, match="named twice"):
        compare.comparison(results, LORA, LORA)


def test_the_command_ends_with_one_line_and_code_1_on_a_mistake(finished):
    command = [sys.executable, "-m", "tradeoffs.compare", str(LORA), "demo-demo-lora"]
    done = subprocess.run(
        command,
        cwd=finished,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: demo-demo-lora: no variant")
    assert done.stderr.count("\n") == 1
