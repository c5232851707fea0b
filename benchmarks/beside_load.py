"""One training and one evaluation of the default, alone and beside two processes that never wait.

    python -m benchmarks.beside_load [--quick]

As stages start them (`stages/__init__.py` says how OpenMP's threads wait for each other), and as libraries would by
themselves. Two busy processes on two cores leave half of them: twice the time is a fair share. Takes its inputs from
DVC's cache: run after `make run`.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import ROOT, SCRATCH
from tradeoffs.common import cores
from tradeoffs.plumbing.errors import UserError

FOLDER = SCRATCH / "beside_load"
CELL = ["--model", "demo", "--dataset", "demo", "--method", "lora"]
COMMANDS = {
    "finetune": ["stages.finetune", *CELL, "--seed", "42"],
    "evaluate_cpu": ["stages.evaluate_cpu", *CELL, "--quant", "q4_0"],
}
WRITES = (".scratch", "models/trained/demo-demo-lora")  # of these commands: what they would go on from
SET = "as set"
# libgomp's own where nothing is set; once, and ended where it takes very long.
SIDES = {SET: {}, "as libraries have it": {"GOMP_SPINCOUNT": "300000"}}
MOST = 4  # times the time alone
AIM = 2.2  # of the time alone


def main(arguments: Namespace) -> None:
    prepare(arguments.quick)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for repetition in range(arguments.repetitions):
        for side in common.turns(SIDES, repetition) if repetition == 0 else [SET]:
            for name, command in COMMANDS.items():
                row = found.setdefault(side, {}).setdefault(name, {"alone": [], "beside": []})
                row["alone"].append(timed(command, SIDES[side]))
                with load(cores.usable()):
                    most = None if side == SET else MOST * row["alone"][-1]
                    row["beside"].append(timed(command, SIDES[side], most))
                print(f"{name}, {side}: {row['alone'][-1]:.1f} s alone, {row['beside'][-1]:.1f} s beside", flush=True)
    shutil.rmtree(FOLDER)
    medians = {
        side: {name: {when: statistics.median(row) for when, row in rows.items()} for name, rows in by_name.items()}
        for side, by_name in found.items()
    }
    ours, theirs = medians[SET], medians["as libraries have it"]
    ratios: dict[str, Any] = {f"{name}_beside": row["beside"] / row["alone"] for name, row in ours.items()}
    ratios |= {f"{name}_beside_as_libraries_have_it": row["beside"] / row["alone"] for name, row in theirs.items()}
    ratios |= {f"{name}_alone": ours[name]["alone"] / theirs[name]["alone"] for name in COMMANDS}
    common.write(
        "beside_load",
        None,
        None,
        None,
        quick=arguments.quick,
        at_most={f"{name}_beside": AIM for name in COMMANDS},
        stages=COMMANDS,
        **ratios,
        seconds=found,
        compared="..._beside: time beside as many busy processes as there are cores over that alone; ..._alone: time "
        "alone as set over that as libraries have it; medians of the repetitions, start of the process "
        f"among them; as libraries have it, once, and ended after {MOST} times the time alone",
    )


def prepare(quick: bool) -> None:
    """A clone with the inputs of the two commands. Raises UserError if they were not made."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    call("git", "clone", "--quiet", str(ROOT), str(FOLDER), cwd=ROOT)
    call("dvc", "config", "--local", "cache.dir", str(ROOT / ".dvc/cache"), cwd=FOLDER)
    made = ("base@demo", "tokenize@demo-demo", "reference@demo-demo-lora", "quantize@demo-demo-lora-q4_0")
    call("dvc", "checkout", "--quiet", *made, cwd=FOLDER)
    if quick:
        params = FOLDER / "params.yaml"
        params.write_text(params.read_text().replace("\n  steps: 250", "\n  steps: 20"))


def timed(command: list[str], environment: Mapping[str, str], most: float | None = None) -> float:
    """Seconds of a process that has nothing to go on from; it is ended after `most`."""
    for path in WRITES:
        shutil.rmtree(FOLDER / path, ignore_errors=True)
    begun = time.perf_counter()
    with suppress(subprocess.TimeoutExpired):
        call(sys.executable, "-m", *command, cwd=FOLDER, most=most, **environment)
    return time.perf_counter() - begun


def call(*command: str, cwd: Path, most: float | None = None, **environment: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=most,
    )
    if done.returncode:
        raise UserError(f"{common.shown(command)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")


@contextmanager
def load(count: int) -> Iterator[None]:
    """So many processes with one busy thread each."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


if __name__ == "__main__":
    common.run(main)
