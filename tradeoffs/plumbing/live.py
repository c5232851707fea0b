"""The curves of a training while it goes on: what `launch.report_to` names gets each point when it is made.

Nothing here changes a result, so no stage depends on it: a logger that is switched on trains nothing again. What is
written locally is no part of Git: DVCLive writes to live/<cell>/, which `dvc plots show` and VS Code draw; the others
to .scratch/, unless their own environment variables name a place.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tradeoffs.plumbing.errors import UserError

FOLDER = Path("live")
SCRATCH = Path(".scratch")
PROJECT = "llm-tradeoffs"  # what runs are filed under where the environment names nothing else

Point = dict[str, float]  # `step` and what was measured there


class Watch:
    """Passes a run's points on to loggers; a context, whose end is the run's.

    `update` is given all points so far, also those of a process that was killed, and passes on the new ones: the curve
    of a resumed run is whole and has no step twice. `settings` are shown beside the curves where a logger can.
    Raises UserError if a logger is not installed or cannot start, before anything is trained.
    """

    def __init__(self, report_to: Sequence[str] = (), cell: str = "", settings: dict[str, Any] | None = None):
        missing = [name for name in report_to if not _is_installed(name)]
        if missing:
            raise UserError(
                f"params.yaml: launch.report_to: {', '.join(missing)} not installed; "
                f"pip install {' '.join(missing)}, or take it out of the list"
            )
        self._report_to, self._cell, self._settings = report_to, cell, settings or {}
        self._loggers: dict[str, Logger] = {}
        self._passed_on: dict[str, int] = {}

    def __enter__(self) -> "Watch":
        try:
            for name in self._report_to:
                self._loggers[name] = LOGGERS[name](self._cell, self._settings)
        except Exception as error:
            self._close(succeeded=False)
            raise UserError(
                f"params.yaml: launch.report_to: {name} cannot start: {_first_line(error)}; "
                "set it up (docs/experiments.md), or take it out of the list"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(succeeded=kind is None)

    def update(self, points: Sequence[Point], part: str = "") -> None:
        """`points`: all so far of the run, or of a `part` of it that counts its steps for itself."""
        begin = self._passed_on.get(part, 0)
        self._passed_on[part] = len(points)
        for name, logger in list(self._loggers.items()):
            try:
                for point in points[begin:]:
                    logger.log(point, part)
            except Exception as error:  # a curve that cannot be shown is no reason to lose a training
                print(f"{self._cell}: {name} shows no more of this run: {_first_line(error)}")
                del self._loggers[name]

    def _close(self, succeeded: bool) -> None:
        while self._loggers:
            name, logger = self._loggers.popitem()
            try:
                logger.close(succeeded)
            except Exception as error:
                print(f"{self._cell}: {name} did not end well: {_first_line(error)}")


NOBODY = Watch()


class Logger(Protocol):
    """One run in one of the tools."""

    def log(self, point: Point, part: str) -> None: ...

    def close(self, succeeded: bool) -> None: ...


class DvcLive:
    """A folder of TSV files for each cell, of its last run. What DVC draws and keeps is said in the project's dvc.yaml:
    no second one is written, no experiment saved."""

    def __init__(self, cell: str, settings: dict[str, Any]):
        from dvclive import Live

        class Files(Live):
            def _init_dvc(self) -> None:
                """Not what Live does here: it asks Git for a commit, adds files to it, and may even set DVC up."""
                self._dvc_file = "dvc.yaml"

        self._live = Files(str(FOLDER / cell), save_dvc_exp=False, dvcyaml=False)  # removes an earlier run's files

    def log(self, point: Point, part: str) -> None:
        self._live.step = int(point["step"])
        for name, value in _values(point, part).items():
            self._live.log_metric(name, value)
        # Not next_step(), which reads all files again for a service that is not used.
        self._live.make_summary()

    def close(self, succeeded: bool) -> None:
        self._live.end()


class TensorBoard:
    """TENSORBOARD_LOGGING_DIR names the folder, as it does for transformers."""

    def __init__(self, cell: str, settings: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", SCRATCH / "tensorboard")) / _run_name(cell)
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("settings", "```\n" + json.dumps(settings, indent=2, default=str) + "\n```")

    def log(self, point: Point, part: str) -> None:
        for name, value in _values(point, part).items():
            self._writer.add_scalar(name, value, int(point["step"]))
        self._writer.flush()

    def close(self, succeeded: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Login, mode and place are wandb's own: `wandb login`, WANDB_MODE, WANDB_PROJECT, WANDB_DIR, ..."""

    def __init__(self, cell: str, settings: dict[str, Any]):
        import wandb

        SCRATCH.mkdir(exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=_run_name(cell),
            config=settings,
            dir=os.environ.get("WANDB_DIR", str(SCRATCH)),
        )
        self._parts: set[str] = set()

    def log(self, point: Point, part: str) -> None:
        step = _name(part, "step")
        if part not in self._parts:  # each part counts its own steps; wandb's own counter only goes up
            self._run.define_metric(_name(part, "*"), step_metric=step)
            self._parts.add(part)
        self._run.log({step: int(point["step"]), **_values(point, part)})

    def close(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


class Mlflow:
    """The server is mlflow's own setting, MLFLOW_TRACKING_URI; so is MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, cell: str, settings: dict[str, Any]):
        import mlflow

        SCRATCH.mkdir(exist_ok=True)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{SCRATCH}/mlflow.db")
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        self._mlflow = mlflow
        mlflow.start_run(run_name=_run_name(cell))
        mlflow.log_params(settings)

    def log(self, point: Point, part: str) -> None:
        self._mlflow.log_metrics(_values(point, part), step=int(point["step"]))

    def close(self, succeeded: bool) -> None:
        self._mlflow.end_run("FINISHED" if succeeded else "FAILED")


# By the name in params.yaml, which is that of the package too.
LOGGERS: dict[str, Any] = {
    "dvclive": DvcLive,
    "wandb": WeightsAndBiases,
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
}


def _values(point: Point, part: str) -> Point:
    return {_name(part, key): value for key, value in point.items() if key != "step"}


def _name(part: str, key: str) -> str:
    return f"{part}/{key}" if part else key


def _run_name(cell: str) -> str:
    """With the experiment's name within `dvc exp run`, since a sweep trains the same cell again and again."""
    experiment = os.environ.get("DVC_EXP_NAME")
    return f"{cell}.{experiment}" if experiment else cell


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # None: a mere folder of that name, such as wandb's own


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
