"""What every stage of TRL's after supervised tuning keeps to: any method goes on with it, a killed run ends with the
same weights, what is wrong is one message, and nothing of TRL's is left on the model."""

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from further import FURTHER, PAIRS, trained, tuned
from power_cut import killed_at
from tiny import METHODS

from tradeoffs.finetune.trainer import StepTrainer
from tradeoffs.models.loading import training_dtype
from tradeoffs.plumbing.errors import UserError

TRAINED = [name for name, method in METHODS.items() if method.trains]
LORA = METHODS["lora"]

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(params=FURTHER)
def stage(request):
    return FURTHER[request.param]


@pytest.fixture
def place(stage, work, asked):
    """A base and what the stage learns from."""
    return work if stage is PAIRS else asked


# --- whatever is tuned


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_method_goes_on_and_leaves_its_own_parts_only(stage, place, name):
    method = METHODS[name]
    model = tuned(place, method, training_dtype() if not method.full else torch.float32)
    before, forward = trained(model), model.forward
    padding = model.config.pad_token_id, model.generation_config.pad_token_id
    row = stage.tune(place, model, method, training_dtype(), steps=2, lr=0.05, config=stage.referring)
    after = trained(model)
    assert after.keys() == before.keys() and any(not torch.equal(after[name], before[name]) for name in after)
    assert all(parameter.dtype == torch.float32 for parameter in after.values()), "TRL rounds them on a quantised base"
    assert all(parameter.isfinite().all() for parameter in after.values())
    assert 0 <= row[stage.valid] <= 1
    assert model.forward == forward and (model.config.pad_token_id, model.generation_config.pad_token_id) == padding
    if method.peft:
        assert list(model.peft_config) == ["default"]


# --- killed and resumed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "qlora", "full", "adalora"])
def test_a_run_that_is_killed_at_some_steps_ends_with_the_same_weights(stage, place, name, capsys):
    method, few = METHODS[name], {"steps": stage.steps, "config": stage.referring}
    dtype = torch.float32 if method.full else training_dtype()
    model = tuned(place, method, dtype)
    row, expected = stage.tune(place, model, method, dtype, scratch="whole", **few), trained(model)
    again = tuned(place, method, dtype)

    def run():
        return stage.tune(place, again, method, dtype, **few)

    for step in sorted(random.Random(name).sample(range(1, stage.steps + 1), stage.kills)):
        assert killed_at(step, stage.trainer, run) == -signal.SIGKILL  # the child had a copy of the model
    after = run()
    assert f"x: {stage.stage} was cut short; going on after step" in capsys.readouterr().out
    assert all(torch.equal(parameter, expected[name]) for name, parameter in trained(again).items())
    curve = f"{stage.block}_curve"
    timed = {f"{stage.block}_seconds", curve}
    assert {key: after[key] for key in after.keys() - timed} == {key: row[key] for key in row.keys() - timed}
    for one, other in zip(row[curve], after[curve], strict=True):
        for key in ("step", "loss", *stage.measured, "lr", "grad_norm"):
            assert one[key] == other[key], key


@pytest.mark.slow
def test_a_training_that_is_killed_in_both_of_its_stages_writes_the_same_bytes(stage, place, capsys):
    job = tiny.job(place, "x", stage.method(LORA, train={"steps": 4}), stage.budget)

    def run(name="killed"):
        row = tiny.train(Path(name), job)
        return row, {path.name: path.read_bytes() for path in Path(name).iterdir()}

    row, expected = run("whole")
    for trainer, step in ((StepTrainer, 5), (stage.trainer, 1), (stage.trainer, 3)):
        assert killed_at(step, trainer, run) == -signal.SIGKILL
    after, found = run()
    assert found == expected
    assert "an earlier run was cut short; going on after step 6 of 6" in capsys.readouterr().out
    same = ("train_loss", "valid_loss", f"{stage.block}_loss", stage.valid)
    assert {key: after[key] for key in same} == {key: row[key] for key in same}


# --- parts of a step, and what goes wrong


def test_a_step_in_parts_is_the_step_in_one(stage, place):
    few = {"log_every": 1, "config": stage.referring}
    whole = stage.tune(place, tuned(place, LORA), LORA, scratch="whole", **few)[f"{stage.block}_curve"]
    parts = stage.tune(place, tuned(place, LORA), LORA, batch_tokens=30, **few)[f"{stage.block}_curve"]
    for one, other in zip(whole, parts, strict=True):
        for key in {"loss", "grad_norm", *stage.measured} - {"token_accuracy"}:
            # Means over tokens, of which parts have different numbers; with so few the first is another.
            rel = 0.1 if key in ("kl", "entropy") else 1e-3
            assert other[key] == pytest.approx(one[key], rel=rel, abs=1e-4), key


def test_a_loss_that_is_no_number_stops_with_the_step_and_keeps_the_last_state(stage, place, monkeypatch):
    made = stage.theirs._compute_loss

    def broken(self, *args):
        loss = made(self, *args)
        return loss * float("nan") if self.state.global_step == 4 else loss

    monkeypatch.setattr(stage.theirs, "_compute_loss", broken)
    said = rf"loss of {stage.stage.upper()} is nan at step 5 of 6; lower {stage.block}\.train\.lr"
    with pytest.raises(UserError, match=said):
        stage.tune(place, tuned(place, LORA), LORA)
    assert Path("scratch/step-0000004/state.safetensors").is_file()


def test_too_little_memory_is_one_message_that_says_what_to_lower(stage, place, monkeypatch):
    def never(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(stage.theirs, "_compute_loss", never)
    said = rf"methods\.x\.{stage.block}\.train: out of memory with {stage.budget.batch_size} .* lower batch_tokens"
    with pytest.raises(UserError, match=said):
        stage.tune(place, tuned(place, LORA), LORA)


# --- before anything is trained


def test_a_rehearsal_that_goes_well_changes_nothing(stage, place):
    model, state = tuned(place, LORA, steps=1), torch.get_rng_state()
    before = trained(model)
    stage.rehearse(place, model, LORA, **stage.referring)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(parameter, before[name]) for name, parameter in trained(model).items())


def test_an_adapter_on_the_output_layer_is_refused(stage, place):
    method = replace(LORA, config=LORA.config | {"target_modules": ["q_proj", "lm_head"]})
    said = f"puts an adapter on the output layer, which TRL's {stage.theirs.__name__} would not train"
    with pytest.raises(UserError, match=said):
        stage.rehearse(place, tuned(place, method, steps=0), method)


def test_no_stage_talks_to_the_network(stage, place, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **_: pytest.fail("telemetry was sent"))
    stage.tune(place, tuned(place, LORA, steps=1), LORA, steps=1)
