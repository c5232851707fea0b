"""What Git says of this clone: what waits for somebody, and which files are not as they are committed or staged."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tradeoffs.plumbing.errors import UserError

# What Git notes while it waits for somebody, and what goes on from there.
UNDER_WAY = {
    "rebase-merge": "git rebase --continue",
    "rebase-apply": "git rebase --continue",
    "CHERRY_PICK_HEAD": "git cherry-pick --continue",
    "REVERT_HEAD": "git revert --continue",
    "MERGE_HEAD": "git commit --no-edit",
    "SQUASH_MSG": "git commit --no-edit",
}


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


def prefix() -> str:
    """Of the working directory, from the top of the repository on."""
    return os.fsdecode(git("rev-parse", "--show-prefix").rstrip(b"\n"))


def under_way() -> str:
    """The command that ends the merge, rebase, cherry-pick or revert that Git waits in; "" if there is none."""
    for note, command in UNDER_WAY.items():
        if Path(os.fsdecode(git("rev-parse", "--git-path", note).rstrip(b"\n"))).exists():
            return command
    return ""


def uncommitted(paths: Iterable[str], unless_staged: bool = False) -> list[str]:
    """Which files below these paths are not as in HEAD, or not as in the index; files that Git lacks are among them."""
    said = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *paths)
    lines = os.fsdecode(said).split("\0")[:-1]
    return [line[3:].removeprefix(prefix()) for line in lines if not unless_staged or line[1] != " "]


def is_unpushed_merge() -> bool:
    """Whether HEAD is a merge commit that no branch of a remote is known to hold."""
    parents = git("rev-list", "--parents", "-n", "1", "HEAD").split()[1:]
    return len(parents) > 1 and not git("branch", "-r", "--contains", "HEAD")
