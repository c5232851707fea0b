"""The conflicts that a merge, rebase, cherry-pick or stash has left in Git's index; in made files they are resolved."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tradeoffs.merge import driver
from tradeoffs.merge.made import README, is_made
from tradeoffs.plumbing.errors import UserError

BASE, OURS, THEIRS = "1", "2", "3"  # what Git calls the stages of a path in conflict


@dataclass
class Resolved:
    made: list[str] = field(default_factory=list)  # paths that were resolved
    left: list[str] = field(default_factory=list)  # paths that somebody must resolve


def git(*words: str, given: bytes | None = None) -> bytes:
    """What Git says. Raises UserError where it fails."""
    try:
        done = subprocess.run(["git", *words], input=given, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("git: not found; a merge is Git's") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise UserError(f"git {words[0]} failed: {said}; run in the folder of dvc.yaml, of a clone")
    return done.stdout


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
    """Whether no text of it is in conflict. What somebody has resolved by hand is taken as it is."""
    path = Path(README)
    if path.is_file() and not driver.MARK.search(path.read_bytes()):
        git("add", "--", README)
        return True
    content, conflicts = driver.merged(README, _content(blobs[BASE]), _content(blobs[OURS]), _content(blobs[THEIRS]))
    if not conflicts:
        _put(README, content)
    return not conflicts


def _content(sha: str) -> bytes:
    return git("cat-file", "blob", sha)


def _put(path: str, content: bytes) -> None:
    """Into the index and the folder; by Git, which follows no symbolic link out of it."""
    sha = git("hash-object", "-w", "--stdin", given=content).decode().strip()
    git("update-index", "--add", "--cacheinfo", f"100644,{sha},{_prefix()}{path}")
    git("checkout-index", "-f", "--", path)


def _prefix() -> str:
    """Of the working directory, from the top of the repository on."""
    return git("rev-parse", "--show-prefix").decode(errors="surrogateescape").rstrip("\n")
