"""Tuning by reward: what earns more becomes likelier, the reference is the tuned model, a killed run ends with the same
weights."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from further import EARNED, EVEN, trained, tuned
from launched import Launcher
from power_cut import killed_at
from tiny import METHODS
from tokenizers import Tokenizer

from tradeoffs.common import files
from tradeoffs.finetune import reward, training
from tradeoffs.finetune.reward_trainer import Reading, RewardTrainer, _from_the_left
from tradeoffs.plumbing.errors import UserError
from tradeoffs.rewards.scoring import scoring

pytestmark = pytest.mark.usefixtures("elsewhere")

tune = EARNED.tune


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
    earns = scoring({"rewards/even.py": 1.0}, None, {"rewards/even.py": EVEN})

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


# --- killed and resumed


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
def test_two_processes_share_the_answers_of_a_step(asked, tmp_path):
    """accelerate launch on two CPU processes (gloo): each draws its own answers, and both learn the same from all."""
    files.write_text("rewards/even.py", EVEN)

    def by_even(raw):
        raw["train"] |= {"steps": 4, "batch_size": 8, "log_every": 1, "warmup_steps": 1}
        raw["methods"]["lora_grpo"]["reward"] = {
            "functions": {"rewards/even.py": 1.0},
            "config": EARNED.learns_by.config | {"beta": 0.1},
            "train": {"lr": 0.002, "warmup_steps": 0},
        }
        raw["run"] |= {"methods": ["lora_grpo"]}

    row, _ = Launcher(asked, tmp_path / "bin", by_even).two("lora_grpo")
    assert [point["step"] for point in row["reward_curve"]] == [1, 2, 3, 4]
    assert row["reward_curve"][0]["kl"] == pytest.approx(0, abs=1e-6) and row["reward_curve"][-1]["kl"] > 0
    assert all(0 <= point["reward"] <= 1 and point["grad_norm"] > 0 for point in row["reward_curve"])


# --- parts of a step, and what goes wrong


def test_rows_that_the_stage_is_judged_by_belong_to_what_a_killed_run_goes_on_from(asked):
    job, valid = EARNED.job(asked, METHODS["lora"]), asked / "tokens/valid.parquet"
    judged = replace(job.method, reward=replace(job.method.reward, train={"valid_every": 1}))
    before = [training._workplace(one).name for one in (job, replace(job, method=judged))]
    was = valid.stat()
    os.utime(valid, (was.st_atime, was.st_mtime + 1))
    after = [training._workplace(one).name for one in (job, replace(job, method=judged))]
    os.utime(valid, (was.st_atime, was.st_mtime))
    assert after[0] == before[0] and after[1] != before[1]


def paid_by(monkeypatch, text, functions=()):
    """From here on answers earn what a file of this text says, and these functions."""
    names = dict.fromkeys(("rewards/own.py", *functions), 1.0)
    monkeypatch.setattr(reward, "_scoring", lambda job: scoring(names, None, {"rewards/own.py": text}))


def test_a_reward_that_says_nothing_of_any_answer_is_refused(asked, monkeypatch):
    paid_by(monkeypatch, "def reward(answer, expected): return None")
    with pytest.raises(UserError, match=r"methods\.x\.reward\.functions: .* says nothing of any expected answer in .*"):
        EARNED.rehearse(asked, tuned(asked, METHODS["lora"], steps=0), METHODS["lora"])


def test_a_reward_that_leaves_out_some_answers_is_refused_before_supervised_tuning(asked, monkeypatch):
    paid_by(monkeypatch, "def reward(answer, expected): return 1.0 if answer else None")
    with pytest.raises(UserError, match=r"rewards/own\.py: reward gave None for the answer .* give a number, 0"):
        EARNED.rehearse(asked, tuned(asked, METHODS["lora"], steps=0), METHODS["lora"])


def test_a_reward_that_leaves_out_an_answer_of_the_model_ends_the_training(asked, monkeypatch):
    paid_by(monkeypatch, "def reward(answer, expected): return 1.0 if answer == expected else None", ["f1"])
    with pytest.raises(UserError, match=r"rewards/own\.py: reward gave None for the answer .* and a number for"):
        tune(asked, tuned(asked, METHODS["lora"]), METHODS["lora"], steps=1)


def test_what_validation_answers_earn_is_the_mean_over_all_questions_that_are_judged(asked, monkeypatch):
    """Whatever is answered to them: by these functions one answer earns 2 of one half of the questions, and 1 of the
    other; of a third question nothing is said."""
    kind = "int(expected.split()[0]) % 3"
    paid_by(monkeypatch, f"def reward(answer, expected): return [None, 1.0, 2.0][{kind}]")
    rows = files.read_table(asked / "tokens/valid.parquet")
    known = [value for row in rows if (value := int(row["answer"].split()[0]) % 3)]
    assert 0 < len(known) < len(rows) and len(set(known)) == 2
    row = tune(asked, tuned(asked, METHODS["lora"]), METHODS["lora"], steps=1)
    assert row["valid_reward"] == pytest.approx(sum(known) / len(known))


@pytest.mark.parametrize(
    ("text", "said"), [("0.0", True), ("float(expected.split()[0])", True), ("len(answer)", False)]
)
def test_where_no_answer_earned_more_than_another_it_is_said_once(asked, monkeypatch, capsys, text, said):
    """Answers to other questions may: they are not compared."""
    paid_by(monkeypatch, f"def reward(answer, expected): return {text}")
    tune(asked, tuned(asked, METHODS["lora"]), METHODS["lora"], steps=3)
    found = "x: warning: in none of 3 steps did an answer earn more than another to the same question"
    assert capsys.readouterr().err.count(found) == said


# --- what cannot be, before anything is trained


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
    with pytest.raises(UserError) as error:
        EARNED.rehearse(asked, tuned(asked, METHODS["lora"], steps=0), METHODS["lora"], **config)
    assert str(error.value).startswith(f"params.yaml: methods.x.{said}")
