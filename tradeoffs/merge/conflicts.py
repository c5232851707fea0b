"""The conflicts that a merge, rebase, cherry-pick or stash has left in Git's index; in made files they are resolved."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tradeoffs.common import files
from tradeoffs.merge import driver
from tradeoffs.merge.made import README, is_made
from tradeoffs.merge.tree import git, prefix

BASE, OURS, THEIRS = "1", "2", "3"  # what Git calls the stages of a path in conflict


@dataclass
class Resolved:
    made: list[str] = field(default_factory=list)  # paths that were resolved
    left: list[str] = field(default_factory=list)  # paths that somebody must resolve


def resolve() -> Resolved:
    """Takes either side of each made file in conflict, as the driver does, and puts it into the index.

    Of a made file that one side has removed, ours counts, removed or not: the run decides.
    """
    done = Resolved()
    for path, blobs in _in_conflict().items():
        if path == README and len(blobs) == 3:
            resolved = _resolve_readme(blobs)
        elif is_made(path):
            resolved = _resolve_made(path, blobs)
        else:
            resolved = False
        (done.made if resolved else done.left).append(path)
    return done


def _in_conflict() -> dict[str, dict[str, str]]:
    """Of each path, from here on, the hash of each version that there is."""
    found: dict[str, dict[str, str]] = {}
    for line in git("ls-files", "-u", "-z").decode(errors="surrogateescape").split("\0")[:-1]:
        about, _, path = line.partition("\t")
        _, sha, stage = about.split(" ")
        found.setdefault(path, {})[stage] = sha
    return found


def _resolve_made(path: str, blobs: dict[str, str]) -> bool:
    if OURS in blobs and THEIRS in blobs:
        base = _content(blobs[BASE]) if BASE in blobs else b""
        content, conflicts = driver.merged(path, base, _content(blobs[OURS]), _content(blobs[THEIRS]))
        _put(path, content)
        return not conflicts
    if kept := blobs.get(OURS) or (BASE not in blobs and blobs.get(THEIRS)):
        _put(path, _content(kept))
    else:
        git("rm", "-q", "-f", "--", path)
    return True


def _resolve_readme(blobs: dict[str, str]) -> bool:
    """Whether no text of it is in conflict. What somebody has edited since is kept; of the block ours counts."""
    path = Path(README)
    if path.is_symlink() or not path.is_file():
        return False
    ours, here = _content(blobs[OURS]), path.read_bytes()
    # A driver that could not start leaves ours, without a mark: Git takes that for a conflict.
    if git("hash-object", "--", README).decode().strip() == blobs[OURS]:
        resolved, _ = driver.merged(README, _content(blobs[BASE]), ours, _content(blobs[THEIRS]))
    elif re.fullmatch(rb"(<>)+", _marks(driver.block(here))):
        resolved = driver.with_block(driver.block(ours), here)
    else:
        resolved = here
    if resolved != here:
        with files.new_file(path) as unfinished:
            unfinished.write_bytes(resolved)
    if _marks(resolved):
        return False
    git("add", "--", README)
    return True


def _marks(text: bytes) -> bytes:
    """Where conflicts begin (<) and end (>), in their order."""
    return b"".join(found[1][:1] for found in driver.MARK.finditer(text))


def _content(sha: str) -> bytes:
    return git("cat-file", "blob", sha)


def _put(path: str, content: bytes) -> None:
    """Into the index and the folder; by Git, which follows no symbolic link out of it."""
    sha = git("hash-object", "-w", "--stdin", given=content).decode().strip()
    git("update-index", "--add", "--cacheinfo", f"100644,{sha},{prefix()}{path}")
    git("checkout-index", "-f", "--", path)
