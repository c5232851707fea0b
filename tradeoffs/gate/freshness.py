"""Whether a dvc.lock is of the params.yaml and the code beside it: else its numbers are of something else."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tradeoffs.common.cells import COST, SCORES, variants
from tradeoffs.gate import committed
from tradeoffs.plumbing.errors import UserError
from tradeoffs.revisions import WORKSPACE, Revision

DECISION = "metrics/decision.json"
MOST = 5  # problems that are listed
CODE = ("tradeoffs/", "stages/")


def require(side: Revision) -> None:
    """Raises UserError if what a revision measured is not what its params.yaml and code would."""
    if found := problems(side):
        listed = "\n  ".join(found[:MOST])
        more = f"\n  and {len(found) - MOST} more" if len(found) > MOST else ""
        what = "make run, then commit dvc.lock and what it made" if side.sha else "make run"
        raise UserError(
            f"{side}: its numbers are not of what it holds, so they say nothing of it; {what}\n  {listed}{more}"
        )


def problems(side: Revision) -> list[str]:
    """What does not fit: settings, code, entries among each other and, of the workspace, files on disk."""
    entries = needed(side)
    return list(
        dict.fromkeys([*_settings(side, entries), *_entries(side, entries), *_code(side, entries), *_files(side)])
    )


def needed(side: Revision) -> dict[str, dict[str, Any]]:
    """The entries of dvc.lock that the numbers of its run list come from: it keeps those of earlier run lists, too."""
    made_by = {str(out["path"]): stage for stage, entry in side.lock.items() for out in entry.get("outs") or ()}
    read = [str(path) for variant in variants(side.run) for path in (variant.items, variant.facts)]
    todo: list[str] = [stage for stage in ("score", "aggregate") if stage in side.lock]
    todo += [made_by[path] for path in [*read, str(SCORES), str(COST)] if path in made_by]
    found: dict[str, dict[str, Any]] = {}
    while todo:
        stage = todo.pop()
        if stage in found:
            continue
        found[stage] = side.lock[stage]
        for dep in found[stage].get("deps") or ():
            path = Path(dep["path"])
            todo += [made_by[str(owner)] for owner in (path, *path.parents) if str(owner) in made_by]
    return found


def _settings(side: Revision, entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    for stage, entry in entries.items():
        for key, was in ((entry.get("params") or {}).get("params.yaml") or {}).items():
            now = _at(side.params, key)
            if now != was:
                yield f"{stage}: was run with another {key}"


def _at(block: Any, key: str) -> Any:
    for part in key.split("."):
        block = block.get(part) if isinstance(block, dict) else None
    return block


def _entries(side: Revision, entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What one stage made, and what another says to have read of it."""
    for stage, entry in entries.items():
        for dep in entry.get("deps") or ():
            path, md5 = dep["path"], dep.get("md5")
            if side.outputs.get(path, md5) != md5:
                yield f"{stage}: was run with another {path}"
    deps = {stage: {dep["path"]: dep.get("md5") for dep in entry.get("deps") or ()} for stage, entry in entries.items()}
    for path, md5 in deps.get("score", {}).items():
        if deps.get("aggregate", {}).get(path, md5) != md5:
            yield f"aggregate: was run with another {path}"


def _code(side: Revision, entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    wanted: dict[tuple[str, str], str] = {}
    for stage, entry in entries.items():
        for dep in entry.get("deps") or ():
            if dep["path"].startswith(CODE):
                wanted.setdefault((dep["path"], dep["md5"]), stage)
    for (path, md5), stage in wanted.items():
        if committed.digest(side, path) != md5:
            yield f"{stage}: was run with another {path}"


def _files(side: Revision) -> Iterator[str]:
    """The decision as dvc.lock has it; of the workspace also that what numbers are read from is there and is that."""
    text = side.text(DECISION)
    if text is not None and side.outputs.get(DECISION, md5 := _md5(text.encode())) != md5:
        yield f"{DECISION}: not as dvc.lock has it"
    if side.name != WORKSPACE:
        return
    for path in [*(variant.items for variant in variants(side.run)), SCORES]:
        if path.as_posix() not in side.outputs:
            yield f"{path}: not made yet"
        elif not path.is_file():
            yield f"{path}: not here; dvc pull, or dvc checkout"
        elif _md5(path.read_bytes()) != side.outputs[path.as_posix()]:
            yield f"{path}: not as dvc.lock has it"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
