"""The whole pipeline without DVC: a workspace with a budget of a moment, and its stages called one after the other."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import quick_yaml

from stages import convert, evaluate_cpu, evaluate_gpu, finetune, merge, quantize, reference
from tradeoffs import params
from tradeoffs.common import files

REPO = Path(__file__).parents[1]
PARAMS = quick_yaml.load((REPO / "params.yaml").read_text())


def set_up(
    models: dict[str, dict],
    methods: list[str],
    precisions: list[str],
    quants: list[str],
    rows: Iterable[dict[str, str]],
    seeds: Iterable[int] = (42,),
    train: dict[str, Any] | None = None,
    evaluate: dict[str, Any] | None = None,
    **dataset: Any,
) -> None:
    """Writes into the working directory params.yaml and the files of the dataset `sums`: `rows` (q, a), and MMLU's.

    `models` are entries of the catalogue by name; `train`, `evaluate` and `dataset` change entries of those sections.
    """
    raw = copy.deepcopy(PARAMS)
    raw["run"] = {
        "models": list(models),
        "datasets": ["sums"],
        "methods": methods,
        "precisions": precisions,
        "quants": quants,
        "seeds": list(seeds),
        "devices": ["auto"],
    }
    raw["models"] |= models
    raw["datasets"]["sums"] = {
        "path": "data/raw/sums.jsonl",
        "kind": "instruction",
        "columns": {"instruction": "q", "answer": "a"},
        "test_share": 0.3,
        "near_duplicate": 0.9,
        "seen": 5,
        "valid": 5,
        "mmlu": {"path": "data/raw/mmlu"},
        "prompts": ["What is 7 and 1?"],
        **dataset,
    }
    raw["train"] |= {"steps": 20, "batch_size": 4, "log_every": 4, **(train or {})}
    raw["evaluate"] |= {
        "max_new_tokens": 6,
        "bootstrap": 50,
        "mmlu": {"shots": 1, "questions": 5},
        "cost": {
            "rounds": 2,
            "latency_prompts": 2,
            "prefill_tokens": 16,
            "decode_tokens": 4,
            "batch_sizes": [2],
            "scored_sequences": 4,
            "repetitions": 2,
        },
        **(evaluate or {}),
    }
    files.write_text("params.yaml", quick_yaml.dump(raw))
    files.write_jsonl("data/raw/sums.jsonl", rows)
    for split, count in (("dev", 1), ("test", 5)):
        lines = (f"Which is {n}?,{n},{n + 1},{n + 2},{n + 3},A\n" for n in range(count))
        files.write_text(f"data/raw/mmlu/{split}/numbers_{split}.csv", "".join(lines))


def sums(count: int) -> Iterable[dict[str, str]]:
    return ({"q": f"What is {n} and 1?", "a": f"It is {n + 1}."} for n in range(count))


def make(*cell: str) -> None:
    """A cell (model, dataset, method) from its tokens to its GGUF in f16."""
    seeds = params.load_all().run.seeds
    for seed in seeds:
        finetune.main(*cell, seed)
    reference.main(*cell)
    merge.main(*cell)
    convert.main(*cell)


def measure(*cell: str, precisions: Iterable[str], quants: Iterable[str]) -> None:
    """A cell that was made, in some of its formats."""
    for precision in precisions:
        evaluate_gpu.main(*cell, precision)
    for quant in quants:
        quantize.main(*cell, quant)
        evaluate_cpu.main(*cell, quant)
