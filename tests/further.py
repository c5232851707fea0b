"""A tiny model, tuned for a few steps, that goes on with a stage of TRL's: on pairs, or by what its answers earn."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tiny
import torch
import trl
from tiny import TINY_TRAIN
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from tradeoffs.common import files
from tradeoffs.finetune import adapters, batches, pair_trainer, preference, reward, reward_trainer, training
from tradeoffs.finetune.job import Job, Loaded
from tradeoffs.methods.trl_stages import STAGES
from tradeoffs.models.loading import load_model
from tradeoffs.params import Method, Preference, Reward, Train
from tradeoffs.tokenize.tables import TOKENS

# What a random model can learn at once: the share of words that are even numbers.
EVEN = """
def reward(answer, expected):
    words = answer.split()
    return sum(int(word) % 2 == 0 for word in words) / len(words) if words else 0.0
"""
BUDGET = replace(TINY_TRAIN, steps=6, lr=0.002, log_every=2, save_every=2)


@dataclass(frozen=True)
class Further:
    """A stage as tests ask for it: by what, in which budget, killed at so many of so many steps."""

    stage: str
    module: Any  # with `tune`
    trainer: type  # what is mixed into that of TRL
    theirs: type
    learns_by: Preference | Reward
    budget: Train
    steps: int
    kills: int
    referring: dict[str, Any]  # of its configuration: with it, the reference counts
    measured: tuple[str, ...]  # of a point of the curve, the reference among it
    valid: str  # in the row of data/training

    @property
    def block(self) -> str:
        return STAGES[self.stage].block

    def method(self, method: Method, train: dict[str, Any] | None = None, **config: Any) -> Method:
        """`method` with this stage, in a budget of its own or in that of the job."""
        found = (method.preference if self is PAIRS else None) or self.learns_by
        own = replace(found, train=train, config=found.config | config)
        return replace(method, train=None, stage=self.stage, **{self.block: own})

    def job(self, work: Path, method: Method, budget: Train | None = None, **config: Any) -> Job:
        """The job `x`."""
        return tiny.job(work, "x", self.method(method, **config), budget or self.budget)

    def rehearse(self, work: Path, model: Any, method: Method, **config: Any) -> None:
        training.REHEARSALS[self.stage](self.job(work, method, **config), model)

    def tune(
        self,
        work: Path,
        model: Any,
        method: Method,
        dtype: torch.dtype = torch.float32,
        scratch: str = "scratch",
        batch_tokens: int = 4096,
        config: dict[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Goes on with a tuned model for a few steps; the stage's part of the row of data/training."""
        job = self.job(work, method, replace(self.budget, **changes), **(config or {}))
        Path(scratch).mkdir(exist_ok=True)
        loaded = Loaded(model, dtype, None, batch_tokens, trainable=0, total=250_000)
        return self.module.tune(job, loaded, Path(scratch))


PAIRS = Further(
    stage="dpo",
    module=preference,
    trainer=pair_trainer.PairTrainer,
    theirs=trl.DPOTrainer,
    learns_by=Preference({"beta": 0.1, "loss_type": ["sigmoid"]}),
    budget=BUDGET,
    steps=12,
    kills=4,
    referring={},
    measured=("reward_accuracy", "reward_margin", "token_accuracy"),
    valid="valid_reward_accuracy",
)
EARNED = Further(
    stage="grpo",
    module=reward,
    trainer=reward_trainer.RewardTrainer,
    theirs=trl.GRPOTrainer,
    learns_by=Reward(
        {"rewards/even.py": 1.0},
        {"num_generations": 4, "max_completion_length": 6},
        code={"rewards/even.py": EVEN},
    ),
    budget=replace(BUDGET, batch_size=8),
    steps=9,
    kills=3,
    referring={"beta": 0.05},
    measured=("reward", "reward_spread", "kl", "entropy", "answer_tokens"),
    valid="valid_reward",
)
FURTHER = {one.stage: one for one in (PAIRS, EARNED)}


def make_questions(folder: Path, base: Path) -> Path:
    """A folder with a base, and questions with answers in words that are numbers."""
    (folder / "base").symlink_to(base)
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


def tuned(work: Path, method: Method, dtype: torch.dtype = torch.float32, steps: int = 6) -> Any:
    """A model after a few steps of supervised tuning."""
    torch.manual_seed(0)
    model: Any = load_model(work / "base", method.load, dtype)
    if method.peft:
        model = adapters.add_adapter(model, adapters.configuration("x", method, steps), "x")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.002)
    examples = batches.read_examples(work / "tokens/train.parquet")
    for step in range(1, steps + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model.train()(**batches.collate(examples[:8], 0)).loss
        loss.backward()
        optimizer.step()
        if method.peft == "ADALORA":
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    return model


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
