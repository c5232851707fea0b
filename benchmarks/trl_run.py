"""One fine-tuning run of TRL's SFTTrainer, in a setting of benchmarks.training_run: the peer's process."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.data_utils import pack_dataset

from benchmarks import common
from benchmarks.common import SCRATCH
from benchmarks.training_run import BATCH, FIELDS, LOADING, LORA, RATES, SEED, TOKENS, tokenised
from tradeoffs.common import files
from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.finetune import batches


def train(method: str, checkpoint: str, steps: str, setting: str) -> None:
    """The process that is timed."""
    options = setting.split("+")
    rows = in_our_order(Path(checkpoint), int(steps))
    trainer = SFTTrainer(
        model=checkpoint,
        args=SFTConfig(**arguments(method, options, rows, int(steps))),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA) if method == "lora" else None,
    )
    packed = "packing" in options
    found = {"packing_difference": packing_difference(trainer)} if packed and "bf16" not in options else {}
    ends = StepEnds()
    trainer.add_callback(ends)
    trainer.train()
    peak = peak_memory_mb()
    log = [entry for entry in trainer.state.log_history if "learning_rate" in entry]
    tokens = [entry["num_tokens"] for entry in log]  # so far
    data: Any = trainer.train_dataset
    common.say(
        {
            "tokens_per_second": (tokens[-1] - tokens[0]) / (ends.times[-1] - ends.times[0]),
            "final_loss": loss_on_held_out(trainer.model),
            "first_loss": log[0]["loss"],
            "peak_memory_mb": peak,
            "steps": len(data) if packed else int(steps),
            "examples": sum(len(lengths) for lengths in data["seq_lengths"]) if packed else len(rows),
            "tokens": tokens[-1],
            **found,
        }
    )


def in_our_order(checkpoint: Path, steps: int) -> Dataset:
    """The examples of all steps, one after the other, tokenised."""
    examples = tokenised(checkpoint)
    order = batches.schedule([len(ids) for ids, _ in examples], BATCH, steps, SEED)
    return Dataset.from_list(
        [{"input_ids": examples[i][0].tolist(), "completion_mask": examples[i][1].astype(int).tolist()} for i in order]
    )


def arguments(method: str, options: list[str], rows: Dataset, steps: int) -> dict[str, Any]:
    """Fields of SFTConfig: what every setting has, and what its options add."""
    made: dict[str, Any] = {
        "output_dir": str(SCRATCH / f"trl-{method}"),
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "learning_rate": RATES[method],
        "seed": SEED,
        "train_sampling_strategy": "sequential",
        "completion_only_loss": True,  # what it takes for rows of prompt and completion; these are tokenised already
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }
    for option in options:
        made |= FIELDS.get(option, {})
    if "packing" in options:
        made["max_length"] = packed_length(rows, steps)
    loading = {key: value for option in options for key, value in LOADING.get(option, {}).items()}
    return made | {"model_init_kwargs": loading or None}


def packed_length(rows: Dataset, steps: int) -> int:
    """The shortest row for packing at which all examples go into `steps` rows, a row to a step."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    length = max(math.ceil(sum(lengths) / steps), *lengths)
    while len(pack_dataset(rows.select_columns("input_ids"), length)) > steps:
        length += 1
    return length


class StepEnds(TrainerCallback):
    """When each optimiser step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())


def packing_difference(trainer: Any) -> float:
    """The largest difference of a log-probability between a packed row and its examples alone, weights as loaded.

    0 but for rounding, where attention keeps the examples of a row apart.
    """
    row = trainer.train_dataset[0]
    batch = trainer.data_collator([row])
    ids = batch["input_ids"]
    trainer.model.eval()
    with torch.no_grad():
        packed = trainer.model(input_ids=ids, position_ids=batch["position_ids"], use_cache=False).logits
        alone = [trainer.model(input_ids=part).logits for part in ids.split(row["seq_lengths"], dim=1)]
    return (packed.log_softmax(-1) - torch.cat(alone, dim=1).log_softmax(-1)).abs().max().item()


def loss_on_held_out(model: Any) -> float:
    """Mean cross-entropy per scored token of valid.parquet, in nats, under autocast as ours."""
    batch = batches.collate(
        batches.read_examples(TOKENS / "valid.parquet"), files.read_json(TOKENS / "info.json")["pad_id"]
    )
    labels = batch["labels"][:, 1:]
    model.eval()
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16):
        logits = model(input_ids=batch["input_ids"].to(model.device)).logits[:, :-1].float().cpu()
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=batches.IGNORED).item()
