"""What variants said to the tasks of `evaluate.tasks`: metrics of their own, and items like all others.

A task measures what it measures, so its metrics are registered when its results are read. From then on they are metrics
like any other, to tables, comparisons and the decision.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tradeoffs import metrics
from tradeoffs.metrics import Metric, registry
from tradeoffs.metrics.task_forms import FORMS
from tradeoffs.params import Decide
from tradeoffs.plumbing.errors import UserError, near

Columns = dict[str, np.ndarray]
TEXTS = ("prompt", "answer")
SPLIT = "task "  # ... and the name of the task or group: the split that its items are of


def read(folder: Path) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """What is said of each task in a folder, and its rows; none where there is no such folder, or no answers."""
    for path in sorted(folder.glob("[!.]*.parquet")):
        table = pq.read_table(path)
        if found := (table.schema.metadata or {}).get(b"tasks"):
            yield json.loads(found), table


def added(found: Columns, folder: Path) -> Columns:
    """Items of a variant with those of its tasks behind them; what these do not have is NaN or None.

    A task that is asked by itself and in a group has its items once, as it was asked by itself. Raises UserError if two
    of the tasks have a metric of one name, which is one column.
    """
    there = sorted(read(folder), key=lambda one: len({metric["of"] for metric in one[0]["metrics"]}))
    of: dict[str, Columns] = {}
    for said, table in there:
        of = dict(_blocks(said, table)) | of
    if not of:
        return found
    blocks, alone = list(of.values()), {said["task"] for said, _ in there}
    _require_names_of_their_own([metric for said, _ in there for metric in said["metrics"]])
    for said, _ in reversed(there):  # the last word is that of the task by itself
        for metric in said["metrics"]:
            register(metric, grouped={name for one in said["metrics"] for name in one.get("scale", ())} - alone)
    names = dict.fromkeys([*found, *(name for block in blocks for name in block)])
    whole = [(found, len(found["item"])), *((block, len(block["item"])) for block in blocks)]
    texts = {name for name, values in found.items() if values.dtype == object}
    return {
        name: np.concatenate([part.get(name, _none(count, name in texts)) for part, count in whole]) for name in names
    }


def _require_names_of_their_own(some: Sequence[Mapping[str, Any]]) -> None:
    """Of the tasks of one folder alone: another commit may have asked one of them by another name."""
    first: dict[str, str] = {}
    for said in some:
        if first.setdefault(said["name"], said["of"]) != said["of"]:
            raise UserError(
                f"the tasks {first[said['name']]} and {said['of']} both have a metric {said['name']}, which is one "
                "column: give one of them another name"
            )


def _none(count: int, text: bool) -> np.ndarray:
    return np.full(count, None, object) if text else np.full(count, np.nan)


def _blocks(said: Mapping[str, Any], table: pa.Table) -> Iterator[tuple[str, Columns]]:
    """The items of each task by its name, and again those of a group, of which a metric of the group may weigh them
    otherwise."""
    task = np.array(table["task"].to_pylist(), object)
    values, weights = (table[name].to_pylist() for name in ("values", "weights"))
    own: dict[str, list[dict[str, Any]]] = {}
    for metric in said["metrics"]:
        own.setdefault(metric["of"], []).append(metric)
    # Where a metric stands among those of a task, which are those that items of the task have values of.
    at = {(of, m["metric"], m["filter"]): place for of, some in own.items() for place, m in enumerate(some)}
    for of, measured in own.items():
        places = [place for place, name in enumerate(task) if name in (measured[0].get("scale") or [of])]
        block = {name: np.array(table[name].to_pylist(), object)[places] for name in ("item", *TEXTS)}
        block |= {"split": np.full(len(places), f"{SPLIT}{of}", object), "subject": task[places]}
        block["items"] = np.ones(len(places))
        for metric in measured:
            scale = metric.get("scale") or {of: 1.0}
            wheres = [at.get((task[place], metric["metric"], metric["filter"])) for place in places]
            both = list(zip(places, wheres, strict=True))
            scales = [np.nan if where is None else scale.get(task[place], np.nan) for place, where in both]
            for name, found in ((metric["name"], values), (_weight(metric["name"]), weights)):
                own_values = [found[place][where or 0] for place, where in both]
                block[name] = np.array(own_values, np.float64) * np.array(scales, np.float64)
            if metric["alike"]:
                del block[_weight(metric["name"])]
        yield of, block


def _weight(name: str) -> str:
    return f"{name}#weight"


def register(said: Mapping[str, Any], grouped: set[str]) -> None:
    """Makes a metric of a task one of the register. Of the `grouped` tasks it stands in metrics/summary.csv alone."""
    name, which = said["name"], "" if said["filter"] == "none" else f" ({said['filter']})"
    about = f"{said['metric']}{which} of the task {said['of']} of lm-evaluation-harness"
    if said.get("scale"):
        about = f"{said['metric']}{which} of the tasks {said['of']} of lm-evaluation-harness together"
    about += f", with {said['shots']} examples before each question" if said["shots"] else ""
    about += "" if said["exact"] else "; its interval is that of the jackknife"
    before = registry.METRICS.get(name)
    if (before is not None and not before.task) or (before is None and name in _of_data_sets()):
        raise UserError(f"the task {said['of']} has a metric {name}, as data sets have: give the task another name")
    registry.METRICS[name] = Metric(
        name,
        f"{said['of']} {said['metric']}{which}",
        # What another commit calls better stays a metric that is judged, which shows that they say otherwise.
        said["better"] or ("" if before is None or before.unread else before.better),
        about,
        columns=(name, "items" if said["alike"] else _weight(name)),
        of=FORMS[said["form"]],
        split=f"{SPLIT}{said['of']}",
        # Of two variants, one of which has other values than right and wrong, neither is right or wrong.
        right_or_wrong=said["right_or_wrong"] and (before is None or before.right_or_wrong or before.unread),
        stands="summary" if said["of"] in grouped else "quality",
        shown=False,
        task=said["of"],
    )


def _of_data_sets() -> set[str]:
    """Names, in the metrics files, of what is measured on data sets."""
    every = [*metrics.names("quality"), *metrics.names("summary"), *metrics.names("value")]
    return {name for name in every if not metrics.metric(name)[1].task}


def require_known(decide: Decide, any_read: bool) -> None:
    """Raises UserError if `decide` names a metric that no task has, where tasks were read; else nothing is known of it,
    and it counts as not measured."""
    named = {"metric": [decide.metric], "margins": decide.margins, "guards": decide.guards}
    named["limits.max_loss_of"] = decide.limits.max_loss_of or {}
    bare = {metric.name for metric in metrics.every()}
    full = {*metrics.names("quality"), *metrics.names("summary"), "auto"}
    of_tasks = [metric.name for metric in metrics.every() if metric.task and not metric.unread]
    for where, names in named.items():
        for name in names:
            if name in full or name in bare:
                continue
            if any_read:
                raise UserError(f"params.yaml: decide.{where}: no task has measured {name!r}{near(name, of_tasks)}")
            registry.METRICS[name] = Metric(
                name,
                name,
                "higher",
                "of a task that was not asked",
                split=f"{SPLIT}?",
                shown=False,
                task="?",
                unread=True,
            )


def of_pair(listed: Mapping[str, Metric] | None = None) -> dict[str, list[Metric]]:
    """The registered metrics of each task or group that stands for itself."""
    found: dict[str, list[Metric]] = {}
    for metric in metrics.every():
        if metric.task and not metric.unread and metric.stands == "quality":
            found.setdefault(metric.task, []).append(metric)
    return found


def better(folder: Path) -> dict[str, str]:
    """Which end of each metric is better, as the results in a folder say."""
    return {metric["name"]: metric["better"] for said, _ in read(folder) for metric in said["metrics"]}


def seconds(folder: Path) -> dict[str, dict[str, float]]:
    """What each task took, by its name in `evaluate.tasks` and by clock."""
    return {said["task"]: said["seconds"] for said, _ in read(folder)}
