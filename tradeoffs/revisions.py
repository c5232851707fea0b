"""What a commit measured, from its dvc.lock and DVC's cache or remote: nothing is checked out or evaluated again."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tradeoffs.common.cells import COST, SCORES, TRAINED, Copied, Variant, pairs, prepared, variants
from tradeoffs.formats.names import AUTO
from tradeoffs.params import Decide, Run, checks, reading
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results.costs import Costs
from tradeoffs.results.results import Results

WORKSPACE = "WORKSPACE"  # what is in the folder, committed or not
FOLDER = Path(".scratch/revisions")
MOST_NAMED = 5  # of the files that are missing
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")  # as DVC writes them; what else stands there leads out of the cache


class Revision:
    """A commit by any name that Git takes, an experiment of DVC by its own, or the WORKSPACE.

    `store` is DVC's cache, which several revisions may share; else it is opened when it is needed. Raises UserError if
    there is no such commit.
    """

    def __init__(self, name: str, store: "Store | None" = None):
        self.name = name
        self._shared = store
        self.sha = None if name == WORKSPACE else _commit(name)

    def __str__(self) -> str:
        if self.sha and self.sha.startswith(self.name):
            return self.sha[:7]
        return self.name if self.sha is None else f"{self.name} ({self.sha[:7]})"

    @cached_property
    def store(self) -> "Store":
        return self._shared or Store()

    def text(self, path: str) -> str | None:
        """A file that Git holds; None if the commit has none of this name. Raises UserError if it is not UTF-8."""
        if self.sha is None:
            found = Path(path).read_bytes() if Path(path).is_file() else None
        else:
            there = _git("ls-tree", "--name-only", self.sha, f"./{path}")
            found = _git("show", f"{self.sha}:./{path}") if there else None
        try:
            return None if found is None else found.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} of {self}: not UTF-8 ({error.reason} at byte {error.start})") from error

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml as YAML has it: it may be older than today's schema. Raises UserError if it is none."""
        return self._yaml("params.yaml")

    @cached_property
    def lock(self) -> dict[str, dict[str, Any]]:
        """The entries of dvc.lock by the names of the stages. Raises UserError if it is none."""
        found = self._yaml("dvc.lock").get("stages") or {}
        if not (isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values())):
            raise UserError(f"dvc.lock of {self}: `stages` is no block of stages; name a commit that was run")
        return found

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The hash of each output in dvc.lock, by its path; that of a folder ends in `.dir`."""
        outs = [out for entry in self.lock.values() for out in entry.get("outs") or () if isinstance(out, dict)]
        return {str(out.get("path")): out["md5"] for out in outs if HASH.fullmatch(str(out.get("md5")))}

    @cached_property
    def run(self) -> Run:
        """Its run list. Raises UserError if that is not of today's form."""
        problems: list[str] = []
        run = self.params.get("run")
        # Before it could be asked for, costs were measured on this.
        run = {"devices": [AUTO]} | run if isinstance(run, dict) else run
        found: Run = reading.read(Run, run, "run", problems)
        if not problems:  # paths are made of these names
            named = (*found.models, *found.datasets, *found.methods, *found.precisions, *found.quants)
            problems += [f"{name!r} is no name" for name in named if not checks.NAME.fullmatch(name)]
        if problems:
            raise UserError(f"params.yaml of {self}: {'; '.join(problems)}; name a commit of today's form")
        return found

    def results(self, resamples: int, decide: Decide, only: Sequence[Variant] = (), seed: int | None = None) -> Results:
        """What it measured, of all its variants or `only` of some, by the margins and resamples of who asks.

        `seed` is that of the resamples, its own if there is none. Raises UserError if some of it is missing or not of
        today's form.
        """
        seed = self.params.get("seed") if seed is None else seed
        if type(seed) is not int:
            raise UserError(f"params.yaml of {self}: no whole number for seed; name a commit of today's form")
        try:
            return Results(self.run, seed, resamples, decide, only=only, root=self.folder(only))
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # pyarrow's are ValueErrors, too
            if self.sha is None:
                raise
            said = " ".join(str(error).split())
            raise UserError(
                f"{self}: what it measured is not of today's form ({type(error).__name__}: {said}); "
                "compare it with that commit's own code (git worktree add), or name another"
            ) from error

    def folder(self, only: Sequence[Variant] = ()) -> Path:
        """A folder with what `results` reads, as links into DVC's cache; that of the WORKSPACE is the project's own.

        Raises UserError if dvc.lock or the remote lacks some of it.
        """
        if self.sha is None:
            return Path()
        root = FOLDER / self.sha
        for path, cached in self.located(self.wanted(only)).items():
            link = root / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if not (link.is_symlink() and link.readlink() == cached):
                fresh = link.with_name(f".{link.name}.{os.getpid()}")
                fresh.symlink_to(cached)
                fresh.replace(link)
        return root

    def wanted(self, only: Sequence[Variant] = ()) -> list[str]:
        """The files that results are read from; and the folders of which they are all read."""
        run, listed = self.run, list(only) or variants(self.run)
        found = [SCORES, COST, *(path for variant in listed for path in (variant.items, variant.facts))]
        for cell in dict.fromkeys(variant.cell for variant in listed):
            found += [cell.training(seed).facts for seed in run.seeds]
            found += [cell.seeds] if len(run.seeds) > 1 else []
        for dataset in dict.fromkeys(variant.dataset for variant in listed):
            found.append(prepared(dataset) / "info.json")
        folders = tuple(f"{variant.tasks(run.seeds)}/" for variant in listed)
        folders += tuple(f"{one.tasks(run.seeds)}/" for v in listed for one in v.cell.further(run.seeds))
        found += [Path(path) for path in self.outputs if path.startswith(folders)]
        if not only:
            found += [*(pair.lengths for pair in pairs(run)), *(Copied(dataset).items for dataset in run.datasets)]
        return [str(path) for path in found]

    def located(self, wanted: Sequence[str]) -> dict[str, Path]:
        """Where each file lies in the cache, fetched from the remote if it has to be.

        Of a folder that a stage made, all files; of one that only some files are asked of, these alone are fetched.
        Raises UserError if dvc.lock or the remote lacks some of it.
        """
        owners = {path: self.owner(path) for path in wanted}
        self.store.bring(self.outputs[owner] for owner in owners.values() if owner)
        hashes: dict[str, str | None] = {}  # of each file; None: in a folder of which nothing is known
        unknown = []
        for path, owner in owners.items():
            if owner is None:
                unknown.append(path)
            elif not self.outputs[owner].endswith(".dir"):
                hashes |= {path: self.outputs[path]} if path == owner else {}
                unknown += [] if path == owner else [path]
            elif (listed := self.listed(owner)) is None:
                hashes[path] = None
            elif path == owner:
                hashes |= listed
            else:
                hashes |= {path: listed[path]} if path in listed else {}
                unknown += [] if path in listed else [path]
        if unknown:
            raise UserError(
                f"dvc.lock of {self} does not hold {_some(unknown)}, though its params.yaml asks for it: it was "
                "committed without its run; run `make run` there and commit dvc.lock"
            )
        self.store.bring(oid for oid in hashes.values() if oid)
        located = {path: self.store.path(oid) if oid else None for path, oid in hashes.items()}
        if missing := [path for path, cached in located.items() if cached is None]:
            raise UserError(
                f"{self}: {len(missing)} of the {len(located)} files that its numbers are made of are neither in DVC's "
                f"cache nor in {self.store.remote} ({_some(missing)}); whoever ran it: dvc push"
            )
        return {path: cached for path, cached in located.items() if cached}

    def listed(self, folder: str) -> dict[str, str] | None:
        """The hashes of the files of a folder, by their paths; None if its list is not in the cache."""
        listing = self.store.path(self.outputs[folder])
        if listing is None:
            return None
        found = {str(one["relpath"]): str(one["md5"]) for one in json.loads(listing.read_bytes())}
        for name, oid in found.items():
            if ".." in Path(name).parts or Path(name).is_absolute() or not HASH.fullmatch(oid):
                raise UserError(f"dvc.lock of {self}: {folder} holds {name!r}, which lies elsewhere")
        return {f"{folder}/{name}": oid for name, oid in found.items()}

    def owner(self, path: str) -> str | None:
        """The output that a file is, or lies in."""
        return next((str(p) for p in (Path(path), *Path(path).parents) if str(p) in self.outputs), None)

    def _yaml(self, path: str) -> dict[str, Any]:
        text = self.text(path)
        if text is None:
            raise UserError(f"{self}: has no {path}; name a commit of this project that was run (git log -- dvc.lock)")
        try:
            found = yaml.load(text, reading.Loader)
        except (yaml.YAMLError, ValueError) as error:  # the latter: more digits than Python takes
            raise UserError(f"{path} of {self}: not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(found, dict):
            raise UserError(f"{path} of {self}: no block of keys")
        return found


class Both(Results):
    """What one revision measured, with a variant of another one beside it, `called` by a name that the first has not.

    Both are by the same seed and resamples, so what they were asked alike is paired. A name of the same cell says that
    the two are of the same trainings.
    """

    def __init__(self, ours: Results, theirs: Results, variant: Variant, called: Variant):
        self.__dict__ |= {name: dict(v) if isinstance(v, dict) else v for name, v in vars(ours).items()}
        self.variants = [*ours.variants, called]
        self._of[called.pair] = [*self.of(called.pair), called]
        self.facts[called] = theirs.facts[variant]
        found = theirs.costs
        machine, there = dict(ours.costs.machine), found.machine
        machine["on"] = {device: dict(machine["on"].get(device, {})) for device in (*machine["on"], *there["on"])}
        for device, named in there["on"].items():
            machine["on"][device] |= {called: named[variant]} if variant in named else {}
        if variant in there["devices"]:
            machine["devices"] = machine["devices"] | {called: there["devices"][variant]}
        numbers = ours.costs.numbers | {called: found.numbers[variant]}
        self.costs = Costs(numbers, ours.costs.intervals | {called: found.intervals[variant]}, machine)
        self.cost = numbers
        self.columns[called] = theirs.columns[variant]
        if called.cell == variant.cell:
            return
        first, *further = theirs.trainings(variant.cell)
        self.training[called.cell] = theirs.training[variant.cell]
        self._trainings[called.cell.training(self.run.seeds[0])] = theirs.trained(variant)
        self._further[called.cell] = [replace(one, method=called.method) for one in further]
        if first in theirs.columns:
            self.columns[called.cell.variant(TRAINED)] = theirs.columns[first]
        for one, other in zip(self._further[called.cell], further, strict=True):
            self.columns[one] = theirs.columns[other]


class Store:
    """DVC's cache, and the remote behind it.

    Raises UserError outside a DVC project.
    """

    def __init__(self) -> None:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            self._repo = Repo()
        except NotDvcRepoError as error:
            raise UserError(f"{Path.cwd()}: no DVC project; run from the folder that holds dvc.yaml") from error

    @property
    def remote(self) -> str:
        """The remote as messages call it."""
        name = self._repo.config["core"].get("remote")
        return f"the remote {name}" if name else "a remote (the project has none: dvc remote add -d)"

    def path(self, oid: str) -> Path | None:
        """The file of a hash in the cache; None if it is not there."""
        found = Path(self._repo.cache.local.oid_to_path(oid))
        return found if found.is_file() else None

    def hash_of(self, path: str) -> str | None:
        """The hash of a file or folder that lies here, as DVC has it of a dep; None if there is none.

        What DVC has hashed before, and has not changed since, is not read again.
        """
        from dvc_data.hashfile.build import build
        from dvc_objects.fs.local import localfs

        if not Path(path).exists():
            return None
        there = str(Path(path).absolute())
        _, _, found = build(self._repo.cache.local, there, localfs, "md5", ignore=self._repo.dvcignore, dry_run=True)
        return str(found.hash_info.value)

    def bring(self, oids: Iterable[str]) -> None:
        """What the cache lacks, from the remote, if there is one; what that lacks stays missing.

        Of a folder (`.dir`) it is the list of its files alone. Raises UserError if the remote cannot be read.
        """
        from dvc.fs.callbacks import TqdmCallback

        lacking = sorted({oid for oid in oids if not self.path(oid)})
        if not lacking or not self._repo.config["core"].get("remote"):
            return
        failed: dict[str, BaseException] = {}
        try:
            # Not by `cloud.pull`, which takes a server that does not answer for one that has nothing.
            there = self._repo.cloud.get_remote_odb(command="fetch")
            paths = [there.oid_to_path(oid) for oid in lacking]
            with TqdmCallback(desc=f"from {self.remote}", unit="file", size=len(paths)) as progress:
                self._repo.cache.local.add(
                    paths, there.fs, lacking, callback=progress, on_error=failed.__setitem__, verify=there.verify
                )
        except Exception as error:  # every kind of remote has exceptions of its own
            failed[""] = error
        if others := [error for error in failed.values() if not isinstance(error, FileNotFoundError)]:
            said = " ".join(str(others[0]).split())
            raise UserError(f"{self.remote} cannot be read: {said}; dvc pull says more") from others[0]


def _some(paths: list[str]) -> str:
    more = len(paths) - MOST_NAMED
    return ", ".join(paths[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _commit(name: str) -> str:
    """The hash of a commit, or of DVC's experiment of this name. Raises UserError if there is none, or several."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    if not found and re.fullmatch(r"[\w.-]+", name):  # DVC's refs/exps/ab/cdef.../NAME
        experiments = set(_git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").decode().split())
        if len(experiments) > 1:
            raise UserError(f"{name}: {len(experiments)} experiments have it; name one by its hash (dvc exp show)")
        found = next(iter(experiments), "")
    if not found:
        raise UserError(
            f"{name}: no such commit, branch, tag or experiment; git fetch, or name another (a clone of CI has few)"
        )
    return found


def _git(*words: str) -> bytes:
    """What Git says; nothing where it finds nothing. Raises UserError where it cannot look."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("git: not found; revisions are Git's") from error
    if done.returncode and (said := " ".join(done.stderr.decode(errors="replace").split())):
        raise UserError(f"{Path.cwd()}: git {words[0]}: {said}")
    return done.stdout
