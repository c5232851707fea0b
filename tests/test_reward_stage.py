"""Tuning by reward: what earns more becomes likelier, the reference is the tuned model, a killed run ends with the same
weights."""

import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import forked
import pytest
import quick_yaml
import tiny
import torch
import trl
from power_cut import killed_at
from tiny import METHODS, ROOT, TINY_TRAIN
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from tradeoffs.common import files
from tradeoffs.finetune import adapters, batches, reward, reward_trainer, training
from tradeoffs.finetune.job import Loaded
from tradeoffs.finetune.reward_trainer import Reading, RewardTrainer, _from_the_left
from tradeoffs.finetune.trainer import StepTrainer
from tradeoffs.models.loading import load_model, training_dtype
from tradeoffs.params import Reward
from tradeoffs.plumbing.errors import UserError
from tradeoffs.rewards.scoring import scoring
from tradeoffs.tokenize.tables import TOKENS

TRAINED = [name for name, method in METHODS.items() if method.trains]
# What a random model can learn at once: the share of words that are even numbers.
EVEN = """
def reward(answer, expected):
    words = answer.split()
    return sum(int(word) % 2 == 0 for word in words) / len(words) if words else 0.0
"""
BY_EVEN = Reward(
    {"rewards/even.py": 1.0}, {"num_generations": 4, "max_completion_length": 6}, code={"rewards/even.py": EVEN}
)
BUDGET = replace(TINY_TRAIN, steps=6, batch_size=8, lr=0.002, log_every=2, save_every=2)

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(scope="module")
def asked(work, tmp_path_factory):
    """The base of `work`, and questions with answers in words that are numbers."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "base").symlink_to(work / "base")
    made = Tokenizer(WordLevel({str(number): number for number in range(tiny.VOCABULARY)}))
    made.pre_tokenizer = Whitespace()
    draw, rows = random.Random(0), []
    for number in range(28):
        start, length = draw.randrange(10, 200), draw.randrange(2, 9)
        prompt, answer = [1, *range(start, start + length)], list(range(start + length, start + length + 3))
        ids = [*prompt, *answer, 2]
        rows.append(
            {
                "id": str(number),
                "ids": ids,
                "scored": [at >= len(prompt) for at in range(len(ids))],
                "prompt_tokens": len(prompt),
                "prompt": " ".join(map(str, prompt)),
                "answer": " ".join(map(str, answer)),
                "bytes": 1,
            }
        )
    files.write_table(folder / "tokens/train.parquet", rows[:20], TOKENS)
    files.write_table(folder / "tokens/valid.parquet", rows[20:], TOKENS)
    files.write_json(folder / "tokens/info.json", {"pad_id": 0, "stop_ids": [2]})
    made.save(str(folder / "tokens/tokenizer.json"))
    return folder


def tuned(asked, method, dtype=torch.float32, steps=4):
    """A model after a few steps of supervised tuning."""
    torch.manual_seed(0)
    model = load_model(asked / "base", method.load, dtype)
    if method.peft:
        model = adapters.add_adapter(model, adapters.configuration("x", method, steps), "x")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.002)
    examples = batches.read_examples(asked / "tokens/train.parquet")
    for step in range(1, steps + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model.train()(**batches.collate(examples[:8], 0)).loss
        loss.backward()
        optimizer.step()
        if method.peft == "ADALORA":
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    return model


def by_reward(asked, method, budget=BUDGET, **config):
    """The job `x`, whose method goes on by reward, in the same budget."""
    wanted = replace(BY_EVEN, config=BY_EVEN.config | config)
    return tiny.job(asked, "x", replace(method, train=None, stage="grpo", reward=wanted), budget)


def tune(asked, model, method, dtype=torch.float32, scratch="scratch", batch_tokens=4096, config=None, **changes):
    """Goes on with a tuned model by reward, for a few steps."""
    wanted = by_reward(asked, method, replace(BUDGET, **changes), **(config or {}))
    Path(scratch).mkdir(exist_ok=True)
    return reward.tune(wanted, Loaded(model, dtype, None, batch_tokens, trainable=0, total=250_000), Path(scratch))


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


# --- what is learned, and from what


@pytest.mark.slow
def test_what_earns_more_is_answered_more_often(asked):
    row = tune(asked, tuned(asked, METHODS["lora"]), METHODS["lora"], steps=24, lr=0.01, batch_size=16)
    curve = row["reward_curve"]
    assert [point["step"] for point in curve] == list(range(2, 25, 2))
    assert set(curve[0]) >= {
        "loss",
        "reward",
        "reward_spread",
        "entropy",
        "answer_tokens",
        "cut_off",
        "lr",
        "grad_norm",
    }
    assert not {"token_accuracy", "kl"} & set(curve[0]), "no tokens are given, and without beta nothing is compared"
    assert curve[-1]["reward"] > curve[0]["reward"] + 0.1 and row["valid_reward"] > curve[0]["reward"] + 0.1


def test_answers_are_read_as_evaluation_reads_them(asked):
    reading = Reading(Tokenizer.from_file(str(asked / "tokens/tokenizer.json")), [2, 5], 0)
    assert reading.text([41, 42, 2, 43]) == "41 42" and reading.text([5]) == "" and reading.text([41]) == "41"


def test_each_question_is_asked_as_often_as_said_and_paid_by_its_own_answer(asked, monkeypatch):
    seen = []
    earns = scoring(BY_EVEN.functions, None, BY_EVEN.code or {})

    def each(answer, expected, prompt):
        seen.append((answer, expected, prompt))
        return earns.functions["rewards/even.py"](answer, expected, prompt)

    monkeypatch.setattr(reward, "scoring", lambda *_: replace(earns, functions={"rewards/even.py": each}))
    tune(asked, tuned(asked, METHODS["lora"]), METHODS["lora"], steps=1)
    rows = {
        row["prompt"]: row
        for split in ("train", "valid")
        for row in files.read_table(asked / f"tokens/{split}.parquet")
    }
    drawn = seen[len(rows) : len(rows) + 8]  # first every expected answer is looked at
    assert [prompt for _, _, prompt in drawn] == [drawn[0][2]] * 4 + [drawn[4][2]] * 4 and drawn[0][2] != drawn[4][2]
    assert all(rows[prompt]["answer"] == expected for _, expected, prompt in seen)
    assert len({answer for answer, _, _ in drawn[:4]}) > 1, "they are drawn, not all the most likely one"


def test_log_probabilities_are_those_of_rows_without_padding(asked):
    """As a model with absolute positions needs it: TRL's own forward counts the padding on the left as positions."""
    ids = torch.tensor([[0, 0, 1, 10, 11, 12, 2], [1, 20, 21, 22, 23, 2, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
    moved, labels, at = _from_the_left(ids, mask, 3)
    assert moved.tolist() == [[1, 10, 11, 12, 2, 0, 0], [1, 20, 21, 22, 23, 2, 0]]
    assert labels.tolist() == [[-100, -100, 11, 12, 2, -100, -100], [-100, -100, -100, -100, 23, 2, 0]]
    assert at.tolist() == [[1, 2, 3], [3, 4, 5]]


def test_the_reference_is_the_tuned_model_and_nothing_of_it_is_left(asked):
    """Where nothing is learned nothing diverges; and what is saved is the policy alone."""
    model = tuned(asked, METHODS["lora"])
    before, modules = trained(model), dict(model.named_modules()).keys()
    row = tune(asked, model, METHODS["lora"], steps=2, lr=1e-12, config={"beta": 0.1})
    assert all(point["kl"] == pytest.approx(0, abs=1e-9) for point in row["reward_curve"])
    assert dict(model.named_modules()).keys() == modules and list(model.peft_config) == ["default"]
    row = tune(asked, model, METHODS["lora"], scratch="moved", lr=0.01, config={"beta": 0.1})
    assert row["reward_curve"][-1]["kl"] > 1e-3
    assert any(not torch.equal(parameter, before[name]) for name, parameter in trained(model).items())


def test_the_weights_that_earned_most_on_validation_are_kept(asked):
    model, marks = tuned(asked, METHODS["lora"]), {"valid_every": 2, "keep": "best"}
    row = tune(asked, model, METHODS["lora"], lr=0.05, **marks)
    points = row["reward_curve"]
    assert all(point["valid_loss"] == -point["valid_reward"] for point in points)
    best = max(points, key=lambda point: point["valid_reward"])
    assert row["reward_kept_step"] == best["step"] and row["valid_reward"] == best["valid_reward"]


# --- whatever is tuned


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_method_goes_on_by_reward_and_leaves_its_own_parts_only(asked, name):
    method = METHODS[name]
    model = tuned(asked, method, training_dtype() if not method.full else torch.float32)
    before, forward = trained(model), model.forward
    padding = model.config.pad_token_id, model.generation_config.pad_token_id
    row = tune(asked, model, method, training_dtype(), steps=2, lr=0.05, config={"beta": 0.05})
    after = trained(model)
    assert after.keys() == before.keys() and any(not torch.equal(after[name], before[name]) for name in after)
    assert all(parameter.dtype == torch.float32 for parameter in after.values()), "TRL rounds them on a quantised base"
    assert 0 <= row["valid_reward"] <= 1
    assert model.forward == forward and (model.config.pad_token_id, model.generation_config.pad_token_id) == padding
    if method.peft:
        assert list(model.peft_config) == ["default"]


# --- killed and resumed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "qlora", "full"])
def test_a_run_that_is_killed_at_three_steps_ends_with_the_same_weights(asked, name, capsys):
    method, config = METHODS[name], {"beta": 0.05}
    dtype = torch.float32 if method.full else training_dtype()
    model = tuned(asked, method, dtype)
    row, expected = tune(asked, model, method, dtype, scratch="whole", steps=9, config=config), trained(model)
    again = tuned(asked, method, dtype)

    def run():
        return tune(asked, again, method, dtype, steps=9, config=config)

    for step in (2, 5, 9):
        assert killed_at(step, RewardTrainer, run) == -signal.SIGKILL  # the child had a copy of the model
    after = run()
    assert "x: grpo was cut short; going on after step" in capsys.readouterr().out
    assert all(torch.equal(parameter, expected[name]) for name, parameter in trained(again).items())
    assert after["valid_reward"] == row["valid_reward"] and after["reward_loss"] == row["reward_loss"]
    keys = ("step", "loss", "reward", "reward_spread", "kl", "entropy", "answer_tokens", "lr", "grad_norm")
    for one, other in zip(row["reward_curve"], after["reward_curve"], strict=True):
        assert [one[key] for key in keys] == [other[key] for key in keys]


def test_a_run_that_learns_twice_from_its_answers_goes_on_where_new_ones_are_drawn(asked):
    config = {"num_iterations": 2}
    model = tuned(asked, METHODS["lora"])
    tune(asked, model, METHODS["lora"], scratch="whole", steps=7, save_every=3, config=config)
    again = tuned(asked, METHODS["lora"])

    def run():
        return tune(asked, again, METHODS["lora"], steps=7, save_every=3, config=config)

    assert killed_at(6, RewardTrainer, run) == -signal.SIGKILL
    assert [path.name for path in Path("scratch").glob("step-*")] == ["step-0000004"]
    run()
    expected = trained(model)
    assert all(torch.equal(parameter, expected[name]) for name, parameter in trained(again).items())


@pytest.mark.slow
def test_a_training_that_is_killed_in_both_of_its_stages_writes_the_same_bytes(asked, capsys):
    method = replace(METHODS["lora"], train=None, stage="grpo", reward=replace(BY_EVEN, train={"steps": 4}))

    def run(name="killed"):
        row = tiny.train(Path(name), tiny.job(asked, "x", method, BUDGET))
        return row, {path.name: path.read_bytes() for path in Path(name).iterdir()}

    row, expected = run("whole")
    for trainer, step in ((StepTrainer, 5), (RewardTrainer, 1), (RewardTrainer, 3)):
        assert killed_at(step, trainer, run) == -signal.SIGKILL
    after, found = run()
    assert found == expected
    assert "an earlier run was cut short; going on after step 6 of 6" in capsys.readouterr().out
    same = ("train_loss", "valid_loss", "reward_loss", "valid_reward")
    assert {key: after[key] for key in same} == {key: row[key] for key in same}


@pytest.mark.slow
def test_two_processes_share_the_answers_of_a_step(asked, tmp_path):
    """accelerate launch on two CPU processes (gloo): each draws its own answers, and both learn the same from all."""
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["train"] |= {"steps": 4, "batch_size": 8, "log_every": 1, "warmup_steps": 1}
    config = {"num_generations": 4, "max_completion_length": 6, "beta": 0.1}
    raw["methods"]["lora_grpo"]["reward"] = {
        "functions": {"rewards/even.py": 1.0},
        "config": config,
        "train": {"lr": 0.002, "warmup_steps": 0},
    }
    raw["run"] |= {"methods": ["lora_grpo"]}
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    Path("rewards").mkdir()
    Path("rewards/even.py").write_text(EVEN)
    for place, made in (("models/base/demo", "base"), ("data/tokens/demo-demo", "tokens")):
        Path(place).parent.mkdir(parents=True)
        Path(place).symlink_to(asked / made)
    two = ["-m", "accelerate.commands.launch", "--config_file"]
    two += [str(ROOT / "configs/accelerate/two_cpu_processes.yaml"), "--main_process_port", "0"]
    stage = ["-m", "stages.finetune", "--model", "demo", "--dataset", "demo", "--method", "lora_grpo", "--seed", "42"]
    here = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON_EXEC": forked.command(tmp_path / "bin")}
    done = forked.python(*two, *stage, env=here)
    assert done.returncode == 0, done.stderr[-3000:]
    row = files.read_json(Path("data/training/demo-demo-lora_grpo/42.json"))
    assert [point["step"] for point in row["reward_curve"]] == [1, 2, 3, 4]
    assert row["reward_curve"][0]["kl"] == pytest.approx(0, abs=1e-6) and row["reward_curve"][-1]["kl"] > 0
    assert all(0 <= point["reward"] <= 1 and point["grad_norm"] > 0 for point in row["reward_curve"])
    assert not list(Path(".scratch").glob("rank*/*")), "what other processes needed is gone"


# --- parts of a step, and what goes wrong


def test_rows_that_the_stage_is_judged_by_belong_to_what_a_killed_run_goes_on_from(asked):
    job, valid = by_reward(asked, METHODS["lora"]), asked / "tokens/valid.parquet"
    judged = replace(job.method, reward=replace(job.method.reward, train={"valid_every": 1}))
    before = [training._workplace(one).name for one in (job, replace(job, method=judged))]
    was = valid.stat()
    os.utime(valid, (was.st_atime, was.st_mtime + 1))
    after = [training._workplace(one).name for one in (job, replace(job, method=judged))]
    os.utime(valid, (was.st_atime, was.st_mtime))
    assert after[0] == before[0] and after[1] != before[1]


def test_a_step_in_parts_is_the_step_in_one(asked):
    whole = tune(
        asked, tuned(asked, METHODS["lora"]), METHODS["lora"], scratch="whole", log_every=1, config={"beta": 0.1}
    )
    parts = tune(
        asked, tuned(asked, METHODS["lora"]), METHODS["lora"], batch_tokens=30, log_every=1, config={"beta": 0.1}
    )
    for one, other in zip(whole["reward_curve"], parts["reward_curve"], strict=True):
        for key in ("loss", "grad_norm", "reward"):
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4)
        for key in ("kl", "entropy"):  # means over tokens, of which parts have different numbers
            assert other[key] == pytest.approx(one[key], rel=0.1, abs=1e-4)


def test_a_loss_that_is_no_number_stops_with_the_step_and_keeps_the_last_state(asked, monkeypatch):
    made = trl.GRPOTrainer._compute_loss

    def broken(self, *args):
        loss = made(self, *args)
        return loss * float("nan") if self.state.global_step == 4 else loss

    monkeypatch.setattr(trl.GRPOTrainer, "_compute_loss", broken)
    with pytest.raises(UserError, match=r"loss of GRPO is nan at step 5 of 6; lower reward\.train\.lr"):
        tune(asked, tuned(asked, METHODS["lora"]), METHODS["lora"])
    assert Path("scratch/step-0000004/state.safetensors").is_file()


def test_too_little_memory_is_one_message_that_says_what_to_lower(asked, monkeypatch):
    def never(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(trl.GRPOTrainer, "_compute_loss", never)
    with pytest.raises(
        UserError, match=r"methods\.x\.reward\.train: out of memory with 8 answers .* lower batch_tokens"
    ):
        tune(asked, tuned(asked, METHODS["lora"]), METHODS["lora"])


def test_a_reward_that_says_nothing_of_any_answer_is_refused(asked):
    method = replace(METHODS["lora"], train=None, stage="grpo", reward=replace(BY_EVEN, functions={"json": 1.0}))
    wanted = tiny.job(asked, "x", method, BUDGET)
    with pytest.raises(
        UserError, match=r"methods\.x\.reward\.functions: json says nothing of any expected answer in .*"
    ):
        reward.rehearse(wanted, tuned(asked, METHODS["lora"], steps=0))


# --- what TRL refuses, before anything is trained


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"loss_type": "dapoo"}, "reward.config: Unknown loss type: dapoo"),
        ({"scale_rewards": "groups"}, "reward.config: Invalid value for scale_rewards: groups. Must be one of 'batch'"),
        ({"importance_sampling_level": "word"}, "reward.config: Unknown importance sampling level: word"),
        (
            {"num_generations": 3},
            "reward: batch_size (8 answers a step) must be a multiple of config.num_generations (3",
        ),
        (
            {"num_generations": 1},
            "reward: batch_size (8 answers a step) must be a multiple of config.num_generations (1",
        ),
        (
            {"max_completion_length": 120},
            "reward.config.max_completion_length: 120 tokens of an answer after the longest",
        ),
    ],
)
def test_what_cannot_be_is_said_before_supervised_tuning(asked, config, said):
    model = tuned(asked, METHODS["lora"], steps=0)
    with pytest.raises(UserError) as error:
        reward.rehearse(by_reward(asked, METHODS["lora"], **config), model)
    assert str(error.value).startswith(f"params.yaml: methods.x.{said}")


def test_a_rehearsal_that_goes_well_changes_nothing(asked):
    model, state = tuned(asked, METHODS["lora"]), torch.get_rng_state()
    before = trained(model)
    reward.rehearse(by_reward(asked, METHODS["lora"], beta=0.1), model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(parameter, before[name]) for name, parameter in trained(model).items())


def test_an_adapter_on_the_output_layer_is_refused(asked):
    config = METHODS["lora"].config | {"target_modules": ["q_proj", "lm_head"]}
    model = tuned(asked, replace(METHODS["lora"], config=config), steps=0)
    with pytest.raises(UserError, match="puts an adapter on the output layer, which TRL's GRPOTrainer would not train"):
        reward_trainer.rehearse(by_reward(asked, METHODS["lora"]), model, scoring({"f1": 1.0}, None, {}))


def test_no_stage_talks_to_the_network(asked, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **_: pytest.fail("telemetry was sent"))
    tune(asked, tuned(asked, METHODS["lora"], steps=1), METHODS["lora"], steps=1)
