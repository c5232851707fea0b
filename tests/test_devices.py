"""Costs per device: what is measured where, what the numbers are called, and that no decision mixes two devices."""

import csv
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fake_devices
import fake_results
import numpy as np
import pytest
import torch
from tiny_gguf import make_checkpoint

from tradeoffs import compare, decide, params
from tradeoffs.comment import costs as comment_costs
from tradeoffs.common import files
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.convert.gguf_converter import convert
from tradeoffs.evaluate.runtime import Target
from tradeoffs.formats.names import QUANTS
from tradeoffs.gate.costing import Costing
from tradeoffs.gate.policy import Policy
from tradeoffs.gate.rows import LEFT_OUT, PASS, SAME, WORSE
from tradeoffs.llama_cpp import gpus
from tradeoffs.llama_cpp.gpus import Gpu
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.measure import devices, processes, torch_things
from tradeoffs.measure.things import Thing
from tradeoffs.measure.work import Settings, Work
from tradeoffs.params import Limits
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report import devices as report_devices
from tradeoffs.repro import lacking
from tradeoffs.results import costs, decision
from tradeoffs.results.results import Results
from tradeoffs.revisions import Revision

REPO = Path(__file__).parents[1]
PAIR = Pair("demo", "demo")
LISTS = {"methods": ["base", "lora"], "precisions": ["float32", "bf16"], "quants": ["f16", "q4_0"]}
SPEED, PREFILL = "decode_tokens_per_second", "prefill_tokens_per_second"
BF16, Q4, Q4_NAME = (*(Variant("demo", "demo", "lora", form) for form in ("bf16", "q4_0")), "demo-demo-lora-q4_0")


# --- which things are measured on which devices


@pytest.fixture
def some():
    return [Thing(Pair("m", "d"), form, {Variant("m", "d", "lora", form): {}}) for form in ("trained", "bf16", "q4_0")]


def each(found):
    return [(thing.on, thing.shapes) for thing in found]


def test_by_default_a_thing_is_measured_once_and_nobody_asks_for_a_gpu(some, monkeypatch):
    monkeypatch.setattr(gpus, "lacking", lambda: pytest.fail("llama.cpp was asked for its GPUs"))
    found, left_out = devices.on_each(some, ["auto"], gpu=None)
    assert found == some and left_out == {}
    assert each(devices.on_each(some, ["cpu"], gpu="H100")[0]) == [("cpu", one.shapes) for one in some]


def test_each_thing_is_measured_on_each_device_that_can_run_it(some, monkeypatch):
    monkeypatch.setattr(gpus, "lacking", lambda: "")
    found, left_out = devices.on_each(some, ["cuda", "cpu"], gpu="H100")
    assert each(found) == [(on, one.shapes) for on in ("cuda", "cpu") for one in some] and left_out == {}
    monkeypatch.setattr(gpus, "lacking", lambda: "built without")
    found, left_out = devices.on_each(some, ["cuda", "cpu"], gpu="H100")
    assert ("cuda", "q4_0") not in each(found) and ("cpu", "q4_0") in each(found) and len(found) == 5
    assert left_out == {"cuda": "built without"}


def test_a_device_that_is_not_there_is_an_error_before_anything_is_measured(some, monkeypatch):
    with pytest.raises(UserError, match=r"run\.devices: cuda: torch finds no CUDA GPU here; take it out"):
        devices.on_each(some, ["cpu", "cuda"], gpu=None)
    monkeypatch.setattr(gpus, "lacking", lambda: "built without")
    with pytest.raises(UserError, match=r"\[cuda\]: built without; so q4_0 of run\.quants cannot .*: add cpu"):
        devices.on_each(some, ["cuda"], gpu="H100")
    assert len(devices.on_each(some[:2], ["cuda"], gpu="H100")[0]) == 2  # no GGUF: nothing to miss


def test_make_run_says_so_before_it_starts(tmp_path, monkeypatch):
    fake_results.params_file(tmp_path, REPO / "params.yaml", devices=["cuda"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tradeoffs.repro.lacking.gpus", lambda: [])
    with pytest.raises(UserError, match=r"run\.devices: cuda: this machine has no GPU"):
        lacking.require(params.load_all(), ["prepare@demo", "measure"])
    with pytest.raises(UserError, match=r"run\.devices: cuda: this machine has no GPU"):
        lacking.require(params.load_all())
    lacking.require(params.load_all(), ["aggregate"])
    monkeypatch.setattr("tradeoffs.repro.lacking.gpus", lambda: ["0"])
    lacking.require(params.load_all(), ["measure"])


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ([], "run.devices: must name at least one entry"),
        (["auto", "cpu"], "run.devices: 'auto' stands alone"),
        (["cpu", "cpu"], "run.devices: 'cpu' stands twice"),
        (["cudda"], "run.devices[0]: unknown value 'cudda' (did you mean cuda?)"),
    ],
)
def test_a_list_of_devices_is_checked(tmp_path, monkeypatch, named, said):
    fake_results.params_file(tmp_path, REPO / "params.yaml", devices=named)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        params.load_all()
    assert said in str(error.value)


# --- the processes


def test_what_is_measured_on_the_cpu_sees_no_gpu(monkeypatch):
    seen = {}

    def run(_command, env, **_more):
        seen["devices"] = env.get("CUDA_VISIBLE_DEVICES", "all")
        return SimpleNamespace(returncode=0, stdout="{}\n", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    work = Work({"checkpoint": "a", "precision": "bf16"}, 512, 0, [1], [], [], 1, Settings(8, 4, [2], 1))
    for on, expected in (("auto", "all"), ("cuda", "all"), ("cpu", "")):
        processes.measure(replace(work, on=on), "m-d-lora-bf16", afresh=True)
        assert seen["devices"] == expected
        assert Work.of_json(replace(work, on=on).as_json()).on == on


def test_work_of_a_gpu_that_has_gone_is_an_error(monkeypatch):
    monkeypatch.setattr(torch_things, "device", lambda: torch.device("cpu"))
    work = Work({"checkpoint": "a", "precision": "bf16"}, 512, 0, [1], [], [], 1, Settings(8, 4, [2], 1), "cuda")
    with pytest.raises(UserError, match="torch finds no CUDA GPU any more"):
        torch_things.import_all(work)


# --- llama.cpp on a GPU


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    make_checkpoint(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.gguf")
    return folder / "tiny.gguf"


def test_a_llama_cpp_without_a_gpu_says_what_to_do(gguf, monkeypatch):
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: False)
    assert "without support for a GPU; CMAKE_ARGS=" in gpus.lacking()
    with pytest.raises(UserError, match=r"llama-cpp-python==\S+ builds it with CUDA"):
        LlamaCppRuntime(gguf, 512, on_gpu=True)


def test_gpus_of_another_kind_are_none_for_cuda(monkeypatch):
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(gpus, "known", lambda: [Gpu("Vulkan0", "Radeon", None)])
    assert gpus.lacking().endswith("finds no CUDA GPU (GPUs that it finds: Vulkan0 (Radeon))")
    monkeypatch.setattr(gpus, "known", lambda: [Gpu("Vulkan0", "Radeon", None), Gpu("CUDA0", "H100", None)])
    assert gpus.lacking() == "" and gpus.first().description == "H100"


def test_what_ggml_knows_is_read_as_it_says():
    """Here it knows no GPU, or some with a name and free memory."""
    for gpu in gpus.known():
        assert gpu.name and gpu.description and gpu.free_mb() > 0
    assert bool(gpus.lacking()) == (not any(gpu.name.startswith(gpus.CUDA) for gpu in gpus.known()))


def test_on_a_gpu_all_layers_and_the_cache_lie_there_and_what_is_less_free_is_its_memory(gguf, monkeypatch):
    """llama.cpp as it is here has no GPU, and puts on the CPU what it is asked to put on one."""
    free = iter([900.0, 640.0])
    monkeypatch.setattr(gpus, "first", lambda: SimpleNamespace(description="H100", free_mb=lambda: next(free)))
    asked = {}

    def keep(of, name):
        original = getattr(llama_cpp, name)
        return lambda path_or_model, options: (asked.setdefault(of, options), original(path_or_model, options))[1]

    for of, name in (("model", "llama_model_load_from_file"), ("cache", "llama_init_from_model")):
        monkeypatch.setattr(llama_cpp, name, keep(of, name))
    with LlamaCppRuntime(gguf, 512, on_gpu=True) as runtime:
        runtime.prefill(np.array([1, 5, 6], np.int32))
        assert runtime.device == "H100"
        assert runtime.gpu_memory() == {"peak_gpu_memory_mb": 260.0, "peak_gpu_memory_reserved_mb": 260.0}
    assert asked["model"].n_gpu_layers == -1 and asked["model"].split_mode == llama_cpp.LLAMA_SPLIT_MODE_NONE
    assert asked["cache"].offload_kqv and asked["cache"].op_offload
    asked.clear()
    with LlamaCppRuntime(gguf, 512) as runtime:
        runtime.prefill(np.array([1, 5, 6], np.int32))
        assert runtime.device == "cpu" and runtime.gpu_memory() == {}
    assert asked["model"].n_gpu_layers == 0 and not asked["cache"].offload_kqv and not asked["cache"].op_offload


@pytest.mark.cuda
def test_one_machine_measures_a_model_on_its_gpu_and_on_its_cpu(gguf):
    loaded = {"checkpoint": str(gguf.parent / "checkpoint"), "precision": "bf16"}
    work = Work(loaded, 512, 0, [1, 5, 6], [[1, 5]], [([1, 5, 6], [False, True, True])], 1, Settings(8, 4, [2], 1))
    on_gpu, on_cpu = (processes.measure(replace(work, on=on), "m-d-a-bf16", afresh=True) for on in ("cuda", "cpu"))
    assert on_gpu["device"] == torch.cuda.get_device_name() and on_gpu["peak_gpu_memory_mb"] > 0
    assert on_cpu["device"] == "cpu" and "peak_gpu_memory_mb" not in on_cpu


@pytest.mark.cuda
def test_llama_cpp_runs_on_the_gpu_as_on_the_cpu(gguf):
    if why := gpus.lacking():
        pytest.skip(why)
    ids = np.array([1, 5, 6, 7, 8, 9], np.int32)
    with LlamaCppRuntime(gguf, 512, on_gpu=True) as there, LlamaCppRuntime(gguf, 512) as here:
        assert there.device == gpus.first().description and here.device == "cpu"
        found, expected = (one.score([Target(ids, ids > 1)])[0].logprob for one in (there, here))
        assert np.abs(found - expected).max() < 0.01
        assert there.gpu_memory()["peak_gpu_memory_mb"] > 0


# --- the results, made up


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A finished run of which a GPU comes first, and llama.cpp was not built for one."""
    folder = tmp_path_factory.mktemp("both")
    fake_results.finished(folder, **LISTS, devices=["cuda", "cpu"])
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run on `auto`."""
    folder = tmp_path_factory.mktemp("alone")
    fake_results.finished(folder, **LISTS)
    return folder


@pytest.fixture
def results(both, monkeypatch) -> Results:
    monkeypatch.chdir(both)
    return fake_results.read()


def load(folder, name):
    return json.loads((folder / f"metrics/{name}.json").read_text())


def rows(folder):
    with (folder / "metrics/summary.csv").open() as file:
        return {row["variant"]: row for row in csv.DictReader(file)}


def test_quality_is_one_and_costs_are_per_device(both, alone):
    assert (both / "metrics/quality.json").read_bytes() == (alone / "metrics/quality.json").read_bytes()
    assert (both / "metrics/ladder.csv").read_bytes() == (alone / "metrics/ladder.csv").read_bytes()
    cost, plain = load(both, "cost"), load(alone, "cost")
    assert set(cost) == set(plain) == set(load(both, "quality")), "a row per variant, whatever the devices"
    ours = cost[str(BF16)]
    assert ours[SPEED] == pytest.approx(fake_devices.FASTER * plain[str(BF16)][SPEED], rel=1e-4)
    assert ours[f"{SPEED}_on_cpu"] == plain[str(BF16)][SPEED]
    assert ours["size_mb"] == plain[str(BF16)]["size_mb"] and "size_mb_on_cpu" not in ours
    assert "peak_gpu_memory_mb" in ours and "peak_gpu_memory_mb_on_cpu" not in ours
    assert f"{costs.BATCH}4_on_cpu" in ours


def test_what_cannot_run_on_the_first_device_has_its_size_there_and_its_costs_on_the_other(both, alone):
    ours, plain = load(both, "cost")[Q4_NAME], load(alone, "cost")[Q4_NAME]
    assert {name for name in ours if not name.endswith("_on_cpu")} == {"size_mb"}
    assert {name.removesuffix("_on_cpu"): value for name, value in ours.items() if name != "size_mb"} == {
        name: value for name, value in plain.items() if name not in costs.OF_NO_DEVICE
    }


def test_auto_leaves_names_and_columns_as_they_are(alone):
    texts = [(alone / f"metrics/{name}").read_text() for name in ("cost.json", "summary.csv", "decision.json")]
    assert not any("_on_cpu" in text or "_on_cuda" in text or "device" in text for text in texts)
    assert "## Devices" not in fake_results.report(alone)


def test_the_summary_has_a_row_per_variant_and_the_interval_of_each_device(both):
    found = rows(both)
    assert len(found) == len(load(both, "quality"))
    for name in (SPEED, f"{SPEED}_on_cpu"):
        low, value, high = (float(found[str(BF16)][name + end]) for end in ("_low", "", "_high"))
        assert low < value < high
    assert found[Q4_NAME][SPEED] == "" and float(found[Q4_NAME][f"{SPEED}_on_cpu"]) > 0


def test_a_decision_is_of_the_first_device_alone_and_says_so(both, results):
    row = load(both, "decision")["demo-demo"]
    assert row["device"] == "cuda"
    fronts = {name for front in row["pareto"].values() for name in front}
    assert fronts and not any(Variant.parse(name).format in QUANTS for name in fronts | {row["recommended"]})
    assert row["verdicts"][Q4_NAME]["beyond"] == {"device": "not measured on cuda"}
    found = decision.decide(results, PAIR)
    assert {v.format for v in found.fit} == {"trained", "float32", "bf16"}
    assert decide.why_left(results, found, Q4) == "does not run on the device that is decided for"


def test_each_device_decides_as_if_it_were_the_only_one(both, results, alone, monkeypatch):
    on_cpu = decision.decide(costs.on(results, "cpu"), PAIR)
    assert set(on_cpu.fit) == set(results.of(PAIR))
    monkeypatch.chdir(alone)
    plain = decision.decide(fake_results.read(), PAIR)
    assert (on_cpu.recommended, on_cpu.pareto) == (plain.recommended, plain.pareto)
    assert decision.decide(results, PAIR).pareto != plain.pareto, "else the two would show nothing"
    assert results.run.devices == ["cuda", "cpu"] and f"{SPEED}_on_cpu" in results.cost[BF16], "left as it was"


def test_a_limit_is_held_against_the_device_that_is_decided_for(results):
    fast = fake_devices.FASTER * 50
    results.decide = replace(results.decide, limits=Limits(min_tokens_per_second=fast))
    assert BF16 in decision.decide(results, PAIR).fit
    assert not decision.decide(costs.on(results, "cpu"), PAIR).fit


def test_the_report_has_the_same_variant_with_its_devices_side_by_side(both, results):
    text = fake_results.report(both)
    part = text.partition("## Devices")[2].partition("\n## ")[0]
    assert f"`cuda`: {fake_devices.GPU}" in part and fake_devices.WITHOUT in part
    heads = [line for line in part.splitlines() if "decode tok/s, cuda" in line]
    assert heads and all("decode tok/s, cpu" in line for line in heads), "the two stand next to each other"
    table = report_devices._side_by_side(results, [BF16, Q4], {d: costs.on(results, d) for d in results.run.devices})
    cells = {}
    for head, *lines in _tables(table):
        for line in lines[1:]:
            cells |= {(line[0], name): cell for name, cell in zip(head, line, strict=True)}
    assert float(cells["`bf16`", "decode tok/s, cuda"].replace(",", "")) > 20 * float(
        cells["`bf16`", "decode tok/s, cpu"]
    )
    assert cells["`q4_0`", "decode tok/s, cuda"] == "" and cells["`q4_0`", "decode tok/s, cpu"]
    host = "memory of the model on the host MB"
    assert cells["`bf16`", f"{host}, cuda"] == "7" and ("`bf16`", f"{host}, cpu") not in cells
    memory = [float(cells["`bf16`", f"memory of the model MB, {device}"]) for device in ("cuda", "cpu")]
    assert memory[0] == pytest.approx(0.6 * memory[1], rel=0.02), "on each device that of the device"
    assert "Costs are those on `cuda`" in text and "cannot run there" in text


def _tables(lines):
    found = [[]]
    for line in lines:
        found = [*found, []] if not line else found
        found[-1] += [[cell.strip() for cell in line.strip("|").split("|")]] if line else []
    return found


def test_a_llama_cpp_that_was_built_for_it_is_measured_there_too(tmp_path, monkeypatch):
    monkeypatch.setattr(fake_devices, "GGUF_ON_GPU", True)
    results = fake_results.finished(tmp_path, **LISTS, devices=["cuda", "cpu"])
    ours = load(tmp_path, "cost")[Q4_NAME]
    assert ours[SPEED] > 20 * ours[f"{SPEED}_on_cpu"] and "peak_gpu_memory_mb" in ours
    assert set(decision.decide(results, PAIR).fit) == set(results.of(PAIR))
    assert "cannot run there" not in fake_results.report(tmp_path)


def test_two_variants_are_compared_device_by_device(results):
    text = "\n".join(compare.comparison(results, BF16, Variant("demo", "demo", "lora", "float32")))
    assert "| decode tok/s, cuda |" in text and "| decode tok/s, cpu |" in text and "| size MB |" in text
    assert "transformers on NVIDIA H100 80GB (cuda)" in text


def test_a_cost_that_was_measured_on_no_such_device_is_not_of_this_run(both, monkeypatch):
    monkeypatch.chdir(both)
    cfg = params.load_all()
    with pytest.raises(UserError, match=r"data/cost\.json: not measured with the present"):
        Results(replace(cfg.run, devices=["auto"]), cfg.seed, 20, cfg.decide)


def test_a_variant_of_transformers_is_left_out_nowhere(both, monkeypatch):
    """Only what the file says was left out may be missing, and only of llama.cpp."""
    monkeypatch.chdir(both)
    written = files.read_json("data/cost.json")
    before = Path("data/cost.json").read_text()
    less = [one for one in written["things"] if one["on"] == "cpu" or str(BF16) not in one["members"]]
    files.write_json("data/cost.json", written | {"things": less})
    try:
        with pytest.raises(UserError, match=r"not measured with the present data/facts/demo-demo-\w+-bf16"):
            fake_results.read()
    finally:
        Path("data/cost.json").write_text(before)


def test_names_of_costs_tell_the_device():
    assert costs.bare(f"{SPEED}_on_cpu") == SPEED == costs.bare(SPEED)
    assert costs.bare(f"{SPEED}_on_fire") == f"{SPEED}_on_fire"
    assert costs.better("peak_memory_mb_on_cuda") == "lower" and costs.better(f"{costs.BATCH}4_on_cpu") == "higher"
    assert costs.known(f"{costs.BATCH}4_on_cpu") and not costs.known("answer_tokens_p50_on_cpu")
    assert Policy(costs={SPEED: 0.5}).tolerance(f"{SPEED}_on_cpu") == 0.5
    assert Policy(costs={f"{SPEED}_on_cpu": 0.2}).tolerance(SPEED) == costs.tolerance(SPEED)


def test_a_gate_judges_each_device_against_the_same_one(both, monkeypatch):
    monkeypatch.chdir(both)
    before, after = fake_results.read(), fake_results.read()
    for results, speed in ((before, 1.0), (after, 4.0)):
        name = "model_memory_mb_on_cpu"
        found = results.costs.intervals[BF16][name]
        results.cost[BF16][name] *= speed
        results.costs.intervals[BF16][name] = replace(
            found, value=found.value * speed, low=found.low * speed, high=found.high * speed
        )
    words = {row.name: row.word for row in Costing(before, after, Policy(), "").rows(BF16, BF16)}
    assert words["model_memory_mb_on_cpu"] == WORSE and words["model_memory_mb"] == SAME
    assert "size_mb_on_cpu" not in words and "peak_gpu_memory_mb_on_cpu" not in words
    costing = Costing(before, costs.on(after, "cuda"), Policy(), "")
    only = {row.name for row in costing.rows(BF16, BF16)}
    assert not any("_on_cpu" in name for name in only), "the other side knows nothing of it"
    assert costing.notes == ["costs on cpu are not compared: base measured there, and head did not"]
    assert Costing(before, after, Policy(), "").notes == []


def swapped(results: Results) -> Results:
    """The same, had params.yaml named the devices the other way round."""
    run = replace(results.run, devices=results.run.devices[::-1])
    return Results(run, 42, 20, results.decide)


def test_in_whatever_order_they_are_named_costs_are_of_the_same_device(both, monkeypatch):
    monkeypatch.chdir(both)
    before = fake_results.read()
    after = swapped(before)
    names = {SPEED: f"{SPEED}_on_cpu", f"{SPEED}_on_cuda": SPEED}
    costing = Costing(before, after, Policy(), "")
    rows = {row.name: row for row in costing.rows(BF16, BF16)}
    assert costing.notes == []
    for mine, theirs in names.items():
        row = rows[mine]
        assert (row.word, row.head) == (SAME, row.base) == (SAME, before.cost[BF16][theirs])
        assert row.label == after.cost_labels[mine]
    assert rows["peak_gpu_memory_mb_on_cuda"].word == SAME
    # Of what cannot run on the head's second device nothing is missing there.
    assert not any("_on_cuda" in row.name for row in costing.rows(Q4, Q4))
    assert {row.word for row in costing.rows(Q4, Q4)} <= {SAME, PASS}


def test_a_policy_names_a_device_wherever_it_stands(both, monkeypatch):
    monkeypatch.chdir(both)
    before = fake_results.read()
    for after in (before, swapped(before)):
        policy = Policy(costs={f"{SPEED}_on_cpu": 0.3}, ignore=(f"{PREFILL}_on_cpu",))
        rows = {row.label: row for row in Costing(before, after, policy, "").rows(BF16, BF16)}
        row = rows["decode tok/s, cpu"]
        assert row.margin == pytest.approx(0.3 * row.base)
        assert rows["decode tok/s, cuda"].margin == pytest.approx(0.1 * rows["decode tok/s, cuda"].base)
        assert "prefill tok/s, cpu" not in rows and "prefill tok/s, cuda" in rows


def test_what_one_side_measured_by_itself_is_found_beside_another_device(both, monkeypatch):
    monkeypatch.chdir(both)
    after = fake_results.read()
    rows = {row.name: row for row in Costing(costs.on(after, "cpu"), after, Policy(), "").rows(BF16, BF16)}
    assert (rows[f"{SPEED}_on_cpu"].word, rows[SPEED].word) == (SAME, LEFT_OUT)
    assert rows[SPEED].note == f"measured on another device (cpu, {fake_devices.GPU})"


def told(before: Results, after: Results, variant: Variant = BF16) -> dict[str, list[str]]:
    """Before and after of each cost that a comment lists, by its label."""
    decided = SimpleNamespace(pair=PAIR, before=str(variant), after=str(variant))
    lines = comment_costs.section(SimpleNamespace(decisions=[decided], before=before, after=after))
    (_, _, *rows), *_ = _tables(lines)
    return {label: values for label, *values in rows}


def test_a_comment_lists_the_costs_on_each_device(both, monkeypatch):
    monkeypatch.chdir(both)
    results = fake_results.read()
    for after in (results, swapped(results)):
        found = told(results, after)
        for device in ("cuda", "cpu"):
            before, now = found[f"decode tok/s, {device}"]
            assert before == now != ""
        assert found["decode tok/s, cuda"] != found["decode tok/s, cpu"]
        assert all(found["size MB"]) and "GPU memory MB, cpu" not in found
    assert "decode tok/s, cuda" not in told(results, results, Q4)
    less = told(results, costs.on(results, "cpu"))
    assert less["decode tok/s"] == found["decode tok/s, cpu"]
    assert less["decode tok/s, cuda"] == [found["decode tok/s, cuda"][0], ""]
    more = told(costs.on(results, "cpu"), results)
    assert more["decode tok/s, cuda"] == ["", found["decode tok/s, cuda"][0]]
    other = told(costs.on(results, "cpu"), costs.on(results, "cuda"))
    assert all(other[f"decode tok/s (cpu before, {fake_devices.GPU} now)"])


def test_numbers_of_another_device_are_not_compared(both, monkeypatch):
    monkeypatch.chdir(both)
    results = fake_results.read()
    sides = [costs.on(results, device) for device in ("cuda", "cpu")]
    row = next(row for row in Costing(*sides, Policy(), "").rows(BF16, BF16) if row.name == SPEED)
    assert (row.word, row.note) == (LEFT_OUT, f"measured on another device ({fake_devices.GPU}, cpu)")


def test_decide_for_another_device(both, monkeypatch, capsys):
    monkeypatch.chdir(both)
    options = {"pair": None, "max_size_mb": None, "max_memory_mb": None, "min_tokens_per_second": None}
    options |= {"max_loss_of": [], "runtime": None, "json": None}
    decide.main(**options)
    first = capsys.readouterr().out
    assert "Costs are those on cuda; 4 variants cannot run there." in first
    decide.main(**options, device="cpu")
    assert "Costs are those on cpu." in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--device: 'cdu' is none of run\.devices in params\.yaml"):
        decide.main(**options, device="cdu")


def test_a_run_of_before_devices_is_one_of_auto(alone, monkeypatch):
    """Another commit's params.yaml may have no run.devices, and its data/cost.json none in its things."""
    monkeypatch.chdir(alone)
    revision = Revision("WORKSPACE")
    raw = dict(revision.params)
    raw["run"] = {key: value for key, value in raw["run"].items() if key != "devices"}
    vars(revision)["params"] = raw
    assert revision.run.devices == ["auto"]
    assert "on" not in files.read_json("data/cost.json")["things"][0]
