"""What DVC's own work costs per step of the pipeline, by the runner and by `dvc repro`, as the run list grows.

    python -m benchmarks.scaling [--quick]

Each stage's command is a stand-in that writes its outputs in a moment, so what is timed is all that is not the stages'
work: reading the pipeline, hashing, the run cache, the cache, the lock file, starting processes. A quick run takes the
smallest run list alone.
"""

import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

from benchmarks import common, stand_ins
from benchmarks.common import SCRATCH
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import runner

PAIRS = {"1 model, 1 data set": (1, 1), "2 models, 2 data sets": (2, 2), "4 models, 3 data sets": (4, 3)}
MODELS = ["demo", "distilgpt2", "gpt2", "pythia_410m"]
DATASETS = ["demo", "alpaca", "dolly_15k"]
RUNNER = [runner.__package__, "--jobs", "1"]
SERIAL = ["dvc", "repro", "--quiet"]


def main(arguments: Namespace) -> None:
    lists = dict(list(PAIRS.items())[:1]) if arguments.quick else PAIRS
    found: dict[str, dict[str, float]] = {}
    for name, (models, datasets) in lists.items():
        sides = {"runner": RUNNER} | ({"dvc repro": SERIAL} if not found else {})
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for repetition in range(arguments.repetitions):
            for side in common.turns(sides, repetition):
                took, steps = timed(sides[side], MODELS[:models], DATASETS[:datasets])
                seconds[side].append(took)
                print(f"{name}: {side}: {took:.1f} s for {steps} steps", flush=True)
        found[name] = {"steps": steps} | {
            f"{side}, seconds per step": sorted(took)[len(took) // 2] / steps for side, took in seconds.items()
        }
    per_step = [one["runner, seconds per step"] for one in found.values()]
    first = next(iter(found.values()))
    common.write(
        "scaling",
        per_step[0],
        common.Peer({"dvc repro": first["dvc repro, seconds per step"]}),
        None,
        quick=arguments.quick,
        at_least={"ratio": 4},
        at_most={"growth": 1.3},
        growth=max(per_step) / per_step[0],
        by_run_list=found,
        compared="seconds per step, median of the repetitions, of a whole run of stand-ins from an empty cache, the "
        "start of the program and the processes of the stand-ins among them; dvc repro with the smallest run list "
        "alone, since it takes hours with the largest; growth: the most per step over that of the smallest run list",
    )


def timed(command: list[str], models: list[str], datasets: list[str]) -> tuple[float, int]:
    """Seconds of a whole run, and how many steps that were."""
    folder = SCRATCH / "scaling"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stand_ins.make(folder, models=models, datasets=datasets)
    call(["dvc", "init", "--no-scm", "--quiet"], folder)
    begun = time.perf_counter()
    call(command, folder)
    took = time.perf_counter() - begun
    steps = sum(line.startswith("  ") and line[2] != " " for line in (folder / "dvc.lock").read_text().splitlines())
    shutil.rmtree(folder)
    return took, steps


def call(module: list[str], folder: Path) -> None:
    """Raises UserError with the end of its output if it fails."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", *module]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{common.shown(command)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")


if __name__ == "__main__":
    common.run(main)
