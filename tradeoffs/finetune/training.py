"""Training one method on one base: transformers' Trainer as the loop, PEFT for the methods."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import set_seed
from transformers.utils import is_flash_attn_2_available

from tradeoffs.common import files, unfinished
from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.finetune import adapters, batches, pair_trainer, preference, preparing, processes, reward, weights
from tradeoffs.finetune.batches import Example
from tradeoffs.finetune.job import Job, Loaded
from tradeoffs.finetune.progress import Progress, Told, matrix_peak
from tradeoffs.finetune.trainer import StepTrainer, virtual_tokens
from tradeoffs.finetune.training_state import SavedState, saving
from tradeoffs.finetune.validation import LOSS, Validation
from tradeoffs.models import checkpoints
from tradeoffs.models.forward import auto_batch
from tradeoffs.models.loading import compute_dtype, device, load_model
from tradeoffs.params import Train, layers
from tradeoffs.plumbing import clock
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.live import NOBODY, Watch

# What may follow supervised tuning (`stage`), and what of it is tried before.
FURTHER = {"dpo": preference.tune, "grpo": reward.tune}
REHEARSALS = {"dpo": pair_trainer.rehearse, "grpo": reward.rehearse}
EAGER_LENGTH = 512  # on a CPU plain attention is up to a fifth faster than the fused one; for longer rows it is neither


def train(job: Job, folder: Path, watch: Watch = NOBODY) -> dict[str, Any]:
    """Trains the job's method on its cell's base and tokens, writes the adapter or the full weights to `folder`.

    Returns the row of data/training. `train_loss` is the mean cross-entropy per scored token, in nats, over the last
    tenth of the steps, without the penalty that a method adds for itself (AdaLoRA's orthogonality), so that methods
    compare; `valid_loss` the same over valid.parquet, after training; `train_tokens_per_second` counts real tokens, no
    padding, over `train_seconds`, the loop alone. All are of the weights that are kept, those after `kept_step` of the
    `train_steps` that were made; what measuring the validation loss on the way took is `valid_seconds`. A run that was
    killed goes on from its last saved state and ends with the same bytes. `epochs` are passes over the training
    examples. Raises UserError when the method does not fit the model, or when the loss is no longer a number.
    """
    tokens = job.cell.tokens
    examples = batches.read_examples(tokens / "train.parquet")
    job = job.on(len(examples))
    budget = job.budget
    _check(job)
    order = batches.schedule([len(ids) for ids, _ in examples], budget.batch_size, budget.steps, job.training.seed)
    rows = [examples[index] for index in order]

    _reproducible(job.training.seed)
    loaded = _load(job, examples)
    scratch = _workplace(job)
    # A shard is no state to go on from: such a run, once killed, begins anew.
    saved = SavedState(scratch / "sft", every=budget.steps + 1 if processes.sharded() else budget.save_every)
    trainer, progress, validation = _set_up(job, loaded, rows, saved, watch)
    if not validation.finished:
        trainer.train()
    watch.update(progress.points)  # all of them, also where an earlier run made the last
    kept = validation.keep()
    weights.require_finite(loaded.model)

    facts: dict[str, Any] = validation.facts(kept)
    if job.method.stage:
        _make_room(trainer, saved, progress.taken)
        facts |= FURTHER[job.method.stage](job, loaded, scratch / job.method.stage, watch)
        weights.require_finite(loaded.model)
    if job.method.peft == "ADALORA":
        facts |= adapters.adalora_ranks(loaded.model)
    # By every process: where weights are sharded, each holds a part.
    facts["valid_loss"] = trainer.loss_on(batches.read_examples(tokens / "valid.parquet"))
    gathered = weights.whole(loaded.model) if processes.sharded() else None
    if processes.rank() == 0:
        with saving(folder):
            weights.save(loaded.model, gathered, folder)
    seconds, seen = progress.state()["seconds"], rows[: progress.taken * budget.batch_size]
    return {
        "epochs": budget.steps * budget.batch_size / len(examples),
        "batch_size": budget.batch_size,
        "lr": budget.lr,
        "config": job.method.config or {},
        "trainable_params": loaded.trainable,
        "total_params": loaded.total,
        "adapter_mb": sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6,
        "train_seconds": seconds,
        "train_tokens_per_second": sum(len(ids) for ids, _ in seen) / seconds,
        **_peak_memory(),
        "train_loss": progress.final_loss(kept),
        **facts,
        "curve": progress.points,
    }


def _check(job: Job) -> None:
    """Raises UserError for a method that cannot be trained in the way that is asked for, before anything is loaded."""
    where, method = f"methods.{job.name}", job.method
    if problems := list(layers.budget_problems(f"{job.cell}: train", job.budget, job.name, method)):
        raise UserError(f"params.yaml: {problems[0]}")
    if job.budget.gradient_checkpointing and method.peft in ("PREFIX_TUNING", "CARTRIDGE"):
        raise UserError(
            f"{where}: gradient_checkpointing would drop the prefix that {method.peft} trains; set it to false"
        )
    if processes.sharded() and job.budget.keep == "best":
        raise UserError(
            f"{where}: launch.train shards the weights (FSDP), and no state of such a run is saved to go back to; set "
            "train.keep to last"
        )
    if processes.sharded() and (method.peft or method.stage):
        raise UserError(
            f"{where}: launch.train shards the weights (FSDP), which is for full fine-tuning alone; launch this "
            "method with configs/accelerate/one_node.yaml"
        )


def _reproducible(seed: int) -> None:
    """Same seed, same machine: same bytes."""
    set_seed(seed)
    if device().type == "cuda":
        torch.cuda.set_device(processes.local_rank())
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _load(job: Job, examples: Sequence[Example]) -> Loaded:
    """The base with what the method trains of it, on the device; what the method's next stage would refuse is said."""
    method, budget = job.method, job.budget
    config = adapters.configuration(job.name, method, budget.steps) if method.peft else None
    dtype = compute_dtype(method)
    attention = _attention(budget, dtype, examples)
    with clock.loading():
        model: Any = load_model(
            job.cell.base,
            method.load,
            # Full fine-tuning keeps float32 master weights: bfloat16 would round most updates away.
            torch.float32 if method.full else dtype,
            attention=attention,
            double_quant=bool(method.double_quant),
        )
        if config:
            model = adapters.add_adapter(model, config, job.name)
    if method.stage:
        REHEARSALS[method.stage](job, model)
    if budget.compile:
        _compile(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Loaded(
        model,
        dtype,
        attention,
        batch_tokens=_auto_batch(model, dtype) if budget.batch_tokens == "auto" else budget.batch_tokens,
        trainable=trainable,
        total=checkpoints.parameters(job.cell.base) + (trainable if method.peft else 0),
    )


def _attention(budget: Train, dtype: torch.dtype, examples: Sequence[Example]) -> str | None:
    """What `train.attention: auto` comes to on this machine, for rows of these lengths; None: transformers' choice."""
    if budget.attention != "auto":
        return budget.attention
    if device().type == "cuda":
        return "flash_attention_2" if is_flash_attn_2_available() and dtype.itemsize == 2 else None
    return "eager" if max(len(ids) for ids, _ in examples) <= EAGER_LENGTH else None


def _compile(model: Any) -> None:
    """torch.compile of the repeated blocks, one by one: seconds instead of minutes, and names stay what they are."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    for block in inner.modules():
        if type(block).__name__ in inner._no_split_modules:
            block.compile(dynamic=True)


def _auto_batch(model: Any, dtype: torch.dtype) -> int:
    """By the activations that a token leaves for the way back: of its attention and its feed-forward, in all layers."""
    config = model.config.get_text_config()
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    per_token = config.num_hidden_layers * (18 * config.hidden_size + 4 * wide) * dtype.itemsize
    return auto_batch(per_token, device(), weights=torch.cuda.memory_allocated())


def _workplace(job: Job) -> Path:
    """Where a run that is killed leaves what it has done, by all that decides its result."""
    cell, method, seed = job.cell, job.method, job.training.seed
    inputs = [cell.base, cell.tokens / "train.parquet", *([cell.tokens / "pairs.parquet"] if method.preference else [])]
    if job.budget.valid_every or job.stage_budget.valid_every:  # decides which weights are kept, and where it ends
        inputs.append(cell.tokens / "valid.parquet")
    where = torch.cuda.get_device_name() if device().type == "cuda" else "cpu"
    settings = (method, job.budget, seed, where, processes.count())
    return unfinished.workplace(f"finetune/{job.training}", inputs, *settings, first=processes.rank() == 0)


def _set_up(
    job: Job, loaded: Loaded, rows: list[Example], saved: SavedState, watch: Watch
) -> tuple[StepTrainer, Progress, Validation]:
    """The trainer of supervised tuning, ready for the `rows`, in this order, that no earlier run has trained on."""
    budget, model = job.budget, loaded.model
    trainer = StepTrainer(
        model=model,
        args=preparing.arguments(job, budget, loaded.dtype, saved.folder),
        pad_id=files.read_json(job.cell.tokens / "info.json")["pad_id"],
        batch_tokens=loaded.batch_tokens,
        packed=loaded.attention == "flash_attention_2" and _rows_may_be_joined(model),
    )
    earlier = preparing.optimise(trainer, model, job, budget, saved)
    if saved.first_step:
        print(f"{job.training}: an earlier run was cut short; going on after step {saved.first_step} of {budget.steps}")
    trainer.train_dataset = rows[saved.first_step * budget.batch_size :]
    peak = matrix_peak(device(), loaded.dtype)
    progress = Progress(trainer, budget.steps, budget.log_every, loaded.work, peak, earlier)
    saved.bind(trainer, progress)
    settled = 0
    if job.method.peft == "ADALORA":
        trainer.add_callback(adapters.AdaLoraSchedule(saved.first_step))
        settled = model.active_peft_config.total_step - model.active_peft_config.tfinal
    held_out = batches.read_examples(job.cell.tokens / "valid.parquet")
    validation = Validation(
        str(job.training), progress, budget, saved.folder, lambda: {LOSS: trainer.loss_on(held_out)}, settled
    )
    for callback in (progress, validation, Told(progress, watch), saved):
        trainer.add_callback(callback)
    return trainer, progress, validation


def _rows_may_be_joined(model: Any) -> bool:
    """Not where something is put in front of every row, or looked for in it (activated LoRA)."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return not virtual_tokens(model) and not getattr(config, "alora_invocation_tokens", None)


def _make_room(trainer: Any, saved: SavedState, steps: int) -> None:
    """Saves what was tuned in `steps` steps, and frees the optimiser, which is of no use to the next stage: it holds
    two moments for each weight."""
    if processes.rank() == 0 and saved.first_step < steps:
        saved.save(steps, trainer.model, trainer.optimizer, trainer.lr_scheduler)
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
    trainer.accelerator.free_memory()


def _peak_memory() -> dict[str, float]:
    peak = {"peak_memory_mb": peak_memory_mb()}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        peak["peak_gpu_memory_reserved_mb"] = torch.cuda.max_memory_reserved() / 1e6
    return peak
