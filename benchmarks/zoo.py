"""One small random model per family, with its real tokenizer: transformers in float32 against the f16 GGUF.

    python -m benchmarks.zoo [--quick]

The same token ids go through both; they agree if the loss and the most likely tokens are the same. This shows that
conversion keeps the model, family by family, so nothing is timed.
"""

import importlib.util
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.common import SCRATCH
from tradeoffs import files
from tradeoffs.runtime import Target

FAMILIES = ("gpt2", "pythia", "smollm2", "qwen2", "olmo2")
TEXT = "data/wikitext2/wikitext2_train_5k.txt"
MODELS = SCRATCH / "zoo"


def main(arguments: Namespace) -> None:
    windows, length = (2, 128) if arguments.quick else (20, 512)
    models = make(MODELS)
    if arguments.make:
        return
    rows = {}
    for family in FAMILIES:
        checkpoint = models / family
        rows[family] = compare(checkpoint, common.gguf(checkpoint, "f16"), windows, length)
        print(f"{family}: {files.rounded(rows[family])}", flush=True)
    common.write(
        "zoo",
        None,
        None,
        {
            "largest_loss_difference": max(abs(row["loss_difference"]) for row in rows.values()),
            "smallest_same_top_token": min(row["same_top_token"] for row in rows.values()),
        },
        quick=arguments.quick,
        at_least={"smallest_same_top_token": 0.995},
        at_most={"largest_loss_difference": 0.002},
        families=rows,
        compared=f"{windows} windows of {length} tokens of ../shared/{TEXT} per family, the models of "
        "../shared/tools/make_zoo.py; transformers float32 against the f16 GGUF",
        peer="transformers, eager forward in float32",
    )


def make(folder: Path) -> Path:
    """A checkpoint per family in `folder`, made unless they are there; `folder`."""
    if not folder.is_dir():
        spec: Any = importlib.util.spec_from_file_location("make_zoo", common.shared("tools/make_zoo.py"))
        make_zoo = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(make_zoo)
        with files.new_folder(folder) as unfinished:
            for family in FAMILIES:
                make_zoo.build(family, unfinished)
    return folder


def compare(checkpoint: Path, gguf: Path, windows: int, length: int) -> dict[str, float]:
    """Loss in both runtimes, in nats per token, their difference, and the share with the same most likely token."""
    import torch
    from transformers import AutoTokenizer

    from tradeoffs.llama_cpp_runtime import LlamaCppRuntime
    from tradeoffs.loading import load_model
    from tradeoffs.transformers_runtime import TransformersRuntime

    text = common.shared(TEXT).read_text(encoding="utf-8")[: 8 * windows * length]
    ids = AutoTokenizer.from_pretrained(checkpoint)(text, add_special_tokens=False)["input_ids"]
    parts = np.array(ids[: windows * length], np.int32).reshape(windows, length)
    targets = [Target(part, np.arange(length) > 0) for part in parts]
    by_transformers = TransformersRuntime(load_model(checkpoint, None, torch.float32), 2048, pad_id=0).score(targets)
    with LlamaCppRuntime(gguf, batch_tokens=2048) as runtime:
        by_llama_cpp = runtime.score(targets)
    losses = [
        -float(np.concatenate([score.logprob for score in scores]).mean(dtype=np.float64))
        for scores in (by_transformers, by_llama_cpp)
    ]
    same = [a.argmax == b.argmax for a, b in zip(by_transformers, by_llama_cpp, strict=True)]
    return {
        "loss_transformers": losses[0],
        "loss_gguf": losses[1],
        "loss_difference": losses[1] - losses[0],
        "same_top_token": float(np.concatenate(same).mean()),
        "tokens": windows * (length - 1),
    }


if __name__ == "__main__":
    common.run(main, make={"action": "store_true", "help": "only make the models, unless they are there"})
