"""A task of lm-evaluation-harness on a merged checkpoint in one precision: on CUDA, or on the CPU where there is none.

IN   models/merged/<cell>/    models/base/<model>/ (its tokenizer)    data/tokens/<model>-<dataset>/info.json
     the folder `evaluate.harness.folder`
OUT  data/tasks/<variant>/<task>.parquet
     python -m stages.tasks_gpu --model demo --dataset demo --method lora --precision nf4 --task arc_easy
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import PRECISIONS
from tradeoffs.harness import evaluation
from tradeoffs.harness.torch_side import TorchTasks
from tradeoffs.models.loading import load_model
from tradeoffs.plumbing import cli


@dataclass(frozen=True)
class Reads:
    harness: Annotated[params.Harness, "evaluate.harness"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]


def main(model: str, dataset: str, method: str, precision: str, task: str) -> None:
    cfg = params.load(Reads)
    variant = Variant(model, dataset, method, precision)
    path, merged = variant.tasks(()) / f"{task}.parquet", variant.cell.merged
    if trained_only.absent(merged / "run_info.json"):
        evaluation.write_nothing(path)
        return
    pad_id = files.read_json(variant.cell.tokens / "info.json")["pad_id"]

    def make() -> TorchTasks:
        how = PRECISIONS[precision]
        return TorchTasks(load_model(merged, how.load, getattr(torch, how.dtype)), cfg.batch_tokens, pad_id)

    evaluation.evaluate(variant, task, cfg.harness, make, path)


if __name__ == "__main__":
    cli.run(main)
