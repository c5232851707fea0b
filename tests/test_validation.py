"""The validation loss on the way: it changes no training, decides what is kept and when to stop, whatever is killed."""

import csv
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import quick_yaml
import tiny
import torch
from launched import Launcher
from power_cut import killed_at
from safetensors.torch import load_file
from tiny import METHODS, ROOT, TINY_TRAIN

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.finetune import pair_trainer, progress, trainer, training, validation
from tradeoffs.params import Preference
from tradeoffs.plumbing import live
from tradeoffs.plumbing.errors import UserError

pytestmark = pytest.mark.usefixtures("elsewhere")

WATCHED = {"valid_every": 4, "keep": "best", "patience": 2}
# What a lowest loss at step 8 looks like: the true one, and more the farther a step is from there.
LOWEST = 8
ADAPTER = "adapter_model.safetensors"


def tune(work, name, steps=20, changes=None, seed=1, **budget):
    """Trains `methods.<name>` for 20 steps; the bytes of what it wrote, and the row of data/training."""
    method = replace(METHODS[name], train=None, **(changes or {}))
    if method.config and "lora_dropout" in method.config:  # random numbers must not be used up by a validation
        method = replace(method, config=method.config | {"lora_dropout": 0.2})
    folder = work / f"trained-{name}"
    row = tiny.train(folder, tiny.job(work, name, method, replace(TINY_TRAIN, steps=steps, **budget), seed=seed))
    return {path.name: path.read_bytes() for path in folder.iterdir()}, row


def validated(row, key="curve"):
    return {int(point["step"]): point["valid_loss"] for point in row[key] if "valid_loss" in point}


@pytest.fixture
def lowest_at_8(monkeypatch):
    """Makes the loss rise after LOWEST, as it does where too little data is seen too often. Returns what the trained
    weights were when it was measured, by the step; of this process."""
    seen = {}

    def bent(original):
        def loss_on(self, *args):
            found = original(self, *args)
            step = self.first_step + self.state.global_step
            trained = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
            seen.setdefault(step, trained)  # the last one is measured again when the best are back
            more = abs(step - LOWEST) / 10
            return found | {"valid_loss": found["valid_loss"] + more} if isinstance(found, dict) else found + more

        return loss_on

    for kind in (trainer.StepTrainer, pair_trainer.PairTrainer):
        monkeypatch.setattr(kind, "loss_on", bent(kind.loss_on))
    return seen


# --- the curve


@pytest.mark.parametrize("name", ["lora", "full"])
def test_measuring_it_changes_no_weight_and_no_other_number_of_the_curve(work, name):
    plain, before = tune(work, name)
    found, row = tune(work, name, valid_every=4)
    assert found == plain
    assert not validated(before) and list(validated(row)) == [4, 8, 12, 16, 20]
    for one, other in zip(before["curve"], row["curve"], strict=True):
        same = ("step", "loss", "token_accuracy", "lr", "grad_norm")
        assert {key: one[key] for key in same} == {key: other[key] for key in same}
    assert validated(row)[20] == row["valid_loss"] == before["valid_loss"], "of the same weights on the same rows"
    assert validated(row)[4] > validated(row)[20]


def test_it_is_measured_after_the_last_step_and_where_no_other_point_would_be(work):
    _, row = tune(work, "lora", valid_every=7, log_every=10)
    assert list(validated(row)) == [7, 14, 20]
    assert [point["step"] for point in row["curve"]] == [7, 10, 14, 20]
    assert all(point["loss"] > 0 for point in row["curve"])


def test_the_time_it_takes_is_told_apart_from_that_of_the_training(work, monkeypatch):
    """By a clock that is a thousand seconds farther whenever the loss was measured."""
    measured, later = trainer.StepTrainer.loss_on, []

    def slowly(self, examples):
        later.append(1000)
        return measured(self, examples)

    monkeypatch.setattr(trainer.StepTrainer, "loss_on", slowly)
    shown = SimpleNamespace(perf_counter=lambda: time.perf_counter() + sum(later))
    for module in (progress, validation):
        monkeypatch.setattr(module, "time", shown)
    _, row = tune(work, "lora", valid_every=10)
    assert 2000 < row["valid_seconds"] < 2900
    assert row["train_seconds"] < 900 and min(point["tokens_per_second"] for point in row["curve"]) > 1


def test_a_loss_that_is_no_number_stops_with_the_step(work, monkeypatch):
    monkeypatch.setattr(trainer.StepTrainer, "loss_on", lambda *_: float("nan"))
    with pytest.raises(UserError, match=r"base-numbers-lora-1: the validation loss is nan at step 4 of 20; lower"):
        tune(work, "lora", valid_every=4)


def test_who_is_told_of_the_training_is_told_it_with_the_curve(work):
    budget = replace(TINY_TRAIN, steps=20, valid_every=8)
    wanted = tiny.job(work, "lora", replace(METHODS["lora"], train=None), budget)
    with live.Watch(["dvclive"], "cell") as watch, files.new_folder(work / "told") as folder:
        row = training.train(wanted, folder, watch)
    with Path("live/cell/plots/metrics/valid_loss.tsv").open(newline="") as file:
        shown = {int(line["step"]): float(line["valid_loss"]) for line in csv.DictReader(file, delimiter="\t")}
    assert shown == validated(row) and list(shown) == [8, 16, 20]


# --- the best, and the last


def test_the_best_are_the_weights_of_the_lowest_loss(work, lowest_at_8):
    _, row = tune(work, "lora", valid_every=4, keep="best")
    assert (row["train_steps"], row["steps"], row["kept_step"]) == (20, 20, LOWEST)
    assert row["rule"] == {"valid_every": 4, "keep": "best", "patience": 0}
    saved = load_file(work / "trained-lora" / ADAPTER)
    then = {name.replace(".default", ""): weights for name, weights in lowest_at_8[LOWEST].items()}
    assert saved.keys() == then.keys()
    assert all(torch.equal(saved[name], then[name]) for name in saved)
    assert not torch.equal(saved[next(iter(saved))], lowest_at_8[20][f"{next(iter(saved))[:-7]}.default.weight"])
    tenth = [point for point in row["curve"] if point["step"] <= LOWEST]
    assert row["train_loss"] == pytest.approx(tenth[-1]["loss"], rel=0.2), "of the steps before it"


def test_the_best_that_is_the_last_is_the_last(work):
    last, _ = tune(work, "lora", valid_every=4)
    best, row = tune(work, "lora", valid_every=4, keep="best")
    assert row["kept_step"] == 20 and best == last


def test_without_the_option_the_last_is_kept_whatever_the_loss(work, lowest_at_8):
    plain, _ = tune(work, "lora")
    found, row = tune(work, "lora", valid_every=4)
    assert row["kept_step"] == 20 and found == plain


def test_patience_stops_and_says_why(work, lowest_at_8, capsys):
    _, row = tune(work, "lora", **WATCHED | {"keep": "last"})
    assert (row["train_steps"], row["steps"], row["kept_step"]) == (16, 20, 16)
    assert [point["step"] for point in row["curve"]][-1] == 16
    said = capsys.readouterr().out
    assert "base-numbers-lora-1: stops after step 16 of 20: no lower validation loss than that of step 8 (" in said
    tokens = row["train_tokens_per_second"] * row["train_seconds"]
    _, whole = tune(work, "lora")
    assert tokens == pytest.approx(whole["train_tokens_per_second"] * whole["train_seconds"] * 16 / 20, rel=0.1)


def test_a_loss_that_goes_on_falling_makes_all_steps(work):
    _, row = tune(work, "lora", **WATCHED)
    assert row["train_steps"] == row["kept_step"] == 20


def test_what_adalora_has_before_its_ranks_are_settled_is_not_kept(work, monkeypatch):
    """Before, it has more ranks than it may: however low the loss, and whatever the patience."""
    monkeypatch.setattr(trainer.StepTrainer, "loss_on", lambda self, _: 1.0 + self.state.global_step)
    config = METHODS["adalora"].config | {"tfinal": 0.4}  # the last 8 of 20
    _, row = tune(work, "adalora", changes={"config": config}, **WATCHED | {"valid_every": 2, "patience": 1})
    assert (row["kept_step"], row["train_steps"]) == (12, 14)
    assert row["adalora_rank_budget"] == row["adalora_rank_final"]


# --- killed and resumed


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lora", "lora_8bit", "qlora", "full", "adalora", "vblora", "prompt_tuning", "pissa", "loraplus"]
)
def test_a_run_that_is_killed_keeps_the_same_step_and_ends_with_the_same_bytes(work, name, lowest_at_8, capsys):
    budget = {**WATCHED, "save_every": 3}
    if name == "adalora":  # or nothing counts before step 12
        budget |= {"valid_every": 2, "patience": 1}
    expected, row = tune(work, name, **budget)
    last = row["train_steps"]
    assert row["kept_step"] < last < 20
    for step in (*sorted(random.Random(name).sample(range(1, last + 1), 3)), last):
        assert killed_at(step, trainer.StepTrainer, lambda: tune(work, name, **budget)) == -signal.SIGKILL
    found, after = tune(work, name, **budget)
    assert "an earlier run was cut short; going on after step" in capsys.readouterr().out
    assert found == expected
    assert (after["kept_step"], after["train_steps"]) == (row["kept_step"], last)
    assert validated(after) == validated(row)
    assert not list(Path(".scratch/unfinished/finetune").glob("*"))


def test_only_what_a_killed_run_may_need_is_left(work, lowest_at_8):
    budget = {"valid_every": 1, "keep": "best", "save_every": 6}
    assert killed_at(17, trainer.StepTrainer, lambda: tune(work, "lora", **budget)) == -signal.SIGKILL
    (place,) = Path(".scratch/unfinished/finetune").glob("base-numbers-lora-1/*/sft")
    # At step 8 the newest saved state was that of step 6.
    assert sorted(path.name for path in place.glob("*")) == [
        "best-0000006.safetensors",
        "best-0000008.safetensors",
        "step-0000012",
    ]


def test_other_validation_rows_begin_anew(work, tmp_path, monkeypatch):
    """They decide which weights are kept."""
    other = tmp_path / "other"
    shutil.copytree(work, other)
    monkeypatch.chdir(tmp_path)
    budget = {**WATCHED, "save_every": 2}
    assert killed_at(7, trainer.StepTrainer, lambda: tune(other, "lora", **budget)) == -signal.SIGKILL
    (old,) = Path(".scratch/unfinished/finetune/base-numbers-lora-1").iterdir()
    rows = files.read_table(other / "tokens/valid.parquet")
    import pyarrow.parquet as pq

    files.write_table(other / "tokens/valid.parquet", rows[:2], pq.read_schema(other / "tokens/valid.parquet"))
    assert killed_at(7, trainer.StepTrainer, lambda: tune(other, "lora", **budget)) == -signal.SIGKILL
    (new,) = Path(".scratch/unfinished/finetune/base-numbers-lora-1").iterdir()
    assert new.name != old.name


# --- the stage on pairs


def on_pairs(work, **budget):
    config = {"beta": 0.1, "loss_type": ["sigmoid"]}
    own = {"steps": 12, **budget}
    return tune(work, "lora", steps=20, changes={"stage": "dpo", "preference": Preference(config, own)})


def test_pairs_have_a_validation_loss_of_their_own(work):
    plain, before = on_pairs(work)
    found, row = on_pairs(work, valid_every=4)
    assert found == plain
    assert list(validated(row, "preference_curve")) == [4, 8, 12] and not validated(row)
    last = row["preference_curve"][-1]
    assert last["valid_reward_accuracy"] == pytest.approx(row["valid_reward_accuracy"])
    assert 0 < last["valid_loss"] < 0.7, "ln 2 is that of a model that has learnt nothing"
    assert "preference_rule" not in before
    assert row["preference_rule"] == {"valid_every": 4, "keep": "last", "patience": 0}


def test_the_best_on_pairs_is_kept_and_judged(work, lowest_at_8):
    _, row = on_pairs(work, **WATCHED | {"valid_every": 2})
    assert (row["preference_train_steps"], row["preference_steps"]) == (12, 12)
    assert (row["preference_kept_step"], row["kept_step"]) == (LOWEST, 20)
    saved = load_file(work / "trained-lora" / ADAPTER)
    then = {name.replace(".default", ""): weights for name, weights in lowest_at_8[LOWEST].items()}
    assert all(torch.equal(saved[name], then[name]) for name in saved)
    at_8 = next(point for point in row["preference_curve"] if point["step"] == LOWEST)
    assert row["valid_reward_accuracy"] == pytest.approx(at_8["valid_reward_accuracy"])


@pytest.mark.slow
def test_both_stages_may_stop_early_and_be_killed(work, lowest_at_8):
    config = {"beta": 0.1, "loss_type": ["sigmoid"]}

    def run():
        changes = {"stage": "dpo", "preference": Preference(config, {"valid_every": 2})}
        return tune(work, "lora", changes=changes, **WATCHED, save_every=3)

    expected, row = run()
    assert (row["kept_step"], row["train_steps"]) == (LOWEST, 16)
    assert (row["preference_kept_step"], row["preference_train_steps"]) == (LOWEST, 12)
    for kind, step in (
        (trainer.StepTrainer, 10),
        (trainer.StepTrainer, 16),
        (pair_trainer.PairTrainer, 1),
        (pair_trainer.PairTrainer, 11),
    ):
        assert killed_at(step, kind, run) == -signal.SIGKILL
    found, after = run()
    assert found == expected
    assert (after["kept_step"], after["preference_kept_step"]) == (LOWEST, LOWEST)


# --- several processes


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_keep_the_same(work, tmp_path):
    """accelerate launch on two CPU processes: a process that went on alone would wait for the other for ever."""

    def so_high_a_rate_that_the_loss_soon_rises(raw):
        own = {"steps": 40, "batch_size": 4, "log_every": 10, "warmup_steps": 1, "schedule": "constant"}
        raw["train"] |= {**own, "valid_every": 2, "keep": "best", "patience": 2}
        raw["methods"]["lora"]["train"] = {"lr": 0.05}
        raw["methods"]["full"]["train"] = {"lr": 0.02}

    launcher = Launcher(work, tmp_path / "bin", so_high_a_rate_that_the_loss_soon_rises)
    for method in ("lora", "full"):
        rows, weights = [], []
        for _ in range(2):
            row, said = launcher.two(method)
            assert said.count("stops after step") == 1
            rows.append(row)
            weights.append({p.name: p.read_bytes() for p in Path(f"models/trained/demo-demo-{method}/42").iterdir()})
        assert rows[0]["kept_step"] < rows[0]["train_steps"] < 40
        assert weights[0] == weights[1] and validated(rows[0]) == validated(rows[1])
        assert rows[0]["valid_loss"] == pytest.approx(validated(rows[0])[rows[0]["kept_step"]], abs=1e-5)


def test_sharded_weights_have_no_best(work, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"methods\.full: launch\.train shards the weights .* set train\.keep to last"):
        tune(work, "full", **WATCHED)


# --- params.yaml


def problems(tmp_path, train, method=None):
    raw = quick_yaml.load((ROOT / "params.yaml").read_text())
    raw["train"] |= train
    raw["methods"]["lora"] |= {"train": method} if method else {}
    path = tmp_path / "changed.yaml"
    path.write_text(quick_yaml.dump(raw))
    with pytest.raises(UserError) as error:
        params.load_all(path)
    return str(error.value)


def test_what_goes_by_a_loss_that_is_not_measured_is_refused(tmp_path):
    found = problems(tmp_path, {"keep": "best", "patience": 3})
    assert "train.keep: best goes by the validation loss, which nothing measures while valid_every is 0; say" in found
    assert "train.patience: 3 goes by the validation loss" in found
    found = problems(tmp_path, {}, {"keep": "best"})
    assert "methods.lora.train.keep: best goes by the validation loss" in found
    assert "train.keep: unknown value 'bets' (did you mean best?)" in problems(tmp_path, {"keep": "bets"})


def test_a_method_may_measure_what_the_others_do_not(tmp_path):
    raw = quick_yaml.load((ROOT / "params.yaml").read_text())
    raw["methods"]["lora"]["train"] = {"valid_every": 10, "keep": "best", "patience": 2}
    path = tmp_path / "changed.yaml"
    path.write_text(quick_yaml.dump(raw))
    assert params.load_all(path).methods["lora"].train["keep"] == "best"


def test_the_default_measures_nothing_on_the_way():
    found = params.load_all(ROOT / "params.yaml").train
    assert (found.valid_every, found.keep, found.patience) == (0, "last", 0)
