"""A GGUF file by llama.cpp, in process, on the CPU: the same questions and the same token ids as on transformers.

IN   models/gguf/<variant>.gguf    data/tokens/<model>-<dataset>/    data/reference/<cell>/
OUT  data/items/<variant>.parquet    data/cost/<variant>.json
     python -m stages.evaluate_cpu --model demo --dataset demo --method lora --quant q4_k_m
"""

import time
from pathlib import Path

from tradeoffs import cli, clock, evaluation, params, trained_only
from tradeoffs.llama_cpp_runtime import LlamaCppRuntime

READS = evaluation.READS


def main(model: str, dataset: str, method: str, quant: str) -> None:
    cfg = params.load(READS)
    cell = f"{model}-{dataset}-{method}"
    variant = f"{cell}-{quant}"
    tokens = Path("data/tokens", f"{model}-{dataset}")
    gguf = Path("models/gguf", f"{variant}.gguf")
    if why_not := trained_only.reason(gguf.with_suffix(".json")):
        trained_only.write_evaluation(variant, evaluation.ITEMS, why_not)
        return
    begun = time.perf_counter()
    with clock.loading():
        runtime = LlamaCppRuntime(gguf, cfg.batch_tokens)
    cost = {"load_seconds": time.perf_counter() - begun}
    print(f"{variant} on cpu")

    with runtime:
        evaluation.evaluate(runtime, variant, [gguf], tokens, cfg, cost, Path("data/reference", cell))


if __name__ == "__main__":
    cli.run(main)
