"""Whether a dvc.lock is of the params.yaml and the code beside it: else its numbers are of something else."""

import hashlib
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from dvc.utils.flatten import flatten

from tradeoffs import params
from tradeoffs.common import settings
from tradeoffs.common.cells import SETTINGS
from tradeoffs.gate import hashes
from tradeoffs.plumbing.errors import UserError
from tradeoffs.revisions import Revision

Entries = dict[str, dict[str, Any]]

DECISION = "metrics/decision.json"
MOST = 5  # problems that are listed
CODE = tuple(f"{folder}/" for folder in hashes.CODE)


def require(side: Revision) -> None:
    """Raises UserError if what a revision measured is not what its params.yaml and code would."""
    if found := list(problems(side)):
        listed = "\n  ".join(found[:MOST])
        more = f"\n  and {len(found) - MOST} more" if len(found) > MOST else ""
        what = "make run, then commit dvc.lock and what it made" if side.sha else "make run"
        raise UserError(
            f"{side}: its numbers are not of what it holds, so they say nothing of it; {what}\n  {listed}{more}"
        )


def problems(side: Revision) -> Iterator[str]:
    """What does not fit: settings, code, entries among each other and, of the workspace, files on disk."""
    listed = {stage: entry for stage, entry in side.lock.items() if _is_listed(side, stage)}
    entries = needed(side, listed)
    said = set[str]()
    for one in chain(_settings(side, entries), _entries(side, entries, listed), _code(side, entries), _files(side)):
        if one not in said:
            yield one
        said.add(one)


def _is_listed(side: Revision, stage: str) -> bool:
    """Whether a stage is one of the run list: dvc.lock keeps those of earlier ones, too."""
    run = side.run
    names = {*run.models, *run.datasets, *run.methods, *run.precisions, *run.quants, *map(str, run.seeds)}
    return set(stage.partition("@")[2].split("-")) <= names | {""}


def needed(side: Revision, listed: Entries) -> Entries:
    """Of the entries of the run list those that its numbers come from."""
    made_by = {str(out["path"]): stage for stage, entry in listed.items() for out in entry.get("outs") or ()}
    todo: list[str] = [stage for stage in ("score", "aggregate") if stage in listed]
    todo += [made_by[owner] for owner in map(side.owner, side.wanted()) if owner in made_by]
    found: Entries = {}
    followed: set[str] = set()
    while todo:
        stage = todo.pop()
        if stage in found:
            continue
        found[stage] = listed[stage]
        for path in {dep["path"] for dep in found[stage].get("deps") or ()} - followed:
            followed.add(path)
            todo += [made_by[str(owner)] for owner in (Path(path), *Path(path).parents) if str(owner) in made_by]
            todo += [stage for out, stage in made_by.items() if out.startswith(f"{path}/")]
    return found


def _settings(side: Revision, entries: Entries) -> Iterator[str]:
    for stage, entry in entries.items():
        for key, was in ((entry.get("params") or {}).get("params.yaml") or {}).items():
            now = _at(side.params, key)
            if now != was:
                yield f"{stage}: was run with another {key}"
    read = [(stage, dep) for stage, entry in entries.items() for dep in entry.get("deps") or () if _is_settings(dep)]
    # As the revision's own code made them of this params.yaml: today's may say it in another form.
    if read and _md5((side.text(str(params.PATH)) or "").encode()) == _params_of(side):
        read = [(stage, dep) for stage, dep in read if _md5((side.text(dep["path"]) or "").encode()) != dep["md5"]]
    given = _resolved(side) if read else {}
    for stage, dep in read:
        part = given.get(dep["path"])
        if part is None or _md5(settings.text(part).encode()) != dep["md5"]:
            yield f"{stage}: was run with {_moved(side, dep, part)}"


def _params_of(side: Revision) -> str | None:
    """The hash of the params.yaml that the stage `settings` was run with."""
    deps = side.lock.get("settings", {}).get("deps") or ()
    return next((dep["md5"] for dep in deps if dep["path"] == str(params.PATH)), None)


def _is_settings(dep: dict[str, Any]) -> bool:
    return Path(dep["path"]).is_relative_to(SETTINGS)


def _resolved(side: Revision) -> dict[str, dict[str, Any]]:
    """What the stage `settings` would make of a revision's params.yaml, by file; nothing where that is not sound."""
    found, wrong = params.checked(side.params)
    return {} if found is None or wrong else {str(path): part for path, part in settings.parts(found)}


def _moved(side: Revision, dep: dict[str, Any], part: dict[str, Any] | None) -> str:
    """The first of the settings that a stage was run with and that is another now, if the revision still has them."""
    text = side.text(dep["path"])
    if part is None or text is None or _md5(text.encode()) != dep["md5"]:
        return "other settings"
    was, now = flatten(json.loads(text)), flatten(part)
    return f"another {next(key for key in (*now, *was) if now.get(key) != was.get(key))}"


def _at(block: Any, key: str) -> Any:
    for part in key.split("."):
        block = block.get(part) if isinstance(block, dict) else None
    return block


def _entries(side: Revision, entries: Entries, listed: Entries) -> Iterator[str]:
    """What one stage made, and what another says to have read of it; and, of the workspace, what no stage makes."""
    made = _Made(side, listed)
    for stage, entry in entries.items():
        for dep in entry.get("deps") or ():
            path, md5 = dep["path"], dep.get("md5")
            # params.yaml: what of it reaches a stage is among its settings.
            if path.startswith(CODE) or path == str(params.PATH) or _is_settings(dep):
                continue
            found, unknown = made.now(path)
            if unknown:
                yield f"{stage}: whether it was run with this {path} is not known, {unknown}"
            elif found != md5 and (found or side.sha is None):
                yield f"{stage}: was run with another {path}"
    deps = {stage: {dep["path"]: dep.get("md5") for dep in entry.get("deps") or ()} for stage, entry in entries.items()}
    for path, md5 in deps.get("score", {}).items():
        if deps.get("aggregate", {}).get(path, md5) != md5:
            yield f"aggregate: was run with another {path}"


class _Made:
    """What the stages of the run list made, as another stage depends on it: a file, a file in a folder, or a folder."""

    def __init__(self, side: Revision, listed: Entries):
        self.side, self._found = side, dict[str, tuple[str | None, str]]()
        outs = {str(out["path"]) for entry in listed.values() for out in entry.get("outs") or ()}
        self.outs = {path: md5 for path, md5 in side.outputs.items() if path in outs}

    def now(self, path: str) -> tuple[str | None, str]:
        """Its hash, None of what is not there; and why it is not known, if it is not."""
        if path not in self._found:
            self._found[path] = self._now(path)
        return self._found[path]

    def _now(self, path: str) -> tuple[str | None, str]:
        side, owner = self.side, self.side.owner(path)
        if path == owner:
            return side.outputs[path], ""
        within = [owner] if owner else [out for out in self.outs if out.startswith(f"{path}/")]
        if not within:
            return hashes.digest(side, path) if side.sha is None else None, ""
        side.store.bring(side.outputs[out] for out in within if side.outputs[out].endswith(".dir"))
        files: dict[str, str] = {}
        for out in within:
            found = side.listed(out) if side.outputs[out].endswith(".dir") else {out: side.outputs[out]}
            if found is None:
                why = f"as the list of what is in {out} is neither in DVC's cache nor in {side.store.remote}"
                return None, f"{why}; whoever ran it: dvc push"
            files |= found
        if owner:
            return files.get(path), "" if path in files else f"as {owner} has no such file"
        return hashes.folder_hash({name[len(path) + 1 :]: md5 for name, md5 in files.items()}), ""


def _code(side: Revision, entries: Entries) -> Iterator[str]:
    wanted: dict[tuple[str, str], str] = {}
    for stage, entry in entries.items():
        for dep in entry.get("deps") or ():
            if dep["path"].startswith(CODE):
                wanted.setdefault((dep["path"], dep["md5"]), stage)
    for (path, md5), stage in wanted.items():
        if hashes.digest(side, path) != md5:
            yield f"{stage}: was run with another {path}"


def _files(side: Revision) -> Iterator[str]:
    """The decision as dvc.lock has it; of the workspace also that what numbers are read from is there and is that."""
    text = side.text(DECISION)
    if text is not None and side.outputs.get(DECISION, md5 := _md5(text.encode())) != md5:
        yield f"{DECISION}: not as dvc.lock has it"
    if side.sha is not None:
        return
    for path in dict.fromkeys(side.owner(path) or path for path in side.wanted()):
        if path not in side.outputs:
            yield f"{path}: not made yet"
        elif (found := hashes.digest(side, path)) is None:
            yield f"{path}: not here; dvc pull, or dvc checkout"
        elif found != side.outputs[path]:
            yield f"{path}: not as dvc.lock has it"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
