"""Two pictures of the report, where the platform shows those of a commit: only if they are what stands here."""

import os
import re
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:  # who only posts has nothing of what these need
    from tradeoffs.revisions import Revision

SHOWN = {"plots/quality_vs_size.png": "quality and size", "plots/methods.png": "methods"}


def address() -> str:
    """Below what files of any commit of this repository lie, by the environment of a job; empty outside of one."""
    server, repository = os.environ.get("GITHUB_SERVER_URL", ""), os.environ.get("GITHUB_REPOSITORY", "")
    if _web(server) and re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        return f"{server.rstrip('/')}/{repository}/raw/"
    project = os.environ.get("CI_PROJECT_URL", "")
    return f"{project.rstrip('/')}/-/raw/" if _web(project) else ""


def _web(text: str) -> bool:
    return bool(re.fullmatch(r"https?://[\w.:~/-]+", text, re.ASCII))


def lines(head: "Revision") -> list[str]:
    """Links to the pictures at the commit that the pull request has, which the platform holds."""
    below, sha = address(), commit()
    if not below or not sha:
        return []
    here = _git("rev-parse", "--show-prefix")
    found = [
        f"![{what}]({below}{sha}/{quote(f'{here}{path}')})"
        for path, what in SHOWN.items()
        if (held := _git("rev-parse", "--verify", "--quiet", f"{sha}:./{path}")) and held == _own(head, path)
    ]
    return ["\n".join(found), ""] if found else []


def commit() -> str:
    """The head of the pull request of this job. What GitHub checks out is its merge with the base, which goes away."""
    for name in ("REVIEW_HEAD_SHA", "CI_COMMIT_SHA", "GITHUB_SHA"):
        if re.fullmatch(r"[0-9a-f]{40,64}", found := os.environ.get(name, "")):
            return found
    return ""


def _own(head: "Revision", path: str) -> str:
    if head.sha is None:
        return _git("hash-object", "--", path)
    return _git("rev-parse", "--verify", "--quiet", f"{head.sha}:./{path}")


def _git(*words: str) -> str:
    """What Git says; nothing where it finds nothing."""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
