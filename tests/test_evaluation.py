"""What evaluation does with numbers that are none, and with what it is asked to compare."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages import evaluate_cpu, evaluate_gpu
from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.batching import length_batches
from tradeoffs.common.unfinished import Unfinished
from tradeoffs.evaluate import items, kld
from tradeoffs.evaluate.runtime import Scores, common_prefix
from tradeoffs.formats import trained_only
from tradeoffs.plumbing.errors import UserError


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_log_probability_that_is_no_number_stops_the_evaluation(value):
    with pytest.raises(UserError, match="test item 7: a log-probability is not a finite number"):
        items.require_finite(np.array([-1.0, value]), "test item 7")


def test_a_divergence_that_is_no_number_stops_the_evaluation():
    ids, drawn = np.array([[3, 1]]), np.array([[7, 8]])
    reference = kld.Reference(ids, np.log([[0.7, 0.2]]), np.log([0.1]), drawn, np.log([[0.05, 0.05]]))
    never = Scores(np.zeros(1), np.array([3]), np.array([[0.0, -np.inf]]), None, np.log([0.1]), np.log([[0.05, 0.05]]))
    with pytest.raises(UserError, match="test item 7: a log-probability is not a finite number"):
        items.compare(reference, never, "test item 7")


def test_same_top_counts_the_tokens_at_which_both_would_say_the_same():
    ids, tail = np.array([[3, 1], [2, 5]]), np.log([0.1, 0.1])
    drawn, drawn_logprob = np.array([[7, 8], [7, 8]]), np.log(np.full((2, 2), 0.05))
    reference = kld.Reference(ids, np.log([[0.7, 0.2], [0.6, 0.3]]), tail, drawn, drawn_logprob)
    same = Scores(np.zeros(2), np.array([3, 5]), reference.logprob, None, tail, drawn_logprob)
    assert items.compare(reference, same, "test item 7") == {
        "kld": 0.0,
        "kld_tail": 0.0,
        "kld_variance": 0.0,
        "same_top": 1,
    }


def test_batches_hold_similar_lengths_and_stay_within_their_size():
    lengths = [3, 50, 7, 49, 5, 100]
    batches = length_batches(lengths, 100)
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 100 for batch in batches)
    assert batches[0] == [5], "the longest comes first"


def test_a_common_prefix_leaves_a_token_of_each_prompt_to_be_asked():
    same = [np.array([1, 2, 3]), np.array([1, 2, 3])]
    assert common_prefix(same) == 2
    assert common_prefix([np.array([1, 2, 9]), np.array([1, 2, 3, 4])]) == 2
    assert common_prefix([np.array([4]), np.array([4, 5])]) == 0


@pytest.mark.parametrize(("stage", "name"), [(evaluate_gpu, "bf16"), (evaluate_cpu, "q4_0")])
def test_what_cannot_be_merged_is_not_evaluated_and_says_why(tmp_path, monkeypatch, stage, name):
    monkeypatch.setattr(params, "PATH", Path(__file__).parents[1] / "params.yaml")
    monkeypatch.chdir(tmp_path)
    files.write_json("models/merged/m-d-prompt/run_info.json", {"unmergeable": "it trains vectors", "seed": 7})
    trained_only.write_gguf(Path("models/gguf/m-d-prompt-q4_0.gguf"), "it trains vectors", trained_only.KEY)
    stage.main("m", "d", "prompt", name)
    table = pq.read_table(f"data/items/m-d-prompt-{name}.parquet")
    assert table.num_rows == 0 and table.schema.equals(items.ITEMS)
    assert files.read_json(f"data/facts/m-d-prompt-{name}.json") == {"unmergeable": "it trains vectors"}


def test_a_gguf_that_is_not_what_was_made_is_not_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"max_new_tokens": 3, "batch_tokens": "auto", "kld_top_k": 4, "kld_tail_samples": 2}
    splits = {"test": 1, "seen": 1, "general": 1}
    files.write_json("data/reference/m-d-base/asked.json", {"splits": splits} | asked)
    files.write_text("models/gguf/m-d-base-q4_0.gguf", "weights")
    files.write_json("models/gguf/m-d-base-q4_0.json", {"sha256": files.sha256("models/gguf/m-d-base-q4_0.gguf")})
    Path("models/gguf/m-d-base-q4_0.gguf").write_text("weightz")
    with pytest.raises(UserError, match=r"m-d-base-q4_0\.gguf: damaged: it is not what was made"):
        evaluate_cpu.main("m", "d", "base", "q4_0")
    assert [path.name for path in Path("data").iterdir()] == ["reference"]


def test_a_model_that_llama_cpp_cannot_run_is_not_evaluated_by_it_and_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained_only.write_gguf(Path("models/gguf/m-d-base-q4_0.gguf"), "no such model", trained_only.NO_GGUF)
    evaluate_cpu.main("m", "d", "base", "q4_0")
    assert pq.read_table("data/items/m-d-base-q4_0.parquet").num_rows == 0
    assert files.read_json("data/facts/m-d-base-q4_0.json") == {"no_gguf": "no such model"}


class Cpu:
    """What Unfinished asks of work: a count of how often it was done."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return [{"split": "test", "item": str(self.calls)}]


@pytest.mark.parametrize("changed", ["nothing", "settings", "device", "input"])
def test_a_finished_part_is_used_again_only_for_the_very_same_work(tmp_path, monkeypatch, changed):
    monkeypatch.chdir(tmp_path)
    model, work = tmp_path / "model.gguf", Cpu()
    model.write_text("weights")

    def done(*settings):
        return Unfinished("a-b-c-d", items.ITEMS, [model], *settings)

    done({"shots": 5}, "cpu").part("test-00000", work)
    if changed == "input":
        model.write_text("other weights")
    again = done({"shots": 0 if changed == "settings" else 5}, "cuda" if changed == "device" else "cpu")
    seconds = again.part("test-00000", work)
    assert work.calls == (1 if changed == "nothing" else 2)
    assert again.read("test-00000")[0]["item"] == str(work.calls)
    assert set(seconds) == {"wall", "cpu"}
    again.remove()
    assert not (tmp_path / ".scratch/unfinished/a-b-c-d").exists()
