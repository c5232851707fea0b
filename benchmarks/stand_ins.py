"""The real dvc.yaml, params.yaml and code, with a stand-in for each stage's command: what is left is DVC's own work.

A stand-in writes new content to the stage's outputs in a moment. Of what lies under kept/ it writes the content that it
has there, as a stage that makes the same thing again. `settings` alone is as it is.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.assets import ROOT as REPO

STAND_IN = """
import os, sys
from pathlib import Path
for out in map(Path, sys.argv[1:]):
    folder = out if not out.suffix else out.parent
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["train.parquet", "valid.parquet", "pairs.parquet", "train.jsonl", "test.jsonl", "content"]
    for name in parts if not out.suffix else (out.name,):
        kept = Path("kept", folder, name)
        (folder / name).write_text(kept.read_text() if kept.is_file() else os.urandom(8).hex())
"""
# By libyaml, where there is one: ten times as fast as in Python.
LOADER, DUMPER = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def make(folder: Path, **run: list[str]) -> None:
    """Fills `folder` with a project of which nothing has run; `run` replaces lists of the run list."""
    for name in ("stages", "tradeoffs", "data/raw", "models/raw", "examples/tasks"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/tasks").mkdir()
    shutil.copy(REPO / "data/tasks/.gitkeep", folder / "data/tasks")
    (folder / "tradeoffs/repro/calibration.py").write_text("print(40.0, 'cpu')\n")  # nothing is trained
    for name in (".dvcignore", ".gitignore", "requirements.lock"):
        shutil.copy(REPO / name, folder)
    raw = yaml.load((REPO / "params.yaml").read_text(encoding="utf-8"), Loader=LOADER)
    raw["run"] |= run
    raw["train"]["warmup_steps"] = 0  # whatever the number of steps is changed to
    (folder / "params.yaml").write_text(yaml.dump(raw, Dumper=DUMPER, sort_keys=False))
    (folder / "stand_in.py").write_text(STAND_IN)
    stages = yaml.load((REPO / "dvc.yaml").read_text(encoding="utf-8"), Loader=LOADER)["stages"]
    for name, stage in stages.items():
        if name != "settings":  # what it writes decides what else runs
            stage["cmd"] = " ".join(["python -IS stand_in.py", *outs(stage)])
    (folder / "dvc.yaml").write_text(yaml.dump({"stages": stages}, Dumper=DUMPER, sort_keys=False))


def outs(stage: dict[str, Any]) -> Iterator[str]:
    """Paths that a stage of dvc.yaml writes, templates as they stand there."""
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind, []):
            yield out if isinstance(out, str) else next(iter(out))
