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
    info = files.read_json(tokens / "info.json")
    if info["kind"] != "text":
        _note_long_answers(tokens / "test.parquet", cfg.max_new_tokens)
    begun = time.perf_counter()
    with clock.loading():
        base, trained = Path("models/base", model), Path("models/trained", cell)
        loaded = load_trained(base, trained, cfg.method, getattr(torch, cfg.reference_dtype))
        runtime = TransformersRuntime(loaded, cfg.batch_tokens, info["pad_id"])
    cost = {"load_seconds": time.perf_counter() - begun}
    print(f"{cell}-trained on {device()}")

    kept = Path("data/reference", cell)
    evaluation.evaluate(runtime, f"{cell}-trained", [base, trained], tokens, cfg, cost, keep_reference=kept)


def _note_long_answers(tested: Path, limit: int) -> None:
    """Says how many expected answers no generated one can be as long as: F1 and alike then score where it was cut."""
    # Without the token that ends an answer, which is none of its text.
    lengths = [len(row["ids"]) - row["prompt_tokens"] - 1 for row in files.read_table(tested)]
    if longer := sum(length > limit for length in lengths):
        print(
            f"note: {longer} of {len(lengths)} test answers are longer than evaluate.max_new_tokens ({limit}), where "
            f"generated ones are cut; the longest has {max(lengths)} tokens"
        )


if __name__ == "__main__":
    cli.run(main)
