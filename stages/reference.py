"""The model exactly as it left training: its own scores, and what every other format is held against.

IN   models/base/<model>/    models/trained/<cell>/    data/tokens/<model>-<dataset>/
OUT  data/reference/<cell>/ (per token: the top k and a sample of the rest)
     data/items/<cell>-trained.parquet    data/facts/<cell>-trained.json
     python -m stages.reference --model demo --dataset demo --method lora
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Cell
from tradeoffs.evaluate import evaluation
from tradeoffs.models.loading import AS_LOADED, load_trained
from tradeoffs.params.fields import Dtype
from tradeoffs.plumbing import cli
from tradeoffs.transformers_runtime import TransformersRuntime


@dataclass(frozen=True)
class Reads(evaluation.Reads):
    reference_dtype: Annotated[Dtype, "evaluate.reference_dtype"]
    method: Annotated[params.Method, "methods.{method}"]


def main(model: str, dataset: str, method: str) -> None:
    cfg = params.load(Reads, method=method)
    cell = Cell(model, dataset, method)
    info = files.read_json(cell.tokens / "info.json")
    if info["kind"] != "text":
        _note_long_answers(cell.tokens / "test.parquet", cfg.max_new_tokens)

    def make() -> TransformersRuntime:
        loaded = load_trained(cell.base, cell.trained, cfg.method, getattr(torch, cfg.reference_dtype))
        return TransformersRuntime(loaded, cfg.batch_tokens, info["pad_id"])

    variant = cell.variant(TRAINED)
    runtime = evaluation.load(variant, make)
    # How it is loaded, for those who measure it: no block of the catalogue has to be read again.
    loaded = {name: getattr(cfg.method, name) for name in AS_LOADED}
    evaluation.evaluate_reference(runtime, variant, [cell.base, cell.trained], cfg, {"method": loaded})


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
