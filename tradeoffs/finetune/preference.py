"""What follows supervised tuning where a methods block has a `stage`: TRL's trainer, on pairs of answers.

Direct preference optimisation (DPO, Rafailov et al. 2023, arXiv 2305.18290) makes the chosen answer of a pair more
likely than the rejected one, as measured against a reference. The reference is the model as supervised tuning left it.
Its log-probabilities are computed once, before the first step, and kept: so there is neither a second model nor a
second adapter in memory, and adapters of any PEFT type, quantised bases and full weights all go the same way.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from tradeoffs.common import files, settings
from tradeoffs.common.batching import length_batches
from tradeoffs.finetune import adapters, batches, pair_trainer, preparing
from tradeoffs.finetune.job import Job, Loaded
from tradeoffs.finetune.pair_trainer import REFERENCE, PairProgress
from tradeoffs.finetune.progress import Told, matrix_peak
from tradeoffs.finetune.training_state import SavedState, saving
from tradeoffs.finetune.validation import Validation
from tradeoffs.params import Train
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
    budget = settings.lasting(job.preference_budget, len(train))
    arguments = preparing.arguments(job, budget, loaded.dtype, scratch)
    batch_tokens = loaded.batch_tokens if budget.batch_tokens == "auto" else budget.batch_tokens
    longest = max(_length(pair) for pair in (*train, *valid, *test))
    at_once = _at_once(arguments.per_device_train_batch_size, batch_tokens // longest)
    order = batches.schedule([_length(pair) for pair in train], budget.batch_size, budget.steps, job.training.seed)
    train = train[: max(order) + 1]  # a budget of less than one pass takes the first ones only

    with _without_trainers(loaded.model), _out_of_memory_said(job, at_once, longest):
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
        progress, validation = _follow(trainer, job, budget, loaded, saved, earlier, watch, measure)
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
            f"{pair_trainer.stage_of(job).kind}"
        )
    return splits


def _follow(
    trainer: Any,
    job: Job,
    budget: Train,
    loaded: Loaded,
    saved: SavedState,
    earlier: dict[str, Any],
    watch: Watch,
    measure: Callable[[], dict[str, float]],
) -> tuple[PairProgress, Validation]:
    """What shows the steps, what judges them, and what keeps them, is called at each."""
    peak = matrix_peak(trainer.args.device, loaded.dtype)
    progress = PairProgress(trainer, budget.steps, budget.log_every, loaded.work, peak, earlier)
    saved.bind(trainer, progress)
    if job.method.peft == "ADALORA":
        # Its ranks are settled: beyond the last of its own steps the schedule only keeps them as they are.
        settled = loaded.model.active_peft_config.total_step
        trainer.add_callback(adapters.AdaLoraSchedule(settled + saved.first_step))
    validation = Validation(f"{job.training}, {job.method.stage}", progress, budget, saved.folder, measure)
    for callback in (progress, validation, Told(progress, watch, part="preference"), saved):
        trainer.add_callback(callback)
    return progress, validation


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


@contextmanager
def _without_trainers(model: Any) -> Iterator[None]:
    """Within the block the model's forward is its own, and after it what it was before: trainers hang theirs on it.

    So is its padding token, which TRL writes into configurations that full weights are saved with.
    """
    modules = [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]
    names = ("forward", "_original_forward", "_is_accelerate_prepared")  # the last: or the next trainer does nothing
    before = [{name: module.__dict__.pop(name) for name in names if name in module.__dict__} for module in modules]
    for module, found in zip(modules, before, strict=True):
        if forward := found.get("_original_forward", found.get("forward")):
            module.forward = forward
    configurations = [model.config.get_text_config(), model.generation_config]
    padding = [configuration.pad_token_id for configuration in configurations]
    try:
        yield
    finally:
        for module, found in zip(modules, before, strict=True):
            for name in names:
                module.__dict__.pop(name, None)
            module.__dict__.update(found)
        for configuration, pad in zip(configurations, padding, strict=True):
            configuration.pad_token_id = pad


@contextmanager
def _out_of_memory_said(job: Job, at_once: int, longest: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise UserError(
            f"params.yaml: methods.{job.name}.preference.train: out of memory with {at_once} pairs of up to {longest} "
            "tokens at a time; lower batch_tokens, or set gradient_checkpointing"
        ) from error


def _at_once(batch_size: int, fitting: int) -> int:
    """The most pairs, of those that fit, into which a device's part of the batch can be cut evenly."""
    return max(size for size in range(1, batch_size + 1) if batch_size % size == 0 and size <= max(1, fitting))


def _length(pair: Pair) -> int:
    """Of both answers with their prompt, padded to the longer one."""
    return 2 * (len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])))
