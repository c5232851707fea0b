"""A random two-layer model and a handful of examples, made in a moment, for tests that need something to train."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from tradeoffs import params
from tradeoffs.common import files, unfinished
from tradeoffs.common.cells import Cell
from tradeoffs.finetune.job import Job
from tradeoffs.params import Method, Train
from tradeoffs.tokenize.tables import PAIRS

torch.set_num_threads(1)  # matrices this small make threads wait for each other

ROOT = Path(__file__).parents[1]
METHODS = params.load_all(ROOT / "params.yaml").methods
VOCABULARY = 300
# The demo's layer sizes.
LLAMA: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY_TRAIN = Train(
    steps=6,
    batch_size=4,
    lr=0.002,
    schedule="cosine",
    warmup_steps=1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    batch_tokens="auto",
    gradient_checkpointing=False,
    attention="auto",
    compile=False,
    log_every=2,
    save_every=2,
    valid_every=0,
    keep="last",
    patience=0,
)


def make_base(folder: Path, tied: bool = False, vocabulary: int = VOCABULARY) -> None:
    """A bf16 Llama checkpoint with the demo's layer sizes and random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=128, tie_word_embeddings=tied, **LLAMA)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.to(torch.bfloat16).save_pretrained(folder)
    files.write_text(folder / "tokenizer.json", "{}")
    files.write_text(folder / "chat_template.jinja", "{{ messages }}")
    files.write_json(folder / "run_info.json", {"base_id": "tiny"})


def make_tokens(folder: Path) -> None:
    """Sequences that count upwards, so that there is something to learn; the second half of each is scored.

    Forty to train on, and four others to measure the loss on.
    """
    random = np.random.default_rng(0)
    rows = []
    for _ in range(44):
        length, start = int(random.integers(8, 24)), int(random.integers(10, 200))
        ids = list(range(start, start + length))
        rows.append({"ids": ids, "scored": [at >= length // 2 for at in range(length)]})
    schema = pa.schema([("ids", pa.list_(pa.int32())), ("scored", pa.list_(pa.bool_()))])
    files.write_table(folder / "train.parquet", rows[:40], schema)
    files.write_table(folder / "valid.parquet", rows[40:], schema)
    files.write_json(folder / "info.json", {"pad_id": 0})
    _make_pairs(folder)


def _make_pairs(folder: Path) -> None:
    """A prompt that counts upwards; the chosen answer goes on, the rejected one turns back."""
    rng, rows = np.random.default_rng(1), []
    for number in range(60):
        start, long, short = (int(rng.integers(*limits)) for limits in ((40, 200), (3, 9), (2, 6)))
        rows.append(
            {
                "id": f"{number:02}",
                "split": "train" if number < 40 else "valid" if number < 48 else "test",
                "prompt_ids": [1, *range(start, start + 5)],
                "chosen_ids": [*range(start + 5, start + 5 + long), 2],
                "rejected_ids": [*range(start + 3, start + 3 - short, -1), 2],
            }
        )
    files.write_table(folder / "pairs.parquet", rows, PAIRS)


def job(work: Path, name: str, method: Method, budget: Train, base: str = "base", seed: int = 1) -> Job:
    """`method` as `methods.{name}`, on a base and the tokens of `work`, which the working directory then has under the
    names of the pipeline."""
    cell = Cell(base, "numbers", name)
    for path, made in ((cell.base, work / base), (cell.tokens, work / "tokens")):
        if not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(made)
    return Job(cell.training(seed), method, budget)


def train(folder: Path, wanted: Job) -> dict[str, Any]:
    """Trains into a new `folder`, as the stage does; the row of data/training."""
    from tradeoffs.finetune import training  # most that is made here needs no trainer, which takes seconds to import

    with files.new_folder(folder) as new:
        row = training.train(wanted, new)
    unfinished.remove(f"finetune/{wanted.training}")
    return row
