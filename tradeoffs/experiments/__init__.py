"""The experiments of a commit as a table: for every method the settings tried, and the best by loss on held-out rows.

    python -m tradeoffs.experiments                      those of HEAD; docs/sweeps.md says how to make them
    python -m tradeoffs.experiments --ablation           what each setting changes, by test quality: docs/ablations.md
    python -m tradeoffs.experiments --rev v1.0 --csv runs.csv

A trial is one training as dvc.lock of its experiment records it: every parameter that reached it, but `train.seed`, is
its setting, whatever the experiment meant to change. Chosen is by `valid_loss` alone, the mean over seeds; test numbers
are shown for what was chosen, where the experiment went on to evaluate it. An ablation chooses nothing: it shows them
for every setting.
"""

import argparse
import csv
import io
import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dvc.api
import numpy as np
import pyarrow.parquet as pq
import yaml
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import NoSCM, RevError
from dvc.utils.flatten import flatten
from tqdm import tqdm

from tradeoffs import metrics
from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED
from tradeoffs.params.reading import Loader
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report.formatting import Lines, bold, counted, interval_of, short, table, verdict
from tradeoffs.results import intervals

SEED = "train.seed"
VALID = "the rows that valid loss is measured on"
# What must be the same in all trials that are compared, by the paths of finetune's dependencies.
DATA = {
    "the examples trained on": ("train.parquet", "pairs.parquet"),
    VALID: ("valid.parquet",),
    "the base model": ("models/base/",),
    "the code": (".py",),
}
PLAIN = ("experiment", "model", "dataset", "method", "seed", "valid_loss", "tokens", "train_seconds")
TESTED = {"test_loss": "test loss", "test_bits_per_byte": "test bits per byte", "test_f1": "test F1"}
ABLATED = ("test_bits_per_byte", "test_f1")  # a loss per token is no measure of settings that change the windows
# Of a training, beside its time, what a setting can change.
FACTS = {
    "adapter_mb": "adapter MB",
    "trainable_params": "trainable parameters",
    "peak_memory_mb": "training memory MB",
}
ITEMS = ["split", "item", "document", "tokens", "log_likelihood", "bytes", "generated", "answer"]


LeftOut = dict[str, dict[str, None]]  # the names of experiments (a set in order) by the reason


class _LockLoader(yaml.CSafeLoader):
    """Reads numbers as params.yaml's loader does, ten times as fast: a lock file is long."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


@dataclass(frozen=True)
class Trial:
    """One training of one experiment. `setting`: flat parameters, the method's own values of `train` merged in."""

    experiment: str
    model: str
    dataset: str
    method: str
    seed: int
    setting: dict[str, Any]
    data: dict[str, tuple[str, ...]]  # hashes of what DATA names
    valid_loss: float
    tokens: float  # real ones, no padding
    train_seconds: float
    facts: dict[str, float]  # of FACTS
    items: bytes | None = field(default=None, repr=False)  # what reference wrote of this training, if it went on to it

    @cached_property
    def tested(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """By the names of TESTED the items (a text's documents) and per item the sums that the metric is made of."""
        if self.items is None:
            return {}
        rows = [
            row for row in pq.read_table(io.BytesIO(self.items), columns=ITEMS).to_pylist() if row["split"] == "test"
        ]
        names = [row["document"] or row["item"] for row in rows]
        columns = {
            name: np.array([row[name] for row in rows], np.float64) for name in ("tokens", "log_likelihood", "bytes")
        }
        columns["items"] = np.ones(len(rows))
        if all(row["generated"] is not None for row in rows):
            from tradeoffs.metrics.answers import f1

            columns["f1"] = np.array([f1(row["generated"], row["answer"]) for row in rows])
        found = {name: metrics.metric(name)[1].columns for name in TESTED}
        return {
            name: metrics.per_item(names, np.stack([columns[column] for column in wanted], axis=-1))
            for name, wanted in found.items()
            if all(column in columns for column in wanted)
        }

    @property
    def test(self) -> dict[str, float]:
        """Test metrics as trained, by their names; empty where the experiment did not go on to evaluate."""
        return {name: float(metrics.metric(name)[1].of(sums.sum(axis=0))) for name, (_, sums) in self.tested.items()}

    @property
    def group(self) -> tuple[str, str]:
        return self.model, self.dataset

    @property
    def examples(self) -> int:
        """Optimiser steps times batch size, those of a preference stage included."""
        found = self.setting["train.steps"] * self.setting["train.batch_size"]
        if self.setting.get("stage"):
            steps, size = (self._of_stage(key) for key in ("steps", "batch_size"))
            found += steps * size
        return found

    def _of_stage(self, key: str) -> int:
        return self.setting.get(f"preference.train.{key}", self.setting[f"train.{key}"])

    def same_training(self) -> str:
        """Equal for two trials that trained the same thing on the same data."""
        own = (self.model, self.dataset, self.method, self.seed, self.setting, self.data)
        return json.dumps(own, sort_keys=True, default=str)


@dataclass(frozen=True)
class Tried:
    """A setting with its trials, one per seed."""

    label: str
    setting: dict[str, Any]
    trials: list[Trial]

    @property
    def losses(self) -> list[float]:
        return [trial.valid_loss for trial in self.trials]

    @property
    def loss(self) -> float:
        return statistics.fmean(self.losses)


@dataclass
class Sweep:
    """What was found, and what is not in the table."""

    trials: list[Trial]
    left_out: LeftOut
    committed: str = ""  # what the commit's own trainings are called
    seed: int = 0  # of the bootstrap
    resamples: int = 1000


# --- reading


def read(rev: str) -> Sweep:
    """The trials of the experiments of commit `rev`. A training of `rev` itself counts where its method was swept and
    its seed is one of the sweep's. Raises UserError if there are no experiments."""
    try:
        repo = Repo()
    except NotDvcRepoError as error:
        raise UserError(f"{Path.cwd()}: no DVC project; run from the folder that holds dvc.yaml") from error
    if isinstance(repo.scm, NoSCM):
        raise UserError(
            f"{repo.root_dir}: DVC keeps experiments in Git, and this project has none; git init, and commit"
        )
    try:
        rows = dvc.api.exp_show(revs=rev)
    except RevError as error:
        raise UserError(f"--rev {rev}: no such commit, branch or tag") from error
    experiments = [row for row in rows if row["typ"] != "baseline"]
    if not experiments:
        raise UserError(
            f"{rev} has no experiments; make some: dvc exp run --queue -S ... && dvc queue start (docs/sweeps.md), "
            "or name the commit that they were made on: --rev (dvc exp list --all)"
        )
    left_out: LeftOut = {}
    trials: dict[str, Trial] = {}
    with repo:
        seen: set[str] = set()
        own = _Revision(repo, rev, rev)
        committed = {trial.same_training(): trial for trial in own.trials(seen, left_out={})}
        settings = own.yaml("params.yaml")
        # The oldest first: what an experiment did not train it has from the commit, or from one before.
        for row in tqdm(experiments[::-1], desc="reading", unit="experiment", delay=2, leave=False):
            name, state = row["Experiment"] or row["rev"], row["State"] or "Success"
            if state != "Success":
                reason = state.lower() + (" (dvc queue logs NAME says why)" if state == "Failed" else "")
                left_out.setdefault(reason, {})[name] = None
                continue
            known = len(seen)
            for trial in _Revision(repo, name, row["rev"]).trials(seen, left_out):
                trials.setdefault(trial.same_training(), trial)
            if len(seen) == known:
                left_out.setdefault("trained nothing that was not trained before", {})[name] = None
    swept: dict[tuple[str, ...], set[int]] = {}
    for key, trial in trials.items():
        if key not in committed:
            swept.setdefault((*trial.group, trial.method), set()).add(trial.seed)
    trials = committed | trials
    kept = [trial for trial in trials.values() if trial.seed in swept.get((*trial.group, trial.method), ())]
    return Sweep(kept, left_out, rev, settings["seed"], settings["evaluate"]["bootstrap"])


class _Revision:
    """The trainings that dvc.lock records in one revision."""

    def __init__(self, repo: Repo, name: str, rev: str):
        self._repo, self._name = repo, name
        self._files = dvc.api.DVCFileSystem(rev=rev)

    def trials(self, seen: set[str], left_out: LeftOut) -> Iterator[Trial]:
        """Those that are not among `seen`, and adds them; what cannot be used goes to `left_out` by the reason."""
        lock = self.yaml("dvc.lock").get("stages", {})
        for stage, entry in lock.items():
            name, _, cell = stage.partition("@")
            if name != "finetune" or (known := json.dumps(entry)) in seen:
                continue
            seen.add(known)
            row = self._training(cell, entry)
            if row is None:
                left_out.setdefault("not in the cache (dvc exp pull)", {})[self._name] = None
            elif "train_seconds" in row and "valid_loss" not in row:
                left_out.setdefault("trained by an earlier version, without valid_loss", {})[self._name] = None
            elif "train_seconds" in row:  # which the untouched base has not
                yield self._trial(cell, row, lock)

    def _trial(self, cell: str, row: dict, lock: dict) -> Trial:
        model, dataset, method = cell.split("-")
        entry = lock[f"finetune@{cell}"]
        setting = _setting(lock, model, dataset, method, entry)
        return Trial(
            experiment=self._name,
            model=model,
            dataset=dataset,
            method=method,
            seed=setting.pop(SEED),
            setting=setting,
            data=_data(entry),
            valid_loss=row["valid_loss"],
            tokens=row["train_tokens_per_second"] * row["train_seconds"],
            train_seconds=row["train_seconds"],
            facts={key: row[key] for key in FACTS if key in row},
            items=self._evaluation(cell, lock),
        )

    def _training(self, cell: str, entry: dict) -> dict | None:
        found = self._output(entry, f"data/training/{cell}.json")
        return None if found is None else json.loads(found)

    def _evaluation(self, cell: str, lock: dict) -> bytes | None:
        """The items of this training as trained. What dvc.lock has may still be the evaluation of the commit's own."""
        entry, trained = lock.get(f"reference@{cell}"), f"models/trained/{cell}"
        if entry is None or _hashes(entry, "deps")[trained] != _hashes(lock[f"finetune@{cell}"], "outs")[trained]:
            return None
        return self._output(entry, f"data/items/{cell}-{TRAINED}.parquet")

    def _output(self, entry: dict, path: str) -> bytes | None:
        """A file that a stage made; None if it is neither in the cache nor in the remote."""
        # By its hash: to find a file by its name, DVC builds the index of the whole revision, half a second for each.
        cached = Path(self._repo.cache.local.oid_to_path(_hashes(entry, "outs")[path]))
        if cached.is_file():
            return cached.read_bytes()
        try:
            return self._files.read_bytes(path)
        except (DvcException, OSError):
            return None

    def yaml(self, path: str) -> dict:
        return yaml.load(self._files.read_text(path), _LockLoader) if self._files.exists(path) else {}


def _setting(lock: dict, model: str, dataset: str, method: str, finetune: dict) -> dict[str, Any]:
    """All parameters that reached a training, through the stages before it too, by flat names.

    `methods.<method>.` is left out of a name, and the method's own `train` values replace the shared ones.
    """
    stages = (f"prepare@{dataset}", f"base@{model}", f"tokenize@{model}-{dataset}")
    found: dict[str, Any] = {}
    for entry in (*(lock.get(stage, {}) for stage in stages), finetune):
        found |= flatten(entry.get("params", {}).get("params.yaml", {}))
    own, shared = f"methods.{method}.", {k: v for k, v in found.items() if not k.startswith("methods.")}
    shared |= {key.removeprefix(own): value for key, value in found.items() if key.startswith(own)}
    return {key: value for key, value in shared.items() if not key.startswith("evaluate.")}


def _hashes(entry: dict, what: str) -> dict[str, str]:
    """Of the `deps` or `outs` of a stage in dvc.lock, by their paths."""
    return {found["path"]: found["md5"] for found in entry[what]}


def _data(finetune: dict) -> dict[str, tuple[str, ...]]:
    deps = _hashes(finetune, "deps")
    return {
        what: tuple(deps[path] for path in sorted(deps) if any(part in path for part in parts))
        for what, parts in DATA.items()
    }


# --- choosing


def tried(trials: Iterable[Trial]) -> list[Tried]:
    """The settings of one method, best first. A setting is named by the keys in which they differ."""
    by_setting: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.seed):
        by_setting.setdefault(json.dumps(trial.setting, sort_keys=True, default=str), []).append(trial)
    settings = [some[0].setting for some in by_setting.values()]
    varied = varying(settings)
    found = [
        Tried(label(setting, varied), setting, some)
        for setting, some in zip(settings, by_setting.values(), strict=True)
    ]
    return sorted(found, key=lambda one: one.loss)


def label(setting: dict[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key}={_value(setting.get(key))}" for key in keys) or "the only one"


def varying(settings: list[dict[str, Any]]) -> list[str]:
    """The keys whose value is not the same in all settings; an absent key is a value too."""
    keys = sorted(set().union(*settings))
    return [key for key in keys if any(setting.get(key) != settings[0].get(key) for setting in settings)]


def unfair(methods: dict[str, list[Tried]]) -> Iterator[str]:
    """What keeps the methods of one model and data set from being compared, each as a clause."""
    counts = {method: len(some) for method, some in methods.items()}
    if len(set(counts.values())) > 1:
        yield "unequal numbers of settings: " + _per_method(counts)
    seeds = {method: sorted({len(one.trials) for one in some}) for method, some in methods.items()}
    if len({n for some in seeds.values() for n in some}) > 1:
        yield "unequal numbers of seeds per setting: " + _per_method(
            {method: " or ".join(map(str, some)) for method, some in seeds.items()}
        )
    trials = {method: [trial for one in some for trial in one.trials] for method, some in methods.items()}
    examples = {method: sorted({trial.examples for trial in some}) for method, some in trials.items()}
    if len({n for some in examples.values() for n in some}) > 1:
        yield "unequal budgets in examples: " + _per_method(
            {method: " or ".join(f"{n:,}" for n in some) for method, some in examples.items()}
        )
    every = list(itertools.chain.from_iterable(trials.values()))
    for what in DATA:
        if len({trial.data[what] for trial in every}) > 1:
            yield f"{what}: not the same in all trials"


def at_the_edge(some: list[Tried]) -> Iterator[str]:
    """Numeric keys of which the best setting has the smallest or the largest value tried, of three or more."""
    best = some[0]
    for key in varying([one.setting for one in some]):
        values = [one.setting.get(key) for one in some]
        numbers = {value for value in values if isinstance(value, (int, float))}
        if len(numbers) > 2 and len(numbers) == len({json.dumps(value) for value in values}):
            for end, extreme in (("smallest", min(numbers)), ("largest", max(numbers))):
                if best.setting[key] == extreme:
                    yield f"{key}={_value(extreme)} is the {end} tried"


# --- showing


def report(sweep: Sweep) -> Lines:
    lines: Lines = []
    groups = sorted({trial.group for trial in sweep.trials})
    for group in groups:
        methods = _methods(sweep.trials, group)
        lines += [f"## {group[0]} on {group[1]}", ""]
        notes = [f"**not a fair comparison: {why}**" for why in unfair(methods)]
        for method, some in methods.items():
            notes += [f"{method}: the best {edge}; a better one may lie beyond" for edge in at_the_edge(some)]
        lines += [*(f"- {note}" for note in notes), *([""] if notes else [])]
        lines += [*_best(methods), "", *_all(methods), ""]
    return lines + _left_out(sweep)


def _left_out(sweep: Sweep) -> Lines:
    return [
        f"Left out: {counted(list(names), 'experiment')}, {reason}: {', '.join(names)}"
        for reason, names in sweep.left_out.items()
    ]


def ablation(sweep: Sweep) -> Lines:
    """What every setting changes: test quality against the commit's own setting (or the first), size and time."""
    lines: Lines = []
    for group in sorted({trial.group for trial in sweep.trials}):
        for method, some in _methods(sweep.trials, group).items():
            if len(some) > 1:
                lines += [f"## {method}: {group[0]} on {group[1]}", "", *_ablation(sweep, some), ""]
    return lines + _left_out(sweep)


def _ablation(sweep: Sweep, some: list[Tried]) -> Lines:
    keys = varying([one.setting for one in some])
    some = sorted(some, key=lambda one: [_rank(one.setting.get(key)) for key in keys])
    first = next((one for one in some if any(t.experiment == sweep.committed for t in one.trials)), some[0])
    measured = [name for name in ABLATED if any(name in trial.tested for one in some for trial in one.trials)]
    head = ["setting", "seeds"]
    for name in measured:
        head += [TESTED[name], "against the bold one"]
    # A loss on other rows is no measure of the setting.
    same_rows = len({t.data[VALID] for one in some for t in one.trials}) == 1
    head += [*(["valid loss"] if same_rows else []), *FACTS.values(), "train s"]
    rows = []
    for one in some:
        row = [_named(one, first, keys), str(len(one.trials))]
        for name in measured:
            row += _measured(sweep, one, first, name, len(some) - 1)
        row += [f"{one.loss:.4f}"] if same_rows else []
        facts = [[t.facts[key] for t in one.trials if key in t.facts] for key in FACTS]
        means = [statistics.fmean(values) if values else None for values in facts]
        rows.append([*row, *map(short, means), short(statistics.fmean(t.train_seconds for t in one.trials))])
    notes = [] if same_rows else [f"- {VALID}: not the same in all trials, so valid losses do not compare"]
    if not measured:
        notes.append("- none of these went on to evaluate: queue reference@MODEL-DATASET-METHOD, not finetune@")
    return [*notes, *([""] if notes else []), *table(head, rows, texts=head[:1])]


def _named(one: Tried, first: Tried, keys: list[str]) -> str:
    """What a setting changes of the first one, which has the values of all keys."""
    changed = keys if one is first else [key for key in keys if one.setting.get(key) != first.setting.get(key)]
    return bold(label(one.setting, changed), one is first)


def _measured(sweep: Sweep, one: Tried, first: Tried, name: str, comparisons: int) -> list[str]:
    """A test metric with its interval, the mean over seeds, and the paired difference from the first setting."""
    mine, base = ([trial.tested[name] for trial in tried.trials if name in trial.tested] for tried in (one, first))
    if len(mine) < len(one.trials):
        return ["", ""]
    ours = _resampled(sweep, mine, name)
    value = interval_of(intervals.interval(ours), name)
    if one is first or len(base) < len(first.trials):
        return [value, ""]
    if any(names != mine[0][0] for names, _ in (*mine, *base)):
        return [value, "other test items"]
    found = intervals.difference(ours, _resampled(sweep, base, name))
    return [value, verdict(intervals.simultaneous(found, comparisons), name)]


def _resampled(sweep: Sweep, tested: list[tuple[list[str], np.ndarray]], name: str) -> np.ndarray:
    """A metric per resample, the mean over trainings with different seeds; float64 (1 + resamples,)."""
    of = metrics.metric(name)[1].of
    return np.mean(
        [of(intervals.resamples(len(sums), sweep.resamples, sweep.seed) @ sums) for _, sums in tested], axis=0
    )


def _rank(value: Any) -> tuple:
    """Numbers by their size, all else by how it is written, after them."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, value, "") if number else (1, 0, _value(value))


def _methods(trials: list[Trial], group: tuple[str, str]) -> dict[str, list[Tried]]:
    """The settings of every method of a group, the methods in the order of their best."""
    names = {trial.method for trial in trials if trial.group == group}
    found = {name: tried(trial for trial in trials if trial.group == group and trial.method == name) for name in names}
    return dict(sorted(found.items(), key=lambda item: item[1][0].loss))


def _best(methods: dict[str, list[Tried]]) -> Lines:
    tests = [key for key in TESTED if any(_tested(some[0], key) for some in methods.values())]
    head = [
        "method",
        "best setting",
        "valid loss",
        "min to max",
        "sd",
        "seeds",
        "settings",
        "examples",
        "tokens",
        "train s",
    ]
    rows = []
    for method, some in methods.items():
        best = some[0]
        first = best.trials[0]
        rows.append(
            [
                *(method, best.label, *_spread(best), str(len(some)), f"{first.examples:,}"),
                f"{statistics.fmean(t.tokens for t in best.trials):,.0f}",
                short(statistics.fmean(t.train_seconds for t in best.trials)),
                *(_tested(best, key) for key in tests),
            ]
        )
    return table([*head, *(TESTED[key] for key in tests)], rows, texts=("best setting",))


def _all(methods: dict[str, list[Tried]]) -> Lines:
    rows = [
        [method, bold(one.label, one is some[0]), *_spread(one), ", ".join(t.experiment for t in one.trials)]
        for method, some in methods.items()
        for one in some
    ]
    head = ["method", "setting", *SPREAD, "experiments"]
    return table(head, rows, texts=("setting", "experiments"))


SPREAD = ("valid loss", "min to max", "sd", "seeds")


def _spread(one: Tried) -> list[str]:
    several = len(one.losses) > 1
    return [
        f"{one.loss:.4f}",
        f"{min(one.losses):.4f} to {max(one.losses):.4f}" if several else "",
        f"{statistics.stdev(one.losses):.4f}" if several else "",
        str(len(one.losses)),
    ]


def _tested(one: Tried, key: str) -> str:
    found = [trial.test[key] for trial in one.trials if key in trial.test]
    return f"{statistics.fmean(found):.3f} ({counted(found, 'seed')})" if found else ""


def _per_method(values: dict[str, Any]) -> str:
    return ", ".join(f"{method} {value}" for method, value in values.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def write_csv(path: Path, sweep: Sweep) -> None:
    """One row per trial, with the keys in which its method's settings differ; `chosen`: 1 for those of the best one."""
    rows: list[dict[str, Any]] = []
    for group in sorted({trial.group for trial in sweep.trials}):
        for some in _methods(sweep.trials, group).values():
            keys = varying([one.setting for one in some])
            for one in some:
                for trial in one.trials:
                    row = {name: getattr(trial, name) for name in PLAIN}
                    row |= {"examples": trial.examples, "chosen": int(one is some[0]), **trial.facts, **trial.test}
                    rows.append(files.rounded(row) | {key: _value(trial.setting.get(key)) for key in keys})
    head = list(dict.fromkeys(key for row in rows for key in row))
    with files.new_file(path) as target, target.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, head)
        out.writeheader()
        out.writerows(rows)


def main(rev: str, table: Path | None, ablated: bool = False) -> None:
    sweep = read(rev)
    print("\n".join((ablation if ablated else report)(sweep)))
    if not sweep.trials:
        raise UserError("none of the experiments trained anything that the commit itself did not train")
    if table:
        write_csv(table, sweep)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tradeoffs.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rev", default="HEAD", help="the commit that the experiments were made on")
    parser.add_argument(
        "--ablation", dest="ablated", action="store_true", help="test quality, size and time of every setting"
    )
    parser.add_argument("--csv", dest="table", type=Path, metavar="FILE", help="write one row per training to a file")
    try:
        main(**vars(parser.parse_args()))
    except UserError as error:
        sys.exit(f"error: {error}")
