"""Training one method on one base: transformers' Trainer as the loop, PEFT for the methods."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments, get_scheduler, set_seed
from transformers.utils import is_flash_attn_2_available

from tradeoffs.common import files, unfinished
from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.finetune import adapters, batches, preference
from tradeoffs.finetune.batches import Example
from tradeoffs.finetune.progress import Progress, Told, matrix_peak
from tradeoffs.finetune.trainer import StepTrainer, virtual_tokens
from tradeoffs.finetune.training_state import SavedState, saving
from tradeoffs.models import checkpoints
from tradeoffs.models.forward import auto_batch
from tradeoffs.models.loading import compute_dtype, device, load_model
from tradeoffs.params import Method, Train
from tradeoffs.plumbing import clock
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.live import NOBODY, Watch

EAGER_LENGTH = 512  # on a CPU plain attention is up to a fifth faster than the fused one; for longer rows it is neither


def train(
    base: Path, tokens: Path, folder: Path, name: str, method: Method, shared: Train, watch: Watch = NOBODY
) -> dict[str, Any]:
    """Trains `methods.{name}` on the base checkpoint, writes the adapter or the full weights to `folder`.

    Returns the row of data/training. `train_loss` is the mean cross-entropy per scored token, in nats, over the last
    tenth of the steps, without the penalty that a method adds for itself (AdaLoRA's orthogonality), so that methods
    compare; `valid_loss` the same over valid.parquet, after training; `train_tokens_per_second` counts real tokens, no
    padding, over `train_seconds`, the loop alone. A run that was killed goes on from its last saved state and ends with
    the same bytes. Raises UserError when the method does not fit the model, or when the loss is no longer a number.
    """
    budget = method.budget(shared)
    config = adapters.configuration(name, method, budget.steps) if method.peft else None
    examples = batches.read_examples(tokens / "train.parquet")
    order = batches.schedule([len(ids) for ids, _ in examples], budget.batch_size, budget.steps, budget.seed)
    if budget.gradient_checkpointing and method.peft in ("PREFIX_TUNING", "CARTRIDGE"):
        raise UserError(
            f"methods.{name}: gradient_checkpointing would drop the prefix that {method.peft} trains; set it to false"
        )
    _reproducible(budget.seed)

    dtype = compute_dtype(method)
    attention = _attention(budget, dtype, examples)
    with clock.loading():
        model: Any = load_model(
            base,
            method.load,
            # Full fine-tuning keeps float32 master weights: bfloat16 would round most updates away.
            torch.float32 if method.full else dtype,
            attention=attention,
            double_quant=bool(method.double_quant),
        )
        if config:
            model = adapters.add_adapter(model, config, name)
    if method.stage:
        preference.rehearse(name, method, model)
    if budget.compile:
        _compile(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = checkpoints.parameters(base) + (trainable if method.peft else 0)

    rank, cell = int(os.environ.get("RANK", "0")), folder.name.strip(".").removesuffix(".unfinished")
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"  # set by accelerate launch
    if sharded and (method.peft or method.stage):
        raise UserError(
            f"methods.{name}: launch.train shards the weights (FSDP), which is for full fine-tuning alone; launch this "
            "method with configs/accelerate/one_node.yaml"
        )
    inputs = [base, tokens / "train.parquet", *([tokens / "pairs.parquet"] if method.stage else [])]
    where = torch.cuda.get_device_name() if device().type == "cuda" else "cpu"
    processes = os.environ.get("WORLD_SIZE", "1")
    scratch = unfinished.workplace(f"finetune/{cell}", inputs, method, budget, where, processes, first=rank == 0)
    # A shard is no state to go on from: such a run, once killed, begins anew.
    saved = SavedState(scratch / "sft", every=budget.steps + 1 if sharded else budget.save_every)
    batch_tokens = _auto_batch(model, dtype) if budget.batch_tokens == "auto" else budget.batch_tokens
    trainer = StepTrainer(
        model=model,
        args=_arguments(budget, dtype, scratch / "sft"),
        pad_id=files.read_json(tokens / "info.json")["pad_id"],
        batch_tokens=batch_tokens,
        packed=attention == "flash_attention_2" and _rows_may_be_joined(model),
    )
    trainer.optimizer = adapters.optimizer(model, method, budget)  # None: the Trainer's own
    optimizer = trainer.create_optimizer()
    trainer.lr_scheduler = get_scheduler(budget.schedule, optimizer, budget.warmup_steps, budget.steps)
    earlier = saved.restore(model, optimizer, trainer.lr_scheduler)
    if saved.first_step:
        print(f"{cell}: an earlier run was cut short; going on after step {saved.first_step} of {budget.steps}")
    trainer.go_on_after(saved.first_step, budget.steps)
    trainer.train_dataset = [examples[index] for index in order[saved.first_step * budget.batch_size :]]
    # A token goes forward through all weights, its gradient back through all of them and into those that train.
    work = 2 * total + 2 * total + 2 * trainable
    progress = Progress(trainer, budget.steps, budget.log_every, work, matrix_peak(device(), dtype), earlier)
    saved.bind(trainer, progress)
    if method.peft == "ADALORA":
        trainer.add_callback(adapters.AdaLoraSchedule(saved.first_step))
    trainer.add_callback(progress)
    trainer.add_callback(Told(progress, watch))
    trainer.add_callback(saved)
    if saved.first_step < budget.steps:
        trainer.train()
    _require_finite(model)

    facts: dict[str, Any] = {}
    if method.stage:
        if rank == 0 and saved.first_step < budget.steps:
            saved.save(budget.steps, model, optimizer, trainer.lr_scheduler)
        del optimizer  # two moments for each weight, of no use to the next stage
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
        trainer.accelerator.free_memory()
        second = method.preference_budget(shared)
        arguments = _arguments(second, dtype, scratch / method.stage)
        if second.batch_tokens != "auto":
            batch_tokens = second.batch_tokens
        facts = preference.tune(model, tokens, name, method, second, arguments, batch_tokens, work, watch)
        _require_finite(model)
    if method.peft == "ADALORA":
        facts |= adapters.adalora_ranks(model)
    # By every process: where weights are sharded, each holds a part.
    facts["valid_loss"] = trainer.loss_on(batches.read_examples(tokens / "valid.parquet"))
    weights = whole_weights(model) if sharded else None
    if rank == 0:
        with saving(folder):
            _save(model, weights, folder)
    found = progress.state()
    last = found["losses"][-math.ceil(budget.steps / 10) :]
    return {
        "trainable_params": trainable,
        "total_params": total,
        "adapter_mb": sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6,
        "train_seconds": found["seconds"],
        "train_tokens_per_second": sum(len(examples[index][0]) for index in order) / found["seconds"],
        **_peak_memory(),
        "train_loss": sum(last) / len(last),
        **facts,
        "curve": found["points"],
    }


def _reproducible(seed: int) -> None:
    """Same seed, same machine: same bytes."""
    set_seed(seed)
    if device().type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # of several processes each has a GPU
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _rows_may_be_joined(model: Any) -> bool:
    """Not where something is put in front of every row, or looked for in it (activated LoRA)."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return not virtual_tokens(model) and not getattr(config, "alora_invocation_tokens", None)


def _compile(model: Any) -> None:
    """torch.compile of the repeated blocks, one by one: seconds instead of minutes, and names stay what they are."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    for block in inner.modules():
        if type(block).__name__ in inner._no_split_modules:
            block.compile(dynamic=True)


def _attention(budget: Train, dtype: torch.dtype, examples: Sequence[Example]) -> str | None:
    """What `train.attention: auto` comes to on this machine, for rows of these lengths; None: transformers' choice."""
    if budget.attention != "auto":
        return budget.attention
    if device().type == "cuda":
        return "flash_attention_2" if is_flash_attn_2_available() and dtype.itemsize == 2 else None
    return "eager" if max(len(ids) for ids, _ in examples) <= EAGER_LENGTH else None


def _auto_batch(model: Any, dtype: torch.dtype) -> int:
    """By the activations that a token leaves for the way back: of its attention and its feed-forward, in all layers."""
    config = model.config.get_text_config()
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    per_token = config.num_hidden_layers * (18 * config.hidden_size + 4 * wide) * dtype.itemsize
    return auto_batch(per_token, device(), weights=torch.cuda.memory_allocated())


def _arguments(budget: Train, dtype: torch.dtype, scratch: Path) -> TrainingArguments:
    cpu = device().type == "cpu"
    devices = int(os.environ.get("WORLD_SIZE", "1"))  # set by accelerate launch
    if budget.batch_size % devices:
        raise UserError(
            f"params.yaml: train.batch_size: {budget.batch_size} examples cannot be shared by {devices} devices"
        )
    arguments = TrainingArguments(
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
        seed=budget.seed,
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
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _require_finite(model: torch.nn.Module) -> None:
    """The last step's update comes after the last loss, so the weights themselves are looked at."""
    for name, trained in model.named_parameters():
        mine = trained.to_local() if isinstance(trained, DTensor) else trained  # of weights that are sharded
        if trained.requires_grad and not torch.isfinite(mine).all():
            raise UserError(f"{name} is no longer finite after the last training step; lower train.lr")


def whole_weights(model: torch.nn.Module) -> dict[str, Any]:
    """The weights of a model that is sharded over processes, gathered in the first one's memory; all must call it."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _save(model: Any, weights: dict[str, Any] | None, folder: Path) -> None:
    if isinstance(model, PeftModel):
        adapters.save_adapter(model, folder)
        return
    del model._loss_function  # the recorder belongs to the training, not to the model
    model.save_pretrained(folder, state_dict=weights)


def _peak_memory() -> dict[str, float]:
    peak = {"peak_memory_mb": peak_memory_mb()}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return peak
