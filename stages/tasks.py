"""A task of lm-evaluation-harness on a model exactly as it left training, with one of its seeds.

A stage of its own, a cell per task: another task runs that one alone, and nothing else of the evaluation. Without
tasks in params.yaml it has no cells.

IN   models/base/<model>/    models/trained/<cell>/<seed>/    data/tokens/<model>-<dataset>/info.json
     the folder `evaluate.harness.folder`
OUT  data/tasks/<cell>-trained-<seed>/<task>.parquet; without rows for further seeds of a method that trains nothing
     python -m stages.tasks --model demo --dataset demo --method lora --seed 42 --task arc_easy
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Variant
from tradeoffs.harness import evaluation
from tradeoffs.harness.torch_side import TorchTasks
from tradeoffs.models.loading import load_trained
from tradeoffs.params.fields import Dtype
from tradeoffs.plumbing import cli


@dataclass(frozen=True)
class Reads:
    seeds: Annotated[list[int], "run.seeds"]
    harness: Annotated[params.Harness, "evaluate.harness"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]
    reference_dtype: Annotated[Dtype, "evaluate.reference_dtype"]
    method: Annotated[params.Method, "methods.{method}"]


def main(model: str, dataset: str, method: str, seed: int, task: str) -> None:
    cfg = params.load(Reads, method=method)
    variant = Variant(model, dataset, method, TRAINED, seed)
    path = variant.tasks(cfg.seeds) / f"{task}.parquet"
    if not cfg.method.trains and seed != cfg.seeds[0]:
        evaluation.write_nothing(path)
        return
    weights = variant.training(cfg.seeds).weights
    pad_id = files.read_json(variant.cell.tokens / "info.json")["pad_id"]

    def make() -> TorchTasks:
        loaded = load_trained(variant.cell.base, weights, cfg.method, getattr(torch, cfg.reference_dtype))
        return TorchTasks(loaded, cfg.batch_tokens, pad_id)

    evaluation.evaluate(variant, task, cfg.harness, make, path)


if __name__ == "__main__":
    cli.run(main)
