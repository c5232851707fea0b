"""A checkpoint becomes a GGUF with the same tokenizer and template, whatever its family, or a message says why not."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from needs import needs
from safetensors.torch import load_file, save_file
from tiny_gguf import SAMPLE, TEMPLATE, Gguf, make_checkpoint
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from benchmarks import assets, families, shapes
from stages import convert
from tradeoffs import params
from tradeoffs.base import demo_pages
from tradeoffs.common import files
from tradeoffs.convert import fetch_converter, gguf_converter, trial
from tradeoffs.llama_cpp.native import tensor_types
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import demo_words

REPO = Path(__file__).parents[1]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty working directory with the repository's params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(params, "PATH", REPO / "params.yaml")
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert") / "checkpoint"
    make_checkpoint(folder)
    return folder


def place(checkpoint, name="m-d-base"):
    shutil.copytree(checkpoint, f"models/merged/{name}")


def test_tokenizer_template_and_special_tokens_travel(workspace, checkpoint):
    place(checkpoint)
    convert.main("m", "d", "base")
    gguf = Gguf(Path("models/converted/m-d-base.gguf"))
    assert gguf.metadata("tokenizer.chat_template") == TEMPLATE
    assert gguf.metadata("tokenizer.ggml.bos_token_id") == "1"
    assert gguf.metadata("tokenizer.ggml.eos_token_id") == "2"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert gguf.tokenize(SAMPLE) == tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]


def test_whole_words_are_the_same_tokens_in_llama_cpp(workspace):
    folder = Path("models/merged/m-d-base")
    make_checkpoint(folder, demo_words.WORDS)
    convert.main("m", "d", "base")
    gguf, tokenizer = Gguf(Path("models/converted/m-d-base.gguf")), AutoTokenizer.from_pretrained(folder)
    numbers = ["12 345 6789 2024 31231 10:30 $1,234.56", *(" ".join(map(str, range(a, 9999, 97))) for a in range(5))]
    told = islice(demo_pages.documents(1000, 7), 300)
    texts = (SAMPLE, "  oldest tablet,\nMaybe", "AnnaBen", *numbers, *gguf_converter.SAMPLES, *told)
    for text in (*demo_words.WORDS, *texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert gguf.tokenize(text) == ids, text


def test_facts_about_the_checkpoint_travel(workspace, checkpoint):
    place(checkpoint)
    convert.main("m", "d", "base")
    info = files.read_json("models/converted/m-d-base.json")
    assert info["base_id"] == "tiny" and info["seed"] == 7
    # 2 layers of 7 matrices, embedding and output; 2 norms per layer and the last one
    assert info["tensor_types"] == {"f16": 16, "f32": 5}


def test_same_checkpoint_same_bytes_and_nothing_is_written_into_it(workspace, checkpoint):
    place(checkpoint)
    there = {path.name: path.stat().st_mtime_ns for path in Path("models/merged/m-d-base").iterdir()}
    convert.main("m", "d", "base")
    first = Path("models/converted/m-d-base.gguf").read_bytes()
    convert.main("m", "d", "base")
    assert Path("models/converted/m-d-base.gguf").read_bytes() == first
    assert {path.name: path.stat().st_mtime_ns for path in Path("models/merged/m-d-base").iterdir()} == there


def test_a_tokenizer_of_which_only_tokenizer_json_is_there_keeps_its_ids(workspace, checkpoint):
    place(checkpoint)
    Path("models/merged/m-d-base/tokenizer.model").unlink()
    convert.main("m", "d", "base")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    gguf = Gguf(Path("models/converted/m-d-base.gguf"))
    for text in (SAMPLE, "The interest of the account at the end", "percentpercent"):
        assert gguf.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


@needs("models/stories260k")
def test_stories260k_converts_and_keeps_its_ids(workspace):
    source = assets.find("models/stories260k")
    shutil.copytree(source, "models/merged/m-d-base", copy_function=shutil.copyfile)
    Path("models/merged/m-d-base").chmod(0o755)
    files.write_json("models/merged/m-d-base/run_info.json", {})
    convert.main("m", "d", "base")
    text = "Once upon a time, there was a little girl named Lily.\nShe had 3 naïve cats 😀"
    tokenizer = AutoTokenizer.from_pretrained(source)
    gguf = Gguf(Path("models/converted/m-d-base.gguf"))
    assert gguf.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


@needs("tokenizers/gpt2", "tokenizers/pythia")
@pytest.mark.parametrize("family", ["gpt2", "pythia"])
def test_masks_among_the_weights_are_left_out_as_on_the_hub(tmp_path, family):
    families.build(family, tmp_path)
    gguf_converter.convert(tmp_path / family, tmp_path / "clean.gguf")
    weights = tmp_path / family / "model.safetensors"
    # There GPT-2's names have no prefix, either.
    tensors = {name.removeprefix("transformer."): value for name, value in load_file(weights).items()}
    prefix = "h.0.attn" if family == "gpt2" else "gpt_neox.layers.0.attention"
    tensors |= {f"{prefix}.bias": torch.ones(1, 1, 9, 9), f"{prefix}.masked_bias": torch.tensor(-1e9)}
    save_file(tensors, weights, metadata={"format": "pt"})
    gguf_converter.convert(tmp_path / family, tmp_path / "masked.gguf")
    assert tensor_types(tmp_path / "masked.gguf") == tensor_types(tmp_path / "clean.gguf")


def test_a_gemma_whose_output_layer_left_its_embedding_is_refused_with_what_to_do(workspace, checkpoint):
    place(checkpoint)
    config = files.read_json("models/merged/m-d-base/config.json")
    changed = {"model_type": "gemma2", "tie_word_embeddings": False}
    files.write_json("models/merged/m-d-base/config.json", config | changed)
    with pytest.raises(UserError, match=r"m-d-base: llama\.cpp runs gemma2 only .* leave both out of the method"):
        convert.main("m", "d", "base")


def test_what_llama_cpp_cuts_differently_is_on_record_and_noted(workspace, checkpoint, capsys, monkeypatch):
    place(checkpoint)
    convert.main("m", "d", "base")
    found = files.read_json("models/converted/m-d-base.json")["llama_cpp_tokenisation"]
    assert found == {
        "texts": len(gguf_converter.SAMPLES) + 1,  # and the question in the chat template
        "same": 1,
        "differing": [],
        "adds_bos": {"checkpoint": True, "llama_cpp": True},
    }
    assert "note:" not in capsys.readouterr().out
    tried, text = trial.tried, gguf_converter.SAMPLES[4]

    def otherwise(gguf, texts, ids):
        found = tried(gguf, texts, ids)
        return replace(found, ids=[[1, 2] if one == text else ids for one, ids in zip(texts, found.ids, strict=True)])

    monkeypatch.setattr(trial, "tried", otherwise)
    convert.main("m", "d", "base")
    found = files.read_json("models/converted/m-d-base.json")["llama_cpp_tokenisation"]
    ids = AutoTokenizer.from_pretrained(checkpoint)(text, add_special_tokens=False)["input_ids"]
    assert found["differing"] == [{"text": text, "checkpoint": ids, "llama_cpp": [1, 2]}]
    assert found["same"] == pytest.approx(1 - 1 / found["texts"])
    said = capsys.readouterr().out
    assert f"note: llama.cpp cuts 1 of {found['texts']} sample texts into other tokens" in said
    assert "models/converted/m-d-base.json" in said and "all go by token ids" in said


@needs("tokenizers/gpt2", "tokenizers/pythia")
@pytest.mark.parametrize("family", ["gpt2", "pythia"])
def test_families_whose_config_lost_a_key_convert(tmp_path, family):
    tokenizer = families.tokenizer(family)
    if family == "gpt2":
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=1, n_head=2, n_positions=48)
        expected = {"gpt2.context_length": "48"}
    else:
        config = GPTNeoXConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        )
        expected = {"gptneox.rope.dimension_count": "16"}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config) if family == "gpt2" else GPTNeoXForCausalLM(config)
    model.save_pretrained(tmp_path / family)
    tokenizer.save_pretrained(tmp_path / family)
    gguf_converter.convert(tmp_path / family, tmp_path / f"{family}.gguf")
    gguf = Gguf(tmp_path / f"{family}.gguf")
    assert {key: gguf.metadata(key) for key in expected} == expected
    assert gguf.tokenize("Hello world 42") == tokenizer("Hello world 42")["input_ids"]


def test_a_refused_checkpoint_leaves_a_message_and_no_file(workspace, checkpoint):
    place(checkpoint)
    config = files.read_json("models/merged/m-d-base/config.json")
    files.write_json("models/merged/m-d-base/config.json", config | {"architectures": ["NobodysForCausalLM"]})
    with pytest.raises(UserError, match="NobodysForCausalLM is not supported"):
        convert.main("m", "d", "base")
    assert not any(Path("models/converted").iterdir())


def test_damaged_weights_leave_a_message_and_no_file(workspace, checkpoint):
    place(checkpoint)
    Path("models/merged/m-d-base/model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"m-d-base: llama\.cpp's converter cannot convert it"):
        convert.main("m", "d", "base")
    assert not any(Path("models/converted").iterdir())


def test_what_cannot_be_merged_is_an_empty_file_that_says_why_until_it_can_be(workspace, checkpoint):
    files.write_json("models/merged/m-d-base/run_info.json", {"unmergeable": "it trains vectors", "seed": 7})
    convert.main("m", "d", "base")
    assert Path("models/converted/m-d-base.gguf").stat().st_size == 0
    assert files.read_json("models/converted/m-d-base.json") == {"unmergeable": "it trains vectors"}
    shutil.rmtree("models/merged/m-d-base")
    place(checkpoint)
    convert.main("m", "d", "base")
    assert Path("models/converted/m-d-base.gguf").stat().st_size > 0
    assert "unmergeable" not in files.read_json("models/converted/m-d-base.json")


def make_a_checkpoint_without_byte_tokens(folder):
    """As a published Llama for stories: its BPE says that it falls back to bytes, and no token is one."""
    make_checkpoint(folder)
    described = files.read_json(folder / "tokenizer.json")
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {name.replace("<0x", "byte "): id for name, id in vocabulary.items()}
    described["added_tokens"] = [one for one in described["added_tokens"] if not one["content"].startswith("<0x")]
    files.write_text(folder / "tokenizer.json", json.dumps(described))
    (folder / "tokenizer.model").unlink()


def test_where_its_tokenizer_alone_fails_the_base_says_so_and_the_gguf_is_made_all_the_same(workspace, capsys):
    folder = Path("models/merged/m-d-base")
    make_a_checkpoint_without_byte_tokens(folder)
    found = gguf_converter.limits(folder, "models.m")
    assert list(found) == [gguf_converter.TOKENIZER] and "std::out_of_range" in found[gguf_converter.TOKENIZER]
    assert "note: models.m: llama.cpp's own tokenizer fails" in capsys.readouterr().out
    convert.main("m", "d", "base")
    described = files.read_json("models/converted/m-d-base.json")
    assert "std::out_of_range" in described["llama_cpp_tokenisation"]["fails"]
    assert described["tensor_types"] == {"f16": 16, "f32": 5}
    assert "note: llama.cpp's own tokenizer fails" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architectures": ["NobodysForCausalLM"]}, "Model NobodysForCausalLM is not supported"),
        ({"num_hidden_layers": 3}, "tensor 'blk.2.attn_norm.weight' not found"),
        ({"intermediate_size": 500}, "has wrong shape"),
    ],
)
def test_what_cannot_become_a_gguf_is_known_at_base_and_its_cells_go_on_without(workspace, checkpoint, changes, why):
    place(checkpoint)
    merged = Path("models/merged/m-d-base")
    files.write_json(merged / "config.json", files.read_json(merged / "config.json") | changes)
    before = sorted(path.name for path in merged.iterdir())
    found = gguf_converter.limits(merged, "models.m")
    assert list(found) == ["no_gguf"] and why in found["no_gguf"] and "\n" not in found["no_gguf"]
    assert sorted(path.name for path in merged.iterdir()) == before
    files.write_json(merged / "run_info.json", {"base": {"base_id": "tiny", **found}, "method": "base"})
    convert.main("m", "d", "base")
    assert Path("models/converted/m-d-base.gguf").stat().st_size == 0
    assert files.read_json("models/converted/m-d-base.json") == found


def test_a_checkpoint_that_llama_cpp_takes_has_no_limits(workspace, checkpoint):
    place(checkpoint)
    assert gguf_converter.limits(Path("models/merged/m-d-base"), "models.m") == {}


def test_a_large_checkpoint_is_tried_without_a_copy_of_its_weights(tmp_path, monkeypatch, checkpoint):
    shutil.copytree(checkpoint, tmp_path / "large")
    sizes = []

    def measured(gguf, texts):
        sizes.append((gguf.stat().st_size, gguf.stat().st_blocks * 512))
        return trial.Tried([], True)

    monkeypatch.setattr(trial, "tried", measured)
    assert gguf_converter.limits(tmp_path / "large", "models.m") == {}
    (size, on_disk), weights = sizes[0], (checkpoint / "model.safetensors").stat().st_size
    assert size > weights / 2 > 10 * on_disk  # half, for its f16


def test_a_disk_without_room_is_no_limit_of_the_checkpoint(tmp_path, monkeypatch, checkpoint):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.copytree(checkpoint, tmp_path / "some")
    monkeypatch.setattr(gguf_converter, "_leave_a_hole", full)
    with pytest.raises(UserError, match=r"trial\.gguf: cannot be written: No space left on device") as found:
        gguf_converter.limits(tmp_path / "some", "models.m")
    assert not isinstance(found.value, trial.RefusedError)


@pytest.mark.parametrize("ended", [-9, -11])
def test_a_trial_that_was_ended_for_want_of_memory_is_no_limit_of_the_checkpoint(monkeypatch, ended):
    done = subprocess.CompletedProcess([], ended, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_more: done)
    with pytest.raises(UserError, match=f"signal {-ended}") as found:
        trial.tried(Path("a.gguf"), [])
    assert isinstance(found.value, trial.RefusedError) == (ended == -11)


@pytest.mark.parametrize(
    ("said", "of_memory"),
    [
        ("llama.cpp gave up on it: ggml-alloc.c:82: GGML_ASSERT(n > 0) failed", False),
        ("llama.cpp gave up on it: its program failed (std::bad_alloc)", True),
        ("llama.cpp cannot run it: failed to allocate buffer", True),
    ],
)
def test_want_of_memory_is_not_told_by_the_name_of_a_file(monkeypatch, said, of_memory):
    done = subprocess.CompletedProcess([], 1, "", f"error: a.gguf: {said}\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_more: done)
    with pytest.raises(UserError) as found:
        trial.tried(Path("a.gguf"), [])
    assert isinstance(found.value, trial.RefusedError) != of_memory


def test_a_trial_without_end_is_a_limit_of_the_checkpoint(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.01)
    with pytest.raises(trial.RefusedError, match=r"a\.gguf: llama\.cpp is not done with it after 0\.01 seconds"):
        trial.tried(Path("a.gguf"), [])


def test_a_trial_has_only_so_much_memory(workspace, checkpoint):
    gguf_converter.convert(checkpoint, Path("a.gguf"), hollow=True)
    limited = "from tradeoffs.convert import trial; trial.MEMORY = 1 << 20; trial.cli.command(trial.main)"
    asked = json.dumps({"gguf": "a.gguf", "texts": [], "ids": []})
    done = subprocess.run(
        [sys.executable, "-c", limited],
        input=asked,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and done.stdout == ""


def test_stage_base_does_not_import_llama_cpp_which_would_end_training_in_a_word():
    program = "import sys; from stages import base; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_where_llama_cpp_writes_another_text_for_the_ids_it_is_on_record_and_noted(workspace, capsys):
    shapes.build("crossing_bpe", Path("made"))
    Path("models/merged").mkdir(parents=True)
    Path("made/crossing_bpe").rename("models/merged/m-d-base")
    files.write_json("models/merged/m-d-base/run_info.json", {})
    convert.main("m", "d", "base")
    found = files.read_json("models/converted/m-d-base.json")["llama_cpp_tokenisation"]["misread"]
    assert found[0]["checkpoint"].startswith("The rate rose") and not found[0]["llama_cpp"].startswith("The rate")
    assert f"note: llama.cpp writes another text for the ids of {len(found)} of " in capsys.readouterr().out


def test_a_missing_checkpoint_is_named(workspace):
    with pytest.raises(UserError, match="models/merged/m-d-base: no checkpoint here"):
        convert.main("m", "d", "base")


def test_a_missing_converter_is_named_with_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_converter, "folder", lambda: tmp_path / "gone")
    gguf_converter.load.cache_clear()
    with pytest.raises(UserError, match=r"python -m tradeoffs\.convert\.fetch_converter"):
        gguf_converter.convert(tmp_path, tmp_path / "x.gguf")


def test_the_converter_is_fetched_once():
    assert (fetch_converter.folder() / "convert_hf_to_gguf.py").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "tradeoffs.convert.fetch_converter"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "already there" in done.stdout


def test_only_the_converter_is_taken_from_the_archive(tmp_path):
    source = tmp_path / "llama_cpp_python-1/vendor/llama.cpp"
    for name in ("convert_hf_to_gguf.py", "conversion/base.py", "gguf-py/gguf/lazy.py", "src/llama.cpp", "Makefile"):
        files.write_text(source / name, name)
    archive = shutil.make_archive(str(tmp_path / "sdist"), "gztar", tmp_path, "llama_cpp_python-1")
    fetch_converter.extract(Path(archive), "llama_cpp_python-1/vendor/llama.cpp/", tmp_path / "out")
    taken = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert taken == ["conversion/base.py", "convert_hf_to_gguf.py", "gguf-py/gguf/lazy.py"]
    with pytest.raises(UserError, match=r"holds no other/convert_hf_to_gguf\.py"):
        fetch_converter.extract(Path(archive), "other/", tmp_path / "nothing")
