"""Every ready block of params.yaml on a random two-layer Llama: trained, reloaded, merged, made a GGUF.

    python -m benchmarks.methods [--quick]

A method that cannot be merged is stated so. What is measured is agreement, so nothing is timed.
"""

import shutil
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import assets, common
from benchmarks.common import SCRATCH
from tradeoffs import merging, params
from tradeoffs.common import files
from tradeoffs.convert import gguf_converter
from tradeoffs.evaluate.runtime import Target
from tradeoffs.models import checkpoints
from tradeoffs.params import Method, Train
from tradeoffs.tokenize.tables import PAIRS

TEXT = "data/wikitext2/wikitext2_train_5k.txt"
TOKENIZER = "models/stories260k"
STEPS, ROWS, HELD_OUT, WINDOW = 20, 160, 16, 48
QUICK = ("lora", "qlora", "prompt_tuning")
# Of a logit, over the standard deviation of the logits. Merging is arithmetic in float32, so it changes nothing but the
# last digits; int8 computes with rounded activations until it is merged.
MERGE, MERGE_INT8 = 1e-3, 0.02


def main(arguments: Namespace) -> None:
    everything = params.load_all()
    work = SCRATCH / "methods"
    shutil.rmtree(work, ignore_errors=True)
    base, tokens = make_base(work / "base"), make_tokens(work / "tokens")
    rows: dict[str, dict[str, Any]] = {}
    for name in QUICK if arguments.quick else everything.methods:
        method = everything.methods[name]
        if method.trains:
            budget = replace(everything.train, steps=STEPS, batch_size=8, warmup_steps=2, log_every=STEPS)
            method = replace(method, compute_dtype="float32")  # so that only its own arithmetic is compared
            rows[name] = tried(name, method, budget, base, tokens, work / name, everything.run.seeds[0])
            print(f"{name}: {files.rounded(rows[name])}", flush=True)
            shutil.rmtree(work / name)
    shutil.rmtree(work)
    merged = {name: row for name, row in rows.items() if "unmergeable" not in row}
    common.write(
        "methods",
        None,
        None,
        {
            "smallest_gain": min(row["loss_before"] - row["loss_after"] for row in rows.values()),
            "largest_reload_difference": max(row["reload_loss_difference"] for row in rows.values()),
            "largest_merge_change": largest(merged, int8=False),
            "largest_merge_change_int8": largest(merged, int8=True),
            "largest_gguf_loss_difference": max(row["gguf_loss_difference"] for row in merged.values()),
        },
        quick=arguments.quick,
        at_least={"smallest_gain": 0.001},
        at_most={
            "largest_reload_difference": 1e-3,
            "largest_merge_change": MERGE,
            "largest_merge_change_int8": MERGE_INT8,
            "largest_gguf_loss_difference": 0.01,
        },
        methods=rows,
        trained=list(rows),
        unmergeable=[name for name in rows if name not in merged],
        compared=f"a random Llama (2 layers, hidden size 256) with the tokenizer of {TOKENIZER}, trained for "
        f"{STEPS} steps in float32 on {TEXT}; changes on {HELD_OUT} windows of {WINDOW} tokens that were not "
        "trained on; `merge_change_relative` is over the standard deviation of the logits",
    )


def largest(rows: dict[str, dict[str, Any]], int8: bool) -> float:
    """Of what is merged onto the weights that it was trained on: onto others the change is the quantisation's."""
    own = (row for row in rows.values() if row["merged_onto"] == "trained_base" and (row["load"] == "int8") == int8)
    return max((row["merge_change_relative"] for row in own), default=0.0)


def tried(
    name: str, method: Method, budget: Train, base: Path, tokens: Path, folder: Path, seed: int
) -> dict[str, Any]:
    """What became of one method: losses in nats per token, changes of a logit. Raises what the stages would raise."""
    import torch

    from benchmarks import tuning
    from tradeoffs.finetune import batches
    from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
    from tradeoffs.models.loading import load_model, load_trained
    from tradeoffs.transformers_runtime import TransformersRuntime

    trained, merged, gguf = folder / "trained", folder / "merged", folder / "f16.gguf"
    for path in (trained, merged):
        path.mkdir(parents=True)
    row = tuning.train(base, tokens, trained, name, method, budget, seed)
    windows = [ids for ids, _ in batches.read_examples(tokens / "valid.parquet")]
    before = logits(load_model(base, method.load, torch.float32, double_quant=bool(method.double_quant)), windows)
    after = logits(load_trained(base, trained, method, torch.float32), windows)
    found: dict[str, Any] = {
        "peft": method.peft or "full",
        "load": method.load or "none",
        "trainable_params": row["trainable_params"],
        "adapter_mb": row["adapter_mb"],
        "loss_before": loss(before, windows),
        "loss_after": loss(after, windows),
        "reload_loss_difference": abs(loss(after, windows) - row["valid_loss"]),
    }
    onto = method.merge or "trained_base"
    if reason := merging.merge(base, trained, name, method, onto, merged, saved=torch.float32):
        return found | {"unmergeable": reason}
    change = float((logits(load_model(merged, None, torch.float32), windows) - after).abs().max())
    found |= {"merged_onto": onto, "merge_change": change, "merge_change_relative": change / float(after.std())}

    merging.merge(base, trained, name, method, onto, merged)  # as the stage does: bfloat16
    checkpoints.copy_companions(base, merged)
    gguf_converter.convert(merged, gguf)
    targets = [Target(ids.astype(np.int32), np.arange(WINDOW) > 0) for ids in windows]
    scores = TransformersRuntime(load_model(merged, None, torch.float32), 2048, pad_id=0).score(targets)
    with LlamaCppRuntime(gguf, batch_tokens=2048) as runtime:
        by_llama_cpp = runtime.score(targets)
    pairs = zip(by_llama_cpp, scores, strict=True)
    difference = np.concatenate([ours.logprob - theirs.logprob for ours, theirs in pairs])
    return found | {"gguf_loss_difference": abs(float(difference.mean(dtype=np.float64)))}


def logits(model: Any, windows: Iterable[np.ndarray]) -> Any:
    """(windows, tokens, vocabulary); what virtual tokens in front predict is left out."""
    import torch

    ids = torch.tensor(np.stack(list(windows)), dtype=torch.int64)
    with torch.no_grad():
        return model(input_ids=ids).logits[:, -ids.shape[1] :].float()


def loss(logits: Any, windows: Iterable[np.ndarray]) -> float:
    """Mean cross-entropy in nats of all tokens but a window's first."""
    import torch

    ids = torch.tensor(np.stack(list(windows)), dtype=torch.int64)
    return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


def make_base(folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(assets.find(TOKENIZER))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    with files.new_folder(folder) as unfinished:
        model.to(torch.bfloat16).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder


def make_tokens(folder: Path) -> Path:
    """Windows of text that begin with the begin-of-sequence token, as `tokenize` leaves them; and pairs of them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(assets.find(TOKENIZER))
    count = ROWS + HELD_OUT
    text = assets.find(TEXT).read_text(encoding="utf-8")[: 8 * count * WINDOW]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: count * (WINDOW - 1)]
    parts = np.array(ids, np.int32).reshape(count, WINDOW - 1)
    scored = [at > 0 for at in range(WINDOW)]
    rows = [{"ids": [tokenizer.bos_token_id, *part.tolist()], "scored": scored} for part in parts]
    schema = pa.schema([("ids", pa.list_(pa.int32())), ("scored", pa.list_(pa.bool_()))])
    files.write_table(folder / "train.parquet", rows[:ROWS], schema)
    files.write_table(folder / "valid.parquet", rows[ROWS:], schema)
    # The chosen answer is how the text goes on, the rejected one the same words backwards.
    third = WINDOW // 3
    pairs = [
        {
            "id": str(number),
            "split": "train" if number < ROWS else ("valid", "test")[number % 2],
            "prompt_ids": row["ids"][:third],
            "chosen_ids": row["ids"][third:],
            "rejected_ids": row["ids"][:third:-1],
        }
        for number, row in enumerate(rows)
    ]
    files.write_table(folder / "pairs.parquet", pairs, PAIRS)
    files.write_json(folder / "info.json", {"pad_id": 0})
    return folder


if __name__ == "__main__":
    common.run(main)
