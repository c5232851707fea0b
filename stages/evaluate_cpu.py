"""A GGUF file by llama.cpp, in process, on the CPU: the same questions and the same token ids as on transformers.

IN   models/gguf/<variant>.gguf    data/tokens/<model>-<dataset>/    data/reference/<cell>/
OUT  data/items/<variant>.parquet    data/cost/<variant>.json
     python -m stages.evaluate_cpu --model demo --dataset demo --method lora --quant q4_k_m
"""

import time

from tradeoffs import params
from tradeoffs.common.cells import Cell
from tradeoffs.evaluate import evaluation
from tradeoffs.formats import trained_only
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.plumbing import cli, clock

Reads = evaluation.Reads


def main(model: str, dataset: str, method: str, quant: str) -> None:
    cfg = params.load(Reads)
    cell = Cell(model, dataset, method)
    variant = cell.variant(quant)
    gguf = variant.gguf
    if why_not := trained_only.reason(gguf.with_suffix(".json")):
        trained_only.write_evaluation(variant, evaluation.ITEMS, why_not)
        return
    begun = time.perf_counter()
    with clock.loading():
        runtime = LlamaCppRuntime(gguf, cfg.batch_tokens)
    cost = {"load_seconds": time.perf_counter() - begun}
    print(f"{variant} on cpu")

    with runtime:
        evaluation.evaluate(runtime, variant, [gguf], cell.tokens, cfg, cost, cell.reference)


if __name__ == "__main__":
    cli.run(main)
