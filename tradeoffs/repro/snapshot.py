"""The working tree as one commit, to be sent to other machines."""

import os
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from tradeoffs import params
from tradeoffs.common import files, settings
from tradeoffs.plumbing.errors import UserError

BRANCH = "snapshot"
NAME = ("-c", "user.name=llm-tradeoffs", "-c", "user.email=llm-tradeoffs@localhost")
NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")  # `dvc install` has one that pushes, and would wait for this run


def snapshot() -> tuple[bytes, str]:
    """A Git bundle, and where in it this folder is. Its BRANCH is one commit of the working tree: what is committed,
    changed and new, but nothing that Git ignores. Index and branches stay as they are. Raises UserError without Git."""
    reference = f"refs/llm-tradeoffs/{uuid.uuid4().hex}"
    prefix = _git("rev-parse", "--show-prefix").decode().strip()
    with tempfile.TemporaryDirectory() as scratch:
        index = os.environ | {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        _git("read-tree", "HEAD", env=index)  # also what is tracked though it is ignored
        _git("add", "--all", ":/", env=index)
        tree = _git("write-tree", env=index).decode().strip()
        commit = _git(*NAME, "commit-tree", tree, "-m", "What a run was started with").decode().strip()
        bare = Path(scratch, "bare")
        _git("init", "--quiet", "--bare", str(bare))
        _git("update-ref", reference, commit)
        try:
            _git(*NO_HOOKS, "push", "--quiet", "--no-verify", str(bare), f"{reference}:refs/heads/{BRANCH}")
        finally:
            _git("update-ref", "-d", reference)
        return _git("bundle", "create", "--quiet", "-", f"refs/heads/{BRANCH}", cwd=bare), prefix


def settle() -> None:
    """Writes what the stage `settings` is about to: that is Git's, so it goes along in the commit or not at all."""
    cfg = params.load_all()
    if settings.moved(cfg):
        for path, part in settings.parts(cfg):
            files.write_text(path, settings.text(part))


def _git(*words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> bytes:
    done = subprocess.run(["git", *words], env=env, cwd=cwd, capture_output=True)
    if done.returncode:
        raise UserError(f"git {' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
