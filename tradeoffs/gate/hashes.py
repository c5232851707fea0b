"""The files of a revision as Git has them, and their hashes as DVC writes them."""

import fnmatch
import hashlib
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from tradeoffs.plumbing.errors import UserError
from tradeoffs.revisions import Revision

CODE = ("tradeoffs", "stages")
# What .dvcignore leaves out of the folders of code.
IGNORED = ("__pycache__", "*.pyc", "*~", "*.sw?", ".#*", "#*#")


@lru_cache(maxsize=4096)
def digest(side: Revision, path: str) -> str | None:
    """The hash that DVC has of code of a revision, or of anything in the folder; None if there is nothing.

    That of a folder ends in `.dir`.
    """
    if side.sha is None:
        return side.store.hash_of(path)
    code = _code(side)
    if path in code:
        return code[path]
    below = {name[len(path) + 1 :]: md5 for name, md5 in code.items() if name.startswith(f"{path}/")}
    return folder_hash(below) if below else None


def folder_hash(files: Mapping[str, str]) -> str:
    """The hash of a folder, by those of its files (by their paths in it), made by DVC itself."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    tree = Tree()
    for name, md5 in files.items():
        tree.add(tuple(name.split("/")), None, HashInfo("md5", md5))
    tree.digest()
    return str(tree.hash_info.value)


@lru_cache(maxsize=16)
def _code(side: Revision) -> dict[str, str]:
    """The hashes of all code of a commit, read from Git at once."""
    assert side.sha
    listed = _git(["ls-tree", "-r", "-z", side.sha, *(f"./{folder}" for folder in CODE)]).decode().split("\0")
    blobs = {name: words.split()[2] for words, _, name in (one.partition("\t") for one in listed) if name}
    blobs = {name: blob for name, blob in blobs.items() if not _ignored(Path(name))}
    content = _git(["cat-file", "--batch"], "".join(f"{blob}\n" for blob in blobs.values()).encode())
    found, start = {}, 0
    for name in blobs:  # a line that ends in the size, then so many bytes and a line's end
        end = content.index(b"\n", start)
        after = end + 1 + int(content[start:end].split()[-1])
        found[name] = hashlib.md5(content[end + 1 : after], usedforsecurity=False).hexdigest()
        start = after + 1
    return found


def _ignored(path: Path) -> bool:
    return any(fnmatch.fnmatchcase(part, pattern) for part in path.parts for pattern in IGNORED)


def is_within(base: Revision, head: Revision) -> bool | None:
    """Whether head has all that base has; None where Git cannot say (a clone of a few commits)."""
    if base.sha is None:
        return None
    done = subprocess.run(
        ["git", "merge-base", "--is-ancestor", base.sha, head.sha or "HEAD"], capture_output=True, check=False
    )
    return {0: True, 1: False}.get(done.returncode)


def _git(words: list[str], given: bytes = b"") -> bytes:
    try:
        return subprocess.run(["git", *words], input=given, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"git {words[0]}: {error}") from error
