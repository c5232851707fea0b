"""Which code a result measured: a digest over the project's files that its processes import, and the commit.

The files are read off the sources, so that the digest of a result can be compared with today's without running
anything. What shapes no output (PLUMBING) does not count, nor do the benchmarks: what they do stands in the result.
"""

import ast
import hashlib
import subprocess
from collections.abc import Iterable
from functools import cache
from typing import Any

from benchmarks.assets import ROOT
from tradeoffs.common import files

# Rooms that no output depends on: arguments, the clock, the error type, who is told of a training; and the reader of
# params.yaml, whose values DVC tracks one by one. As deps of stages, a comment there would train every model again.
PLUMBING = ("tradeoffs/plumbing/", "tradeoffs/params/")
PROJECT = ("benchmarks", "stages", "tradeoffs")


@cache
def imports(path: str) -> set[str]:
    """The project's files that a file imports, at its top or within a function, as paths from the checkout."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        paths = [name.replace(".", "/") for name in names if name.split(".")[0] in PROJECT]
        found |= {f"{path}.py" for path in paths} | {f"{path}/__init__.py" for path in paths}
    # An empty __init__.py is there for Python alone.
    return {name for name in found if (ROOT / name).is_file() and (ROOT / name).stat().st_size}


def closure(*paths: str) -> set[str]:
    """The files that `paths` live off, directly or through others, themselves among them, less the plumbing."""
    seen, todo = set[str](), list(paths)
    while todo:
        path = todo.pop()
        if path not in seen and not path.startswith(PLUMBING):
            seen.add(path)
            todo += imports(path)
    return seen


def facts(*scripts: str) -> dict[str, Any]:
    """What a result says of the code that `scripts` ran: `scripts`, `commit` and `digest`."""
    return {"scripts": scripts, "commit": commit(scripts), "digest": digest(scripts)}


def code(scripts: Iterable[str]) -> list[str]:
    """The files of stages and their rooms that `scripts` live off, sorted."""
    return sorted(path for path in closure(*scripts) if not path.startswith("benchmarks/"))


def digest(scripts: Iterable[str]) -> str:
    """First 16 hex digits of a SHA-256 over the names and the content of `code`."""
    lines = "".join(f"{files.sha256(ROOT / path)}  {path}\n" for path in code(scripts))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def commit(scripts: Iterable[str]) -> str:
    """The commit that is checked out, and whether `code` differs from it; "unknown" where that cannot be told."""
    head = _git("rev-parse", "--short=7", "HEAD")
    changes = _git("status", "--porcelain", "--", *code(scripts))
    return f"{head}, changed" if head and changes else head or "unknown"


def _git(*arguments: str) -> str:
    """What git prints in the checkout; nothing where there is no Git, or no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
