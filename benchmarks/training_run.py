"""One fine-tuning run, ours and TRL's SFTTrainer in several settings: what train_lora and train_full have in common.

All train the same checkpoint on the same examples in the same number of steps, with the same learning rates. TRL gets
the rows in our order, in an unshuffled data set. Each run is a process; what counts is its training loop without the
first step, in real tokens (no padding) a second, and that the loss on rows that nobody trained on ends where ours does.
"""

import os
import statistics
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks import assets, common
from benchmarks.common import SCRATCH
from tradeoffs.common import files
from tradeoffs.finetune.batches import Example

DATA = "data/instructions/instruction-data.json"
TOKENS = SCRATCH / "instruction-tokens"
BATCH, SEED, HELD_OUT = 8, 7, 32
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
RATES = {"lora": 2e-4, "full": 2e-5}
STEPS = {"lora": 6, "full": 5}  # three repetitions of all settings then take about eight minutes on two cores
TOLERANCE = 0.02  # of the final loss; a setting that ends elsewhere has not done the same work
# TRL's settings: fields of SFTConfig, and how the model is loaded. The defaults come first. Gradient checkpointing
# costs time to save memory, of which there is enough, so all others go without it.
FIELDS: dict[str, dict[str, Any]] = {
    "no_checkpointing": {"gradient_checkpointing": False},
    # A row of packed examples is a step's batch; see packed_length.
    "packing": {"packing": True, "shuffle_dataset": True, "per_device_train_batch_size": 1},
}
LOADING = {"bf16": {"dtype": "bfloat16"}, "eager": {"attn_implementation": "eager"}}
SETTINGS = (
    "defaults",
    "no_checkpointing",
    "no_checkpointing+bf16",
    "no_checkpointing+packing",
    "no_checkpointing+eager",
    "no_checkpointing+bf16+eager",
)


def compare(method: str, target: float, arguments: Namespace) -> None:
    """Runs all sides and writes results/train_<method>.json."""
    steps = 3 if arguments.quick else STEPS[method]
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    script = [sys.executable, "-m", f"benchmarks.train_{method}"]
    commands: dict[str, list[object]] = {
        "ours": [*script, "ours", checkpoint, steps],
        **{setting: [*script, "peer", checkpoint, steps, setting] for setting in SETTINGS},
    }
    sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
    found = {side: summary([common.said(output) for output in sides[side].outputs]) for side in sides}
    ours = found["ours"]
    for setting in SETTINGS:
        found[setting]["final_loss_relative_difference"] = abs(found[setting]["final_loss"] / ours["final_loss"] - 1)
    theirs = common.Peer(
        {setting: 1000 / found[setting]["tokens_per_second"] for setting in SETTINGS},
        {setting: why for setting in SETTINGS if (why := not_the_same(found[setting], ours))},
    )
    best = found[theirs.best]
    common.write(
        f"train_{method}",
        1000 / ours["tokens_per_second"],
        theirs,
        {"final_loss_relative_difference": best["final_loss_relative_difference"]},
        quick=arguments.quick,
        at_least={"ratio": target},
        at_most={"final_loss_relative_difference": TOLERANCE, "peak_memory_ratio": 1.2},
        peak_memory_ratio=ours["peak_memory_mb"] / best["peak_memory_mb"],
        sides=found,
        process_seconds={side: sides[side].seconds for side in sides},
        compared=f"{steps} steps of {BATCH} examples of {DATA}, {method}, SmolLM2-135M's shape with random weights; "
        "seconds are those of 1,000 real tokens in the training loop, the first step left out; every figure is the "
        f"median over the repetitions; final_loss is the mean over the scored tokens of {HELD_OUT} rows that nobody "
        "trained on, after the last step",
        peer="trl.SFTTrainer with its defaults (float32 weights, bf16 autocast, gradient checkpointing) and in the "
        "settings named, on the same ids in the same order. packing: as many rows as steps, in an order of its own; "
        "its documentation asks for FlashAttention, which no CPU has; transformers then keeps packed examples apart by "
        "a mask made of their position_ids: packing_difference is the largest difference of a log-probability between "
        "a packed row and its examples alone",
        commands={side: common.shown(command) for side, command in commands.items()},
    )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of what a side's repetitions reported, and each of its speeds."""
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return medians | {"repetitions": [run["tokens_per_second"] for run in runs]}


def not_the_same(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """Why a setting of the peer is not counted; None where it does what ours does."""
    if (theirs["steps"], theirs["examples"]) != (ours["steps"], ours["examples"]):
        return f"{theirs['steps']:g} steps and {theirs['examples']:g} examples"
    if (off := theirs["final_loss_relative_difference"]) > TOLERANCE:
        return f"its final loss is {off:.1%} off"
    return None


def ours(method: str, checkpoint: str, steps: str) -> None:
    """A process that is timed."""
    from benchmarks import tuning
    from tradeoffs.finetune import batches
    from tradeoffs.params import Method, Train

    examples = tokenised(Path(checkpoint))
    order = batches.schedule([len(ids) for ids, _ in examples], BATCH, int(steps), SEED)
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
        log_every=1,
        save_every=10**6,
        valid_every=0,
        keep="last",
        patience=0,
    )
    tuned = Method(full=True) if method == "full" else Method(peft="LORA", config=LORA)
    with files.new_folder(SCRATCH / f"trained-{method}") as out:
        row = tuning.train(Path(checkpoint), TOKENS, out, method, tuned, budget, SEED)
    tokens = [sum(len(examples[i][0]) for i in order[at : at + BATCH]) for at in range(0, len(order), BATCH)]
    seconds = [count / point["tokens_per_second"] for count, point in zip(tokens, row["curve"], strict=True)]
    common.say(
        {
            "tokens_per_second": sum(tokens[1:]) / sum(seconds[1:]),
            "final_loss": row["valid_loss"],
            "first_loss": row["curve"][0]["loss"],
            "peak_memory_mb": row["peak_memory_mb"],
            "steps": int(steps),
            "examples": len(order),
            "tokens": sum(tokens),
        }
    )


def tokenised(checkpoint: Path) -> list[Example]:
    """The training rows as `stages.tokenize` makes them, kept in TOKENS; the last HELD_OUT rows are valid.parquet."""
    from transformers import AutoTokenizer

    from tradeoffs.finetune import batches
    from tradeoffs.tokenize import chat, tables

    if not (TOKENS / "info.json").is_file():
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        stops = chat.stop_ids(tokenizer, checkpoint)
        made = list(chat.instruction_rows(tokenizer, rows(), 512, stops, Path(DATA)))
        files.write_table(TOKENS / "train.parquet", made[:-HELD_OUT], tables.TOKENS)
        files.write_table(TOKENS / "valid.parquet", made[-HELD_OUT:], tables.TOKENS)
        files.write_json(TOKENS / "info.json", {"pad_id": chat.pad_id(tokenizer)})
    return batches.read_examples(TOKENS / "train.parquet")


def rows() -> list[dict[str, Any]]:
    """Id, question and answer of every row that has an answer."""
    found = files.read_json(assets.find(DATA))
    return [
        {
            "id": str(number),
            "prompt": "\n\n".join(part for part in (row["instruction"], row["input"]) if part),
            "answer": row["output"],
        }
        for number, row in enumerate(row for row in found if row["output"])
    ]


def run(method: str, target: float) -> None:
    """The command line of a script: without arguments the comparison, with `ours` or `peer` one timed side."""
    if sys.argv[1:2] == ["ours"]:
        os.chdir(common.ROOT)
        ours(method, *sys.argv[2:])
    elif sys.argv[1:2] == ["peer"]:
        from benchmarks import trl_run

        trl_run.train(method, *sys.argv[2:])
    else:
        common.run(lambda arguments: compare(method, target, arguments))
