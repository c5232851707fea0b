"""`finetune` of a tiny model as it is launched: alone, or by `accelerate launch` as two processes on the CPU (gloo)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import quick_yaml
from tiny import ROOT

from stages import finetune
from tradeoffs.common import files


class Launcher:
    """Trainings of `demo` on `demo`, which are the base and the tokens of `made`, in the working directory; `edit`
    changes params.yaml."""

    def __init__(self, made: Path, programs: Path, edit: Callable[[dict[str, Any]], object]) -> None:
        raw = quick_yaml.load((ROOT / "params.yaml").read_text())
        raw["launch"]["report_to"] = []  # who imports all of DVC for it
        edit(raw)
        files.write_text("params.yaml", quick_yaml.dump(raw))
        for place, name in (("models/base/demo", "base"), ("data/tokens/demo-demo", "tokens")):
            Path(place).parent.mkdir(parents=True)
            Path(place).symlink_to(made / name)
        self._environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON_EXEC": forked.command(programs)}

    def alone(self, method: str) -> dict[str, Any]:
        """The row of data/training, by this process."""
        finetune.main("demo", "demo", method, 42)
        return files.read_json(Path(f"data/training/demo-demo-{method}/42.json"))

    def two(self, method: str) -> tuple[dict[str, Any], str]:
        """The row of data/training, and what both processes printed."""
        stage = ["stages.finetune", "--model", "demo", "--dataset", "demo", "--method", method, "--seed", "42"]
        config = ROOT / "configs/accelerate/two_cpu_processes.yaml"
        launch = ["accelerate.commands.launch", "--config_file", config, "--main_process_port", "0"]
        done = forked.python("-m", *launch, "-m", *stage, env=self._environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("training on cpu") == 2, "as many processes as asked for"
        assert not list(Path(".scratch").glob("rank*/*")), "what other processes needed is gone"
        assert not list(Path(".scratch/unfinished/finetune").glob("*")), "nothing of a finished run is left"
        return files.read_json(Path(f"data/training/demo-demo-{method}/42.json")), done.stdout
