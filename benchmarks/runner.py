"""The default run by `tradeoffs.repro` and by `dvc repro`, of the same commit; and steps that wait, side by side.

    python -m benchmarks.runner [--quick] [--repetitions N]

Each in a clone of its own, from an empty cache, with this environment. What both leave is compared by dvc.lock: what is
trained, merged and converted is the same to the byte; the rest holds times, and what was scored by several threads. A
quick run takes one method and few steps of training.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml

from benchmarks import common
from benchmarks.common import ROOT, SCRATCH
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import pipeline

FOLDER = SCRATCH / "runner"
SIDES = {"runner": [sys.executable, "-m", "tradeoffs.repro"], "dvc repro": ["dvc", "repro"]}
QUICK = {"run": {"methods": ["base", "lora"], "quants": ["q8_0"]}, "train": {"steps": 20}}
SAME = re.compile(r"^(base|tokenize|prepare|finetune|merge|convert|quantize)@")
FACTS = re.compile(r"^data/training/")  # times
START_UP = re.compile(r"^start-up is (\d+)% of", re.MULTILINE)
DVC_ITSELF = re.compile(r"^DVC itself\s+([\d.]+)s$", re.MULTILINE)
# Steps that only wait, on so many slots and on one.
WAITING, SLOTS, SECONDS = 64, 8, 2.0


def main(arguments: Namespace) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    locks: dict[str, dict[str, str]] = {}
    said = ""
    for repetition in range(arguments.repetitions):
        for side in common.turns(SIDES, repetition):
            folder = clone(side.replace(" ", "_"), arguments.quick)
            begun = time.perf_counter()
            printed = call(SIDES[side], folder)
            seconds[side].append(time.perf_counter() - begun)
            print(f"{side}: {seconds[side][-1]:.1f} s", flush=True)
            said = printed if side == "runner" else said
            locks[side] = contents(folder / pipeline.LOCK)
            if "up to date" not in call(["dvc", "status"], folder):
                raise UserError(f"{side}: afterwards something would run again")
    ours, theirs = (statistics.median(seconds[side]) for side in SIDES)
    same = locks["runner"].keys() == locks["dvc repro"].keys() and all(
        content == locks["dvc repro"][path] for path, content in locks["runner"].items()
    )
    found = {jobs: waiting(jobs, arguments.quick) for jobs in (1, SLOTS)}
    common.write(
        "runner",
        ours,
        common.Peer({"dvc repro": theirs}),
        float(same),
        quick=arguments.quick,
        at_least={"agreement": 1, "slots_ratio": 0.8 * SLOTS + 0.1},
        at_most={"start_up_share": 0.05, "dvc_seconds": 20},
        stages=sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py")),
        start_up_share=int(_found(START_UP, said)) / 100,
        dvc_seconds=float(_found(DVC_ITSELF, said)),
        slots_ratio=found[1] / found[SLOTS],
        seconds=seconds,
        waiting_seconds=found,
        compared=f"a whole run in a fresh clone, installed before; agreement: {len(locks['runner'])} outputs of "
        "preparation, training, merging, conversion and quantisation are the same by their MD5; start_up_share: of "
        f"interpreter and imports, in the time of all stages; slots_ratio: {WAITING} steps that only wait, one at once "
        f"against {SLOTS}",
    )


def clone(name: str, quick: bool) -> Path:
    """It stays until the next time, for whoever wants to look at the results."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    call(["git", "clone", "--quiet", str(ROOT), str(folder)], ROOT)
    (folder / pipeline.LOCK).unlink()
    if quick:
        path = folder / "params.yaml"
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, values in QUICK.items():
            raw[section] |= values
        path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return folder


def contents(lock: Path) -> dict[str, str]:
    """MD5 of each output that both must make alike."""
    stages = yaml.load(lock.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    outs = [out for name, stage in stages.items() if SAME.match(name) for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if not FACTS.match(out["path"])}


def waiting(jobs: int, quick: bool) -> float:
    """Seconds of steps that only wait, `jobs` at a time."""
    folder = FOLDER / f"waiting-{jobs}"
    folder.mkdir(parents=True)
    for name in ("stages", "tradeoffs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", folder)
    count = WAITING // 8 if quick else WAITING
    step = {
        "matrix": {"number": list(range(count))},
        "cmd": f"sleep {SECONDS} && echo ${{item.number}} > waited-${{item.number}}",
        "meta": {"memory_mb": 10},
        "outs": ["waited-${item.number}"],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"wait": step}}), encoding="utf-8")
    call(["dvc", "init", "--no-scm", "--quiet"], folder)
    begun = time.perf_counter()
    call([*SIDES["runner"], "--jobs", str(jobs)], folder)
    took = time.perf_counter() - begun
    shutil.rmtree(folder)
    print(f"{count} steps that wait, {jobs} at a time: {took:.1f} s", flush=True)
    return took


def call(command: list[str], folder: Path) -> str:
    """What it prints. Raises UserError with the end of that if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{common.shown(command)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _found(pattern: re.Pattern[str], said: str) -> Any:
    if not (found := pattern.search(said)):
        raise UserError(f"the run did not say {pattern.pattern}:\n{said[-2000:]}")
    return found[1]


if __name__ == "__main__":
    common.run(main)
