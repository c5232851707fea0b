"""What only a GPU can show: that its memory and time are measured, and that the machine's record names it.

Skipped where there is none; with one: `pytest -m cuda`.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from test_measure import WORK
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tradeoffs.common import machine
from tradeoffs.measure import processes, speed
from tradeoffs.results import costs, tuning
from tradeoffs.transformers_runtime import TransformersRuntime

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda") / "base"
    tiny.make_base(folder)
    return folder


@pytest.fixture
def runtime(base):
    return TransformersRuntime(AutoModelForCausalLM.from_pretrained(base).to("cuda"), 200, pad_id=0)


def test_the_peaks_of_the_gpu_are_of_this_model_and_what_was_set_aside_holds_what_is_in_use(runtime):
    runtime.prefill(np.arange(1, 60))
    found = runtime.gpu_memory()
    assert runtime.size_mb < found["peak_gpu_memory_mb"] <= found["peak_gpu_memory_reserved_mb"]
    total = torch.cuda.get_device_properties(0).total_memory / 1e6
    assert found["peak_gpu_memory_reserved_mb"] < total


def test_a_measurement_says_both_memories_and_the_gpus_counts(base):
    loaded = {"checkpoint": str(base), "precision": "bf16"}
    found = processes.measure(replace(WORK, loaded=loaded), "m-d-a-bf16", afresh=True)
    assert found["device"] == torch.cuda.get_device_name()
    counted = costs.memory_that_counts(found)
    assert counted["model_memory_mb"] == found["peak_gpu_memory_reserved_mb"] > 0
    assert counted["host_memory_mb"] == found["model_memory_mb"] <= found["peak_memory_mb"]


def test_the_time_of_each_answer_and_choice_waits_for_the_gpu(runtime):
    prompts = [np.arange(1, n) for n in (5, 40, 12)]
    clock = runtime.gpu_clock()
    runtime.generate(prompts, 8, stop_ids=[2])
    assert (runtime.seconds > 0).all() and runtime.seconds.sum() >= 0.5 * clock() > 0
    runtime.choose(prompts, [np.arange(4)] * 3)
    assert runtime.seconds.shape == (3,) and (runtime.seconds > 0).all()


def test_the_memory_of_an_answer_is_above_the_weights_and_grows_with_the_prompt():
    wide = LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=4,
        num_attention_heads=16,
        max_position_embeddings=128,
    )
    # 0.5 GB of weights, far more than the activations and workspaces of a short answer.
    runtime = TransformersRuntime(LlamaForCausalLM(wide).to("cuda", torch.bfloat16), 128, pad_id=0)
    runtime.stream(np.arange(1, 30), 4, stop_ids=[2])  # what a first answer alone sets aside
    risen = []
    for length in (4, 56):
        runtime.stream(np.arange(1, length), 4, stop_ids=[2])
        risen.append(runtime.answer_gpu_mb)
    assert 0 < risen[0] < risen[1]
    assert risen[1] < 0.5 * runtime.size_mb, "the weights are not among it"


def test_batches_are_measured_on_the_gpu_until_its_memory_is_full(runtime):
    assert set(speed.batch_sweep(runtime, WORK)) == {str(size) for size in WORK.settings.batch_sizes}


def test_a_training_leaves_the_peaks_of_the_gpu_and_they_count(tmp_path, monkeypatch):
    tiny.make_base(tmp_path / "base")
    tiny.make_tokens(tmp_path / "tokens")
    monkeypatch.chdir(tmp_path)
    budget = replace(tiny.TINY_TRAIN, steps=20)
    row = tiny.train(tmp_path / "trained", tiny.job(tmp_path, "lora", tiny.METHODS["lora"], budget))
    assert 0 < row["peak_gpu_memory_mb"] <= row["peak_gpu_memory_reserved_mb"]
    assert tuning.peak_memory(row) == (row["peak_gpu_memory_reserved_mb"], True)


def test_the_record_of_the_machine_names_the_gpu_its_memory_and_driver():
    machine.gpus.cache_clear()
    found = machine.hardware()
    assert torch.cuda.get_device_name() in [one["name"] for one in found["gpus"]]
    assert sum(one["count"] for one in found["gpus"]) >= torch.cuda.device_count()
    (own,) = (one for one in found["gpus"] if one["name"] == torch.cuda.get_device_name())
    total = torch.cuda.get_device_properties(0).total_memory / 1e9
    assert own["memory_gb"] == pytest.approx(total, rel=0.1)
    assert found["driver"].split(".")[0].isdecimal() and json.dumps(found)
