"""Tunes a base model on a dataset with one method; the method `base` trains nothing and just says so.

IN   models/base/<model>/, data/tokens/<model>-<dataset>/
OUT  models/trained/<model>-<dataset>-<method>/   adapter or full weights, run_info.json
     data/training/<model>-<dataset>-<method>.json   size, time, memory, loss, training curve
     python -m stages.finetune --model demo --dataset demo --method lora
"""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tradeoffs import params
from tradeoffs.common import files, unfinished
from tradeoffs.common.cells import Cell
from tradeoffs.models import checkpoints
from tradeoffs.plumbing import cli, clock, live


@dataclass(frozen=True)
class Reads:
    train: params.Train
    method: Annotated[params.Method, "methods.{method}"]


def main(model: str, dataset: str, method: str) -> None:
    cfg = params.load(Reads, method=method)
    cell = Cell(model, dataset, method)
    checkpoints.require(cell.base, "config.json")
    facts = {"base": files.read_json(cell.base / "run_info.json"), "method": method}
    # Of several processes (accelerate launch) only the first writes results; the others need a place of their own.
    rank = int(os.environ.get("RANK", "0"))
    with files.new_folder(Path(f".scratch/rank{rank}", str(cell)) if rank else cell.trained) as folder:
        if cfg.method.trains:
            # Not among READS: who is told about a training changes nothing in it.
            report_to = params.load_all().launch.report_to
            settings = {"model": model, "dataset": dataset, "method": method, **asdict(cfg.method.budget(cfg.train))}
            settings |= {
                key: value for key, value in asdict(cfg.method).items() if value is not None and key != "train"
            }
            watch = live.Watch(() if rank else report_to, str(cell), settings)
            with clock.phase("startup"):  # takes seconds to import, and the base needs none of it
                from tradeoffs.finetune import training

            print(f"{cell}: training on {training.device()}, {training.compute_dtype(cfg.method)}")
            with watch:
                row = training.train(cell.base, cell.tokens, folder, method, cfg.method, cfg.train, watch)
            # Only what was used: with the training budget in it, the base's folder would change with train.lr.
            facts |= {
                "params": files.params_hash(cfg.train, cfg.method),
                "seed": cfg.method.budget(cfg.train).seed,
                "device": str(training.device()),
            }
        else:
            row = {"trainable_params": 0, "total_params": checkpoints.parameters(cell.base)}
        files.write_json(folder / "run_info.json", files.run_info(**facts))
    if rank == 0:
        files.write_json(cell.training, row)
        unfinished.remove(f"finetune/{cell}")
    else:
        shutil.rmtree(f".scratch/rank{rank}/{cell}")


if __name__ == "__main__":
    cli.run(main)
