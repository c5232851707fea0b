"""What follows supervised tuning where a methods block has a `stage`: TRL's trainer, on pairs of answers.

Direct preference optimisation (DPO, Rafailov et al. 2023, arXiv 2305.18290) makes the chosen answer of a pair more
likely than the rejected one, as measured against a reference. The reference is the model as supervised tuning left it.
Its log-probabilities are computed once, before the first step, and kept: so there is neither a second model nor a
second adapter in memory, and adapters of any PEFT type, quantised bases and full weights all go the same way.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from tradeoffs.common import files, settings
from tradeoffs.common.batching import length_batches
from tradeoffs.finetune import batches, pair_trainer, preparing, trl_trainer
from tradeoffs.finetune.job import Job, Loaded
from tradeoffs.finetune.pair_trainer import REFERENCE
from tradeoffs.finetune.training_state import SavedState, saving
from tradeoffs.finetune.trl_trainer import StageProgress
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.live import NOBODY, Watch

Pair = dict[str, Any]  # a row of pairs.parquet


def tune(job: Job, loaded: Loaded, scratch: Path, watch: Watch = NOBODY) -> dict[str, Any]:
    """Goes on with the tuned model, in place, on the pairs of the job's cell.

    `scratch` keeps what a killed run had done, from where the next one goes on and ends with the same weights.

    Returns this stage's part of the row of data/training. `preference_loss` is TRL's loss, the mean over the last tenth
    of the steps; `preference_seconds` the loop alone; `reward_margins`, per test pair in the order of pairs.parquet,
    the reward of the chosen answer minus that of the rejected one; `valid_reward_accuracy` the share of validation
    pairs whose margin is above 0; `preference_curve` the points. An answer's reward is beta times the log-probability
    that it has gained over the reference, summed over its tokens, in nats. With `valid_every` points hold
    `valid_loss`, TRL's loss on the validation pairs, and what else the stage measures, on these. What training.train
    says of steps is here with `preference_` before its name. Raises UserError when there are no pairs, when TRL refuses
    the configuration, when memory does not suffice, and when the loss is no longer a number.
    """
    train, valid, test = _read_pairs(job)
    budget = settings.lasting(job.stage_budget, len(train))
    arguments = preparing.arguments(job, budget, loaded.dtype, scratch)
    batch_tokens = loaded.batch_tokens if budget.batch_tokens == "auto" else budget.batch_tokens
    longest = max(_length(pair) for pair in (*train, *valid, *test))
    at_once = trl_trainer.at_once(arguments.per_device_train_batch_size, batch_tokens // longest)
    order = batches.schedule([_length(pair) for pair in train], budget.batch_size, budget.steps, job.training.seed)
    train = train[: max(order) + 1]  # a budget of less than one pass takes the first ones only

    what = f"{at_once} pairs of up to {longest} tokens at a time"
    with trl_trainer.without_trainers(loaded.model), trl_trainer.out_of_memory_said(job, what):
        pad_id = files.read_json(job.cell.tokens / "info.json")["pad_id"]
        trainer = pair_trainer.make(job, loaded.model, arguments, at_once, pad_id)
        known = _reference(trainer, [*train, *valid, *test], batch_tokens, scratch / "reference.safetensors")
        saved = SavedState(scratch, budget.save_every)
        earlier = preparing.optimise(trainer, loaded.model, job, budget, saved)
        if saved.first_step:
            where = f"step {saved.first_step} of {budget.steps}"
            print(f"{job.name}: {job.method.stage} was cut short; going on after {where}")
        rows = [
            pair | dict(zip(REFERENCE, found.tolist(), strict=True))
            for pair, found in zip([*train, *valid], known, strict=False)
        ]
        dataset = Dataset.from_list(rows[: len(train)])
        trainer.train_dataset = dataset.select(order[saved.first_step * budget.batch_size :])
        parts = length_batches([_length(pair) for pair in valid], batch_tokens)
        measure = partial(trainer.loss_on, rows[len(train) :], parts)
        progress = StageProgress(trainer, budget, loaded, loaded.work, earlier)
        validation = trl_trainer.follow(trainer, job, budget, progress, saved, watch, measure)
        trainer.train()
        kept = validation.keep()
        gained = _log_probabilities(trainer, [*valid, *test], batch_tokens) - known[len(train) :]
        margins = (trainer.beta * (gained[:, 0] - gained[:, 1])).tolist()

    return {
        **{f"preference_{name}": value for name, value in validation.facts(kept).items()},
        "preference_loss": progress.final_loss(kept),
        "preference_seconds": progress.state()["seconds"],
        "valid_reward_accuracy": sum(margin > 0 for margin in margins[: len(valid)]) / len(valid),
        "reward_margins": margins[len(valid) :],
        "preference_curve": progress.points,
    }


def _read_pairs(job: Job) -> list[list[Pair]]:
    """Of train, valid and test. Raises UserError if there are none."""
    path = job.cell.tokens / "pairs.parquet"
    pairs = files.read_table(path)
    splits = [[pair for pair in pairs if pair["split"] == split] for split in ("train", "valid", "test")]
    if not all(splits):
        raise UserError(
            f"{path}: has no pairs; stage {job.method.stage} learns from a data set of kind "
            f"{trl_trainer.stage_of(job).kind}"
        )
    return splits


def _reference(trainer: Any, pairs: Sequence[Pair], batch_tokens: int, path: Path) -> Tensor:
    """Log-probabilities by the model before the first step; from `path`, if an earlier run has left them there."""
    if not path.is_file():
        found = _log_probabilities(trainer, pairs, batch_tokens)
        if trainer.args.process_index > 0:
            return found
        with saving(path), files.new_file(path) as target:
            save_file({"reference": found}, target)
    return load_file(path)["reference"]


def _log_probabilities(trainer: Any, pairs: Sequence[Pair], batch_tokens: int) -> Tensor:
    """Of the chosen and of the rejected answer given the prompt, summed over tokens, in nats; float32 (pairs, 2)."""
    args, found = trainer.args, torch.zeros(len(pairs), 2)
    trainer.model.eval()
    parts = length_batches([_length(pair) for pair in pairs], batch_tokens)[args.process_index :: args.world_size]
    for part in tqdm(parts, desc="log-probabilities", leave=False, disable=args.process_index != 0):
        batch = trainer.data_collator([pairs[i] for i in part])
        sums = trainer.compute_ref_log_probs(
            trainer.model, {key: value.to(args.device) for key, value in batch.items()}
        )
        found[part] = torch.stack(sums, dim=1).float().cpu()
    if args.world_size > 1:
        found = found.to(args.device)
        torch.distributed.all_reduce(found)
    return found.cpu()


def _length(pair: Pair) -> int:
    """Of both answers with their prompt, padded to the longer one."""
    return 2 * (len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])))
