"""float32, bf16 and fp16 of one checkpoint: what each holds, what it computes in, and what it is held against."""

import fake_results
import numpy as np
import pytest
import torch
from tiny_gguf import make_checkpoint

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.evaluate.runtime import Target
from tradeoffs.formats.names import PRECISIONS
from tradeoffs.models.loading import load_model
from tradeoffs.transformers_runtime import TransformersRuntime

UNQUANTISED = ["float32", "bf16", "fp16"]


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("precisions")
    model = make_checkpoint(folder / "checkpoint")
    model.to(torch.bfloat16).save_pretrained(folder / "checkpoint")  # as a merged one is
    hows = {name: PRECISIONS[name] for name in UNQUANTISED}
    return {
        name: TransformersRuntime(load_model(folder / "checkpoint", how.load, getattr(torch, how.dtype)), 2048, 0)
        for name, how in hows.items()
    }


def test_each_holds_its_own_bytes_and_computes_in_its_own_type(runtimes):
    sizes = {name: runtime.size_mb for name, runtime in runtimes.items()}
    assert sizes["float32"] == 2 * sizes["bf16"] == 2 * sizes["fp16"]
    assert {name: str(runtime.model.dtype) for name, runtime in runtimes.items()} == {
        "float32": "torch.float32",
        "bf16": "torch.bfloat16",
        "fp16": "torch.float16",
    }
    assert len({runtime.shapes for runtime in runtimes.values()}) == 3, "each is measured by itself"


def test_the_weights_are_the_same_and_fp16_is_nearer_to_float32_than_bf16(runtimes):
    ids = np.array([1, *range(40, 90)], np.int32)
    target = Target(ids, np.arange(len(ids)) > 0)
    found = {name: runtime.score([target])[0].logprob for name, runtime in runtimes.items()}
    off = {name: float(np.abs(found[name] - found["float32"]).mean()) for name in UNQUANTISED}
    assert 0 < off["fp16"] < off["bf16"] < 0.1


@pytest.mark.parametrize(
    ("listed", "below"),
    [
        (["float32", "bf16", "fp16", "int8", "nf4"], "bf16"),
        (["fp16", "int8", "nf4"], "fp16"),
        (["fp16", "float32", "int8", "nf4"], "float32"),
        (["int8", "nf4"], "trained"),
    ],
)
def test_what_is_made_of_the_merged_checkpoint_is_held_against_it_in_the_nearest_precision(tmp_path, listed, below):
    results = fake_results.finished(
        tmp_path, stages=[fake_results.score], methods=["lora"], precisions=listed, quants=["f16", "q4_0"]
    )
    made = {v.format: results.made_from(v).format for v in results.of(Pair("demo", "demo")) if v.format != "trained"}
    assert all(made[name] == "trained" for name in listed if name in UNQUANTISED)
    assert {made[name] for name in ("int8", "nf4", "f16")} == {below} and made["q4_0"] == "f16"
    assert [v.format for v in results.variants] == ["trained", *listed, "f16", "q4_0"]
    assert results.made_from(Variant("demo", "demo", "lora", "q4_0")).format == "f16"
