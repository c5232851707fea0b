"""A checkpoint is taken only if its weights are those of its config, whole and finite, and its files can do no harm."""

import hashlib
import json
import os
import resource
import signal
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gguf import make_checkpoint
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    Qwen2Config,
)

from tradeoffs.common import chat_templates, limits
from tradeoffs.models import checkpoints, loading, weights
from tradeoffs.params import Method
from tradeoffs.plumbing.errors import UserError

WEIGHTS, WHERE = "model.safetensors", "models.mine.path: own"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "own"
    make_checkpoint(folder)
    return folder


@pytest.fixture
def own(made, tmp_path):
    """A checkpoint to break."""
    folder = tmp_path / "own"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def set_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change(folder, edit):
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


def problem(folder, call=lambda folder: weights.check(folder, WHERE)):
    with pytest.raises(UserError) as error:
        call(folder)
    return str(error.value)


def loaded(folder):
    return loading.load_model(folder, None, torch.float32)


LOST: dict[str, tuple] = {
    "a tensor": (lambda folder: change(folder, lambda held: held.pop(UP)), f"it lacks {UP}, which "),
    "a layer too many": (lambda folder: set_config(folder, num_hidden_layers=3), "it lacks model.layers.2.input_layer"),
    "a layer too few": (lambda folder: set_config(folder, num_hidden_layers=1), "it has model.layers.1.input_layer"),
    "another width": (
        lambda folder: set_config(folder, intermediate_size=500),
        "mlp.down_proj.weight of [256, 512] instead of [256, 500]",
    ),
    "a prefix": (
        lambda folder: change(folder, lambda held: [held.update({f"net.{k}": held.pop(k)}) for k in [*held]]),
        "it lacks lm_head.weight, ",
    ),
    "something more": (lambda folder: change(folder, lambda held: held.update(v_head=torch.zeros(3))), "it has v_head"),
    "biases": (lambda folder: set_config(folder, attention_bias=True), "it lacks model.layers.0.self_attn.k_proj.bias"),
    "another family": (lambda folder: set_config(folder, model_type="gpt_neox"), "it lacks "),
}


@pytest.mark.parametrize("what", LOST)
def test_weights_that_are_not_those_of_the_config_are_refused_at_base_and_at_every_load(own, what):
    breaks, message = LOST[what]
    breaks(own)
    assert problem(own).startswith(f"{WHERE}: the weights are not those of the model in config.json: it ")
    assert message in problem(own)
    assert message in problem(own, loaded)


def test_a_checkpoint_of_every_family_is_taken_tied_or_not(tmp_path):
    for number, config in enumerate(
        (
            GPT2Config(vocab_size=90, n_layer=2, n_embd=32, n_head=2),
            GPTNeoXConfig(
                vocab_size=90, num_hidden_layers=2, hidden_size=32, intermediate_size=64, num_attention_heads=2
            ),
            Qwen2Config(
                vocab_size=90,
                num_hidden_layers=2,
                hidden_size=32,
                intermediate_size=64,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=True,
            ),
        )
    ):
        folder = tmp_path / str(number)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        weights.check(folder, WHERE)
        loaded(folder)


def test_what_transformers_renames_ties_or_ignores_is_no_fault(tmp_path):
    """As GPT-2 and fine-tunes of it lie on the hub: no prefix, no head, masks among the weights."""
    GPT2LMHeadModel(GPT2Config(vocab_size=90, n_layer=1, n_embd=32, n_head=2, n_positions=16)).save_pretrained(tmp_path)

    def as_published(held):
        for name in [*held]:
            held[name.removeprefix("transformer.")] = held.pop(name)
        held["h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        held["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    before = loaded(tmp_path)
    change(tmp_path, as_published)
    weights.check(tmp_path, WHERE)
    ids = torch.arange(10)[None]
    assert torch.equal(loaded(tmp_path)(ids).logits, before(ids).logits)
    change(tmp_path, lambda held: held.update({"h.0.attn.masked_bias": torch.ones(32)}))
    assert "it has h.0.attn.masked_bias" in problem(tmp_path)


def test_a_tensor_that_is_held_twice_under_two_names_is_refused(own):
    change(own, lambda held: held.update({UP.removeprefix("model."): torch.zeros(512, 256)}))
    assert f"the weights hold both {UP.removeprefix('model.')} and {UP}, which are one" in problem(own)


def test_a_tensor_in_two_shards_is_refused(own):
    held = load_file(own / WEIGHTS)
    for name in ("a.safetensors", "b.safetensors"):
        save_file({UP: held[UP]}, own / name)
    (own / checkpoints.INDEX).write_text(json.dumps({"weight_map": {UP: "a.safetensors", "more": "b.safetensors"}}))
    assert f"b.safetensors: holds {UP}, and so does another file" in problem(own)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(own, number):
    change(own, lambda held: held[UP].view(-1).__setitem__(7, number))
    assert problem(own).startswith(f"{WHERE}: {UP} in {WEIGHTS} holds numbers that are not finite")


def test_weights_of_whole_numbers_are_refused(own):
    change(own, lambda held: held.update({UP: held[UP].to(torch.int8)}))
    assert f"{UP} holds numbers of type I8, not one of F64" in problem(own)


def test_weights_that_are_quantised_already_are_refused(own):
    set_config(own, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "its weights are quantised already" in problem(own)
    set_config(own, quantization_config=None)  # as some are saved that are not
    weights.check(own, WHERE)


def _no_header(path: Path) -> bytes:
    return struct.pack("<Q", 1 << 40) + path.read_bytes()[8:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: b"",
        lambda path: path.read_bytes()[:1000],
        lambda path: path.read_bytes()[:-1],
        lambda path: path.read_bytes() + b"\0",
        _no_header,
        lambda path: b"<!DOCTYPE html>" * 99,
        lambda path: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n",
    ],
)
def test_safetensors_that_are_not_whole_are_refused_at_base_and_at_every_load(own, damage):
    (own / WEIGHTS).write_bytes(damage(own / WEIGHTS))
    assert problem(own).startswith(f"{own / WEIGHTS}: damaged or incomplete safetensors (")
    assert problem(own, loaded) == problem(own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "config.json is not valid JSON for a checkpoint (a list, no object)"),
        (b"{", "config.json is not valid JSON ("),
        (b'{"a": "\xff"}', "config.json is not valid JSON ('utf-8' codec"),
        (b'{"a":' * 100_000, "config.json is not valid JSON (maximum recursion depth"),
        (b'{"a": ' + b"9" * 5000 + b"}", "config.json is not valid JSON (Exceeds the limit"),
        (b'{"rms_norm_eps": NaN}', "config.json is not valid JSON (NaN is no number)"),
        (b'{"model_type": ["llama"]}', "knows no causal language model of type \"['llama']\""),
    ],
)
def test_a_config_that_is_no_description_of_a_model_is_refused(own, content, message):
    (own / "config.json").write_bytes(content)
    assert message in problem(own)


READ = "config.json cannot be read as one of 'llama': "
BUILT = "no model can be built of its config.json and weights: "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_hidden_layers": 10**9},
            "config.json: num_hidden_layers is 1000000000; expected a number from 0 to 10000",
        ),
        ({"num_hidden_layers": 9999}, "config.json asks for 9999 layers, and the weights hold 21 tensors"),
        ({"num_hidden_layers": "2"}, f"{READ}Validation error for field 'num_hidden_layers'"),
        ({"num_hidden_layers": -1}, "config.json: num_hidden_layers is -1; expected"),
        ({"hidden_size": None}, f"{READ}Validation error for field 'hidden_size'"),
        ({"hidden_size": 255}, f"{READ}Class validation error"),
        ({"hidden_act": "none such"}, f"{BUILT}'none such'"),
        ({"vocab_size": 10**18}, f"{BUILT}Storage size calculation overflowed"),
        ({"num_attention_heads": 0}, f"{READ}integer modulo by zero"),
        ({"rms_norm_eps": "small"}, f"{READ}Validation error for field 'rms_norm_eps'"),
        ({"rope_parameters": {"rope_type": "none such"}}, f"{BUILT}'none such'"),
        ({"dtype": "float99"}, f"{READ}module 'torch' has no attribute 'float99'"),
    ],
)
def test_values_of_which_no_model_can_be_built_are_refused(own, changes, message):
    set_config(own, **changes)
    assert problem(own).startswith(f"{WHERE}: {message}")


@pytest.mark.parametrize("index", [b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {}}', b"\xff", b"{" * 99999])
def test_an_index_that_names_no_files_is_refused(own, index):
    (own / checkpoints.INDEX).write_bytes(index)
    assert checkpoints.INDEX in problem(own)


def test_what_ends_an_answer_is_a_token_id(own):
    (own / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    assert "generation_config.json: eos_token_id is '</s>'; expected a token id" in problem(own)
    (own / "generation_config.json").write_text("[]")
    assert "generation_config.json is not valid JSON for a checkpoint" in problem(own)


@pytest.mark.parametrize("name", ["LICENSE", "config.json", "merges.txt"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(own, name):
    outside = own.parent / "secret"
    outside.write_bytes((own / name).read_bytes() if (own / name).exists() else b"mine")
    (own / name).unlink(missing_ok=True)
    (own / name).symlink_to(outside)
    message = problem(own, lambda folder: checkpoints.check(folder, "models.mine.path"))
    assert message.startswith(f"models.mine.path: {own / name} is a link that leads out of the folder, to {outside}; ")


def test_links_within_the_folder_of_the_hubs_cache_and_of_dvcs_are_files_of_the_checkpoint(own, tmp_path):
    for blob, at in (
        (tmp_path / "models--me--tiny/blobs/0a1b", tmp_path / "models--me--tiny/snapshots/c0ffee"),
        (tmp_path / "cache/files/md5/0a" / ("1b" * 15), tmp_path / "models/raw/tiny"),
        (tmp_path / "models--me--tiny/blobs/2c3d", tmp_path / "models--me--tiny/snapshots/c0ffee/part"),
        (tmp_path / "models--me--tiny/blobs/4e5f", tmp_path / "local-dir"),
        (tmp_path / "set/.git/annex/objects/aB/cD/MD5E-s9--0a/MD5E-s9--0a", tmp_path / "set"),
        (tmp_path / "within/other/a", tmp_path / "within"),
    ):
        blob.parent.mkdir(parents=True, exist_ok=True)
        at.mkdir(parents=True, exist_ok=True)
        for path in own.iterdir():
            (at / path.name).write_bytes(path.read_bytes())
        (at / "config.json").rename(blob)
        (at / "config.json").symlink_to(os.path.relpath(blob, at))
        checkpoints.check(at, "models.mine.path")


def test_weights_may_lie_on_another_disk(own, tmp_path):
    (tmp_path / "scratch").mkdir()
    (own / WEIGHTS).rename(tmp_path / "scratch/weights")
    (own / WEIGHTS).symlink_to(tmp_path / "scratch/weights")
    (tmp_path / "copy").mkdir()
    checkpoints.copy(own, tmp_path / "copy", "models.mine.path")
    assert not (tmp_path / "copy" / WEIGHTS).is_symlink()
    weights.check(tmp_path / "copy", WHERE)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("none")])
def test_a_tokenizer_that_is_no_file_is_not_replaced_by_another_one(own, make):
    (own / "tokenizer.json").unlink()
    make(own / "tokenizer.json")
    assert (own / "tokenizer.model").is_file()
    message = problem(own, lambda folder: checkpoints.check(folder, "models.mine.path"))
    assert message.startswith(f"models.mine.path: {own}/tokenizer.json is no file (")


def test_a_pipe_in_place_of_a_file_is_none(own):
    (own / "config.json").unlink()
    os.mkfifo(own / "config.json")
    assert "has no config.json" in problem(own, lambda folder: checkpoints.check(folder, "models.mine.path"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"tokenizer_class": 7}'),
        ("tokenizer_config.json", b'{"bos_token": {"content": 7}}'),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_one_message(own, name, content):
    (own / name).write_bytes(content)
    message = problem(own, lambda folder: checkpoints.load_tokenizer(folder, WHERE))
    assert message.startswith(f"{WHERE}: its tokenizer cannot be read: ")


def test_another_models_tokenizer_is_refused(own):
    set_config(own, vocab_size=300)
    message = problem(own, lambda folder: checkpoints.load_tokenizer(folder, WHERE))
    assert message.startswith(f"{WHERE}: its tokenizer is another model's: ")


def test_what_ends_a_text_is_a_token_of_the_vocabulary(own):
    path = own / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<|none such|>"}))
    set_config(own, vocab_size=330)
    message = problem(own, lambda folder: checkpoints.load_tokenizer(folder, WHERE))
    assert "its tokenizer_config.json has '<|none such|>' begin or end a text, which is no token of" in message


def test_where_no_tokenizer_config_lies_a_token_of_another_model_is_still_one_that_is_not_there(own):
    (own / "tokenizer_config.json").unlink()
    (own / "added_tokens.json").write_text(json.dumps({"<|none such|>": 319}))

    class WithMark:
        bos_token, eos_token = None, "<|none such|>"

        def get_added_vocab(self):
            return {self.eos_token: 319}

    checkpoints._check_marks(WithMark(), own, WHERE)
    (own / "added_tokens.json").unlink()
    assert "has '<|none such|>' begin or end a text" in problem(
        own, lambda folder: checkpoints._check_marks(WithMark(), folder, WHERE)
    )


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ '%0100000000d' % 7 }}", "the chat template takes more than "),
        (LOOP, "the chat template takes more than 0.2 seconds"),
        ("{{ 'a' * 10000000000 }}", "the chat template takes more than 64 MB of memory"),
        ("{% for a in range(1500) %}{{ 'abc' * 1000 }}{% endfor %}", "makes 4,500,000 characters of one letter"),
        ("{% for %}", "fails for a turn of user: "),
        ("{{ 1 / 0 }}", "fails for a turn of user: ZeroDivisionError: "),
        ("{{ messages[1].content }}", "fails for a turn of user: "),
        ("{{ raise_exception('no') }}", "fails for a turn of user: no"),
        ("{% if messages | length > 1 %}{{ none.x.y }}{% endif %}a", "fails for a turn of user and assistant: "),
        ("{{ '\\ud800' }}", "writes what is no text ("),
        ("{{ (" * 300, "fails for a turn of user: "),
    ],
)
def test_a_template_that_fails_or_does_not_end_is_one_message(own, monkeypatch, template, message):
    monkeypatch.setattr(chat_templates, "SECONDS", 0.2)
    monkeypatch.setattr(chat_templates, "MEMORY", 64 << 20)
    tokenizer = AutoTokenizer.from_pretrained(own)
    tokenizer.chat_template = template
    said = problem(tokenizer, lambda tokenizer: chat_templates.check(tokenizer, "models.mine.prompt"))
    assert said.startswith("models.mine.prompt: the chat template ") and message in said


def test_a_limit_ends_with_its_call():
    def for_ever():
        while True:
            pass

    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    with pytest.raises(UserError, match=r"^to wait takes more than 0\.01 seconds$"):
        limits.limited("to wait", for_ever, 0.01)
    assert limits.limited("nothing", lambda: 7, 0.01, 1 << 20) == 7
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)) == before


def test_what_is_late_in_c_code_is_stopped_when_it_ends():
    """The alarm comes at the very end of the call."""
    with pytest.raises(UserError, match=r"^to hash takes more than 0\.01 seconds$"):
        limits.limited("to hash", lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000), 0.01)


FULL = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("CUDA error", 2), RuntimeError(FULL)],
    ids=repr,
)
def test_a_fault_of_the_machine_is_no_adapter_to_be_removed(own, tmp_path, monkeypatch, error):
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM")
    get_peft_model(loaded(own), config).save_pretrained(tmp_path / "adapter")
    model = loaded(own)

    def fail(*_args, **_more):
        raise error

    monkeypatch.setattr(PeftModel, "from_pretrained", fail)
    with pytest.raises(type(error)) as found:
        loading.attach(model, tmp_path / "adapter")
    assert found.value is error


def test_a_trained_adapter_that_lacks_a_tensor_is_refused(own, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapter = tmp_path / "adapter"
    config = LoraConfig(r=2, target_modules=["up_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    get_peft_model(loaded(own), config).save_pretrained(adapter)
    method = Method(peft="LORA", config={})
    loading.load_trained(own, adapter, method, torch.float32)
    whole = load_file(adapter / loading.ADAPTER)
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    for lost in (name, "base_model.model.lm_head.weight"):
        save_file({key: value for key, value in whole.items() if key != lost}, adapter / loading.ADAPTER)
        assert lost in problem(adapter, lambda at: loading.attach(loaded(own), at))
    save_file(whole | {name.replace("up_proj", "down_proj"): whole[name].clone()}, adapter / loading.ADAPTER)
    assert "it has base_model.model.model.layers.0.mlp.down" in problem(
        adapter, lambda at: loading.attach(loaded(own), at)
    )
    (adapter / loading.ADAPTER).write_bytes(b"")
    assert "damaged or incomplete" in problem(adapter, lambda at: loading.attach(loaded(own), at))
    (adapter / loading.ADAPTER).unlink()
    (adapter / "adapter_model.bin").write_bytes(b"pickle")
    assert f"no {loading.ADAPTER} (" in problem(adapter, lambda at: loading.attach(loaded(own), at))
