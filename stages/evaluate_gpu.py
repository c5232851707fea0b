"""A merged checkpoint in one precision, by transformers and bitsandbytes: on CUDA, or on the CPU where there is none.

IN   models/merged/<cell>/    data/tokens/<model>-<dataset>/    data/reference/<cell>/
OUT  data/items/<variant>.parquet    data/facts/<variant>.json
     python -m stages.evaluate_gpu --model demo --dataset demo --method lora --precision nf4
"""

import torch

from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.evaluate import evaluation
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import PRECISIONS
from tradeoffs.models.loading import load_model
from tradeoffs.plumbing import cli
from tradeoffs.transformers_runtime import TransformersRuntime


def main(model: str, dataset: str, method: str, precision: str) -> None:
    variant = Variant(model, dataset, method, precision)
    merged = variant.cell.merged
    if found := trained_only.absent(merged / "run_info.json"):
        trained_only.write_evaluation(variant, ITEMS, *found)
        return
    cfg = evaluation.as_of_reference(variant.cell)
    pad_id = files.read_json(variant.cell.tokens / "info.json")["pad_id"]

    def make() -> TransformersRuntime:
        how = PRECISIONS[precision]
        loaded = load_model(merged, how.load, getattr(torch, how.dtype))
        return TransformersRuntime(loaded, cfg.batch_tokens, pad_id)

    runtime = evaluation.load(variant, make)
    onto = files.read_json(merged / "run_info.json").get("merged_onto")  # of an adapter trained on a quantised base
    evaluation.evaluate_format(runtime, variant, [merged], cfg, {"merged_onto": onto} if onto else {})


if __name__ == "__main__":
    cli.run(main)
