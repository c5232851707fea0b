"""The real dvc.yaml, params.yaml and code with a small run list, and stand-ins for the stages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import quick_yaml

from benchmarks.stand_ins import REPO, STAND_IN, make, outs

__all__ = ["REPO", "STAND_IN", "make", "outs"]


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


def run(folder: Path, **environment: str) -> set[str]:
    """The same by `python -m tradeoffs.repro`, which takes a fifth of the time."""
    command = ("-m", "tradeoffs.repro", "--jobs", "1")
    done = forked.python(*command, cwd=folder, env=environment_with(**environment), libraries=forked.DVC)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^\[\d+/\d+\] (\w+(?:@\S+)?)(?:, .*|$)", done.stdout, re.MULTILINE))
