"""Merges what was trained into its base: one self-contained bf16 checkpoint that every runtime can take.

IN   models/base/<model>/, models/trained/<model>-<dataset>-<method>/<seed>/
OUT  models/merged/<model>-<dataset>-<method>/   bf16 safetensors, config, tokenizer, run_info.json; of a method that
     cannot be merged run_info.json alone, which says why
     python -m stages.merge --model demo --dataset demo --method lora
"""

from dataclasses import dataclass
from typing import Annotated

from tradeoffs import merging, params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell
from tradeoffs.formats import trained_only
from tradeoffs.models import checkpoints
from tradeoffs.plumbing import cli


@dataclass(frozen=True)
class Reads:
    merge: params.Merge
    method: Annotated[params.Method, "methods.{method}"]


def main(model: str, dataset: str, method: str) -> None:
    cfg = params.load(Reads, method=method)
    cell = Cell(model, dataset, method)
    onto = cfg.method.merge or cfg.merge.onto
    checkpoints.require(cell.base, "config.json")
    # Not a param of the stage, which a further seed would run again: which folder it is, its dep in dvc.yaml says.
    trained = cell.training(params.load_all().run.seeds[0]).weights
    checkpoints.require(trained, "run_info.json")
    with files.new_folder(cell.merged) as folder:
        why_not = merging.merge(cell.base, trained, method, cfg.method, onto, folder)
        facts = {
            "base": files.read_json(cell.base / "run_info.json"),
            "method": method,
            "params": files.params_hash(onto, cfg.method),
        }
        if why_not:
            facts[trained_only.KEY] = why_not
            print(f"{cell}: {trained_only.sentence(why_not, trained_only.KEY)}")
        else:
            checkpoints.copy_companions(cell.base, folder)
            if cfg.method.load:  # else there is but one base
                facts["merged_onto"] = onto
        files.write_json(folder / "run_info.json", files.run_info(**facts))


if __name__ == "__main__":
    cli.run(main)
