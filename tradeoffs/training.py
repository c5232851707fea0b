"""Training one method on one base: transformers' Trainer as the loop, PEFT for the methods."""

import json
import math
import os
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, SchedulerType, Trainer, TrainingArguments, set_seed

from tradeoffs import adapters, batches, checkpoints, clock, files
from tradeoffs.errors import UserError
from tradeoffs.loading import device, load_model, training_dtype
from tradeoffs.memory import peak_memory_mb
from tradeoffs.params import Method, Train

SCRATCH = Path(".scratch/finetune")


def train(
    base: Path, tokens: Path, folder: Path, name: str, method: Method, shared: Train, seed: int
) -> dict[str, Any]:
    """Trains `methods.{name}` on the base checkpoint, writes the adapter or the full weights to `folder`.

    Returns the row of data/training. `train_loss` is the mean cross-entropy per scored token, in nats, over the last
    tenth of the steps, without the penalty that a method adds for itself (AdaLoRA's orthogonality), so that methods
    compare; `train_tokens_per_second` counts real tokens, no padding, over `train_seconds`, the loop alone.
    Raises UserError when the method does not fit the model, or when the loss is no longer a number.
    """
    budget = method.budget(shared)
    if budget.schedule not in list(SchedulerType):
        raise UserError(
            f"params.yaml: train.schedule: unknown {budget.schedule!r} (there are: {', '.join(SchedulerType)})"
        )
    config = adapters.configuration(name, method, budget.steps) if method.peft else None
    examples = batches.read_examples(tokens / "train.parquet")
    pad_id = files.read_json(tokens / "info.json")["pad_id"]
    order = batches.schedule([len(ids) for ids, _ in examples], budget.batch_size, budget.steps, seed)
    set_seed(seed)
    if device().type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
        torch.use_deterministic_algorithms(True, warn_only=True)

    with clock.loading():
        # Full fine-tuning keeps float32 master weights: bfloat16 would round most updates away.
        model: Any = load_model(base, method.load, torch.float32 if method.full else training_dtype())
        if config:
            model = adapters.add_adapter(model, config, name)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)

    trainer = _Trainer(
        model=model,
        args=_arguments(budget, seed, folder.name),
        train_dataset=[examples[index] for index in order],
        data_collator=partial(batches.collate, pad_id=pad_id),
        callbacks=[adapters.AdaLoraSchedule()] if method.peft == "ADALORA" else [],
    )
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    _require_finite(model)

    facts = adapters.adalora_ranks(model) if method.peft == "ADALORA" else {}
    if trainer.is_world_process_zero():
        _save(model, folder)
    losses = trainer.losses()
    last = losses[-math.ceil(len(losses) / 10) :]
    return {
        "trainable_params": trainable,
        "total_params": checkpoints.parameters(base) + (trainable if method.peft else 0),
        "adapter_mb": sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6,
        "train_seconds": seconds,
        "train_tokens_per_second": sum(len(examples[index][0]) for index in order) / seconds,
        **_peak_memory(),
        "train_loss": sum(last) / len(last),
        **facts,
        "curve": _curve(losses, trainer.state.log_history),
    }


class _Trainer(Trainer):
    """Stops at the first loss that is not finite, and keeps the cross-entropy of every step."""

    def __init__(self, model: PreTrainedModel | PeftModel, **kwargs: Any):
        super().__init__(model=model, **kwargs)
        self._cross_entropies: list[torch.Tensor] = []
        # Taken where the model computes it: AdaLoRA adds its penalty to the same tensor afterwards.
        inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        cross_entropy = inner.loss_function

        def recorded(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss = cross_entropy(*args, **kwargs)
            self._cross_entropies.append(loss.detach().clone())
            return loss

        inner.loss_function = recorded

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss is {loss.item()} at step {self.state.global_step + 1} of {self.state.max_steps}; "
                f"lower train.lr (here {self.args.learning_rate:g}) or raise train.warmup_steps"
            )
        return loss

    def losses(self) -> list[float]:
        """Mean cross-entropy per scored token of each step, in nats; of several devices, this one's share scaled up."""
        return (torch.stack(self._cross_entropies).float() * self.args.world_size).tolist()


def _arguments(budget: Train, seed: int, name: str) -> TrainingArguments:
    cpu = device().type == "cpu"
    devices = int(os.environ.get("WORLD_SIZE", "1"))  # set by accelerate launch
    if budget.batch_size % devices:
        raise UserError(
            f"params.yaml: train.batch_size: {budget.batch_size} examples cannot be shared by {devices} devices"
        )
    arguments = TrainingArguments(
        output_dir=str(SCRATCH / name),
        max_steps=budget.steps,
        per_device_train_batch_size=budget.batch_size // devices,
        learning_rate=budget.lr,
        lr_scheduler_type=budget.schedule,
        warmup_steps=budget.warmup_steps,
        weight_decay=budget.weight_decay,
        max_grad_norm=budget.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=training_dtype() == torch.bfloat16,
        use_cpu=cpu,
        seed=seed,
        train_sampling_strategy="sequential",  # batches.schedule has decided the order
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        logging_steps=budget.log_every,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
    )
    # Several GPUs take part through accelerate launch; DataParallel would multiply the batch in silence.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _require_finite(model: torch.nn.Module) -> None:
    """The last step's update comes after the last loss, so the weights themselves are looked at."""
    for name, trained in model.named_parameters():
        if trained.requires_grad and not torch.isfinite(trained).all():
            raise UserError(f"{name} is no longer finite after the last training step; lower train.lr")


def _save(model: Any, folder: Path) -> None:
    if not isinstance(model, PeftModel):
        del model._loss_function  # the recorder belongs to the training, not to the model
        model.save_pretrained(folder)
        return
    with warnings.catch_warnings():
        # AdaLoRA may leave a matrix no rank at all; PEFT takes that for a save that lost something.
        warnings.filterwarnings("ignore", message=r".*LoRA tensor\(s\) have invalid shape")
        # The embeddings never change size here, so they are never part of an adapter.
        model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # an empty model card
    # PEFT writes its sets in an order that differs from process to process.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _curve(losses: list[float], log: list[dict[str, float]]) -> list[dict[str, float]]:
    """A point per logged step: mean cross-entropy since the point before, learning rate and gradient norm."""
    points, before = [], 0
    for entry in log:
        if "learning_rate" not in entry:  # the summary at the end
            continue
        step = int(entry["step"])
        since = losses[before:step]
        point = {"step": step, "loss": sum(since) / len(since), "lr": entry["learning_rate"]}
        if "grad_norm" in entry:
            point["grad_norm"] = entry["grad_norm"]
        points.append(point)
        before = step
    return points


def _peak_memory() -> dict[str, float]:
    peak = {"peak_memory_mb": peak_memory_mb()}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return peak
