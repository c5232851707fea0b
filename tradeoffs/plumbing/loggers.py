"""The tools that runs are shown in: one class for each, by what they all are asked to do.

What is written locally is no part of Git: DVCLive writes to live/<cell>/, which `dvc plots show` and VS Code draw; the
others to .scratch/, unless their own environment variables name a place.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

FOLDER = Path("live")
SCRATCH = Path(".scratch")
PROJECT = "llm-tradeoffs"  # what runs are filed under where the environment names nothing else
# What mlflow takes at once, and how long it tries for a server that does not answer: by its own defaults that is four
# minutes for each request where a connection is refused, and a quarter of an hour where nothing comes back.
MLFLOW_METRICS, MLFLOW_TAGS = 1000, 100
MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}

Point = dict[str, float]  # `step` and what was measured there
Row = Mapping[str, Any]  # of a table: texts, numbers, None


class Logger(Protocol):
    """One run in one of the tools. Made with its name and settings, and, to go on with one that is there, its `run`."""

    run: str  # what the tool knows it by

    def log(self, point: Point, part: str) -> None: ...

    def close(self, succeeded: bool) -> None: ...


class Tracker(Logger, Protocol):
    """One that keeps runs, which are looked at side by side: what came of a run stands beside its curves there."""

    def outcome(
        self, numbers: Mapping[str, float], texts: Mapping[str, str], tables: Mapping[str, Sequence[Row]]
    ) -> None:
        """In the place of what was told before."""
        ...


class DvcLive:
    """A folder of TSV files for each cell, of its last run. What DVC draws and keeps is said in the project's dvc.yaml:
    no second one is written, no experiment saved."""

    run = ""

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
    """TENSORBOARD_LOGGING_DIR names the folder, as it does for transformers. A run is a folder there."""

    def __init__(self, cell: str, settings: dict[str, Any], run: str = ""):
        from torch.utils.tensorboard import SummaryWriter

        above = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", SCRATCH / "tensorboard"))
        self.run, self._settings, self._made = run or str(above / _run_name(cell)), settings, SummaryWriter
        self._writer: SummaryWriter | None = None
        if not run:
            shutil.rmtree(self.run, ignore_errors=True)
            self._writer = SummaryWriter(self.run)
            self._writer.add_text("settings", "```\n" + json.dumps(settings, indent=2, default=str) + "\n```")

    def log(self, point: Point, part: str) -> None:
        self._writer = self._writer or self._made(self.run)
        for name, value in _values(point, part).items():
            self._writer.add_scalar(name, value, int(point["step"]))
        self._writer.flush()

    def outcome(
        self, numbers: Mapping[str, float], texts: Mapping[str, str], tables: Mapping[str, Sequence[Row]]
    ) -> None:
        """A row of the page HPARAMS, by settings and texts; numbers on the page SCALARS, tables on TEXT.

        In a folder of its own below the run's: events cannot be changed, only written anew.
        """
        from torch.utils.tensorboard.summary import hparams

        place = Path(self.run, "outcome")
        shutil.rmtree(place, ignore_errors=True)
        kept = (bool, int, float, str)
        columns = {k: v if isinstance(v, kept) else json.dumps(v, default=str) for k, v in self._settings.items()}
        with self._made(str(place)) as writer:
            for part in hparams(columns | dict(texts), dict(numbers)):
                writer.file_writer.add_summary(part)
            for name, value in numbers.items():
                writer.add_scalar(name, value, 0)
            for name, rows in tables.items():
                writer.add_text(name, _markdown(rows), 0)

    def close(self, succeeded: bool) -> None:
        if self._writer:
            self._writer.close()


class WeightsAndBiases:
    """Login, mode and place are wandb's own: `wandb login`, WANDB_MODE, WANDB_PROJECT, WANDB_DIR, ..."""

    def __init__(self, cell: str, settings: dict[str, Any], run: str = ""):
        import wandb

        SCRATCH.mkdir(exist_ok=True)
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=_run_name(cell),
            config=settings,
            dir=os.environ.get("WANDB_DIR", str(SCRATCH)),
            **({"id": run, "resume": "allow"} if run else {}),
        )
        self.run = str(self._run.id)
        self._parts: set[str] = set()

    def log(self, point: Point, part: str) -> None:
        step = _name(part, "step")
        if part not in self._parts:  # each part counts its own steps; wandb's own counter only goes up
            self._run.define_metric(_name(part, "*"), step_metric=step)
            self._parts.add(part)
        self._run.log({step: int(point["step"]), **_values(point, part)})

    def outcome(
        self, numbers: Mapping[str, float], texts: Mapping[str, str], tables: Mapping[str, Sequence[Row]]
    ) -> None:
        """The run's summary: a column each in the table of runs. Tables are drawn on the run's page."""
        self._run.summary.update({**numbers, **texts})
        for name, rows in tables.items():
            columns = list(rows[0])
            drawn = self._wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in rows])
            self._run.log({name: drawn})

    def close(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


class Mlflow:
    """The server is mlflow's own setting, MLFLOW_TRACKING_URI; so is MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, cell: str, settings: dict[str, Any], run: str = ""):
        import mlflow

        for variable, value in MLFLOW_PATIENCE.items():
            os.environ.setdefault(variable, value)
        SCRATCH.mkdir(exist_ok=True)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{SCRATCH}/mlflow.db")
            if mlflow.get_experiment_by_name(name) is None:  # else what is kept as a file would lie in ./mlruns
                mlflow.create_experiment(name, artifact_location=(SCRATCH / "mlflow").resolve().as_uri())
        mlflow.set_experiment(name)
        self._mlflow = mlflow
        if run:
            self.run = str(mlflow.start_run(run_id=run).info.run_id)
        else:
            self.run = str(mlflow.start_run(run_name=_run_name(cell)).info.run_id)
            try:
                mlflow.log_params(settings)
            except BaseException:
                with suppress(Exception):  # or this process could begin no other
                    mlflow.end_run("FAILED")
                raise

    def log(self, point: Point, part: str) -> None:
        self._mlflow.log_metrics(_values(point, part), step=int(point["step"]))

    def outcome(
        self, numbers: Mapping[str, float], texts: Mapping[str, str], tables: Mapping[str, Sequence[Row]]
    ) -> None:
        """Metrics and tags of the run, columns in the table of runs; tables are files of it, which the page shows."""
        for some in _parts(numbers, MLFLOW_METRICS):
            self._mlflow.log_metrics(some)
        for some in _parts(texts, MLFLOW_TAGS):
            self._mlflow.set_tags(some)
        for name, rows in tables.items():
            self._mlflow.log_text(_csv(rows), f"{name}.csv")

    def close(self, succeeded: bool) -> None:
        self._mlflow.end_run("FINISHED" if succeeded else "FAILED")


# By the name in params.yaml, which is that of the package too.
LOGGERS: dict[str, Any] = {
    "dvclive": DvcLive,
    "wandb": WeightsAndBiases,
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
}
TRACKERS = ("wandb", "tensorboard", "mlflow")  # that keep runs; DVC has its own tables of what came of one


def _values(point: Point, part: str) -> Point:
    return {_name(part, key): value for key, value in point.items() if key != "step"}


def _name(part: str, key: str) -> str:
    return f"{part}/{key}" if part else key


def _run_name(cell: str) -> str:
    """With the experiment's name within `dvc exp run`, since a sweep trains the same cell again and again."""
    experiment = os.environ.get("DVC_EXP_NAME")
    return f"{cell}.{experiment}" if experiment else cell


def _parts(values: Mapping[str, Any], most: int) -> Iterator[dict[str, Any]]:
    """All of them, at most so many in each."""
    rest = iter(values.items())
    while some := dict(islice(rest, most)):
        yield some


def _markdown(rows: Sequence[Row]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(["" if v is None else v for v in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
