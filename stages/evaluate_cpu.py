"""A GGUF file by llama.cpp, in process, on the CPU: the same questions and the same token ids as on transformers.

IN   models/gguf/<variant>.gguf    data/tokens/<model>-<dataset>/    data/reference/<cell>/
OUT  data/items/<variant>.parquet    data/facts/<variant>.json
     python -m stages.evaluate_cpu --model demo --dataset demo --method lora --quant q4_k_m
"""

from pathlib import Path
from typing import Literal

from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.evaluate import evaluation
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.formats import trained_only
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.plumbing import cli


def main(model: str, dataset: str, method: str, quant: str) -> None:
    variant = Variant(model, dataset, method, quant)
    gguf = variant.gguf
    if found := trained_only.absent(gguf.with_suffix(".json")):
        trained_only.write_evaluation(variant, ITEMS, *found)
        return
    cfg = evaluation.as_of_reference(variant.cell)
    with evaluation.load(variant, lambda: read(gguf, cfg.batch_tokens)) as runtime:
        evaluation.evaluate_format(runtime, variant, [gguf], cfg, {})


def read(gguf: Path, batch_tokens: int | Literal["auto"]) -> LlamaCppRuntime:
    """`gguf` in llama.cpp. Raises UserError if it is not what was made, or llama.cpp cannot load it."""
    files.require_unchanged(gguf)
    return LlamaCppRuntime(gguf, batch_tokens)


if __name__ == "__main__":
    cli.run(main)
