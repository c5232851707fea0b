"""Costs are measured alone, in interleaved rounds, each thing once in each; what cannot be measured stops the stage."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import forked
import killed
import numpy as np
import pyarrow as pa
import pytest
from tiny_gguf import make_checkpoint

from tradeoffs.common import files
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.convert.gguf_converter import convert
from tradeoffs.measure import processes, rounds, speed, things, waiting
from tradeoffs.measure.things import Asked, Thing
from tradeoffs.measure.work import Settings, Work
from tradeoffs.params import Cost
from tradeoffs.plumbing.errors import UserError

PAIR = Pair("m", "d")
REPO = Path(__file__).parents[1]
SETTINGS = Settings(prefill_tokens=8, decode_tokens=4, batch_sizes=[2, 4], repetitions=2)
WORK = Work(
    {"gguf": "a.gguf"}, 512, 0, [1, 5, 6, 7], [[1, 5], [1, 6, 7]], [([1, 5, 6], [False, True, True])], 1, SETTINGS
)
COST = Cost(
    rounds=4,
    latency_prompts=2,
    prefill_tokens=8,
    decode_tokens=4,
    batch_sizes=[2],
    scored_sequences=1,
    repetitions=1,
)


class FakeRuntime:
    """A runtime that takes as long as it says, and remembers what it was asked in which order."""

    name, context, vocabulary = "fake", 64, 10

    def __init__(self, fits=64, device="cpu"):
        self.calls, self.fits, self.device = [], fits, device

    def prefill(self, ids):
        self.calls.append(f"prefill {len(ids)}")
        return 0.1 * len(ids)

    def decode(self, ids, tokens, sequences=1):
        self.calls.append(f"decode {sequences}")
        if sequences > self.fits:
            raise UserError("no memory")
        return [0.0625 * sequences] * tokens

    def score(self, targets):
        self.calls.append("score")

    def gpu_memory(self):
        self.calls.append("memory")
        return {"peak_gpu_memory_mb": 3.0}


@pytest.fixture
def calm(monkeypatch):
    """No thread ever waits for a core."""
    monkeypatch.setattr(waiting, "waited", lambda: 0.0)


def test_a_process_measures_one_at_a_time_then_reads_memory_then_measures_batches(calm):
    runtime = FakeRuntime()
    found = speed.measure(runtime, WORK, before_mb=0.0, load_seconds=1.5)
    order = [call for place, call in enumerate(runtime.calls) if [call] != runtime.calls[place - 1 : place]]
    prompts = ["prefill 3", "prefill 2", "prefill 3"]  # the longest once untimed
    assert order == ["decode 1", "prefill 8", "decode 1", "memory", *prompts, "decode 2", "decode 4", "score"]
    assert found["load_seconds"] == 1.5
    assert found["prefill_tokens_per_second"] == pytest.approx(10) and found["decode_tokens_per_second"] == 16
    assert found["batch_sweep"] == {"2": 16, "4": 16}
    assert found["prompts_ttft_seconds"] == pytest.approx([0.2, 0.3])
    assert found["peak_gpu_memory_mb"] == 3.0 and found["waited"] == 0
    assert 0 < found["model_memory_mb"] == found["peak_memory_mb"]
    assert speed.measure(runtime, WORK, found["peak_memory_mb"], 0)["model_memory_mb"] < found["peak_memory_mb"]


def test_a_batch_that_does_not_fit_the_memory_is_left_out(calm, capsys):
    assert speed.measure(FakeRuntime(fits=2), WORK, 0, 0)["batch_sweep"] == {"2": 16}
    assert "no decode speed of 4 sequences: no memory" in capsys.readouterr().out


def test_a_text_has_no_prompts_and_so_no_latency(calm):
    found = speed.measure(FakeRuntime(), replace(WORK, prompts=[]), 0, 0)
    assert "prompts_ttft_seconds" not in found


def test_on_a_gpu_each_prompt_is_taken_in_once_before_it_is_timed():
    runtime = FakeRuntime(device="H100")
    assert speed.first_tokens(runtime, WORK) == pytest.approx([0.2, 0.3])
    assert sorted(runtime.calls) == ["prefill 2"] * 2 + ["prefill 3"] * 2


def test_work_comes_back_from_json():
    assert Work.of_json(WORK.as_json()) == replace(WORK, scored=[[[1, 5, 6], [False, True, True]]])
    (target,) = WORK.targets()
    assert target.true.tolist() == [5, 6]


def test_a_neighbour_that_takes_a_core_now_and_then_leaves_a_step_as_it_is():
    alone = [0.010 + 0.0001 * n for n in range(24)]
    beside = [2.0 if n % 3 == 0 else step for n, step in enumerate(alone)]
    assert speed.undisturbed(beside) == pytest.approx(speed.undisturbed(alone), rel=0.05)


def test_where_the_kernel_does_not_tell_nothing_is_said_of_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "TASKS", tmp_path)
    (tmp_path / "7").mkdir()
    assert waiting.waited() is None
    assert "waited" not in speed.measure(FakeRuntime(), WORK, 0, 0)


def test_waiting_is_added_over_all_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "TASKS", tmp_path)
    for task, text in {"7": "100 2000000000 5", "8": "1 500000000 1", "9": "broken"}.items():
        files.write_text(tmp_path / task / "schedstat", text)
    assert waiting.waited() == 2.5


def test_waiting_is_a_part_of_the_time_of_all_cores(monkeypatch):
    monkeypatch.setattr(waiting, "waited", iter([1.0, 3.0]).__next__)
    monkeypatch.setattr(waiting.time, "perf_counter", iter([10.0, 14.0]).__next__)
    monkeypatch.setattr(waiting.cores, "usable", lambda: 4)
    assert waiting.Waiting().share() == pytest.approx(2 / 4 / 4)


def write_facts(**shapes):
    for name, form in shapes.items():
        variant = Variant("m", "d", *name.split("__"))
        files.write_json(variant.facts, {"unmergeable": "so"} if form is None else {"shapes": form, "size_mb": 1.0})


class Run:
    models, datasets, methods, precisions, quants = ["m"], ["d"], ["base", "lora"], [], ["q4_0"]


def test_variants_of_the_same_shapes_are_one_thing_and_what_is_not_listed_is_none(elsewhere):
    write_facts(base__trained="a", base__q4_0="b", lora__trained="c", lora__q4_0="b", vblora__trained="d")
    found = things.things(Run)
    assert [[str(v) for v in thing.members] for thing in found] == [
        ["m-d-base-trained"],
        ["m-d-base-q4_0", "m-d-lora-q4_0"],
        ["m-d-lora-trained"],
    ]


def test_what_was_never_made_is_not_measured(elsewhere):
    write_facts(base__trained="a", base__q4_0="b", lora__trained="c", lora__q4_0=None)
    assert [len(thing.members) for thing in things.things(Run)] == [1, 1, 1]


def test_missing_facts_are_named(elsewhere):
    with pytest.raises(UserError, match=r"data/facts/m-d-base-trained\.json: missing"):
        things.things(Run)


def write_gguf(path, text):
    files.write_text(path, text)
    files.write_json(path.with_suffix(".json"), {"sha256": files.sha256(path)})


@pytest.fixture
def some(elsewhere):
    """Three things, the last of three members."""
    made = [Thing(PAIR, name, {Variant("m", "d", name, "q4_0"): {}}) for name in "ab"]
    made.append(Thing(PAIR, "c", {Variant("m", "d", f"c{n}", "q4_0"): {} for n in range(3)}))
    for thing in made:
        for variant in thing.members:
            write_gguf(variant.gguf, "weights")
            files.write_json(variant.facts, {})
    files.write_text("data/tokens/m-d/info.json", "{}")
    return made


HOW = rounds.How(COST, 512, "float32", seed=1)
GIVEN = {PAIR: Asked(0, [1], ["t0"], [[1]], [([1, 5], [False, True])], 1)}


def measured(monkeypatch, some, how=HOW, stop_at=None, gpu=None):
    """Names in the order in which they were measured; the `stop_at`th measurement ends the stage."""
    order = []

    def measure(work, name, afresh):
        if len(order) == stop_at:
            raise UserError(f"{name}: no memory")
        order.append(name)
        return {"device": "cpu", "from": work.loaded["gguf"]}

    monkeypatch.setattr(processes, "measure", measure)
    try:
        return order, rounds.measure(some, GIVEN, how, gpu)
    except UserError as error:
        return order, str(error)


def test_each_round_measures_each_thing_once_in_an_order_of_its_own_and_members_take_turns(some, monkeypatch):
    order, found = measured(monkeypatch, some)
    each = [order[start : start + 3] for start in range(0, 12, 3)]
    of_thing = [[name.split("-")[2][0] for name in names] for names in each]
    assert all(sorted(names) == ["a", "b", "c"] for names in of_thing)
    assert len({tuple(names) for names in of_thing}) > 1
    turns = [next(name for name in names if "-c" in name) for names in each]
    assert turns == [f"m-d-c{n}-q4_0" for n in (0, 1, 2, 0)]
    assert [one[2]["member"] for one in found] == turns, "results stand in the order of the things"
    assert found[1][2]["from"] == "models/gguf/m-d-c1-q4_0.gguf"


def test_the_seed_draws_the_order(some, monkeypatch):
    first = measured(monkeypatch, some)[0]
    rounds.finish()
    again = measured(monkeypatch, some)[0]
    rounds.finish()
    assert first == again != measured(monkeypatch, some, replace(HOW, seed=2))[0]


def test_a_run_that_was_cut_short_goes_on_after_its_finished_rounds(some, monkeypatch, capsys):
    order, message = measured(monkeypatch, some, stop_at=7)
    assert message.endswith("no memory") and len(order) == 7
    rest, found = measured(monkeypatch, some)
    assert "going on after its 2 finished rounds" in capsys.readouterr().out
    assert len(rest) == 6 and len(found) == 4
    rounds.finish()
    assert not Path(".scratch/unfinished/measure").exists()


def test_rounds_of_another_model_are_not_gone_on_with(some, monkeypatch):
    measured(monkeypatch, some, stop_at=7)
    write_gguf(next(iter(some[0].members)).gguf, "other weights")
    assert len(measured(monkeypatch, some)[0]) == 12


def test_rounds_of_another_device_are_not_gone_on_with(some, monkeypatch):
    measured(monkeypatch, some, stop_at=7)
    assert len(measured(monkeypatch, some, gpu="H100")[0]) == 12


def test_a_model_that_is_not_there_is_named_before_anything_is_measured(some, monkeypatch):
    Path("models/gguf/m-d-c1-q4_0.gguf").unlink()
    assert measured(monkeypatch, some) == (
        [],
        "models/gguf/m-d-c1-q4_0.gguf: missing; `dvc pull` fetches it, or `dvc repro` makes it",
    )


def test_a_gguf_that_is_not_what_was_made_is_named_before_anything_is_measured(some, monkeypatch):
    Path("models/gguf/m-d-c1-q4_0.gguf").write_text("weightz")
    order, message = measured(monkeypatch, some)
    assert order == [] and message.startswith("models/gguf/m-d-c1-q4_0.gguf: damaged: it is not what was made")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    make_checkpoint(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.gguf")
    return folder / "tiny.gguf"


def test_the_process_of_a_gguf_imports_nothing_heavy(gguf):
    """What it would import counts as memory of the process, and takes seconds in every round."""
    code = (
        "import json, sys; from tradeoffs.measure import child; found = json.loads(child.measured(sys.stdin.read()));"
        "print(json.dumps([found, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    work = replace(WORK, loaded={"gguf": str(gguf)})
    done = subprocess.run(
        [sys.executable, "-c", code], input=work.as_json(), capture_output=True, text=True, check=True, cwd=REPO
    )
    found, modules = json.loads(done.stdout.splitlines()[-1])
    assert found["decode_tokens_per_second"] > 0 and found["model_memory_mb"] > 0
    assert {"llama_cpp", "numpy"} <= set(modules)
    assert not {"torch", "transformers", "tokenizers", "pyarrow", "datasets", "bitsandbytes"} & set(modules)


def test_a_process_that_fails_ends_the_stage_with_its_message(tmp_path):
    work = replace(WORK, loaded={"gguf": str(tmp_path / "none.gguf")})
    with pytest.raises(UserError, match=r"m-d-a-q4_0: .*none.gguf: not found"):
        processes.measure(work, "m-d-a-q4_0", afresh=False)
    with pytest.raises(UserError, match=r"(?s)m-d-a-q4_0: the process that measures it failed.*TypeError"):
        processes.measure(replace(WORK, loaded={"gguf": 7}), "m-d-a-q4_0", afresh=True)


def test_a_process_that_llama_cpp_ends_is_one_sentence(tmp_path, monkeypatch):
    script = tmp_path / "a/b/gives_up.py"
    monkeypatch.setattr(processes, "child", SimpleNamespace(__name__="a.b.gives_up", __file__=str(script)))
    files.write_text(script, "import sys; print('score: 0%', file=sys.stderr); sys.exit('error: x.gguf: it gave up')")
    with pytest.raises(UserError, match=r"^m-d-a-q4_0: x\.gguf: it gave up$"):
        processes.measure(WORK, "m-d-a-q4_0", afresh=True)


def test_a_fork_that_fails_ends_the_stage_with_its_message(monkeypatch):
    with pytest.raises(UserError, match=r"(?s)m-d-a-bf16: the process that measures it failed.*TypeError"):
        processes._forked(replace(WORK, loaded={"gguf": 7}), "m-d-a-bf16")
    monkeypatch.setattr(processes, "_child", killed.without_a_word)
    with pytest.raises(UserError, match=r"m-d-a-bf16: .* was ended by signal 9 .*no memory"):
        processes._forked(WORK, "m-d-a-bf16")


def test_notes_of_a_process_are_shown_and_one_that_says_nothing_has_failed(tmp_path, monkeypatch, capsys):
    script = tmp_path / "a/b/says.py"
    monkeypatch.setattr(processes, "child", SimpleNamespace(__name__="a.b.says", __file__=str(script)))
    files.write_text(script, "print('note: no memory for 16'); print('{}')")
    assert processes.measure(WORK, "m-d-a-q4_0", afresh=True) == {}
    assert capsys.readouterr().out == "note: no memory for 16\n"
    files.write_text(script, "")
    with pytest.raises(UserError, match=r"m-d-a-q4_0: the process that measures it failed"):
        processes.measure(WORK, "m-d-a-q4_0", afresh=True)


def test_what_is_asked_are_the_first_test_items_and_of_a_text_windows(elsewhere):
    rows = [
        {"id": f"a-{n}" if n < 3 else "b-0", "ids": [1, 5 + n, 2], "scored": [False, True, True], "prompt_tokens": 2}
        for n in range(4)
    ]
    files.write_table("data/tokens/m-d/test.parquet", rows, pa.Table.from_pylist(rows).schema)
    for kind, prompts, count in (("instruction", 3, 2), ("text", 0, 2 / 3)):
        files.write_json("data/tokens/m-d/info.json", {"kind": kind, "pad_id": 0})
        found = things.asked(PAIR, latency_prompts=3, scored_sequences=2)
        assert len(found.prompts) == len(found.items) == prompts
        assert len(found.scored) == 2 and found.count == pytest.approx(count)
        assert found.sample == [1, 5, 2]
    assert np.array(found.scored[1][1]).sum() == 2


def test_the_process_that_others_are_forked_from_says_nothing_of_optional_kernels():
    """It imports no stage; what it imports first keeps bitsandbytes quiet before that is imported."""
    say = f"import {processes.HEAVY[0]}, logging; print(logging.getLogger('bitsandbytes').getEffectiveLevel())"
    done = forked.python("-c", say, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])})
    assert (done.stdout, done.stderr) == ("40\n", "")
