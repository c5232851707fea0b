"""Training any method on any checkpoint and tokens, outside of the pipeline's folders."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import SCRATCH
from tradeoffs.common.cells import Cell
from tradeoffs.finetune import training
from tradeoffs.finetune.job import Job
from tradeoffs.params import Method, Train


def train(
    base: Path, tokens: Path, folder: Path, name: str, method: Method, budget: Train, seed: int
) -> dict[str, Any]:
    """Trains `method` on `base` and `tokens` into `folder`, as stages.finetune does; the row of data/training."""
    job, folder = Job(Cell("base", "tokens", name).training(seed), method, budget), folder.resolve()
    inputs = {job.cell.base: base.resolve(), job.cell.tokens: tokens.resolve()}
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=SCRATCH) as workspace, chdir(workspace):
        for path, found in inputs.items():
            path.parent.mkdir(parents=True)
            path.symlink_to(found)
        return training.train(job, folder)
