"""What the trainers of both stages, supervised tuning and what follows it, are told and given before the first step."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, get_scheduler

from tradeoffs.finetune import adapters, processes
from tradeoffs.finetune.job import Job
from tradeoffs.finetune.training_state import SavedState
from tradeoffs.models.loading import device
from tradeoffs.params import Train
from tradeoffs.plumbing.errors import UserError


def arguments(job: Job, budget: Train, dtype: torch.dtype, scratch: Path) -> TrainingArguments:
    """A trainer's arguments for a budget of the job; saved states lie in `scratch`.

    Raises UserError if the processes cannot share a batch.
    """
    cpu = device().type == "cpu"
    devices = processes.count()
    if budget.batch_size % devices:
        raise UserError(
            f"params.yaml: train.batch_size: {budget.batch_size} examples cannot be shared by {devices} devices"
        )
    made = TrainingArguments(
        output_dir=str(scratch),
        max_steps=budget.steps,
        per_device_train_batch_size=budget.batch_size // devices,
        learning_rate=budget.lr,
        lr_scheduler_type=budget.schedule,
        warmup_steps=budget.warmup_steps,
        weight_decay=budget.weight_decay,
        max_grad_norm=budget.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=cpu,
        seed=job.training.seed,
        train_sampling_strategy="sequential",  # batches.schedule has decided the order
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        logging_strategy="no",  # Progress says when
        logging_nan_inf_filter=False,
        activation_checkpointing=budget.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        save_strategy="no",
        disable_tqdm=True,  # Progress has its own bar
        report_to="none",
    )
    # Several GPUs take part through accelerate launch; DataParallel would multiply the batch in silence.
    made._n_gpu = min(made.n_gpu, 1)
    return made


def optimise(trainer: Any, model: Any, job: Job, budget: Train, saved: SavedState) -> dict[str, Any]:
    """Gives `trainer` its optimiser and its schedule, and puts everything where an earlier run, cut short, left it.

    Returns what was shown of that run (Progress.state()), {} for a new one.
    """
    trainer.optimizer = adapters.optimizer(model, job.method, budget)  # None: the Trainer's own
    optimizer = trainer.create_optimizer()
    trainer.lr_scheduler = get_scheduler(budget.schedule, optimizer, budget.warmup_steps, budget.steps)
    earlier = saved.restore(model, optimizer, trainer.lr_scheduler)
    trainer.go_on_after(saved.first_step, budget.steps)
    return earlier
