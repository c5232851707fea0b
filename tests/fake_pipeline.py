"""The real dvc.yaml, params.yaml and code with a small run list, and a stand-in for each stage's command.

A stand-in writes new content to the stage's outputs in a moment, so that a whole run is DVC's own work alone. Of what
lies under kept/ it writes the content that it has there, as a stage that makes the same thing again.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import quick_yaml

REPO = Path(__file__).parents[1]
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


def make(folder: Path, **run: list[str]) -> None:
    """Fills `folder` with a project of which nothing has run; `run` replaces lists of the run list."""
    for name in ("stages", "tradeoffs", "data/raw", "models/raw"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(REPO / name, folder)
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    raw["run"] |= run
    (folder / "params.yaml").write_text(quick_yaml.dump(raw, sort_keys=False))
    (folder / "stand_in.py").write_text(STAND_IN)
    stages = quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"]
    for stage in stages.values():
        stage["cmd"] = " ".join(["python -IS stand_in.py", *outs(stage)])
    (folder / "dvc.yaml").write_text(quick_yaml.dump({"stages": stages}, sort_keys=False))


def outs(stage: dict) -> Iterator[str]:
    """Paths that a stage of dvc.yaml writes, templates as they stand there."""
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind, []):
            yield out if isinstance(out, str) else next(iter(out))


def change(folder: Path, edit) -> None:
    """Lets `edit` change params.yaml of a project, as a dict, in place."""
    raw = quick_yaml.load((folder / "params.yaml").read_text())
    edit(raw)
    (folder / "params.yaml").write_text(quick_yaml.dump(raw, sort_keys=False))


def environment_with(**more: str) -> dict[str, str]:
    """This process's environment with this Python's commands first on the PATH, and without the user's AWS_*."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}


def call(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of this Python's environment; its output as text, whatever its exit code."""
    env = environment_with(**environment)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def dvc(*words: str, cwd: Path, **environment: str) -> str:
    """Standard output of a DVC command that must end well."""
    done = forked.python("-m", "dvc", *words, cwd=cwd, env=environment_with(**environment), libraries=forked.DVC)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def repro(folder: Path, *words: str, **environment: str) -> set[str]:
    """Stages whose command `dvc repro` runs."""
    out = dvc("repro", *words, cwd=folder, **environment)
    return {line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")}
