"""The models exactly as they left training: their own scores, and what every other format is held against.

Formats are made of the first seed's, so that one alone is the reference; those of further seeds are asked the same
questions, one model after the other.

IN   models/base/<model>/    models/trained/<cell>/<seed>/    data/tokens/<model>-<dataset>/
OUT  data/reference/<cell>/ (per token: the top k and a sample of the rest)
     data/items/<cell>-trained.parquet    data/facts/<cell>-trained.json
     data/seeds/<cell>/<seed>.parquet of each seed but the first; without rows for a method that trains nothing. In
     seeds.json there, which seeds these are
     python -m stages.reference --model demo --dataset demo --method lora
"""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Cell, Variant
from tradeoffs.common.unfinished import Unfinished
from tradeoffs.evaluate import evaluation
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.models.loading import AS_LOADED, load_trained
from tradeoffs.params.fields import Dtype
from tradeoffs.plumbing import cli
from tradeoffs.transformers_runtime import TransformersRuntime


@dataclass(frozen=True)
class Reads(evaluation.Reads):
    seeds: Annotated[list[int], "run.seeds"]
    reference_dtype: Annotated[Dtype, "evaluate.reference_dtype"]
    method: Annotated[params.Method, "methods.{method}"]


def main(model: str, dataset: str, method: str) -> None:
    cfg = params.load(Reads, method=method)
    cell = Cell(model, dataset, method)
    trained = [cell.training(seed).weights for seed in cfg.seeds]
    files.remove_leftovers(trained, only_kept_by_dvc=True, named=str.isdigit)
    info = files.read_json(cell.tokens / "info.json")
    if info["kind"] != "text":
        _note_long_answers(cell.tokens / "test.parquet", cfg.max_new_tokens)

    finished = [_evaluate_first(cell, cfg, info["pad_id"])]
    with files.new_folder(cell.seeds) as folder:
        files.write_json(folder / "seeds.json", cfg.seeds[1:])  # one seed: DVC warns of an empty folder
        for variant in cell.further(cfg.seeds):
            path = folder / variant.items.name
            if cfg.method.trains:
                finished.append(_evaluate_further(variant, cfg, info["pad_id"], path))
            else:
                files.write_table(path, [], ITEMS)
    # Not before all are there: killed in between, the next run finds what each had finished.
    for done in finished:
        done.remove()


def _evaluate_first(cell: Cell, cfg: Reads, pad_id: int) -> Unfinished:
    variant, weights = cell.variant(TRAINED), cell.training(cfg.seeds[0]).weights
    runtime = evaluation.load(variant, lambda: _runtime(cell, weights, cfg, pad_id))
    # How it is loaded, for those who measure it: no block of the catalogue has to be read again.
    loaded = {name: getattr(cfg.method, name) for name in AS_LOADED}
    return evaluation.evaluate_reference(
        runtime, variant, [cell.base, weights], cfg, {"method": loaded, "seed": cfg.seeds[0]}
    )


def _evaluate_further(variant: Variant, cfg: Reads, pad_id: int, path: Path) -> Unfinished:
    gc.collect()  # the model before this one: no two are in memory
    cell, weights = variant.cell, variant.training(cfg.seeds).weights
    runtime = evaluation.load(variant, lambda: _runtime(cell, weights, cfg, pad_id))
    return evaluation.evaluate_further(runtime, variant, [cell.base, weights], cfg, path)


def _runtime(cell: Cell, weights: Path, cfg: Reads, pad_id: int) -> TransformersRuntime:
    loaded = load_trained(cell.base, weights, cfg.method, getattr(torch, cfg.reference_dtype))
    return TransformersRuntime(loaded, cfg.batch_tokens, pad_id)


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
