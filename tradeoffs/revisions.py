"""What a commit measured, from its dvc.lock and DVC's cache or remote: nothing is checked out or evaluated again."""

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tradeoffs import params
from tradeoffs.common.cells import COST, SCORES, Copied, cells, pairs, prepared, variants
from tradeoffs.params import reading
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results.results import Results

WORKSPACE = "WORKSPACE"  # what is in the folder, committed or not
FOLDER = Path(".scratch/revisions")
MOST_NAMED = 5  # of the files that are missing


class Revision:
    """A commit by any name that Git takes, or the WORKSPACE.

    Raises UserError if there is no such commit.
    """

    def __init__(self, name: str):
        self.name = name
        self.sha = None if name == WORKSPACE else _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
        if self.sha == "":
            raise UserError(
                f"{name}: no such commit, branch or tag; git fetch, or name another (a clone of CI has few)"
            )

    def __str__(self) -> str:
        return self.name if self.sha is None else f"{self.name} ({self.sha[:7]})"

    def text(self, path: str) -> str | None:
        """A file that Git holds; None if the commit has none of this name."""
        if self.sha is None:
            return Path(path).read_text(encoding="utf-8") if Path(path).is_file() else None
        if not _git("ls-tree", "--name-only", self.sha, f"./{path}"):
            return None
        return _git("show", f"{self.sha}:./{path}")

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml as YAML has it: it may be older than today's schema. Raises UserError if it is none."""
        return self._yaml("params.yaml")

    @cached_property
    def lock(self) -> dict[str, dict[str, Any]]:
        """The entries of dvc.lock by the names of the stages. Raises UserError if it is none."""
        found: dict[str, dict[str, Any]] = self._yaml("dvc.lock").get("stages") or {}
        return found

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The hash of each output in dvc.lock, by its path; that of a folder ends in `.dir`."""
        return {out["path"]: out["md5"] for entry in self.lock.values() for out in entry.get("outs", ())}

    @cached_property
    def run(self) -> params.Run:
        """Its run list. Raises UserError if that is not of today's form."""
        problems: list[str] = []
        found: params.Run = reading.read(params.Run, self.params.get("run"), "run", problems)
        if problems:
            raise UserError(f"params.yaml of {self}: {'; '.join(problems)}; name a commit of today's form")
        return found

    def results(self, resamples: int, decide: params.Decide) -> Results:
        """What it measured, by the margins and resamples of who asks. Raises UserError if some of it is missing."""
        seed = self.params.get("seed")
        if type(seed) is not int:
            raise UserError(f"params.yaml of {self}: no whole number for seed; name a commit of today's form")
        return Results(self.run, seed, resamples, decide, root=self.folder())

    def folder(self) -> Path:
        """A folder with what `results` reads, as links into DVC's cache; that of the WORKSPACE is the project's own.

        Raises UserError if dvc.lock or the remote lacks some of it.
        """
        if self.sha is None:
            return Path()
        wanted, root = self._wanted(), FOLDER / self.sha
        found = self._located(wanted)
        for path, cached in found.items():
            link = root / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if not (link.is_symlink() and link.readlink() == cached):
                fresh = link.with_name(f".{link.name}.{os.getpid()}")
                fresh.symlink_to(cached)
                fresh.replace(link)
        return root

    def _wanted(self) -> list[str]:
        """The files that results are read from; and the folders of which they are all read."""
        run = self.run
        found = [SCORES, COST, *(pair.lengths for pair in pairs(run))]
        for variant in variants(run):
            found += [variant.items, variant.facts]
        for cell in cells(run):
            found += [cell.training(seed).facts for seed in run.seeds]
            found += [cell.seeds] if len(run.seeds) > 1 else []
        for dataset in run.datasets:
            found += [Copied(dataset).items, prepared(dataset) / "info.json"]
        return [str(path) for path in found]

    def _located(self, wanted: Sequence[str]) -> dict[str, Path]:
        """Where each file lies in the cache, fetched from the remote if it has to be."""
        owners = {path: self._owner(path) for path in wanted}
        if unknown := [path for path, owner in owners.items() if owner is None]:
            raise UserError(
                f"dvc.lock of {self} does not hold {_some(unknown)}, though its params.yaml asks for it: it was "
                "committed without its run; run `make run` there and commit dvc.lock"
            )
        store = _Store()
        store.bring(self.outputs[owner] for owner in owners.values() if owner)
        found: dict[str, str | None] = {}  # the hash of each file
        for path, owner in owners.items():
            if not owner or not self.outputs[owner].endswith(".dir"):
                found[path] = self.outputs[path]
            elif (listing := store.path(self.outputs[owner])) is None:
                found[path] = None
            else:
                listed = {f"{owner}/{one['relpath']}": one["md5"] for one in json.loads(listing.read_bytes())}
                found |= listed if path == owner else {path: listed.get(path)}
        store.bring(oid for oid in found.values() if oid)
        located = {path: store.path(oid) if oid else None for path, oid in found.items()}
        if missing := [path for path, cached in located.items() if cached is None]:
            raise UserError(
                f"{self}: {len(missing)} of the {len(located)} files that its numbers are made of are neither in DVC's "
                f"cache nor in a remote ({_some(missing)}); whoever ran it: dvc push"
            )
        return {path: cached for path, cached in located.items() if cached}

    def _owner(self, path: str) -> str | None:
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


class _Store:
    """DVC's cache, and the remote behind it."""

    def __init__(self) -> None:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            self._repo = Repo()
        except NotDvcRepoError as error:
            raise UserError(f"{Path.cwd()}: no DVC project; run from the folder that holds dvc.yaml") from error

    def path(self, oid: str) -> Path | None:
        """The file of a hash in the cache; None if it is not there."""
        found = Path(self._repo.cache.local.oid_to_path(oid))
        return found if found.is_file() else None

    def bring(self, oids: Iterable[str]) -> None:
        """What the cache lacks, from the remote, if there is one; what that lacks stays missing."""
        from dvc.exceptions import DvcException
        from dvc_data.hashfile.hash_info import HashInfo

        lacking = {HashInfo("md5", oid) for oid in oids if not self.path(oid)}
        if lacking and self._repo.config["core"].get("remote"):
            try:
                self._repo.cloud.pull(lacking)
            except (DvcException, OSError) as error:
                raise UserError(f"the remote cannot be reached: {' '.join(str(error).split())}") from error


def _some(paths: list[str]) -> str:
    more = len(paths) - MOST_NAMED
    return ", ".join(paths[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _git(*words: str) -> str:
    """What Git says; nothing where it finds nothing. Raises UserError outside a repository."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError as error:
        raise UserError("git: not found; revisions are Git's") from error
    if "not a git repository" in done.stderr:
        raise UserError(f"{Path.cwd()}: no Git repository; revisions are Git's")
    return done.stdout
