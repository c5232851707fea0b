"""One small random model per family, with its real tokenizer: the bf16 checkpoint in transformers against its GGUF.

    python -m benchmarks.zoo [--quick]

The model as it is, and with a LoRA tuned and merged into it. The same token ids go through both runtimes; they agree if
the loss and the most likely tokens are the same. transformers computes with the checkpoint's bf16 weights in float32,
which says whether the file holds the model, and in bf16, as the precision bf16 is evaluated, which adds the rounding of
that arithmetic. Every quant of the catalogue must be made of the tuned model and load. This shows that conversion keeps
the model, family by family, so nothing is timed.
"""

import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import assets, common, families, ggufs
from benchmarks.common import SCRATCH
from tradeoffs import merging, params
from tradeoffs.common import files
from tradeoffs.evaluate.runtime import Target
from tradeoffs.formats.names import QUANTS
from tradeoffs.models import checkpoints

TEXT = "data/wikitext2/wikitext2_train_5k.txt"
MODELS = SCRATCH / "zoo"
# Tuned on rows that follow the compared windows, enough to move every logit and not so much that a model of random
# weights says the same token everywhere: the most likely ones would then agree for nothing.
STEPS, LR, ROWS, WINDOW = 20, 3e-4, 80, 64


def main(arguments: Namespace) -> None:
    windows, length = (2, 128) if arguments.quick else (20, 512)
    models = make(MODELS)
    if arguments.make:
        return
    rows: dict[str, dict[str, Any]] = {}
    for family in families.NAMES:
        base = models / family
        tuned = tune(base, base.with_name(f"{family}-lora"), skip=windows * length)
        rows[family] = {
            name: compare(checkpoint, ggufs.made(checkpoint, "f16"), windows, length)
            for name, checkpoint in (("base", base), ("lora", tuned))
        }
        rows[family]["quants"] = [quant for quant in QUANTS if loads(ggufs.made(tuned, quant))]
        print(f"{family}: {files.rounded(rows[family])}", flush=True)
    compared = [row[name] for row in rows.values() for name in ("base", "lora")]
    common.write(
        "zoo",
        None,
        None,
        {
            "largest_loss_difference": max(abs(row["loss_difference"]) for row in compared),
            "smallest_same_top_token": min(row["same_top_token"] for row in compared),
            "fewest_distinct_top_tokens": min(row["distinct_top_tokens"] for row in compared),
            "fewest_quants": min(len(row["quants"]) for row in rows.values()),
        },
        quick=arguments.quick,
        at_least={"smallest_same_top_token": 0.995, "fewest_distinct_top_tokens": 50, "fewest_quants": len(QUANTS)},
        at_most={"largest_loss_difference": 0.002},
        largest_loss_difference_bfloat16=max(abs(row["loss_difference_bfloat16"]) for row in compared),
        smallest_same_top_token_bfloat16=min(row["same_top_token_bfloat16"] for row in compared),
        families=rows,
        compared=f"{windows} windows of {length} tokens of {TEXT} per family, the models of "
        f"benchmarks.families (bf16), untouched and with the method lora of params.yaml tuned for {STEPS} "
        "steps and merged (bf16), against the f16 GGUF; `_bfloat16`: transformers computing in bf16 instead of float32",
        peer="transformers, eager forward",
    )


def make(folder: Path) -> Path:
    """A checkpoint per family in `folder`, made unless they are there; `folder`."""
    if not folder.is_dir():
        with files.new_folder(folder) as unfinished:
            for family in families.NAMES:
                families.build(family, unfinished)
    return folder


def tune(base: Path, merged: Path, skip: int) -> Path:
    """`base` with the method lora tuned and merged, made unless it is there; `merged`. The text's first `skip` tokens
    are left out."""
    if merged.is_dir():
        return merged
    from benchmarks import tuning  # imports the trainer, for seconds; the models may be there

    everything = params.load_all(common.ROOT / "params.yaml")
    method = everything.methods["lora"]
    budget = replace(everything.train, steps=STEPS, lr=LR, batch_size=8, warmup_steps=2, log_every=STEPS)
    ids = np.array(text_ids(base, skip + (ROWS + 8) * WINDOW)[skip:], np.int32).reshape(-1, WINDOW)
    rows = [{"ids": row.tolist(), "scored": [at > 0 for at in range(WINDOW)]} for row in ids]
    schema = pa.schema([("ids", pa.list_(pa.int32())), ("scored", pa.list_(pa.bool_()))])
    tokens, trained = (merged.with_name(f"{merged.name}-{part}") for part in ("tokens", "trained"))
    files.write_table(tokens / "train.parquet", rows[:ROWS], schema)
    files.write_table(tokens / "valid.parquet", rows[ROWS:], schema)
    files.write_json(tokens / "info.json", {"pad_id": 0})
    with files.new_folder(trained) as folder:
        tuning.train(base, tokens, folder, "lora", method, budget, everything.run.seeds[0])
    with files.new_folder(merged) as folder:
        merging.merge(base, trained, "lora", method, "trained_base", folder)
        checkpoints.copy_companions(base, folder)
    shutil.rmtree(tokens)
    shutil.rmtree(trained)
    return merged


@cache
def text_ids(checkpoint: Path, count: int) -> list[int]:
    """The first `count` tokens of the text, by the checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    text = assets.find(TEXT).read_text(encoding="utf-8")[: 8 * count]
    return AutoTokenizer.from_pretrained(checkpoint)(text, add_special_tokens=False)["input_ids"][:count]


def compare(
    checkpoint: Path, gguf: Path, windows: int, length: int, dtypes: Sequence[str] = ("float32", "bfloat16")
) -> dict[str, float]:
    """Losses in both runtimes, in nats per token, their differences, and the shares with the same most likely token.

    `dtypes`: what transformers computes in; what is of bfloat16 has `_bfloat16` behind its name. `distinct_top_tokens`:
    how many different most likely tokens llama.cpp names; of a single one, agreement would say nothing.
    """
    import torch

    from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
    from tradeoffs.models.loading import load_model
    from tradeoffs.transformers_runtime import TransformersRuntime

    parts = np.array(text_ids(checkpoint, windows * length), np.int32).reshape(windows, length)
    targets = [Target(part, np.arange(length) > 0) for part in parts]
    with LlamaCppRuntime(gguf, batch_tokens=2048) as runtime:
        by_llama_cpp = runtime.score(targets)
    named = np.concatenate([score.argmax for score in by_llama_cpp])
    found: dict[str, float] = {"loss_gguf": _loss(by_llama_cpp), "distinct_top_tokens": len(np.unique(named))}
    for dtype in dtypes:
        ending = "" if dtype == "float32" else f"_{dtype}"
        model = load_model(checkpoint, None, getattr(torch, dtype))
        scores = TransformersRuntime(model, 2048, pad_id=0).score(targets)
        same = [a.argmax == b.argmax for a, b in zip(scores, by_llama_cpp, strict=True)]
        found |= {
            f"loss_transformers{ending}": _loss(scores),
            f"loss_difference{ending}": found["loss_gguf"] - _loss(scores),
            f"same_top_token{ending}": float(np.concatenate(same).mean()),
        }
    return found | {"tokens": windows * (length - 1)}


def loads(gguf: Path) -> bool:
    """Whether llama.cpp loads the file and gives every token of some text a finite log-probability."""
    from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

    with LlamaCppRuntime(gguf, batch_tokens=2048) as runtime:
        (score,) = runtime.score([Target(np.arange(40, dtype=np.int32), np.arange(40) > 0)])
    return bool(np.isfinite(score.logprob).all())


def _loss(scores: list[Any]) -> float:
    return -float(np.concatenate([score.logprob for score in scores]).mean(dtype=np.float64))


if __name__ == "__main__":
    common.run(main, make={"action": "store_true", "help": "only make the models, unless they are there"})
