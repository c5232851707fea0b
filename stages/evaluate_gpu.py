"""A merged checkpoint in one precision, by transformers and bitsandbytes: on CUDA, or on the CPU where there is none.

IN   models/merged/<cell>/    data/tokens/<model>-<dataset>/    data/reference/<cell>/
OUT  data/items/<variant>.parquet    data/cost/<variant>.json
     python -m stages.evaluate_gpu --model demo --dataset demo --method lora --precision nf4
"""

import time

import torch

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell
from tradeoffs.evaluate import evaluation
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import PRECISIONS
from tradeoffs.models.loading import device, load_model
from tradeoffs.plumbing import cli, clock
from tradeoffs.transformers_runtime import TransformersRuntime

Reads = evaluation.Reads


def main(model: str, dataset: str, method: str, precision: str) -> None:
    cfg = params.load(Reads)
    cell = Cell(model, dataset, method)
    variant = cell.variant(precision)
    merged = cell.merged
    if why_not := trained_only.reason(merged / "run_info.json"):
        trained_only.write_evaluation(variant, evaluation.ITEMS, why_not)
        return
    begun = time.perf_counter()
    with clock.loading():
        loaded = load_model(merged, PRECISIONS[precision], torch.bfloat16)
        runtime = TransformersRuntime(loaded, cfg.batch_tokens, files.read_json(cell.tokens / "info.json")["pad_id"])
    cost = {"load_seconds": time.perf_counter() - begun}
    onto = files.read_json(merged / "run_info.json").get("merged_onto")  # of an adapter trained on a quantised base
    cost |= {"merged_onto": onto} if onto else {}
    print(f"{variant} on {device()}")

    evaluation.evaluate(runtime, variant, [merged], cell.tokens, cfg, cost, cell.reference)


if __name__ == "__main__":
    cli.run(main)
