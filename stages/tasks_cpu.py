"""A task of lm-evaluation-harness on a GGUF file by llama.cpp, in process: the same token ids as on transformers.

IN   models/gguf/<variant>.gguf    models/base/<model>/ (its tokenizer)    data/tokens/<model>-<dataset>/info.json
     the folder `evaluate.harness.folder`
OUT  data/tasks/<variant>/<task>.parquet
     python -m stages.tasks_cpu --model demo --dataset demo --method lora --quant q4_k_m --task arc_easy
"""

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.formats import trained_only
from tradeoffs.harness import evaluation
from tradeoffs.harness.evaluation import Reads
from tradeoffs.harness.llama_side import LlamaTasks
from tradeoffs.plumbing import cli


def main(model: str, dataset: str, method: str, quant: str, task: str) -> None:
    cfg = params.load(Reads)
    variant = Variant(model, dataset, method, quant)
    gguf = variant.gguf

    def make() -> LlamaTasks:
        files.require_unchanged(gguf)
        return LlamaTasks(gguf, cfg.batch_tokens)

    absent = trained_only.absent(gguf.with_suffix(".json")) is not None
    evaluation.evaluate_format(variant, task, cfg, absent, make)


if __name__ == "__main__":
    cli.run(main)
