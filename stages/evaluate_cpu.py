"""A GGUF file by llama.cpp, in process, on the CPU: the same questions and the same token ids as on transformers.

IN   models/gguf/<variant>.gguf    data/tokens/<model>-<dataset>/    data/reference/<cell>/
OUT  data/items/<variant>.parquet    data/cost/<variant>.json
     python -m stages.evaluate_cpu --model demo --dataset demo --method lora --quant q4_k_m
"""

import time
from pathlib import Path

from tradeoffs import cli, clock, evaluation, files, params
from tradeoffs.llama_cpp_runtime import LlamaCppRuntime

READS = evaluation.READS


def main(model: str, dataset: str, method: str, quant: str) -> None:
    cfg = params.load(READS)
    cell = f"{model}-{dataset}-{method}"
    variant = f"{cell}-{quant}"
    tokens = Path("data/tokens", f"{model}-{dataset}")
    begun = time.perf_counter()
    with clock.loading():
        runtime = LlamaCppRuntime(Path("models/gguf", f"{variant}.gguf"), cfg.batch_tokens)
    load_seconds = time.perf_counter() - begun
    print(f"{variant} on cpu")

    with runtime:
        rows, cost = evaluation.evaluate(runtime, tokens, cfg, Path("data/reference", cell))
    files.write_table(f"data/items/{variant}.parquet", rows, evaluation.ITEMS)
    files.write_json(f"data/cost/{variant}.json", cost | {"load_seconds": load_seconds})


if __name__ == "__main__":
    cli.run(main)
