"""What follows supervised tuning where a methods block has `stage: grpo`: TRL's trainer, on what answers earn.

Group relative policy optimisation (GRPO, Shao et al. 2024, arXiv 2402.03300) lets the model answer each question
several times, and makes those answers more likely that earn more than the others to the same question. The questions
and the expected answers are those of supervised tuning.
"""

import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import GenerationConfig
from trl import GRPOConfig

from tradeoffs.common import files, settings
from tradeoffs.common.batching import length_batches
from tradeoffs.finetune import batches, preparing, reward_trainer, trl_trainer
from tradeoffs.finetune.job import Job, Loaded
from tradeoffs.finetune.reward_trainer import Reading, RewardProgress, answering
from tradeoffs.finetune.trainer import virtual_tokens
from tradeoffs.finetune.training_state import SavedState
from tradeoffs.finetune.validation import LOSS
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.live import NOBODY, Watch
from tradeoffs.rewards.scoring import Scoring, scoring

Row = dict[str, Any]  # of train.parquet: ids, prompt_tokens, prompt and answer


def rehearse(job: Job, model: Any) -> None:
    """Whether the reward, TRL and the model's context will do, before anything is trained. Raises UserError."""
    size, answers = job.stage_budget.batch_size, _chosen(job, "num_generations")
    if answers < 2 or size % answers:
        raise UserError(
            f"params.yaml: {trl_trainer.place(job)}: batch_size ({size} answers a step) must be a multiple of "
            f"config.num_generations ({answers} answers to each question), which must be 2 at least"
        )
    earns = _scoring(job)
    reward_trainer.rehearse(job, model, earns)
    rows = [row for split in ("train", "valid") for row in _known(job, earns, split)]
    earns.try_out(rows)
    longest = max(row["prompt_tokens"] for row in rows) + virtual_tokens(model)
    context, answer = model.config.get_text_config().max_position_embeddings, _chosen(job, "max_completion_length")
    if longest + answer > context:
        raise UserError(
            f"params.yaml: {trl_trainer.place(job)}.config.max_completion_length: {answer} tokens of an answer after "
            f"the longest question, which has {longest}, are more than the model's context of {context}; lower it"
        )


def tune(job: Job, loaded: Loaded, scratch: Path, watch: Watch = NOBODY) -> dict[str, Any]:
    """Goes on with the tuned model, in place, on the questions of the job's cell.

    `scratch` keeps what a killed run had done, from where the next one goes on and ends with the same weights.

    Returns this stage's part of the row of data/training. `reward_loss` is TRL's loss, the mean over the last tenth of
    the steps; `reward_seconds` the loop alone; `valid_reward` what the most likely answers to the validation questions
    earn, the mean over all of which some function says something; `reward_curve` the points. With `valid_every` points
    hold that too, and as their `valid_loss` its negative. What training.train says of steps is here with `reward_`
    before its name. Raises UserError when no question can earn anything, when the reward fails or leaves out some
    answers to a question, when TRL refuses the configuration, when memory does not suffice, and when the loss is no
    longer a number.
    """
    earns = _scoring(job)
    train, valid = (_known(job, earns, split) for split in ("train", "valid"))
    # A pass is over the questions, and a step counts the answers to them.
    budget = settings.lasting(job.stage_budget, len(train) * _chosen(job, "num_generations"))
    arguments = preparing.arguments(job, budget, loaded.dtype, scratch)
    batch_tokens = loaded.batch_tokens if budget.batch_tokens == "auto" else budget.batch_tokens
    longest = max(row["prompt_tokens"] for row in (*train, *valid)) + _chosen(job, "max_completion_length")
    at_once = trl_trainer.at_once(arguments.per_device_train_batch_size, batch_tokens // longest)
    info = files.read_json(job.cell.tokens / "info.json")
    reading = Reading(Tokenizer.from_file(str(job.cell.tokens / "tokenizer.json")), info["stop_ids"], info["pad_id"])
    what = f"{at_once} answers of up to {longest} tokens, with their questions, at a time"
    with trl_trainer.without_trainers(loaded.model), trl_trainer.out_of_memory_said(job, what):
        trainer = reward_trainer.make(job, loaded.model, arguments, at_once, earns, reading)
        # Answers are drawn once for so many steps, and are not kept: a run goes on where new ones are drawn.
        rounds = trainer.num_iterations
        saved = SavedState(scratch, -(-budget.save_every // rounds) * rounds)
        earlier = preparing.optimise(trainer, loaded.model, job, budget, saved)
        if saved.first_step:
            where = f"step {saved.first_step} of {budget.steps}"
            print(f"{job.name}: {job.method.stage} was cut short; going on after {where}")
        at_a_time = budget.batch_size // trainer.num_generations
        asked = _asked(job, train, at_a_time, -(-budget.steps // rounds))
        trainer.train_dataset = Dataset.from_list(asked[saved.first_step // rounds * at_a_time :])
        # A token goes through the model to be drawn, by the reference, and to be learned from.
        work = loaded.work + 2 * loaded.total * (2 if trainer.beta else 1)
        progress = RewardProgress(trainer, budget, loaded, work, earlier)
        measure = partial(_validation, trainer, valid, batch_tokens)
        validation = trl_trainer.follow(trainer, job, budget, progress, saved, watch, measure)
        trainer.train()
        kept = validation.keep()
        earned = _rewards(trainer, valid, batch_tokens)
        if trainer.is_world_process_zero() and not _any_apart(trainer, progress):
            print(_nothing_to_learn(job, budget.steps), file=sys.stderr)

    return {
        **{f"reward_{name}": value for name, value in validation.facts(kept).items()},
        "reward_loss": progress.final_loss(kept),
        "reward_seconds": progress.state()["seconds"],
        "valid_reward": statistics.fmean(earned),
        "reward_curve": progress.points,
    }


def _any_apart(trainer: Any, progress: RewardProgress) -> bool:
    """Whether some answer earned more than another to its question. Of steps before a kill only their points are known:
    a spread in them may be that of different questions, and counts."""
    earlier = [point for point in progress.points if point["step"] <= trainer.first_step]
    return trainer.apart or any(point.get("reward_spread") != 0 for point in earlier)


def _nothing_to_learn(job: Job, steps: int) -> str:
    return (
        f"{job.name}: warning: in none of {steps} steps did an answer earn more than another to the same question, so "
        f"nothing could be learned from them. Look at `reward` in the reward_curve of {job.training.facts}: where it "
        f"is 0, supervised tuning may be too short, {trl_trainer.place(job)}.config.max_completion_length too small, "
        "or its functions give nothing for answers that are nearly right (f1 does); where all is earned already, there "
        "is nothing left to learn; and where all answers to a question are the same, raise its config.temperature"
    )


def _scoring(job: Job) -> Scoring:
    wanted = job.method.reward
    assert wanted  # as params.yaml is checked
    return scoring(wanted.functions, wanted.answer_pattern, wanted.code or {})


def _known(job: Job, earns: Scoring, split: str) -> list[Row]:
    """The rows of a split whose answers can earn something. Raises UserError where there are none."""
    path = job.cell.tokens / f"{split}.parquet"
    found = earns.known(files.read_table(path))
    if not found:
        raise UserError(
            f"params.yaml: {trl_trainer.place(job)}.functions: {', '.join(earns.functions)} says nothing of any "
            f"expected answer in {path}; name one that does"
        )
    return found


def _chosen(job: Job, field: str) -> int:
    """A field of TRL's configuration, by the methods block or by TRL."""
    wanted = job.method.reward
    return int((wanted.config if wanted else {}).get(field, getattr(GRPOConfig, field)))


def _asked(job: Job, rows: list[Row], at_a_time: int, rounds: int) -> list[dict[str, Any]]:
    """The questions of all rounds, `at_a_time` in each, in the order in which they are asked."""
    order = batches.schedule([row["prompt_tokens"] for row in rows], at_a_time, rounds, job.training.seed)
    return [
        {"prompt": list(row["ids"][: row["prompt_tokens"]]), "expected": row["answer"], "question": row["prompt"]}
        for row in (rows[index] for index in order)
    ]


def _validation(trainer: Any, rows: list[Row], batch_tokens: int) -> dict[str, float]:
    """By what the steps are judged: what answers earn, and as a loss the negative of it."""
    reward = statistics.fmean(_rewards(trainer, rows, batch_tokens))
    return {LOSS: -reward, "valid_reward": reward}


def _rewards(trainer: Any, rows: list[Row], batch_tokens: int) -> list[float]:
    """What the most likely answer to each question earns; `rows` are those of which some function says something."""
    model, reading, most = trainer.model, trainer.reading, trainer.max_completion_length
    config = GenerationConfig(
        do_sample=False, max_new_tokens=most, eos_token_id=reading.stop_ids, pad_token_id=reading.pad_id
    )
    prompts = [list(row["ids"][: row["prompt_tokens"]]) for row in rows]
    parts = length_batches([len(prompt) + most for prompt in prompts], batch_tokens)
    found: list[float] = []
    with torch.no_grad(), answering(model), trainer.accelerator.autocast():
        for part in tqdm(parts, desc="answers", leave=False, disable=trainer.args.process_index != 0):
            width = max(len(prompts[index]) for index in part)
            padding = [width - len(prompts[index]) for index in part]
            ids = [[reading.pad_id] * pad + prompts[index] for pad, index in zip(padding, part, strict=True)]
            mask = [[0] * pad + [1] * (width - pad) for pad in padding]
            inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
            inputs = {name: values.to(trainer.args.device) for name, values in inputs.items()}
            out = model.generate(**inputs, generation_config=config)[:, width:].tolist()
            for index, answer in zip(part, out, strict=True):
                row = rows[index]
                said = trainer.scoring.each(reading.text(answer), row["answer"], row["prompt"])
                found.append(trainer.scoring.total(said))
    return found
