"""Tunes a base model on a dataset with one method; the method `base` trains nothing and just says so.

IN   metrics/settings/cells/<cell>.json, models/base/<model>/, data/tokens/<model>-<dataset>/
OUT  models/trained/<model>-<dataset>-<method>/<seed>/   adapter or full weights, run_info.json
     data/training/<model>-<dataset>-<method>/<seed>.json   size, time, memory, loss, training curve
     python -m stages.finetune --model demo --dataset demo --method lora --seed 42
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from tradeoffs import params
from tradeoffs.common import files, machine, unfinished
from tradeoffs.common.cells import Cell
from tradeoffs.finetune import processes
from tradeoffs.finetune.job import Job
from tradeoffs.models import checkpoints
from tradeoffs.plumbing import cli, clock, live


@dataclass(frozen=True)
class Settings:
    train: params.Train
    method: Annotated[params.Method, "methods.{method}"]


def main(model: str, dataset: str, method: str, seed: int) -> None:
    cell = Cell(model, dataset, method)
    cfg = params.load_settings(Settings, model=model, dataset=dataset, method=method)
    job = Job(cell.training(seed), cfg.method, cfg.train)
    checkpoints.require(job.cell.base, "config.json")
    facts = {"base": files.read_json(job.cell.base / "run_info.json"), "method": method}
    # Of several processes (accelerate launch) only the first writes results; the others need a place of their own.
    rank = processes.rank()
    place = Path(f".scratch/rank{rank}", str(job.training)) if rank else job.training.weights
    with files.new_folder(place) as folder:
        if job.method.trains:
            row, used = train(job, folder)
        else:
            row, used = {"trainable_params": 0, "total_params": checkpoints.parameters(job.cell.base)}, {}
        files.write_json(folder / "run_info.json", files.run_info(**facts, **used))
    if rank == 0:
        files.write_json(job.training.facts, row)
        unfinished.remove(f"finetune/{job.training}")
    else:
        shutil.rmtree(place)


def train(job: Job, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains into `folder`, and tells launch.report_to of it; the row of data/training, and what it was made by."""
    # Not among Reads: who is told about a training changes nothing in it.
    report_to = () if processes.rank() else params.load_all().launch.report_to
    own = {key: value for key, value in asdict(job.method).items() if value is not None}
    settings = {**asdict(job.cell), "seed": job.training.seed, **asdict(job.budget), **own}
    watch = live.Watch(report_to, str(job.training), settings)
    with clock.phase("startup"):  # takes seconds to import, and the base needs none of it
        from tradeoffs.finetune import training
        from tradeoffs.models import loading

    print(f"{job.training}: training on {loading.device()}, {loading.compute_dtype(job.method)}")
    with watch:
        row = training.train(job, folder, watch)
    # Only what was used: with the training budget in it, the base's folder would change with train.lr.
    used = {
        "params": files.params_hash(job.budget, job.method),
        "seed": job.training.seed,
        "device": str(loading.device()),
        **{name: row[name] for name in row if name.endswith(("train_steps", "kept_step"))},
    }
    # Its time and memory are of this machine; on a cluster the next training may be on another.
    return row | {"hardware": machine.used()}, used


if __name__ == "__main__":
    cli.run(main)
