"""Tuning on pairs: rewards are TRL's, the reference is the tuned model, a killed run ends with the same weights."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import quick_yaml
import torch
import trl
import wrong_params
from datasets import Dataset
from further import PAIRS, trained, tuned
from tiny import METHODS, ROOT, TINY_TRAIN
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell
from tradeoffs.finetune import adapters, preference, training_state, trl_trainer
from tradeoffs.finetune.job import Job
from tradeoffs.methods import trl_stages
from tradeoffs.params import Method, Preference
from tradeoffs.plumbing.errors import UserError
from tradeoffs.tokenize import tables

pytestmark = pytest.mark.usefixtures("elsewhere")

tune = PAIRS.tune


def pairs_of(work, split):
    return [pair for pair in files.read_table(work / "tokens" / "pairs.parquet") if pair["split"] == split]


# --- what the numbers are


def test_rewards_are_those_of_trls_own_trainer_with_its_own_copy_of_the_adapter(work):
    """TRL adds the adapter as it is now a second time, as the reference; the first one then gets the tuned weights."""
    model = tuned(work, METHODS["lora"])
    before = {name: p.clone() for name, p in trained(model).items()}
    row = tune(work, model, METHODS["lora"])
    after = trained(model)

    class Tokenised(trl.DPOTrainer):
        def _prepare_dataset(self, dataset, *args):
            return dataset

        def _send_telemetry(self):
            pass

    other = tuned(work, METHODS["lora"])
    assert all(torch.equal(p, before[name]) for name, p in trained(other).items())
    margins = {}
    for split in ("valid", "test"):
        pairs = pairs_of(work, split)
        config = trl.DPOConfig(
            "theirs", report_to="none", use_cpu=True, bf16=False, beta=0.1, per_device_eval_batch_size=len(pairs)
        )
        theirs = Tokenised(
            tuned(work, METHODS["lora"]),
            args=config,
            train_dataset=Dataset.from_list(pairs),
            eval_dataset=Dataset.from_list(pairs),
            data_collator=DataCollatorForPreference(pad_token_id=0),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"_": 0})), pad_token="_"),
        )
        with torch.no_grad():
            for name, parameter in theirs.model.named_parameters():
                if name in after:
                    parameter.copy_(after[name])
        margins[split] = theirs.evaluate()
    ours = np.array(row["reward_margins"])
    assert ours.mean() == pytest.approx(margins["test"]["eval_rewards/margins"], abs=1e-5)
    assert (ours > 0).mean() == pytest.approx(margins["test"]["eval_rewards/accuracies"])
    assert row["valid_reward_accuracy"] == pytest.approx(margins["valid"]["eval_rewards/accuracies"])


def test_the_reference_is_the_tuned_model_and_not_the_base(work):
    """Where nothing more is learned no reward differs, though the tuned model is far from the base by then."""
    row = tune(work, tuned(work, METHODS["lora"], steps=12), METHODS["lora"], steps=1, lr=1e-12)
    assert np.abs(row["reward_margins"]).max() < 1e-4
    untuned = tuned(work, METHODS["lora"], steps=0)
    known = preference.load_file("scratch/reference.safetensors")["reference"]
    Path("other").mkdir()
    tune(work, untuned, METHODS["lora"], scratch="other", steps=1, lr=1e-12)
    assert (known - preference.load_file("other/reference.safetensors")["reference"]).abs().max() > 1


@pytest.mark.slow
def test_held_out_pairs_are_told_apart_after_a_few_steps(work):
    row = tune(work, tuned(work, METHODS["lora"]), METHODS["lora"], steps=20)
    assert len(row["reward_margins"]) == len(pairs_of(work, "test"))
    assert np.mean(np.array(row["reward_margins"]) > 0) > 0.9
    curve = row["preference_curve"]
    assert [point["step"] for point in curve] == list(range(2, 21, 2))
    assert set(curve[0]) >= {"step", "loss", "reward_accuracy", "reward_margin", "lr", "token_accuracy"}
    assert curve[0]["loss"] == pytest.approx(np.log(2), abs=0.1) and row["preference_loss"] < curve[0]["loss"]
    assert curve[-1]["reward_margin"] > curve[0]["reward_margin"]


# --- whatever is tuned


def test_adalora_keeps_the_ranks_that_supervised_tuning_gave_it(work):
    method = METHODS["adalora"]
    model = tuned(work, method, steps=10)
    ranks = adapters.adalora_ranks(model)
    pattern = {name: list(kept) for name, kept in model.active_peft_config.rank_pattern.items()}
    tune(work, model, method)
    assert adapters.adalora_ranks(model) == ranks
    assert model.active_peft_config.rank_pattern == pattern


# --- killed and resumed


def test_a_run_that_is_killed_does_not_ask_the_reference_again(work, monkeypatch):
    tune(work, tuned(work, METHODS["lora"]), METHODS["lora"])
    known = Path("scratch/reference.safetensors").read_bytes()
    asked = []
    original = preference._log_probabilities
    monkeypatch.setattr(preference, "_log_probabilities", lambda *args: asked.append(len(args[1])) or original(*args))
    tune(work, tuned(work, METHODS["lora"]), METHODS["lora"])
    assert asked == [len(pairs_of(work, "valid")) + len(pairs_of(work, "test"))], "the tuned model, at the end"
    assert Path("scratch/reference.safetensors").read_bytes() == known


# --- parts of a step, and what goes wrong


@pytest.mark.parametrize(("batch", "fitting", "expected"), [(16, 5, 4), (16, 99, 16), (7, 3, 1), (6, 0, 1)])
def test_parts_of_a_batch_are_as_large_as_fits_and_equally_large(batch, fitting, expected):
    assert trl_trainer.at_once(batch, fitting) == expected


def test_a_full_disk_is_one_message_and_no_half_reference(work, monkeypatch):
    def full(*args, **kwargs):
        raise training_state.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(preference, "save_file", full)
    with pytest.raises(UserError, match="the disk is full; free some space and run `dvc repro` again"):
        tune(work, tuned(work, METHODS["lora"]), METHODS["lora"])
    assert not list(Path("scratch").iterdir())


def test_a_folder_without_pairs_is_refused(work):
    Path("tokens").mkdir()
    files.write_table("tokens/pairs.parquet", [], tables.PAIRS)
    with pytest.raises(
        UserError, match=r"base-numbers/pairs\.parquet: has no pairs; stage dpo learns from .* preference"
    ):
        tune(Path.cwd(), tuned(work, METHODS["lora"]), METHODS["lora"])


# --- what TRL refuses, before anything is trained


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"loss_type": ["sigmod"]}, "Unknown loss type: sigmod. Should be one of ['sigmoid', 'hinge', 'ipo',"),
        ({"loss_type": ["exo_pair"]}, "Label smoothing must be greater than 0.0 when using 'exo_pair' loss"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "`loss_weights` must have the same length"),
        ({"f_divergence_type": "chi"}, "Unknown f_divergence_type: chi"),
    ],
)
def test_what_trl_refuses_is_said_before_supervised_tuning(config, said):
    with pytest.raises(UserError) as error:
        PAIRS.rehearse(Path("nowhere"), None, METHODS["lora"], **config)
    assert str(error.value).startswith(f"params.yaml: methods.x.preference.config: {said}")


# --- params.yaml


def problems(tmp_path, edit):
    return wrong_params.problems(tmp_path, "lora_dpo", edit)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"betta": 0.1}, "betta: DPOConfig of TRL has no such field (did you mean beta?)"),
        ({"learning_rate": 1e-6}, "learning_rate: is no choice here (set preference.train.lr); leave it out"),
        ({"sync_ref_model": True}, "sync_ref_model: is no choice here (the reference is the model after supervised"),
        ({"max_length": 64}, "max_length: is no choice here (the stage tokenize has made the rows)"),
        *(
            ({key: 1}, f"{key}: is decided by the pipeline; what can be chosen of training is in preference.train")
            for key in ("output_dir", "max_steps", "report_to")
        ),
        ({"beta": "much"}, "beta: must be a number, is 'much'"),
        ({"loss_type": "sigmoid"}, "loss_type: must be a list, is 'sigmoid'"),
    ],
)
def test_a_wrong_field_of_the_configuration_is_named_when_params_are_read(tmp_path, config, expected):
    found = problems(tmp_path, lambda raw, block: block["preference"].update(config=config))
    assert f"\n  methods.lora_dpo.preference.config.{expected}" in found


def test_a_wrong_value_of_the_budget_is_named(tmp_path):
    found = problems(tmp_path, lambda raw, block: block["preference"].update(train={"stepz": 1, "lr": 0}))
    assert "methods.lora_dpo.preference.train.stepz: unknown key (did you mean steps?)" in found
    assert "methods.lora_dpo.preference.train.lr: must be above 0, is 0" in found


def test_a_stage_needs_something_that_is_tuned(tmp_path):
    def edit(raw, block):
        del block["peft"], block["config"]

    assert "methods.lora_dpo.stage: dpo goes on with a tuned model; say how it is tuned (peft, or" in problems(
        tmp_path, edit
    )


def test_an_unknown_stage_is_answered_with_the_known_ones(tmp_path):
    found = problems(tmp_path, lambda raw, block: block.update(stage="dpoo"))
    assert "methods.lora_dpo.stage: unknown value 'dpoo' (did you mean dpo?)" in found


def test_stage_and_preference_come_together(tmp_path):
    found = problems(tmp_path, lambda raw, block: block.pop("stage"))
    assert "methods.lora_dpo.preference: means something with `stage` only (e.g. stage: dpo)" in found
    found = problems(tmp_path, lambda raw, block: block.pop("preference"))
    assert "methods.lora_dpo.preference: missing; holds config (of TRL's trainer) and train" in found


def test_a_stage_on_a_data_set_without_pairs_is_one_error_of_the_run_list(tmp_path):
    found = problems(tmp_path, lambda raw, block: raw.update(run=raw["run"] | {"methods": ["base", "lora_dpo"]}))
    assert found.splitlines()[1:] == [
        "  run.methods: 'lora_dpo' (stage: dpo) learns from a data set of kind preference, and 'demo' in run.datasets "
        "is of kind instruction; take one of the two out"
    ]


def test_all_weights_may_go_on_with_pairs_too(tmp_path):
    raw = quick_yaml.load((ROOT / "params.yaml").read_text())
    raw["methods"]["full_dpo"] = raw["methods"]["full"] | {
        key: raw["methods"]["lora_dpo"][key] for key in ("stage", "preference")
    }
    path = tmp_path / "changed.yaml"
    path.write_text(quick_yaml.dump(raw))
    assert params.load_all(path).methods["full_dpo"].stage == "dpo"


def test_a_method_overrides_single_values_of_the_shared_budget():
    budget = Job(
        Cell("demo", "demo", "lora").training(1), Method(peft="LORA", config={}, train={"lr": 0.5}), TINY_TRAIN
    ).budget
    assert (budget.lr, budget.steps) == (0.5, TINY_TRAIN.steps)


def test_the_budget_of_the_stage_stands_over_that_of_the_method():
    method = Method(full=True, train={"lr": 0.5, "steps": 3}, stage="dpo", preference=Preference({}, {"lr": 0.1}))
    budget = Job(Cell("demo", "demo", "dpo").training(1), method, TINY_TRAIN).stage_budget
    assert (budget.lr, budget.steps, budget.batch_size) == (0.1, 3, TINY_TRAIN.batch_size)


@pytest.mark.parametrize("name", trl_stages.STAGES)
def test_the_fields_of_a_stage_are_those_of_trls_class(name):
    stage = trl_stages.STAGES[name]
    inherited = {field.name for field in fields(TrainingArguments)}
    own = {field.name for field in fields(getattr(trl, stage.config))} - inherited
    assert set(trl_stages.fields(stage)) == own - set(stage.decided)
    assert set(stage.decided) <= own | inherited, "a field that TRL no longer has"


def test_params_are_read_without_importing_trl_or_torch():
    code = (
        "import sys; from tradeoffs import params; params.load_all(); "
        "sys.exit(any(name in sys.modules for name in ('trl', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
