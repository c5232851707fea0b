"""Every method of params.yaml goes through every stage on a random two-layer model, and the numbers hang together."""

import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import small_run
from small_run import PARAMS, REPO
from tiny_gguf import make_checkpoint

from stages import aggregate, copying, evaluate_cpu, evaluate_gpu, measure, prepare, score, tokenize
from tradeoffs.common import files
from tradeoffs.evaluate import items
from tradeoffs.methods import peft_facts
from tradeoffs.params import Method
from tradeoffs.plumbing.errors import UserError
from tradeoffs.tokenize.tables import TOKENS

pytestmark = pytest.mark.slow

METHODS = [*PARAMS["run"]["methods"], "qlora_original", "prompt_tuning"]  # the others: tests/test_methods.py
ONLY_AS_TRAINED = [name for name in METHODS if peft_facts.unmergeable(Method(**PARAMS["methods"][name]))]
QUANTS, PRECISIONS = ["f16", "q8_0", "q4_0"], ["bf16", "nf4"]
CELL = ("tiny", "sums")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with params.yaml, a base checkpoint and a prepared, tokenised dataset of the user's own."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TQDM_DISABLE", "1")
        patch.setattr(items, "CHUNK", 4)  # so that several of them are put together
        tiny = {"path": "models/raw/tiny", "prompt": "own"}
        small_run.set_up({"tiny": tiny}, METHODS, PRECISIONS, QUANTS, small_run.sums(40))
        make_checkpoint(folder / "models/base/tiny")
        general = [{"id": f"g{n}", "text": f"A bond of {n} pays."} for n in range(3)]
        files.write_jsonl("data/general/tiny.jsonl", general)
        prepare.main("sums")
        tokenize.main(*CELL)
        yield folder


@pytest.fixture(scope="module")
def finished(workspace):
    """Every method has been through every stage up to its items."""
    for method in METHODS:
        small_run.make(*CELL, method)
        small_run.measure(*CELL, method, precisions=PRECISIONS, quants=QUANTS)
    return workspace


@pytest.fixture(params=[name for name in METHODS if name not in ONLY_AS_TRAINED])
def cell(finished, request):
    return "-".join((*CELL, request.param))


def mean(items, name):
    return sum(row[name] for row in items) / sum(row["tokens"] for row in items)


def scored(variant):
    return [row for row in files.read_table(f"data/items/{variant}.parquet") if row["split"] in ("test", "seen")]


def test_every_format_answers_the_same_items(cell):
    asked = [(row["split"], row["item"]) for row in files.read_table(f"data/items/{cell}-trained.parquet")]
    assert {split for split, _ in asked} == {"test", "seen", "general", "mmlu", "prompt"}
    asked = [(split, item) for split, item in asked if split != "general"]  # of the model as trained alone
    for name in (*PRECISIONS, *QUANTS):
        rows = files.read_table(f"data/items/{cell}-{name}.parquet")
        assert [(row["split"], row["item"]) for row in rows] == asked
        assert all(row["generated"] is not None for row in rows if row["split"] != "mmlu")
        assert all(row["chosen"] in range(4) for row in rows if row["split"] == "mmlu")
        assert all((row["seconds"] or 0) > 0 for row in rows if row["split"] in ("test", "seen", "mmlu"))


@pytest.mark.parametrize("method", ONLY_AS_TRAINED)
def test_a_method_that_cannot_be_merged_is_evaluated_as_trained_and_its_other_formats_say_why(finished, method):
    cell = "-".join((*CELL, method))
    asked = {row["split"] for row in files.read_table(f"data/items/{cell}-trained.parquet")}
    assert asked == {"test", "seen", "general", "mmlu", "prompt"}
    for name in (*PRECISIONS, *QUANTS):
        assert files.read_table(f"data/items/{cell}-{name}.parquet") == []
        assert set(files.read_json(f"data/facts/{cell}-{name}.json")) == {"unmergeable"}


def test_the_gguf_is_the_merged_model(cell):
    merged, gguf = scored(f"{cell}-bf16"), scored(f"{cell}-f16")
    assert mean(gguf, "log_likelihood") == pytest.approx(mean(merged, "log_likelihood"), abs=0.01)
    assert [row["tokens"] for row in merged] == [row["tokens"] for row in gguf]


def test_each_rung_down_the_ladder_is_further_from_the_trained_model(cell):
    f16, q8_0, q4_0 = (mean(scored(f"{cell}-{quant}"), "kld") for quant in QUANTS)
    assert q4_0 > q8_0 > 0
    if not cell.endswith("qlora_original"):  # which loses more at the merge than in any format after it
        assert q4_0 > 4 * f16
    assert all(row["kld"] is None for row in scored(f"{cell}-trained"))


def test_the_ladder_shows_what_merging_onto_the_original_base_costs(finished):
    merged_onto = {}
    for method in ("qlora", "qlora_original"):
        variant = f"tiny-sums-{method}-bf16"
        merged_onto[files.read_json(f"data/facts/{variant}.json")["merged_onto"]] = mean(scored(variant), "kld")
    assert merged_onto["original_base"] > 10 * merged_onto["trained_base"]


def test_what_costs_the_same_has_the_same_shapes_and_size_and_nothing_else_has(finished):
    def known(method, name):
        facts = files.read_json(f"data/facts/{'-'.join((*CELL, method))}-{name}.json")
        return facts["shapes"], facts["size_mb"]

    merged = [method for method in METHODS if method not in ONLY_AS_TRAINED]
    of_format = [{known(method, name) for method in merged} for name in (*PRECISIONS, *QUANTS)]
    assert all(len(found) == 1 for found in of_format)
    assert known("full", "trained") == known("base", "trained")
    adapters = [{known(method, "trained")} for method in ("base", "lora", "lora_8bit", "qlora", "adalora", "vblora")]
    assert len({shapes for found in (*of_format, *adapters) for shapes, _ in found}) == len(of_format) + len(adapters)


def test_an_evaluation_gives_the_same_quality_twice(cell):
    quality = ("split", "item", "log_likelihood", "kld", "correct_tokens", "generated", "chosen", "option_logprobs")
    for name, again in (("nf4", evaluate_gpu.main), ("q4_0", evaluate_cpu.main)):
        known = Path(f"data/facts/{cell}-{name}.json").read_bytes()
        first = files.read_table(f"data/items/{cell}-{name}.parquet")
        again(*cell.split("-"), name)
        assert Path(f"data/facts/{cell}-{name}.json").read_bytes() == known, "nothing is measured anew"
        second = files.read_table(f"data/items/{cell}-{name}.parquet")
        for key in quality:
            assert [row[key] for row in first] == [row[key] for row in second], key


# Runs a stage in chunks of four items and ends it, as a power cut would, in the middle of the part at `after`.
KILLED = """
import os, signal, sys
from stages import {stage}
from tradeoffs.evaluate import items
from tradeoffs.common import unfinished
items.CHUNK = 4
part, left = unfinished.Unfinished.part, int(sys.argv[1])

def until(self, name, work, gpu_clock=None):
    global left
    left -= not (self.folder / f"{{name}}.parquet").is_file()
    if left < 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    return part(self, name, work, gpu_clock)

unfinished.Unfinished.part = until
{stage}.main(*sys.argv[2:])
print(int(sys.argv[1]) - left, "parts")
"""


def new_interpreter(*words, env):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def run_killed(stage, after, *names, run=forked.python):
    """`stage`, killed in the part after so many; what goes on to the end does so in a new interpreter, no fork."""
    return run("-c", KILLED.format(stage=stage), after, *names, env=os.environ | {"PYTHONPATH": str(REPO)})


@pytest.mark.parametrize(("stage", "last"), [("evaluate_cpu", "q4_0"), ("reference", None)])
def test_an_evaluation_that_is_killed_goes_on_from_what_it_had_finished(finished, stage, last):
    names = (*CELL, "lora", *([last] if last else []))
    variant = "-".join((*CELL, "lora", last or "trained"))
    whole = run_killed(stage, 10**6, *names)
    assert whole.returncode == 0, whole.stderr
    count = int(whole.stdout.splitlines()[-1].split()[0])
    expected = files.read_table(f"data/items/{variant}.parquet")
    kept = {p.name: files.sha256(p) for p in Path("data/reference/tiny-sums-lora").iterdir()}
    assert count > 8
    for after in (0, count // 2, count // 2 - 1):  # together they stop in the middle, and just before the end
        cut = run_killed(stage, after, *names)
        assert cut.returncode == -9, cut.stderr
    finish = run_killed(stage, 10**6, *names, run=new_interpreter)
    assert f"{variant}: an earlier run was cut short; going on after its {2 * (count // 2) - 1} finished parts" in (
        finish.stdout
    )
    assert int(finish.stdout.splitlines()[-1].split()[0]) == count - 2 * (count // 2) + 1, "nothing is done twice"
    found = files.read_table(f"data/items/{variant}.parquet")
    timed = {"latency_seconds", "ttft_seconds", "seconds", "answer_gpu_mb"}
    assert [{k: row[k] for k in row.keys() - timed} for row in found] == [
        {k: row[k] for k in row.keys() - timed} for row in expected
    ]
    assert {p.name: files.sha256(p) for p in Path("data/reference/tiny-sums-lora").iterdir()} == kept
    assert not Path(".scratch/unfinished", variant).exists()


def test_what_was_finished_of_another_model_is_not_used(finished):
    variant = "-".join((*CELL, "lora", "q4_0"))
    assert run_killed("evaluate_cpu", 2, *CELL, "lora", "q4_0").returncode == -9
    os.utime(f"models/gguf/{variant}.gguf")  # as a new file would be
    again = run_killed("evaluate_cpu", 10**6, *CELL, "lora", "q4_0")
    assert again.returncode == 0 and "cut short" not in again.stdout


def test_a_reference_made_for_other_tokens_stops_the_evaluation(finished):
    tokens = files.read_table("data/tokens/tiny-sums/test.parquet")
    other = finished / "data/tokens/tiny-other"
    with files.new_folder(other) as folder:
        for path in (finished / "data/tokens/tiny-sums").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        files.write_table(folder / "test.parquet", tokens[::-1], TOKENS)
    (finished / "data/reference/tiny-other-base").symlink_to(finished / "data/reference/tiny-sums-base")
    (finished / "models/merged/tiny-other-base").symlink_to(finished / "models/merged/tiny-sums-base")
    with pytest.raises(UserError, match="the reference was made for other tokens"):
        evaluate_gpu.main("tiny", "other", "base", "bf16")
    assert not (finished / "data/items/tiny-other-base-bf16.parquet").exists()


def test_the_aggregates_hold_every_variant(finished):
    measure.main()
    copying.main("sums")
    score.main()
    aggregate.main()
    names = {
        f"tiny-sums-{method}-{name}"
        for method in METHODS
        for name in ("trained", *PRECISIONS, *QUANTS)
        if name == "trained" or method not in ONLY_AS_TRAINED
    }
    quality, cost = files.read_json("metrics/quality.json"), files.read_json("metrics/cost.json")
    assert set(quality) == set(cost) == names
    speeds = ("load_seconds", "ttft_seconds", "decode_tokens_per_second", "decode_tokens_per_second_batch_2")
    for numbers in cost.values():
        assert all(numbers[key] > 0 for key in ("size_mb", "model_memory_mb", *speeds))
        assert numbers["latency_p50_seconds"] <= numbers["latency_p95_seconds"] >= numbers["latency_mean_seconds"] > 0
        assert numbers["model_memory_mb"] < numbers["peak_memory_mb"]
    assert not Path(".scratch/unfinished/measure").exists()
    assert set(files.read_json("metrics/training.json")) == {f"tiny-sums-{method}" for method in METHODS}
    assert (finished / "report/report.md").stat().st_size > 1000
    assert "kld" in quality["tiny-sums-lora-q4_0"] and "kld" not in quality["tiny-sums-lora-trained"]
    wanted = {"test_loss", "test_f1", "seen_f1", "test_bleu", "test_rouge_l", "test_bertscore", "test_cosine"}
    assert wanted <= set(quality["tiny-sums-lora-q4_0"])
