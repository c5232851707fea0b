"""A task of lm-evaluation-harness on a merged checkpoint in one precision: on CUDA, or on the CPU where there is none.

IN   models/merged/<cell>/    models/base/<model>/ (its tokenizer)    data/tokens/<model>-<dataset>/info.json
     the folder `evaluate.harness.folder`
OUT  data/tasks/<variant>/<task>.parquet
     python -m stages.tasks_gpu --model demo --dataset demo --method lora --precision nf4 --task arc_easy
"""

import torch

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import PRECISIONS
from tradeoffs.harness import evaluation
from tradeoffs.harness.evaluation import Reads
from tradeoffs.harness.torch_side import TorchTasks
from tradeoffs.models.loading import load_model
from tradeoffs.plumbing import cli


def main(model: str, dataset: str, method: str, precision: str, task: str) -> None:
    cfg = params.load(Reads)
    variant = Variant(model, dataset, method, precision)
    merged = variant.cell.merged

    def make() -> TorchTasks:
        how, pad_id = PRECISIONS[precision], files.read_json(variant.cell.tokens / "info.json")["pad_id"]
        return TorchTasks(load_model(merged, how.load, getattr(torch, how.dtype)), cfg.batch_tokens, pad_id)

    absent = trained_only.absent(merged / "run_info.json") is not None
    evaluation.evaluate_format(variant, task, cfg, absent, make)


if __name__ == "__main__":
    cli.run(main)
