"""The model exactly as it left training: its own scores, and what every other format is held against.

IN   models/base/<model>/    models/trained/<cell>/    data/tokens/<model>-<dataset>/
OUT  data/reference/<cell>/ (per token: the top k and a sample of the rest)
     data/items/<cell>-trained.parquet    data/cost/<cell>-trained.json
     python -m stages.reference --model demo --dataset demo --method lora
"""

import time
from pathlib import Path

import torch

from tradeoffs import cli, clock, evaluation, files, params
from tradeoffs.loading import device, load_trained
from tradeoffs.transformers_runtime import TransformersRuntime

READS = (*evaluation.READS, "evaluate.reference_dtype", "methods.{method}")


def main(model: str, dataset: str, method: str) -> None:
    cfg = params.load(READS, model=model, dataset=dataset, method=method)
    cell = f"{model}-{dataset}-{method}"
    tokens = Path("data/tokens", f"{model}-{dataset}")
    begun = time.perf_counter()
    with clock.loading():
        base, trained = Path("models/base", model), Path("models/trained", cell)
        loaded = load_trained(base, trained, cfg.method, getattr(torch, cfg.reference_dtype))
        runtime = TransformersRuntime(loaded, cfg.batch_tokens, files.read_json(tokens / "info.json")["pad_id"])
    cost = {"load_seconds": time.perf_counter() - begun}
    print(f"{cell}-trained on {device()}")

    kept = Path("data/reference", cell)
    evaluation.evaluate(runtime, f"{cell}-trained", [base, trained], tokens, cfg, cost, keep_reference=kept)


if __name__ == "__main__":
    cli.run(main)
