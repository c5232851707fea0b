"""Every ready block of params.yaml learns, is saved, comes back and is merged as the table of facts says."""

import dataclasses
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import tiny
import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from tiny import METHODS, ROOT, TINY_TRAIN
from transformers import GPT2Config, GPT2LMHeadModel

from tradeoffs import merging
from tradeoffs.common import files
from tradeoffs.finetune import adapters, batches, weights
from tradeoffs.methods import peft_facts
from tradeoffs.models import loading
from tradeoffs.models.loading import load_model, load_trained
from tradeoffs.params import Method
from tradeoffs.plumbing.errors import UserError

# Answers that earn something need rows with expected ones: tests/test_reward_stage.py has them.
READY = {name: method for name, method in METHODS.items() if not method.reward}
ADAPTERS = [name for name, method in READY.items() if method.peft]
TRAINED = [name for name, method in READY.items() if method.trains]
MERGEABLE = [name for name in ADAPTERS if not peft_facts.unmergeable(METHODS[name])]
IDS = torch.tensor([[1, *range(20, 52)]])
# Largest change of a logit, over the logits' standard deviation. float32: rounding alone. bfloat16: what was trained in
# bfloat16 is held against float32 arithmetic; a method's own bfloat16 rounding of weights (PiSSA's rest) is in it.
BACK = {torch.float32: 1e-4, torch.bfloat16: 0.15}
# The same between the trained model and the merged one, in float32 before the final rounding. int8 computes with
# rounded activations until it is merged; RandLoRA sums over many random bases.
MERGED = {"int8": 0.15, "RANDLORA": 1e-3, None: 1e-4}


@pytest.fixture(scope="module")
def work(work):
    """With the begin-of-sequence in front of each example, as one of the tokens to train."""
    for name in ("train", "valid"):
        path = work / "tokens" / f"{name}.parquet"
        table = pq.read_table(path)
        rows = [{"ids": [1, *row["ids"]], "scored": [False, *row["scored"]]} for row in table.to_pylist()]
        files.write_table(path, rows, table.schema)
    return work


@pytest.fixture(scope="module")
def trained(work):
    """A function from a method's name to its trained folder and the model as it left training; each is trained once."""
    made = {}

    def of(name, dtype=torch.float32, base="base", method=None):
        key = (name, dtype, base)
        if key not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(work)  # saved states of unfinished runs lie below the working directory
                patch.setattr(loading, "training_dtype", lambda: dtype)
                kept, save = {}, weights.save
                patch.setattr(weights, "save", lambda model, *rest: (kept.update(model=model), save(model, *rest)))
                folder = work / f"trained-{base}-{name}-{str(dtype)[6:]}"
                budget = replace(TINY_TRAIN, steps=12, lr=0.005)
                tiny.train(folder, tiny.job(work, name, method or METHODS[name], budget, base))
                made[key] = folder, kept["model"].eval()
        return made[key]

    return of


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits[:, -IDS.shape[1] :].float()  # a prompt's virtual tokens come first


def difference(one, other):
    return ((one - other).abs().max() / one.std()).item()


def loss_on_train(work, model):
    batch = batches.collate(batches.read_examples(work / "tokens" / "train.parquet"), pad_id=0)
    with torch.no_grad():  # AdaLoRA, once loaded, cannot be given labels
        found = model(input_ids=batch["input_ids"]).logits[:, -batch["labels"].shape[1] :]
    return torch.nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()).item()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_ready_method_learns_and_comes_back_from_disk_as_it_was(work, trained, name, dtype):
    folder, model = trained(name, dtype)
    method = METHODS[name]
    kept = {path.name for path in folder.iterdir()}
    assert kept >= ({"adapter_model.safetensors", "adapter_config.json"} if method.peft else {"model.safetensors"})
    assert not [name for name in kept if not name.endswith((".safetensors", ".json"))], "safetensors and JSON only"
    back = load_trained(work / "base", folder, method, torch.float32)
    assert loss_on_train(work, back) < loss_on_train(work, load_model(work / "base", method.load, torch.float32))
    assert difference(logits(back), logits(model)) < BACK[dtype]


def merged(work, name, method, folder, base="base", onto="trained_base"):
    """The merged checkpoint, in float32, read back."""
    with files.new_folder(work / "merged") as new:
        merging.merge(work / base, folder, name, method, onto, new, torch.float32)
    return load_model(work / "merged", None, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", MERGEABLE)
def test_every_mergeable_method_is_merged_without_loss(work, trained, name):
    folder, _ = trained(name)
    method = METHODS[name]
    expected = logits(load_trained(work / "base", folder, method, torch.float32))
    untouched = logits(load_model(work / "base", None, torch.float32))
    model = merged(work, name, method, folder)
    tolerance = MERGED.get(method.load, MERGED.get(method.peft, MERGED[None]))
    if method.merge != "original_base":
        assert difference(expected, logits(model)) < tolerance
    assert difference(untouched, logits(model)) > 0.1, "there is something to lose"
    rounded = model.to(torch.bfloat16).float()  # as the stage saves it
    assert difference(expected, logits(rounded)) < tolerance + 0.1


def fresh(work, name, method, dtype=torch.float32, dequantised=False):
    """The method's adapter on its base, at values that are not those it begins with; the same for the same name."""
    torch.manual_seed(0)
    if dequantised:
        model = merging.base_as_trained(work / "base", method).to(dtype)
    else:
        model = load_model(work / "base", method.load, dtype, double_quant=bool(method.double_quant))
    config = adapters.configuration(name, replace(method, load=None), steps=8)  # the facts are what is tried here
    model = adapters.add_adapter(model, config, name)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def gradients(model, dtype=torch.float32):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        for _ in range(2):  # bitsandbytes sets up its layers in the first pass
            model.train()(input_ids=IDS, labels=IDS).loss.backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def gradient_error(work, name, method, dtype=torch.float32):
    expected = gradients(fresh(work, name, method, dtype, dequantised=True), dtype)
    found = gradients(fresh(work, name, method, dtype), dtype)
    return ((found - expected).norm() / expected.norm()).item()


def with_load(method, load):
    return replace(method, load=load, double_quant=None if load == "int8" else True, merge=None)


@pytest.mark.slow
@pytest.mark.parametrize("load", ["int8", "nf4"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_on_a_quantised_base_are_those_on_the_dequantised_one_where_the_facts_say_so(work, name, load):
    method = with_load(METHODS[name], load)
    refused = list(peft_facts.problems("methods.x", method))
    try:
        error = gradient_error(work, name, method)
    except (UserError, RuntimeError, AttributeError, TypeError) as cause:
        assert refused, f"{name} on {load} fails and the facts do not say so: {cause}"
    else:
        assert (error < 1e-4) == (not refused), f"{name} on {load}: gradients are off by {error:.2g}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "double_quant"), [("int8", None), ("nf4", True), ("nf4", False), ("fp4", True), ("fp4", False)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=str)
def test_every_quantised_base_gives_the_gradients_of_the_dequantised_one(work, load, double_quant, dtype, tolerance):
    method = replace(METHODS["lora"], load=load, double_quant=double_quant)
    assert gradient_error(work, "lora", method, dtype) < tolerance


@pytest.mark.slow
def test_double_quantisation_changes_the_weights_and_merging_knows(work, trained):
    made = {}
    for load, double_quant in (("nf4", True), ("nf4", False), ("fp4", True), ("fp4", False)):
        method = replace(METHODS["lora"], load=load, double_quant=double_quant)
        folder, model = trained(f"lora_{load}_{double_quant}", method=method)
        found = logits(merged(work, "x", method, folder))
        assert difference(logits(model), found) < MERGED[None]
        made[load, double_quant] = merging.base_as_trained(work / "base", method).model.layers[0].mlp.up_proj.weight
    weights = list(made.values())
    assert not any(torch.equal(one, two) for i, one in enumerate(weights) for two in weights[:i])


# --- embeddings and tied heads

EMBEDDING = {
    "head": Method(peft="LORA", config={"r": 4, "target_modules": ["q_proj", "lm_head"]}),
    "embedding": Method(peft="LORA", config={"r": 4, "target_modules": ["q_proj", "embed_tokens"]}),
    "whole_head": Method(peft="LORA", config={"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "whole_both": Method(
        peft="LORA", config={"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    ),
    "tokens": METHODS["trainable_tokens"],
    "tokens_and_lora": Method(
        peft="LORA",
        config={"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 30]}},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("base", ["base", "tied"])
@pytest.mark.parametrize("name", EMBEDDING)
def test_trained_embeddings_and_heads_are_saved_loaded_and_merged(work, trained, name, base):
    method = EMBEDDING[name]
    folder, model = trained(name, base=base, method=method)
    back = load_trained(work / base, folder, method, torch.float32)
    assert difference(logits(model), logits(back)) < 1e-5
    found = merged(work, name, method, folder, base)
    assert difference(logits(model), logits(found)) < 1e-4
    alike = torch.equal(found.lm_head.weight, found.model.embed_tokens.weight)
    kept = load_file(work / "merged" / "model.safetensors")
    assert ("lm_head.weight" in kept) == (not alike) == (not found.config.tie_word_embeddings)
    assert alike == (base == "tied" and "tokens" in name), "what was tuned together stays tied, the rest parts"
    before = load_model(work / base, None, torch.float32)
    assert not torch.equal(before.lm_head.weight, found.lm_head.weight) or not torch.equal(
        before.model.embed_tokens.weight, found.model.embed_tokens.weight
    )


# --- what begins with a part of the base


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_what_begins_with_a_part_of_the_base_is_saved_as_an_adapter_of_the_original_one(work, trained, name):
    folder, _ = trained(name)
    config = files.read_json(folder / "adapter_config.json")
    rank = METHODS[name].config["r"]
    assert config["init_lora_weights"] is True and (config["r"], config["lora_alpha"]) == (2 * rank, 2 * rank)
    base = load_model(work / "base", None, torch.float32)
    before = base.model.layers[0].mlp.up_proj.weight.clone()
    PeftModel.from_pretrained(base, folder)
    assert torch.equal(base.model.layers[0].mlp.up_proj.base_layer.weight, before)


# --- what does not fit the model


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            Method(peft="C3A", config={"block_size": 48, "target_modules": "all-linear"}),
            "block size should be a factor",
        ),
        (Method(peft="BOFT", config={"boft_block_size": 48, "target_modules": "all-linear"}), r"divisible by.*\(48\)"),
        (Method(peft="TRAINABLE_TOKENS", config={"token_indices": [9999]}), "index 9999 is out of bounds"),
        (Method(peft="PROMPT_TUNING", config={"num_virtual_tokens": 0}), "leaves nothing to train"),
        (
            Method(peft="LORA", config={"target_modules": ["q_proj"], "modules_to_save": ["lmhead"]}),
            r"modules_to_save: no module lmhead \(did you mean lm_head\?\)",
        ),
    ],
    ids=lambda value: value.peft if isinstance(value, Method) else "",
)
def test_what_does_not_fit_the_model_is_one_message(work, method, message):
    model = load_model(work / "base", None, torch.float32)
    with pytest.raises(UserError, match=rf"^params\.yaml: methods\.x\.config.*{message}"):
        adapters.add_adapter(model, adapters.configuration("x", method, 8), "x")


def test_sets_are_saved_in_one_order(work, tmp_path):
    """So that two processes write the same bytes; PEFT writes a set as it comes."""
    names = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    method = Method(peft="IA3", config={"target_modules": names, "feedforward_modules": names[:2] + names[5:6]})
    adapters.save_adapter(fresh(work, "x", method), tmp_path)
    config = files.read_json(tmp_path / "adapter_config.json")
    assert config["target_modules"] == names and config["feedforward_modules"] == ["down_proj", "gate_proj", "up_proj"]


# --- LoRA+


def test_loraplus_gives_b_its_own_learning_rate(work):
    budget = replace(TINY_TRAIN, lr=0.001, weight_decay=0.1)
    method = replace(METHODS["loraplus"], loraplus_lr_ratio=8.0)
    model = fresh(work, "loraplus", method)
    optimizer = adapters.optimizer(model, method, budget)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert set(rates) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {rate for name, rate in rates.items() if "lora_A" in name} == {0.001}
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {0.008}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}
    assert adapters.optimizer(model, METHODS["lora"], budget) is None, "the trainer's own"


@pytest.mark.slow
def test_the_ratio_reaches_the_training(trained):
    one, _ = trained("loraplus_1", method=replace(METHODS["loraplus"], loraplus_lr_ratio=1.0))
    other, _ = trained("loraplus")
    step = {folder: load_file(folder / "adapter_model.safetensors") for folder in (one, other)}
    moved = [sum(t.abs().sum().item() for key, t in step[f].items() if "lora_B" in key) for f in (one, other)]
    assert moved[1] > 3 * moved[0]  # B begins at zero


# --- what computes, and in what


@pytest.mark.parametrize("name", ["lora", "ln_tuning", "trainable_tokens", "shira", "oft"])
def test_what_trains_is_float32_on_a_bfloat16_base(work, name):
    model = load_model(work / "base", None, torch.bfloat16)
    model = adapters.add_adapter(model, adapters.configuration(name, METHODS[name], 8), name)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_compute_dtype_is_the_machines_own_unless_it_is_said(monkeypatch):
    monkeypatch.setattr(loading, "training_dtype", lambda: torch.bfloat16)
    monkeypatch.setattr(loading, "device", lambda: torch.device("cpu"))
    found = {kind: loading.compute_dtype(Method(full=True, compute_dtype=kind)) for kind in (None, "auto", "float32")}
    assert found == {None: torch.bfloat16, "auto": torch.bfloat16, "float32": torch.float32}
    with pytest.raises(UserError, match="float16 trains on a GPU only; use auto, bfloat16 or float32"):
        loading.compute_dtype(Method(full=True, compute_dtype="float16"))
    monkeypatch.setattr(loading, "device", lambda: torch.device("cuda"))
    assert loading.compute_dtype(Method(full=True, compute_dtype="float16")) == torch.float16


@pytest.mark.slow
def test_compute_dtype_reaches_the_training(trained):
    """On a machine whose own type is bfloat16."""
    asked = replace(METHODS["lora"], compute_dtype="float32")
    folders = (
        trained("lora_float32", torch.bfloat16, method=asked)[0],
        trained("lora", torch.float32)[0],
        trained("lora", torch.bfloat16)[0],
    )
    one, same, other = ((folder / "adapter_model.safetensors").read_bytes() for folder in folders)
    assert one == same != other


# --- the table of facts


def test_types_and_fields_are_those_of_the_installed_peft():
    """Without its methods, so that reading params.yaml need not import it."""
    installed = {
        kind.value: {field.name for field in dataclasses.fields(config)}
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }
    assert {kind: peft_facts.fields(kind) for kind in peft_facts.types()} == installed


def test_every_type_of_the_installed_peft_has_a_row_of_facts():
    assert set(peft_facts.FACTS) == set(peft_facts.types())


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_type_is_called_unmergeable_where_peft_has_no_merge_and_only_there(work, name):
    model = get_peft_model(
        load_model(work / "base", None, torch.float32), adapters.configuration(name, METHODS[name], 8)
    )
    assert hasattr(model, "merge_and_unload") == (peft_facts.unmergeable(METHODS[name]) is None)


def test_reading_params_imports_neither_peft_nor_transformers_nor_torch():
    code = (
        "import sys; from tradeoffs import params; params.load_all()\n"
        "assert not {'peft', 'transformers', 'torch', 'trl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- docs/methods.md


DOCUMENTED = [name for name, method in METHODS.items() if method.trains]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_table_says_what_the_facts_say(name):
    rows = [line.split(" | ") for line in (ROOT / "docs/methods.md").read_text().splitlines() if line.startswith("| `")]
    (row,) = (row for row in rows if row[0] == f"| `{name}`")
    method = METHODS[name]
    facts = [not peft_facts.unmergeable(method)]
    facts += [
        not method.full and not list(peft_facts.problems("", with_load(method, load))) for load in ("int8", "nf4")
    ]
    assert row[3:] == [*("yes" if fact else "no" for fact in facts[:2]), "yes |" if facts[2] else "no |"]
    assert len(rows) == len(DOCUMENTED)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("miss", r"c_attn 64x192, .* lm_head 64x300; its norms: ln_1, ln_2, ln_f\. .* types that take them: LORA, "),
        ("olora", r"PEFT's olora mixes up rows and columns of GPT-2's own kind of linear layer .* pissa works there"),
    ],
)
def test_what_does_not_take_gpt2s_layers_says_what_does(name, message):
    config = GPT2Config(vocab_size=300, n_embd=64, n_layer=1, n_head=2)
    with pytest.raises(UserError, match=rf"methods\.{name}\.config: .*{message}"):
        adapters.add_adapter(GPT2LMHeadModel(config), adapters.configuration(name, METHODS[name], 8), name)
