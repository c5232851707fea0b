import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from launched import Launcher
from power_cut import killed_at
from safetensors import SafetensorError
from tiny import METHODS, ROOT, TINY_TRAIN

from tradeoffs.common import files
from tradeoffs.finetune import adapters, batches, trainer, training_state
from tradeoffs.models import checkpoints
from tradeoffs.models.loading import load_model, load_trained
from tradeoffs.params import Method
from tradeoffs.plumbing.errors import UserError

pytestmark = pytest.mark.usefixtures("elsewhere")


def tune(work, name, method, steps=6, seed=1, **changes):
    """Trains a method for a few steps and returns the folder and the row of data/training."""
    budget, folder = replace(TINY_TRAIN, steps=steps, **changes), work / f"trained-{name}"
    return folder, tiny.train(folder, tiny.job(work, name, replace(method, train=None), budget, seed=seed))


# --- batches


def test_schedule_gives_exactly_the_asked_number_of_examples_and_goes_through_all_before_repeating():
    order = batches.schedule([5] * 10, batch_size=4, steps=6, seed=0)
    assert len(order) == 24
    counts = np.bincount(order, minlength=10)
    assert counts.min() >= 2 and counts.max() <= 3


def test_schedule_depends_on_the_seed_and_on_nothing_else():
    lengths = list(range(1, 101))
    assert batches.schedule(lengths, 8, 30, seed=1) == batches.schedule(lengths, 8, 30, seed=1)
    assert batches.schedule(lengths, 8, 30, seed=1) != batches.schedule(lengths, 8, 30, seed=2)


def test_schedule_works_with_fewer_examples_than_a_batch():
    order = batches.schedule([3, 4, 5], batch_size=8, steps=2, seed=0)
    assert len(order) == 16 and set(order) == {0, 1, 2}


def test_a_batch_holds_examples_of_similar_length():
    lengths = np.random.default_rng(0).integers(10, 100, 2000)
    order = np.array(batches.schedule(lengths.tolist(), 16, 100, seed=0)).reshape(-1, 16)
    spread = (lengths[order].max(axis=1) - lengths[order].min(axis=1)).mean()
    assert spread < 20  # 80 for batches drawn at random


def test_collate_pads_on_the_right_and_labels_only_scored_tokens():
    examples = [(np.array([7, 8, 9]), np.array([False, True, True])), (np.array([5, 6]), np.array([False, True]))]
    batch = batches.collate(examples, pad_id=3)
    assert batch["input_ids"].tolist() == [[7, 8, 9, *[3] * 5], [5, 6, *[3] * 6]]  # a multiple of 8
    assert batch["labels"].tolist() == [[-100, 8, 9, *[-100] * 5], [-100, 6, *[-100] * 6]]


def test_padding_changes_no_scored_token(work):
    model = load_model(work / "base", None, torch.float32)
    examples = batches.read_examples(work / "tokens" / "train.parquet")[:6]
    together = model(**batches.collate(examples, pad_id=0)).loss
    sums = [(model(**batches.collate([one], pad_id=0)).loss, one[1][1:].sum()) for one in examples]
    alone = sum(loss * count for loss, count in sums) / sum(count for _, count in sums)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_rows_without_a_scored_token_are_an_error_when_there_are_no_others(tmp_path):
    schema = pa.schema([("ids", pa.list_(pa.int32())), ("scored", pa.list_(pa.bool_()))])
    files.write_table(tmp_path / "train.parquet", [{"ids": [1, 2], "scored": [False, False]}], schema)
    with pytest.raises(UserError, match="nothing to train on"):
        batches.read_examples(tmp_path / "train.parquet")


# --- methods as data


def test_unknown_peft_type_is_refused_with_the_near_match():
    with pytest.raises(UserError, match=r"methods\.x\.peft.*LORAA.*did you mean LORA\?"):
        adapters.configuration("x", Method(peft="LORAA", config={}), steps=10)
    with pytest.raises(UserError, match="did you mean LORA"):
        adapters.configuration("x", Method(peft="lora", config={}), steps=10)


def test_every_unknown_field_is_named_at_once_with_the_near_match():
    with pytest.raises(UserError) as error:
        adapters.configuration("x", Method(peft="LORA", config={"lora_alfa": 3, "rr": 3}), steps=10)
    assert "methods.x.config.lora_alfa" in str(error.value) and "did you mean lora_alpha" in str(error.value)
    assert "methods.x.config.rr" in str(error.value)


def test_adalora_counts_in_real_steps_and_takes_shares():
    method = Method(peft="ADALORA", config={"tinit": 0.1, "tfinal": 0.25, "target_r": 4})
    config = adapters.configuration("x", method, steps=200)
    assert (config.tinit, config.tfinal, config.total_step) == (20, 50, 200)
    fixed = Method(peft="ADALORA", config={"tinit": 1, "tfinal": 7})
    assert (adapters.configuration("x", fixed, 200).tinit, adapters.configuration("x", fixed, 200).tfinal) == (1, 7)
    with pytest.raises(UserError, match="total_step"):
        adapters.configuration("x", Method(peft="ADALORA", config={"total_step": 9}), steps=10)
    with pytest.raises(UserError, match="budgeting phase"):
        adapters.configuration("x", Method(peft="ADALORA", config={"tinit": 9, "tfinal": 9}), steps=10)


def test_target_modules_that_match_nothing_are_refused_with_the_modules_there_are(work):
    method = Method(peft="LORA", config={"target_modules": ["query"]})
    with pytest.raises(UserError, match=r"methods\.x.*query.*q_proj 256x256"):
        tune(work, "x", method)
    assert not (work / "trained-x").exists()


def test_vector_length_that_does_not_divide_a_layer_is_refused_with_the_layers(work):
    method = Method(peft="VBLORA", config={"vector_length": 96, "target_modules": "all-linear"})
    with pytest.raises(UserError, match=r"divisible by `vector_length` 96.*k_proj 256x128"):
        tune(work, "x", method)


def test_a_configuration_that_leaves_nothing_to_train_is_refused(work):
    method = Method(peft="LORA", config={"target_modules": "all-linear", "inference_mode": True})
    with pytest.raises(UserError, match="nothing to train"):
        tune(work, "x", method)


# --- training


def test_base_is_its_own_as_trained_model(work):
    model = load_trained(work / "base", work / "nowhere", METHODS["base"], torch.float32)
    assert model.num_parameters() == checkpoints.parameters(work / "base")


def test_only_scored_tokens_count_in_the_loss(work):
    """The first recorded loss is that of the base on the first batch, over its scored tokens."""
    full = Method(full=True)
    _, row = tune(work, "first", full, steps=1, log_every=1)
    examples = batches.read_examples(work / "tokens" / "train.parquet")
    order = batches.schedule([len(ids) for ids, _ in examples], TINY_TRAIN.batch_size, 1, seed=1)
    with torch.no_grad():
        loss = load_model(work / "base", None, torch.float32)(**batches.collate([examples[i] for i in order], 0)).loss
    assert row["train_loss"] == pytest.approx(loss.item(), rel=2e-3)


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_in_another_process(work):
    """A new interpreter, no fork: another order of what hangs on hashes, and libraries that are imported anew."""
    names = ["lora", "qlora", "adalora", "full"]
    places = {name: tune(work, name, METHODS[name])[0] for name in names}
    before = {name: {path.name: path.read_bytes() for path in place.iterdir()} for name, place in places.items()}
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        f"import test_finetune as t; from pathlib import Path\n"
        f"for name in {names[::-1]}: t.tune(Path({str(work)!r}), name, t.METHODS[name])"
    )
    other = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], cwd=work, env=other, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, place in places.items():
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before[name], name


def test_another_seed_gives_other_weights(work):
    one, _ = tune(work, "one", METHODS["lora"], seed=1)
    two, _ = tune(work, "two", METHODS["lora"], seed=2)
    assert (one / "adapter_model.safetensors").read_bytes() != (two / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_adalora_ends_with_exactly_its_rank_budget(work):
    method = Method(
        peft="ADALORA", config={"init_r": 6, "target_r": 4, "tinit": 0.1, "tfinal": 0.3, "target_modules": "all-linear"}
    )
    folder, row = tune(work, "adalora_small", method, steps=20)
    assert row["adalora_rank_budget"] == row["adalora_rank_final"] == 4 * 7 * 2  # matrices per layer, layers
    pattern = json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
    ranks = [sum(kept) for kept in pattern.values()]
    assert sum(ranks) == 56 and len(set(ranks)) > 1  # spread by importance, not evenly


def test_adalora_that_never_reaches_its_budget_is_an_error(work, monkeypatch):
    monkeypatch.setattr(adapters.AdaLoraSchedule, "on_optimizer_step", lambda *args, **kwargs: None)
    with pytest.raises(UserError, match="AdaLoRA ended with"):
        tune(work, "adalora_stuck", METHODS["adalora"])


def test_the_reported_loss_leaves_out_adaloras_penalty(work):
    """A fresh adapter changes nothing, so AdaLoRA's first loss is that of LoRA, whatever the penalty weighs."""
    method = replace(METHODS["adalora"], config=METHODS["adalora"].config | {"orth_reg_weight": 50.0})
    _, heavy = tune(work, "heavy", method, log_every=1)
    _, plain = tune(work, "plain", METHODS["lora"], log_every=1)
    assert heavy["curve"][0]["loss"] == pytest.approx(plain["curve"][0]["loss"], rel=1e-3)


def test_vblora_adapter_is_at_most_a_tenth_of_loras(work):
    _, vblora = tune(work, "vblora", METHODS["vblora"])
    _, lora = tune(work, "lora", METHODS["lora"])
    assert vblora["adapter_mb"] <= lora["adapter_mb"] / 10


def test_loss_that_is_no_number_stops_with_the_step(work):
    with pytest.raises(UserError, match=r"training loss is \w+ at step \d+ of 6; lower train.lr"):
        tune(work, "diverged", Method(full=True), lr=1e30, warmup_steps=0, max_grad_norm=0.0)
    assert not (work / "trained-diverged").exists()


def test_weights_broken_by_the_very_last_step_stop_too(work):
    with pytest.raises(UserError, match="no longer finite after the last"):
        tune(work, "diverged", Method(full=True), steps=1, lr=1e39, warmup_steps=0)


def test_missing_base_names_the_folder_what_is_there_and_the_stage(tmp_path):
    folder = tmp_path / "base" / "demo"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"demo: no config.json \(there are: notes.txt\).*stage base"):
        load_model(folder, None, torch.float32)


# --- killed and resumed


def cut_short(step, *what, **changes):
    """Tunes in a child process that is killed in `step`; its exit code."""
    return killed_at(step, trainer.StepTrainer, lambda: tune(*what, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "qlora", "full", "adalora", "vblora", "pissa", "loraplus"])
def test_a_run_that_is_killed_at_five_steps_ends_with_the_same_bytes(work, name, capsys):
    method = METHODS[name]
    if method.config and "lora_dropout" in method.config:  # so that the random numbers must go on too
        method = replace(method, config=method.config | {"lora_dropout": 0.2})
    folder, row = tune(work, name, method, steps=20)
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    for step in sorted(random.Random(name).sample(range(1, 21), 5)):
        assert cut_short(step, work, name, method, steps=20) == -signal.SIGKILL
    assert list(Path(".scratch/unfinished/finetune").glob(f"base-numbers-{name}-1/*/sft/step-*"))
    again, after = tune(work, name, method, steps=20)
    assert "an earlier run was cut short; going on after step" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in again.iterdir()} == expected
    for before, now in zip(row["curve"], after["curve"], strict=True):
        assert {k: before[k] for k in ("step", "loss", "token_accuracy", "lr", "grad_norm")} == {
            k: now[k] for k in ("step", "loss", "token_accuracy", "lr", "grad_norm")
        }
    assert after["train_loss"] == row["train_loss"]


def test_another_learning_rate_begins_anew_and_clears_the_old_state_away(work):
    assert cut_short(5, work, "lora", METHODS["lora"], lr=0.001) == -signal.SIGKILL
    (old,) = Path(".scratch/unfinished/finetune/base-numbers-lora-1").iterdir()
    assert cut_short(5, work, "lora", METHODS["lora"], lr=0.002) == -signal.SIGKILL
    (new,) = Path(".scratch/unfinished/finetune/base-numbers-lora-1").iterdir()
    assert new.name != old.name


def test_a_loss_that_is_no_number_keeps_the_last_good_state(work, monkeypatch):
    made = trainer.StepTrainer.training_step

    def broken(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step == 4:
            for parameter in model.parameters():
                parameter.data.fill_(float("nan"))
        return made(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(trainer.StepTrainer, "training_step", broken)
    with pytest.raises(UserError, match=r"loss is nan at step 5 of 6.*state after step 4 is kept in \.scratch"):
        tune(work, "lora", METHODS["lora"])
    assert list(Path(".scratch/unfinished/finetune").glob("base-numbers-lora-1/*/sft/step-0000004/state.safetensors"))


def test_a_full_disk_while_saving_is_one_message_and_no_half_state(work, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(training_state, "save_file", full)
    with pytest.raises(UserError, match="the disk is full; free some space and run `dvc repro` again"):
        tune(work, "lora", METHODS["lora"])
    assert not list(Path(".scratch/unfinished/finetune").glob("base-numbers-lora-1/*/sft/step-*"))


# --- parts of a step


@pytest.mark.parametrize("name", ["full", "adalora"])
def test_a_step_in_parts_is_the_step_in_one(work, name):
    _, whole = tune(work, name, METHODS[name], batch_tokens=4096, log_every=1)
    _, parts = tune(work, name, METHODS[name], batch_tokens=30, log_every=1)
    for one, other in zip(whole["curve"], parts["curve"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=3e-3)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=3e-2)


def test_out_of_memory_halves_the_part_and_keeps_the_batch(work, monkeypatch, capsys):
    _, expected = tune(work, "whole", METHODS["lora"], log_every=1)
    accumulate = trainer.StepTrainer._accumulate

    def limited(self, model, part, *args, **kwargs):
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        accumulate(self, model, part, *args, **kwargs)

    monkeypatch.setattr(trainer.StepTrainer, "_accumulate", limited)
    _, found = tune(work, "halved", METHODS["lora"], log_every=1)
    assert "out of memory:" in capsys.readouterr().out
    for one, other in zip(expected["curve"], found["curve"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=3e-3)


def test_one_example_that_does_not_fit_is_one_clear_message(work, monkeypatch):
    def never(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(trainer.StepTrainer, "_accumulate", never)
    with pytest.raises(UserError, match=r"out of memory with one example of \d+ tokens alone; lower"):
        tune(work, "lora", METHODS["lora"])


def test_packed_examples_are_the_padded_ones(work):
    """In one row with positions that begin anew, no example sees another one."""
    model = load_model(work / "base", None, torch.float32)
    examples = batches.read_examples(work / "tokens" / "train.parquet")[:6]
    padded, packed = batches.collate(examples, pad_id=0), batches.pack(examples)
    with torch.no_grad():
        apart = model(input_ids=padded["input_ids"]).logits
        together = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False).logits[0]
    real = torch.cat([apart[row, : len(ids)] for row, (ids, _) in enumerate(examples)])
    torch.testing.assert_close(together, real, rtol=1e-4, atol=1e-4)
    assert (packed["labels"] != batches.IGNORED).sum() == (padded["labels"] != batches.IGNORED).sum()


def test_a_packed_step_is_the_padded_one(work, monkeypatch):
    _, padded = tune(work, "padded", METHODS["lora"], log_every=1)
    begin = trainer.StepTrainer.__init__
    packed = lambda self, *args, **kwargs: begin(self, *args, **kwargs | {"packed": True})  # noqa: E731
    monkeypatch.setattr(trainer.StepTrainer, "__init__", packed)
    _, found = tune(work, "packed", METHODS["lora"], log_every=1)
    for one, other in zip(padded["curve"], found["curve"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=3e-3)
    assert found["valid_loss"] == pytest.approx(padded["valid_loss"], rel=3e-3)


@pytest.mark.slow
def test_compiled_layers_learn_the_same(work):
    _, plain = tune(work, "plain", METHODS["lora"])
    _, compiled = tune(work, "compiled", METHODS["lora"], compile=True)
    assert compiled["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-2)


def test_the_validation_loss_is_that_of_the_saved_model_on_its_own_rows(work):
    folder, row = tune(work, "valid", METHODS["lora"])
    batch = batches.collate(batches.read_examples(work / "tokens" / "valid.parquet"), pad_id=0)
    with torch.no_grad():
        model = load_trained(work / "base", folder, METHODS["lora"], torch.float32)
        expected = model(**batch).loss.item()
    assert row["valid_loss"] == pytest.approx(expected, rel=3e-3)


@pytest.mark.slow
def test_two_processes_draw_the_curve_of_one(work, tmp_path):
    """accelerate launch on two CPU processes (gloo), the same global batch: the same losses, written by the first."""
    budget = {"steps": 6, "batch_size": 8, "log_every": 1, "warmup_steps": 1}
    launcher = Launcher(work, tmp_path / "bin", lambda raw: raw["train"].update(budget))
    for method in ("lora", "adalora", "full"):
        row, (shared, _) = launcher.alone(method), launcher.two(method)
        for one, other in zip(row["curve"], shared["curve"], strict=True):
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-3)
            assert other["token_accuracy"] == pytest.approx(one["token_accuracy"], abs=0.02)
        assert [path.name for path in Path(f"models/trained/demo-demo-{method}").iterdir()] == ["42"]


SHARDED = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
import torch
from torch.distributed.fsdp import fully_shard
from tradeoffs.finetune import weights
from tradeoffs.models.loading import load_model
torch.distributed.init_process_group("gloo")
model = load_model(Path({base!r}), None, torch.float32)
for layer in model.model.layers:
    fully_shard(layer)
fully_shard(model)
model(input_ids=torch.arange(8)[None]).logits.mean().backward()
weights.require_finite(model)
gathered = weights.whole(model)
if os.environ["RANK"] == "0":
    model._loss_function = None
    weights.save(model, gathered, Path("together"))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_sharded_weights_are_saved_whole(work, tmp_path):
    """Two processes over gloo with a half of the weights each."""
    code = SHARDED.format(root=str(ROOT), tests=str(ROOT / "tests"), base=str(work / "base"))
    Path("sharded.py").write_text(code)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "sharded.py"]
    done = forked.python(*launch, env=os.environ | {"PYTHON_EXEC": forked.command(tmp_path / "bin")})
    assert done.returncode == 0, done.stderr[-3000:]
    expected = load_model(work / "base", None, torch.float32).state_dict()
    found = load_model(Path("together"), None, torch.float32).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_sharded_weights_are_for_full_tuning_alone(work, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"methods\.lora: launch\.train shards the weights \(FSDP\)"):
        tune(work, "lora", METHODS["lora"])


def test_a_batch_that_the_processes_cannot_share_is_refused(work, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"train\.batch_size: 4 examples cannot be shared by 3 devices"):
        tune(work, "lora", METHODS["lora"])


def test_flash_attention_that_is_not_installed_says_so(work):
    with pytest.raises(UserError, match=r"train\.attention: flash_attention_2 cannot be used here"):
        tune(work, "lora", METHODS["lora"], attention="flash_attention_2")


def test_token_accuracy_is_trls(work):
    """TRL's mean_token_accuracy: share of labelled tokens that are the argmax, over the first batch."""
    _, row = tune(work, "accuracy", Method(full=True), steps=1, log_every=1)
    examples = batches.read_examples(work / "tokens" / "train.parquet")
    order = batches.schedule([len(ids) for ids, _ in examples], TINY_TRAIN.batch_size, 1, seed=1)
    batch = batches.collate([examples[i] for i in order], 0)
    with torch.no_grad():
        logits = load_model(work / "base", None, torch.float32)(input_ids=batch["input_ids"]).logits
    shifted, labels = logits[..., :-1, :], batch["labels"][..., 1:]
    right = ((shifted.argmax(-1) == labels) & (labels != -100)).sum() / (labels != -100).sum()
    assert row["curve"][0]["token_accuracy"] == pytest.approx(right.item())


# --- the stage


def test_the_base_cell_is_written_without_importing_the_trainer(work, tmp_path):
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/demo").symlink_to(work / "base")
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
        "from stages import finetune\n"
        "finetune.main('demo', 'demo', 'base', 42)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    row = files.read_json(tmp_path / "data/training/demo-demo-base/42.json")
    assert row == {"trainable_params": 0, "total_params": checkpoints.parameters(work / "base")}
    assert (tmp_path / "models/trained/demo-demo-base/42/run_info.json").is_file()


def test_a_budget_of_less_than_one_pass_trains_on_what_seen_asks_about():
    lengths = list(range(10, 110))
    order = batches.schedule(lengths, batch_size=4, steps=5, seed=0)
    assert sorted(order) == list(range(20)), "the first rows, each once: `seen` is the head of train"


def test_only_the_first_of_several_processes_writes_results(work, tmp_path, monkeypatch):
    from stages import finetune

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/tiny").symlink_to(work / "base")
    for rank, written in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        finetune.main("tiny", "numbers", "base", 42)
        assert (tmp_path / "data/training/tiny-numbers-base/42.json").exists() == written
        assert (tmp_path / "models/trained/tiny-numbers-base/42/run_info.json").exists() == written
