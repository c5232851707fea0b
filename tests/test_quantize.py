"""Every quant of the catalogue comes out as asked, and what llama.cpp could not do as asked is on record."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import TEMPLATE, Gguf, make_checkpoint

from stages import quantize
from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.convert.gguf_converter import convert
from tradeoffs.evaluate.runtime import Target
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import QUANTS
from tradeoffs.llama_cpp.native import tensor_types
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


def converted(folder, **changes):
    make_checkpoint(folder / "checkpoint", **changes)
    convert(folder / "checkpoint", folder / "source.gguf")
    return folder / "source.gguf"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("even"))


@pytest.fixture(scope="module")
def odd_source(tmp_path_factory):
    """Width 172, as in stories260k: no multiple of 32."""
    return converted(tmp_path_factory.mktemp("odd"), intermediate_size=172)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(params, "PATH", REPO / "params.yaml")
    Path("models/converted").mkdir(parents=True)
    return tmp_path


def place(gguf):
    shutil.copyfile(gguf, "models/converted/m-d-base.gguf")
    facts = {"base_id": "tiny", "tensor_types": {"f16": 16}, "sha256": files.sha256(gguf)}
    files.write_json("models/converted/m-d-base.json", facts)


def run(quant):
    quantize.main("m", "d", "base", quant)
    gguf = Path(f"models/gguf/m-d-base-{quant}.gguf")
    return gguf, files.read_json(gguf.with_suffix(".json"))


@pytest.mark.parametrize("quant", QUANTS)
def test_every_quant_of_the_catalogue_can_be_made_and_run(workspace, source, quant):
    place(source)
    gguf, info = run(quant)
    assert info["quant"] == quant and info["fallback_tensors"] == []
    assert info["tensor_types"] == tensor_types(gguf) and sum(info["tensor_types"].values()) == 21
    assert info["size_mb"] == pytest.approx(gguf.stat().st_size / 1e6, rel=1e-5)
    assert (gguf.stat().st_size < source.stat().st_size) == (quant != "f16")
    with LlamaCppRuntime(gguf, 512) as runtime:
        score = runtime.score([Target(np.arange(3, 40, dtype=np.int32), np.arange(37) > 0)])[0]
    assert np.isfinite(score.logprob).all()


def test_tensors_have_the_type_that_was_asked_for(workspace, source):
    place(source)
    assert run("q8_0")[1]["tensor_types"] == {"q8_0": 16, "f32": 5}
    assert set(run("q4_k_m")[1]["tensor_types"]) == {"q4_K", "q6_K", "f32"}
    gguf, info = run("f16")
    assert info["tensor_types"] == {"f16": 16, "f32": 5}
    assert gguf.read_bytes() == source.read_bytes()  # so DVC keeps one of the two


@pytest.mark.parametrize(("quant", "wanted"), [("q8_0", {"q8_0"}), ("q4_k_m", {"q4_K", "q6_K"}), ("q4_0", {"q4_0"})])
def test_tensors_whose_rows_do_not_fit_are_on_record(workspace, odd_source, quant, wanted):
    place(odd_source)
    _, info = run(quant)
    fallbacks = info["fallback_tensors"]
    assert [f["tensor"] for f in fallbacks] == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    assert {f["row_length"] for f in fallbacks} == {172} and {f["wanted"] for f in fallbacks} <= wanted
    assert Counter(f["got"] for f in fallbacks) == {"f16": 2} and info["tensor_types"]["f16"] == 2


def test_same_source_same_bytes_and_template_and_facts_travel(workspace, source):
    place(source)
    gguf, info = run("q4_k_m")
    first = gguf.read_bytes()
    assert run("q4_k_m")[0].read_bytes() == first
    assert info["base_id"] == "tiny"
    assert Gguf(gguf).metadata("tokenizer.chat_template") == TEMPLATE


def test_what_cannot_be_quantised_leaves_a_message_and_no_file(workspace, source, capfd):
    place(source)
    whole = source.read_bytes()
    (source.parent / "half.gguf").write_bytes(whole[: len(whole) // 2])
    place(source.parent / "half.gguf")
    with pytest.raises(UserError, match=r"cannot quantise it to q8_0\n  llama\.cpp: .+"):
        quantize.main("m", "d", "base", "q8_0")
    assert not any(Path("models/gguf").iterdir())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".gguf", ".json"])
def test_a_source_that_is_not_what_was_made_is_refused(workspace, source, suffix):
    place(source)
    damaged = Path("models/converted/m-d-base").with_suffix(suffix)
    content = bytearray(damaged.read_bytes())
    content[-20] ^= 1  # of a weight; of a digit of the JSON
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"models/converted/m-d-base\.(gguf|json): damaged.*dvc checkout"):
        quantize.main("m", "d", "base", "q8_0")
    assert not Path("models/gguf").exists()


def test_what_cannot_be_merged_is_an_empty_file_that_says_why_until_it_can_be(workspace, source):
    place(source)
    whole = Path("models/converted/m-d-base.gguf").read_bytes(), files.read_json("models/converted/m-d-base.json")
    trained_only.write_gguf(Path("models/converted/m-d-base.gguf"), "it trains vectors", trained_only.KEY)
    gguf, info = run("q4_0")
    assert gguf.stat().st_size == 0
    assert info == {"unmergeable": "it trains vectors"}
    files.write_json("models/converted/m-d-base.json", whole[1])
    Path("models/converted/m-d-base.gguf").write_bytes(whole[0])
    gguf, info = run("q4_0")
    assert gguf.stat().st_size > 0 and info["quant"] == "q4_0" and "unmergeable" not in info


def test_a_missing_source_and_an_unknown_quant_are_named(workspace):
    with pytest.raises(UserError, match=r"models/converted/m-d-base\.gguf: not found"):
        quantize.main("m", "d", "base", "q8_0")
    with pytest.raises(UserError, match=r"unknown value 'q9' .*q8_0"):
        quantize.main("m", "d", "base", "q9")
