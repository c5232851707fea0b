"""What came of a run, in W&B, MLflow and TensorBoard: the stage `publish` tells those of launch.report_to.

    python -m tradeoffs.trackers                  the same again: after a failure, or where one was switched on since
    python -m tradeoffs.trackers --to mlflow      this one, whether or not it stands in params.yaml

The run of each training gets the numbers of all its formats, and whether one of them is recommended. A training that a
tool was not told of, such as one that came from DVC's cache, gets a run with its whole curve. One more run, `summary`,
has the decision: a table of all variants with their verdicts, and what is recommended. Told of the same results again,
the same runs are updated.

Reads metrics/, plots/seeds.csv and data/training/: nothing is computed, and no stage depends on who is told.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from tradeoffs import params
from tradeoffs.common import files, settings
from tradeoffs.common.cells import Cell, Training, Variant, cells
from tradeoffs.plumbing import cli, live
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.loggers import TRACKERS, Row, Tracker

METRICS = Path("metrics")
SEEDS = Path("plots/seeds.csv")
SUMMARY = "summary"  # the run of the decision
ENDS = {
    "difference": "difference",
    "difference_low": "low",
    "difference_high": "high",
}  # by their names in decision.json
COSTS = ("size_mb", "decode_tokens_per_second", "model_memory_mb")


class Outcome:
    """What the files of a finished run say of it. Raises UserError where one is missing."""

    def __init__(self, cfg: params.Params):
        self.cfg = cfg
        self.quality, self.cost = self._read("quality"), self._read("cost")
        self.decision, self.headline = self._read("decision"), self._read("headline")

    def _read(self, name: str) -> dict[str, dict[str, Any]]:
        path = METRICS / f"{name}.json"
        if not path.is_file():
            raise UserError(f"{path}: not found in {Path.cwd()}; run after `dvc repro`, from the folder of dvc.yaml")
        found: dict[str, dict[str, Any]] = files.read_json(path)
        return found

    @cached_property
    def _of_seeds(self) -> dict[str, dict[str, float]]:
        """What was measured of trainings with another seed than the first, as trained, by their names."""
        found: dict[str, dict[str, float]] = {}
        for row in _rows(SEEDS) if SEEDS.is_file() else ():
            training = Cell(row["model"], row["dataset"], row["method"]).training(int(row["seed"]))
            names = [name for name in row if name not in ("model", "dataset", "method", "seed")]
            found[str(training)] = {name: float(row[name]) for name in names if row[name]}
        return found

    def trainings(self) -> Iterator[tuple[Training, dict[str, Any]]]:
        """All trainings of the run list, with their rows of data/training; not the base, which is trained by none."""
        for cell in cells(self.cfg.run):
            for seed in self.cfg.run.seeds if self.cfg.methods[cell.method].trains else ():
                training = cell.training(seed)
                files.must_exist(training.facts)
                yield training, files.read_facts(training.facts)

    def numbers(self, training: Training, row: Mapping[str, Any]) -> dict[str, float]:
        """Of a training: its own as `training/...`, and those of each format that was made of it as `<format>/...`."""
        found = {f"training/{name}": value for name, value in row.items() if _is_number(value)}
        if training.seed != self.cfg.run.seeds[0]:
            return found | {f"trained/{k}": value for k, value in self._of_seeds.get(str(training), {}).items()}
        for measured in (self.quality, self.cost):
            for name, values in measured.items():
                if (variant := Variant.parse(name)).cell == training.cell:
                    found |= {f"{variant.format}/{key}": v for key, v in values.items() if _is_number(v)}
        return found

    def texts(self, training: Training) -> dict[str, str]:
        """What the decision says of a training's formats; only of the first seed, of which formats are made."""
        row = self.decision[str(training.cell.pair)]
        if training.seed != self.cfg.run.seeds[0]:
            return {}
        mine = {name: v for name, v in row["verdicts"].items() if Variant.parse(name).cell == training.cell}
        found = {f"{Variant.parse(name).format}/verdict": verdict["verdict"] for name, verdict in mine.items()}
        chosen = row.get("recommended", "")
        return found | {"recommended": Variant.parse(chosen).format if chosen in mine else "no"}

    def table(self) -> list[Row]:
        """The decision: a row for each variant, in the order of its rank, with what it was judged by."""
        rows: list[Row] = []
        for pair, decided in self.decision.items():
            for name, verdict in decided["verdicts"].items():
                variant, metric = Variant.parse(name), decided["metric"]
                rows.append(
                    {
                        "pair": pair,
                        "method": variant.method,
                        "format": variant.format,
                        "recommended": "yes" if name == decided.get("recommended") else "no",
                        "verdict": verdict["verdict"],
                        "metric": metric,
                        "value": self.quality[name].get(metric),
                        **{column: verdict.get(key) for column, key in ENDS.items()},
                        **{key: self.cost[name].get(key) for key in COSTS},
                    }
                )
        return rows

    def decided(self) -> tuple[dict[str, float], dict[str, str]]:
        """Numbers and texts of metrics/headline.json, by `<model>-<dataset>/<name>`."""
        flat = {f"{pair}/{key}": value for pair, row in self.headline.items() for key, value in row.items()}
        return (
            {key: value for key, value in flat.items() if _is_number(value)},
            {key: value for key, value in flat.items() if isinstance(value, str)},
        )

    def settings(self, training: Training, row: Mapping[str, Any]) -> dict[str, Any]:
        """As the stage finetune shows them beside the curves."""
        method, budget = settings.of_method(self.cfg, training.cell), settings.budget(self.cfg, training.cell)
        own = {key: value for key, value in asdict(method).items() if value is not None}
        steps = {"steps": row.get("steps", budget.steps)}  # what epochs come to
        return {**asdict(training.cell), "seed": training.seed, **asdict(budget), **steps, **own}


def tell(name: str, found: Outcome) -> str:
    """Tells one tool; what it has now, in a few words. Raises what the tool raises."""
    told = 0
    for training, row in found.trainings():
        curves = {key.removesuffix("curve").rstrip("_"): row[key] for key in row if key.endswith("curve")}
        numbers, texts = found.numbers(training, row), found.texts(training)
        _tell(name, str(training), curves, found.settings(training, row), numbers, texts, {}, curves)
        told += 1
    everything = {"decision": found.decision, "headline": found.headline}
    lists = {key: ", ".join(map(str, value)) for key, value in asdict(found.cfg.run).items()}
    _tell(name, SUMMARY, everything, lists, *found.decided(), {"decision": found.table()})
    return f"{name}: {told} trainings and the decision"


def _tell(
    name: str,
    run: str,
    content: Any,
    shown: dict[str, Any],
    numbers: Mapping[str, float],
    texts: Mapping[str, str],
    tables: Mapping[str, Sequence[Row]],
    curves: Mapping[str, Sequence[dict[str, float]]] | None = None,
) -> None:
    """Updates the run that a tool has of this content, or makes one, with its curves."""
    known = live.known(run, content).get(name)
    logger: Tracker = live.start(name, run, shown, known or "")
    try:
        for part, points in ({} if known else curves or {}).items():
            for point in points:
                logger.log(point, part)
        logger.outcome(numbers, texts, tables)
    except BaseException:
        with suppress(Exception):  # what broke first is what is said
            logger.close(succeeded=False)
        raise
    logger.close(succeeded=True)
    live.remember(run, content, {name: logger.run})


def publish() -> None:
    """Tells those of launch.report_to; a tool that cannot be told is named, and stops nothing."""
    cfg = params.load_all()
    for name in (name for name in cfg.launch.report_to if name in TRACKERS):
        try:
            live.require([name])
            print(tell(name, Outcome(cfg)))
        except Exception as error:
            why = live.first_line(error)
            print(f"warning: {name} was not told what came of the run: {why}; {live.again(name)} tries again")


def main(to: list[str] | None) -> None:
    cfg = params.load_all()
    names = to or [name for name in cfg.launch.report_to if name in TRACKERS]
    if not names:
        raise UserError(
            f"params.yaml: launch.report_to: names none of {', '.join(TRACKERS)}; add one, or say which: --to mlflow"
        )
    live.require(names)
    found, failed = Outcome(cfg), []
    for name in names:  # each of them, whatever the others do
        try:
            print(tell(name, found))
        except UserError:
            raise
        except Exception as error:
            failed.append(f"{name}: {live.first_line(error)}")
    if failed:
        raise UserError(f"{'; '.join(failed)}; set it up (docs/experiments.md)")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("--to", action="append", choices=TRACKERS, help="may be given several times")
    cli.command(main, parser)
