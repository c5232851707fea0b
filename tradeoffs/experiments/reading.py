"""The trials of a commit's experiments, from dvc.lock of each and from DVC's cache; nothing is checked out."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import NoSCM, RevError
from dvc.utils.flatten import flatten
from dvc_data.hashfile.tree import Tree
from tqdm import tqdm

from tradeoffs.common.cells import SETTINGS, TRAINED, Cell, Training
from tradeoffs.experiments.trial import FACTS, LeftOut, Setting, Sweep, Trial
from tradeoffs.methods.trl_stages import STAGES, SUPERVISED, chosen_by
from tradeoffs.plumbing.errors import UserError
from tradeoffs.revisions import Revision, Store

VALID = "the rows that valid loss is measured on"
EXAMPLES = "the examples trained on"
# What must be the same in all trials that are compared: patterns of the paths among finetune's deps, files or folders.
DATA = {
    EXAMPLES: r"data/tokens/.+/(train|pairs)\.parquet",
    VALID: r"data/tokens/.+/valid\.parquet",
    "the base model": r"models/base/.+",
    "the code": r"(stages|tradeoffs)/.+",
}
STEPS = ("steps", *(f"{stage.block}_steps" for stage in STAGES.values()))  # in data/training

Entry = dict[str, Any]  # of one stage in dvc.lock


def read(rev: str) -> Sweep:
    """The trials of the experiments of commit `rev`. A training of `rev` itself counts where its method was swept and
    its seed is one of the sweep's. Raises UserError if there are no experiments."""
    repo, experiments = _experiments(rev)
    left_out: LeftOut = {}
    trials: dict[str, Trial] = {}
    with repo:
        seen: set[str] = set()
        store = Store()
        own = _Revision(store, rev, rev)
        committed = {trial.same_training(): trial for trial in own.trials(seen, left_out={})}
        seed, resamples = own.settings()
        # The oldest first: what an experiment did not train it has from the commit, or from one before.
        for row in tqdm(experiments[::-1], desc="reading", unit="experiment", delay=2, leave=False):
            name, state = row["Experiment"] or row["rev"], row["State"] or "Success"
            if state != "Success":
                reason = state.lower() + (" (dvc queue logs NAME says why)" if state == "Failed" else "")
                left_out.setdefault(reason, {})[name] = None
                continue
            known = len(seen)
            for trial in _Revision(store, name, row["rev"]).trials(seen, left_out):
                trials.setdefault(trial.same_training(), trial)
            if len(seen) == known:
                left_out.setdefault("trained nothing that was not trained before", {})[name] = None
    swept = _seeds(trial for key, trial in trials.items() if key not in committed)
    trials = committed | trials
    kept = [trial for trial in trials.values() if trial.seed in swept.get((*trial.group, trial.method), ())]
    return Sweep(kept, left_out, rev, seed, resamples)


def _experiments(rev: str) -> tuple[Repo, list[dict[str, Any]]]:
    """The project that the working directory is in, and the experiments of `rev` as DVC lists them, newest first."""
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
            f"{rev} has no experiments; make some: python -m tradeoffs.repro --exp -S ... (docs/sweeps.md), "
            "or name the commit that they were made on: --rev (dvc exp list --all)"
        )
    return repo, experiments


def _seeds(trials: Iterable[Trial]) -> dict[tuple[str, ...], set[int]]:
    """The seeds that were tried, by model, data set and method."""
    found: dict[tuple[str, ...], set[int]] = {}
    for trial in trials:
        found.setdefault((*trial.group, trial.method), set()).add(trial.seed)
    return found


class _Revision:
    """The trainings that dvc.lock records in one revision."""

    def __init__(self, store: Store, name: str, rev: str):
        self._store, self._name = store, name
        self._revision = Revision(rev, store)

    def trials(self, seen: set[str], left_out: LeftOut) -> Iterator[Trial]:
        """Those that are not among `seen`, and adds them; what cannot be used goes to `left_out` by the reason."""
        lock = {} if self._revision.text("dvc.lock") is None else self._revision.lock
        for stage, entry in lock.items():
            name, _, made = stage.partition("@")
            if name != "finetune" or (known := json.dumps(entry)) in seen:
                continue
            seen.add(known)
            if made.count("-") == 2:
                left_out.setdefault("trained by an earlier version, with train.seed", {})[self._name] = None
                continue
            training = Training.parse(made)
            row, setting = self._training(training, entry), self._setting(training, lock)
            if row is None:
                left_out.setdefault("not in the cache (dvc exp pull)", {})[self._name] = None
            elif setting is None:
                seen.discard(known)  # an experiment that has them may have taken it over
                left_out.setdefault("trained with settings that its commit no longer has", {})[self._name] = None
            elif setting.get("stage") and setting["stage"] not in STAGES:  # of another branch, say
                reason = f"trained by stage {setting['stage']}, which is not known here"
                left_out.setdefault(reason, {})[self._name] = None
            elif "train_seconds" in row:  # which the untouched base has not
                missing = [one.name for one in (SUPERVISED, chosen_by(setting.get("stage"))) if one.name not in row]
                if missing:
                    reason = f"trained by an earlier version, without {missing[0]}"
                    left_out.setdefault(reason, {})[self._name] = None
                else:
                    yield self._trial(training, row, setting, lock)

    def _trial(self, training: Training, row: dict[str, Any], setting: Setting, lock: dict[str, Entry]) -> Trial:
        cell = training.cell
        return Trial(
            experiment=self._name,
            model=cell.model,
            dataset=cell.dataset,
            method=cell.method,
            seed=training.seed,
            setting=setting,
            data=data_of(lock[f"finetune@{training}"]),
            valid={one.name: row[one.name] for one in (SUPERVISED, chosen_by(setting.get("stage")))},
            tokens=row["train_tokens_per_second"] * row["train_seconds"],
            train_seconds=row["train_seconds"],
            facts={key: row[key] for key in FACTS if key in row},
            steps={key: row[key] for key in STEPS if key in row},
            items=self._evaluation(training, lock),
        )

    def _setting(self, training: Training, lock: dict[str, Entry]) -> Setting | None:
        """All that params.yaml said of a training, through the stages before it too, by flat names; None
        where the revision no longer has it.

        `methods.<method>.` is left out of a name, and the method's own `train` values replace the shared ones.
        """
        cell = training.cell
        found: Setting = {}
        for stage in (f"prepare@{cell.dataset}", f"base@{cell.model}", f"tokenize@{cell.pair}", f"finetune@{training}"):
            entry = lock.get(stage, {})
            found |= flatten(entry.get("params", {}).get("params.yaml", {}))
            for path, oid in _hashes(entry, "deps").items():
                if Path(path).is_relative_to(SETTINGS):
                    said = (self._revision.text(path) or "").encode()
                    if hashlib.md5(said, usedforsecurity=False).hexdigest() != oid:
                        return None
                    found |= flatten(json.loads(said))
        own, shared = f"methods.{cell.method}.", {k: v for k, v in found.items() if not k.startswith("methods.")}
        shared |= {key.removeprefix(own): value for key, value in found.items() if key.startswith(own)}
        return {key: value for key, value in shared.items() if not key.startswith("evaluate.")}

    def _training(self, training: Training, entry: Entry) -> dict[str, Any] | None:
        found = self._output(entry, str(training.facts))
        return None if found is None else json.loads(found)

    def _evaluation(self, training: Training, lock: dict[str, Entry]) -> bytes | None:
        """The items of this training as trained. What dvc.lock has may still be the evaluation of the commit's own."""
        cell, entry = training.cell, lock.get(f"reference@{training.cell}", {})
        seeds = entry["params"]["params.yaml"].get("run.seeds", []) if entry else []
        if training.seed not in seeds:
            return None
        if _hashes(entry, "deps")[str(training.weights.parent)] != self._together(cell, seeds, lock):
            return None
        if training.seed == seeds[0]:
            return self._output(entry, str(cell.variant(TRAINED).items))
        further = self._listed(_hashes(entry, "outs")[str(cell.seeds)])
        return self._cached(further[f"{training.seed}.parquet"]) if further else None

    def _together(self, cell: Cell, seeds: Iterable[int], lock: dict[str, Entry]) -> str | None:
        """The hash of the folder that holds the trainings of a cell, if it is what dvc.lock says that they left."""
        found = []
        for training in map(cell.training, seeds):
            entry = lock.get(f"finetune@{training}")
            listed = self._listed(_hashes(entry, "outs")[str(training.weights)]) if entry else None
            if listed is None:
                return None
            found += [{"relpath": f"{training.seed}/{name}", "md5": oid} for name, oid in listed.items()]
        whole = Tree.from_list(found)
        whole.digest()
        return str(whole.oid)

    def _listed(self, oid: str) -> dict[str, str] | None:
        """The hashes of the files in a folder that a stage made, by their names; None if it is not in the cache."""
        found = self._cached(oid)
        return None if found is None else {file["relpath"]: file["md5"] for file in json.loads(found)}

    def _cached(self, oid: str) -> bytes | None:
        path = self._store.path(oid)
        return path.read_bytes() if path else None

    def _output(self, entry: Entry, path: str) -> bytes | None:
        """A file that a stage made; None if it is neither in the cache nor in the remote."""
        # By its hash: to find a file by its name, DVC builds the index of the whole revision, half a second for each.
        oid = _hashes(entry, "outs")[path]
        try:
            self._store.bring([oid])
        except UserError:  # the remote cannot be read: what the cache has is shown, the rest is named
            return None
        return self._cached(oid)

    def settings(self) -> tuple[int, int]:
        """`seed` and `evaluate.bootstrap` of its params.yaml, which may be older than what is asked of one today."""
        found: Any = self._revision.params
        try:
            seed, resamples = found["seed"], found["evaluate"]["bootstrap"]
        except (KeyError, TypeError):  # TypeError: no block where there should be one
            seed = resamples = None
        if type(seed) is not int or type(resamples) is not int:
            raise UserError(
                f"params.yaml of {self._revision}: has no whole numbers for seed and evaluate.bootstrap; name another "
                "commit: --rev"
            )
        return seed, resamples


def data_of(finetune: Entry) -> dict[str, tuple[str, ...]]:
    """By the names of DATA, the hashes of what a training in dvc.lock depended on."""
    deps = _hashes(finetune, "deps")
    return {
        what: tuple(deps[path] for path in sorted(deps) if re.fullmatch(pattern, path))
        for what, pattern in DATA.items()
    }


def _hashes(entry: Entry, what: str) -> dict[str, str]:
    """Of the `deps` or `outs` of a stage in dvc.lock, by their paths."""
    return {found["path"]: found["md5"] for found in entry.get(what, ())}
