from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
import quick_yaml
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import METHODS, ROOT, TINY_TRAIN
from transformers import GPT2Config, GPT2LMHeadModel

from stages import merge as stage
from tradeoffs import merging
from tradeoffs.common import files
from tradeoffs.finetune import adapters
from tradeoffs.methods import peft_facts
from tradeoffs.models import checkpoints
from tradeoffs.models.loading import load_model, load_trained
from tradeoffs.params import Method
from tradeoffs.plumbing.errors import UserError

# One of each way to a merged checkpoint; tests/test_methods.py merges every ready method.
NAMES = ("base", "full", "lora", "lora_8bit", "qlora", "adalora", "vblora")
TRAINED_BASE, ORIGINAL_BASE = "trained_base", "original_base"
IDS = torch.arange(20, 84)[None]


@pytest.fixture(scope="module")
def trained(work):
    """A function from a method's name to its trained folder; each is trained once, hard enough to move the logits."""
    budget = replace(TINY_TRAIN, steps=12, lr=0.01)

    def of(name, base="base", method=None):
        folder = work / f"trained-{base}-{name}"
        if not folder.exists():
            method = replace(method or METHODS[name], train=None)
            if method.trains:
                with chdir(work):  # the inputs and the saved states lie below the working directory
                    tiny.train(folder, tiny.job(work, name, method, budget, base))
            else:
                folder.mkdir()
        return folder

    return of


def merged(work, folder, name, onto=TRAINED_BASE, base="base", target="merged", saved=torch.bfloat16):
    with files.new_folder(work / target) as new:
        merging.merge(work / base, folder, name, METHODS[name], onto, new, saved)
    return work / target


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", NAMES)
def test_the_merged_model_is_the_trained_one(work, trained, name):
    """Before the final rounding to bfloat16; int8 computes with rounded activations too, so it is compared below."""
    folder = trained(name)
    method = METHODS[name]
    expected = logits(load_trained(work / "base", folder, method, torch.float32))
    found = logits(load_model(merged(work, folder, name, saved=torch.float32), None, torch.float32))
    tolerance = 1e-4 if method.load != "int8" else 0.05 * expected.std().item()
    assert (expected - found).abs().max() < tolerance
    if method.trains:
        untouched = logits(load_model(work / "base", None, torch.float32))
        assert (found - untouched).abs().max() > 0.2 * untouched.std()


@pytest.mark.parametrize(
    ("load", "double_quant"), [("int8", None), ("nf4", True), ("nf4", False), ("fp4", True), ("fp4", False)]
)
def test_dequantised_layers_hold_the_weights_that_the_quantised_ones_compute_with(work, load, double_quant):
    method = Method(peft="LORA", load=load, double_quant=double_quant)
    quantised = load_model(work / "base", load, torch.float32, double_quant=bool(double_quant))
    layer = quantised.get_submodule("model.layers.0.self_attn.q_proj")
    # In training, int8 multiplies with its de-quantised weights as they are; nf4 does so always.
    unit = torch.eye(256, requires_grad=True)
    computed = layer.train()(unit).detach().T
    plain = merging.base_as_trained(work / "base", method)
    weight = plain.get_submodule("model.layers.0.self_attn.q_proj").weight
    torch.testing.assert_close(weight, computed, rtol=1e-6, atol=1e-7)
    assert type(plain.get_submodule("model.layers.0.self_attn.q_proj")) is torch.nn.Linear
    original = load_model(work / "base", None, torch.float32).get_submodule("model.layers.0.self_attn.q_proj").weight
    assert (weight - original).abs().max() > 1e-4


def test_original_base_merges_onto_the_weights_before_quantisation(work, trained):
    folder = trained("qlora")
    one = load_file(merged(work, folder, "qlora", TRAINED_BASE, target="m1") / "model.safetensors")
    two = load_file(merged(work, folder, "qlora", ORIGINAL_BASE, target="m2") / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    difference = (one[name].float() - two[name].float()).abs().max()
    assert difference > 1e-3
    original = load_model(work / "base", None, torch.float32)
    quantised = merging.base_as_trained(work / "base", METHODS["qlora"])
    rounding = (original.state_dict()[name] - quantised.state_dict()[name]).abs().max()
    torch.testing.assert_close(difference, rounding, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_merged_checkpoint_is_bf16_plain_and_complete(work, trained, name):
    target = merged(work, trained(name), name)
    base = {}
    with safe_open(work / "base" / "model.safetensors", "pt") as file:
        base = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    found = load_file(target / "model.safetensors")
    assert {key: list(tensor.shape) for key, tensor in found.items()} == base
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    config = files.read_json(target / "config.json")
    assert config["dtype"] == "bfloat16" and "quantization_config" not in config
    assert load_model(target, None, torch.bfloat16).config.model_type == "llama"


def test_merging_twice_gives_the_same_bytes(work, trained):
    folder = trained("qlora")
    one, two = (merged(work, folder, "qlora", target=target) for target in ("m1", "m2"))
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


@pytest.mark.parametrize("name", ["base", "full", "qlora"])
def test_tied_embeddings_stay_tied(work, trained, name):
    target = merged(work, trained(name, base="tied"), name, base="tied")
    assert "lm_head.weight" not in load_file(target / "model.safetensors")
    model = load_model(target, None, torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("known", [True, False])
def test_a_method_that_cannot_be_merged_says_why_and_writes_nothing(work, trained, tmp_path, monkeypatch, known):
    """By the table of facts, or when PEFT itself turns out to have no merge for it."""
    method = Method(peft="PROMPT_TUNING", config={"num_virtual_tokens": 4})
    folder = trained("prompt", method=method)
    if not known:
        monkeypatch.setattr(peft_facts, "unmergeable", lambda method: None)
    reason = merging.merge(work / "base", folder, "prompt", method, TRAINED_BASE, tmp_path)
    assert reason == ("PEFT has no merge for PROMPT_TUNING" if not known else peft_facts.unmergeable(method))
    assert not any(tmp_path.iterdir())


def test_the_stage_says_of_what_cannot_be_merged_why(work, trained, tmp_path, monkeypatch):
    folder = trained("prompt", method=Method(peft="PROMPT_TUNING", config={"num_virtual_tokens": 4}))
    files.write_json(folder / "run_info.json", {})
    for place, source in (("base/demo", work / "base"), ("trained/demo-demo-prompt_tuning/42", folder)):
        (tmp_path / "models" / place).parent.mkdir(parents=True)
        (tmp_path / "models" / place).symlink_to(source)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    stage.main("demo", "demo", "prompt_tuning")
    (written,) = Path("models/merged/demo-demo-prompt_tuning").iterdir()
    assert files.read_json(written)["unmergeable"] == peft_facts.unmergeable(METHODS["prompt_tuning"])


def test_sharded_weights_stay_sharded_and_become_bf16(work, tmp_path):
    load_model(work / "base", None, torch.float32).save_pretrained(tmp_path / "shards", max_shard_size="2MB")
    assert len(checkpoints.weight_files(tmp_path / "shards")) > 1
    (tmp_path / "out").mkdir()
    merging.copy_weights(tmp_path / "shards", tmp_path / "out")
    expected, found = (load_model(folder, None, torch.bfloat16) for folder in (work / "base", tmp_path / "out"))
    assert torch.equal(logits(expected), logits(found))


def prepare_stage(work, trained, tmp_path, monkeypatch, name):
    for place, source in (("base/demo", work / "base"), (f"trained/demo-demo-{name}/42", trained(name))):
        (tmp_path / "models" / place).parent.mkdir(parents=True)
        (tmp_path / "models" / place).symlink_to(source)
    files.write_json(trained(name) / "run_info.json", {})
    monkeypatch.chdir(tmp_path)


def test_the_stage_writes_a_self_contained_folder(work, trained, tmp_path, monkeypatch):
    prepare_stage(work, trained, tmp_path, monkeypatch, "lora")
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    stage.main("demo", "demo", "lora")
    made = {path.name for path in (tmp_path / "models/merged/demo-demo-lora").iterdir()}
    assert made == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "run_info.json",
        "tokenizer.json",
    }
    info = files.read_json(tmp_path / "models/merged/demo-demo-lora/run_info.json")
    assert info["base"] == {"base_id": "tiny"} and "merged_onto" not in info, "there is but one base to merge onto"


@pytest.mark.parametrize("onto", [None, "original_base"])
def test_a_method_may_say_itself_what_its_adapter_is_merged_onto(work, trained, tmp_path, monkeypatch, onto):
    prepare_stage(work, trained, tmp_path, monkeypatch, "qlora")
    raw = quick_yaml.load((ROOT / "params.yaml").read_text())
    raw["methods"]["qlora"] |= {"merge": onto} if onto else {}
    files.write_text("params.yaml", quick_yaml.dump(raw))
    stage.main("demo", "demo", "qlora")
    written = Path("models/merged/demo-demo-qlora")
    assert files.read_json(written / "run_info.json")["merged_onto"] == (onto or "trained_base")
    (tmp_path / "other").mkdir()
    merging.merge(work / "base", trained("qlora"), "qlora", METHODS["qlora"], onto or TRAINED_BASE, tmp_path / "other")
    assert files.sha256(written / "model.safetensors") == files.sha256(tmp_path / "other/model.safetensors")


def test_merging_before_training_names_the_stage_to_run(work, tmp_path, monkeypatch):
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/demo").symlink_to(work / "base")
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"demo-demo-lora/42: no run_info.json \(the folder does not.*stage finetune"):
        stage.main("demo", "demo", "lora")


@pytest.mark.parametrize("load", ["int8", "nf4"])
def test_a_quantised_gpt2_whose_layers_hold_their_weights_the_other_way_round_is_merged(tmp_path, load):
    torch.manual_seed(0)
    gpt2 = GPT2Config(vocab_size=300, n_embd=64, n_layer=1, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(gpt2).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    config = {"r": 4, "init_lora_weights": False, "target_modules": "all-linear"}
    method = Method(peft="LORA", config=config, load=load, double_quant=True)
    adapted = adapters.add_adapter(
        load_model(tmp_path / "base", load, torch.float32), adapters.configuration("x", method, 1), "x"
    )
    (tmp_path / "trained").mkdir()
    adapters.save_adapter(adapted, tmp_path / "trained")
    merging.merge(tmp_path / "base", tmp_path / "trained", "x", method, TRAINED_BASE, tmp_path, saved=torch.float32)
    with torch.no_grad():
        expected = adapted.eval()(IDS[:, :48]).logits
        found = load_model(tmp_path, None, torch.float32)(IDS[:, :48]).logits
    # int8 computes with rounded activations until it is merged.
    assert (found - expected).abs().max() < (0.05 if load == "int8" else 1e-4) * expected.std()
