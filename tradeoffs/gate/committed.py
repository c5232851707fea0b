"""The files of a revision as Git has them, and their hashes as DVC writes them."""

import fnmatch
import hashlib
import json
import subprocess
from functools import lru_cache
from pathlib import Path

from tradeoffs.plumbing.errors import UserError
from tradeoffs.revisions import Revision

# What .dvcignore leaves out of the folders of code.
IGNORED = ("__pycache__", "*.pyc", "*~", "*.sw?", ".#*", "#*#")


@lru_cache(maxsize=4096)
def digest(side: Revision, path: str) -> str | None:
    """The hash that DVC has of a file or folder of a revision, that of a folder with `.dir`; None if it has none."""
    found = _hashes(side, path)
    if found is None:
        return None
    if path in found:
        return found[path]
    listed = [{"md5": md5, "relpath": name[len(path) + 1 :]} for name, md5 in found.items()]
    listed.sort(key=lambda one: one["relpath"].split("/"))
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _hashes(side: Revision, path: str) -> dict[str, str] | None:
    if side.sha is None:
        top = Path(path)
        if not top.exists():
            return None
        paths = [top] if top.is_file() else [p for p in top.rglob("*") if p.is_file() and not _ignored(p)]
        return {p.as_posix(): _md5(p.read_bytes()) for p in paths}
    names = [
        name
        for name in _git(["ls-tree", "-r", "--name-only", "-z", side.sha, f"./{path}"]).decode().split("\0")
        if name
    ]
    names = [name for name in names if not _ignored(Path(name))]
    return {name: _md5(_git(["show", f"{side.sha}:./{name}"])) for name in names} or None


def _ignored(path: Path) -> bool:
    return any(fnmatch.fnmatchcase(part, pattern) for part in path.parts for pattern in IGNORED)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def is_within(base: Revision, head: Revision) -> bool | None:
    """Whether head has all that base has; None where Git cannot say (a clone of a few commits)."""
    if base.sha is None:
        return None
    done = subprocess.run(
        ["git", "merge-base", "--is-ancestor", base.sha, head.sha or "HEAD"], capture_output=True, check=False
    )
    return {0: True, 1: False}.get(done.returncode)


def _git(words: list[str]) -> bytes:
    try:
        return subprocess.run(["git", *words], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"git {words[0]}: {error}") from error
