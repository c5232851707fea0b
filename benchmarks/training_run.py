"""One fine-tuning run, ours and TRL's SFTTrainer: what train_lora and train_full have in common.

Both train the same checkpoint on the same token ids in the same steps, with the same learning rates. TRL gets the rows
in an unshuffled data set and runs with its defaults otherwise. Each side is a process; what counts is its training
loop, in real tokens (no padding) a second.
"""

import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks import assets, common
from benchmarks.common import SCRATCH
from tradeoffs.common import files
from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.finetune.batches import Example

DATA = "data/instructions/instruction-data.json"
BATCH, SEED = 8, 7
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
RATES = {"lora": 2e-4, "full": 2e-5}


def compare(method: str, target: float, arguments: Namespace) -> None:
    """Runs both sides and writes results/train_<method>.json."""
    steps = 4 if arguments.quick else 40
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    commands: dict[str, list[object]] = {
        side: [sys.executable, "-m", f"benchmarks.train_{method}", side, checkpoint, steps] for side in ("ours", "peer")
    }
    sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
    found = {side: common.said(sides[side].output) for side in sides}
    loss = {side: found[side]["final_loss"] for side in found}
    speed = {side: found[side]["tokens"] / found[side]["seconds"] for side in found}
    common.write(
        f"train_{method}",
        found["ours"]["seconds"],
        found["peer"]["seconds"],
        {"final_loss_relative_difference": abs(loss["ours"] / loss["peer"] - 1)},
        quick=arguments.quick,
        tokens_per_second=speed,
        tokens_per_second_ratio=speed["ours"] / speed["peer"],
        target={"tokens_per_second_ratio": target, "final_loss_relative_difference": 0.02, "peak_memory_ratio": 1.2},
        peak_memory_mb={side: found[side]["peak_memory_mb"] for side in found},
        peak_memory_ratio=found["ours"]["peak_memory_mb"] / found["peer"]["peak_memory_mb"],
        final_loss=loss,
        first_loss={side: found[side]["first_loss"] for side in found},
        tokens={side: found[side]["tokens"] for side in found},
        process_seconds={side: sides[side].seconds for side in sides},
        compared=f"{steps} steps of {BATCH} examples of {DATA}, {method}, SmolLM2-135M's shape with random "
        "weights; seconds and tokens are those of the training loop of the last repetition; final_loss is the mean "
        "over the last quarter of the steps",
        peer="trl.SFTTrainer with its defaults (float32 weights, bf16 autocast, gradient checkpointing), the same ids "
        "in the same order",
        commands={side: common.shown(command) for side, command in commands.items()},
    )


def rows() -> list[tuple[str, str]]:
    """Question and answer of every row."""
    found = files.read_json(assets.find(DATA))
    return [
        ("\n\n".join(part for part in (row["instruction"], row["input"]) if part), row["output"])
        for row in found
        if row["output"]
    ]


def ours(method: str, checkpoint: str, steps: str) -> None:
    from tradeoffs.params import Method, Train

    folder = SCRATCH / f"train-{method}"
    tokenised(method, Path(checkpoint))
    budget = Train(
        steps=int(steps),
        batch_size=BATCH,
        lr=RATES[method],
        schedule="linear",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        batch_tokens="auto",
        gradient_checkpointing=False,
        attention="auto",
        compile=False,
        seed=SEED,
        log_every=1,
        save_every=10**6,
    )
    tuned = Method(full=True) if method == "full" else Method(peft="LORA", config=LORA)
    with files.new_folder(folder / "trained") as out:
        row = common.train(Path(checkpoint), folder, out, method, tuned, budget)
    report([point["loss"] for point in row["curve"]], row["train_seconds"], row["train_tokens_per_second"])


def tokenised(method: str, checkpoint: Path) -> list[Example]:
    """The examples as `stages.tokenize` makes them, from SCRATCH/train-<method>/train.parquet."""
    from transformers import AutoTokenizer

    from tradeoffs.finetune import batches
    from tradeoffs.tokenize import chat
    from tradeoffs.tokenize.tables import TOKENS

    folder = SCRATCH / f"train-{method}"
    if not (folder / "info.json").is_file():
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        examples = [{"id": str(n), "prompt": prompt, "answer": answer} for n, (prompt, answer) in enumerate(rows())]
        stops = chat.stop_ids(tokenizer, checkpoint)
        made = list(chat.instruction_rows(tokenizer, examples, 512, stops, Path(DATA)))
        files.write_table(folder / "train.parquet", made, TOKENS)
        files.write_table(folder / "valid.parquet", made[:BATCH], TOKENS)  # scored after the loop, not timed
        files.write_json(folder / "info.json", {"pad_id": chat.pad_id(tokenizer)})
    return batches.read_examples(folder / "train.parquet")


def peer(method: str, checkpoint: str, steps: str) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from tradeoffs.finetune import batches

    examples = tokenised(method, Path(checkpoint))
    order = batches.schedule([len(ids) for ids, _ in examples], BATCH, int(steps), SEED)
    rows = [
        {"input_ids": examples[i][0].tolist(), "completion_mask": examples[i][1].astype(int).tolist()} for i in order
    ]
    trainer = SFTTrainer(
        model=checkpoint,
        args=SFTConfig(
            output_dir=str(SCRATCH / f"trl-{method}"),
            max_steps=int(steps),
            per_device_train_batch_size=BATCH,
            learning_rate=RATES[method],
            seed=SEED,
            train_sampling_strategy="sequential",
            completion_only_loss=True,  # what it takes for rows of prompt and completion; these are tokenised already
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA) if method == "lora" else None,
    )
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    log = [entry for entry in trainer.state.log_history if "learning_rate" in entry]
    report([entry["loss"] for entry in log], seconds, log[-1]["num_tokens"] / seconds)


def report(losses: list[float], seconds: float, tokens_per_second: float) -> None:
    last = losses[-max(1, len(losses) // 4) :]
    common.say(
        {
            "seconds": seconds,
            "tokens": tokens_per_second * seconds,
            "first_loss": losses[0],
            "final_loss": sum(last) / len(last),
            "peak_memory_mb": peak_memory_mb(),
        }
    )


def run(method: str, target: float) -> None:
    """The command line of a script: without arguments the comparison, with `ours` or `peer` one timed side."""
    sides = {"ours": ours, "peer": peer}
    if sys.argv[1:2] and sys.argv[1] in sides:
        os.chdir(common.ROOT)
        sides[sys.argv[1]](method, *sys.argv[2:])
    else:
        common.run(lambda arguments: compare(method, target, arguments))
