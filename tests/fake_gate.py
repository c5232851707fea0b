"""Commits to be held against each other: fake_commits with the code that scored, as dvc.lock and Git have it."""

import shutil
from pathlib import Path

import fake_commits
import quick_yaml

from tradeoffs.gate import committed, definitions
from tradeoffs.revisions import WORKSPACE, Revision

REPO = Path(__file__).parents[1]
CODE = (*definitions.CODE, "tradeoffs/common")


def add_code() -> None:
    """The code that scores, in the working directory, as it is in this project."""
    for name in CODE:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, name)


def commit(message: str = "A run") -> str:
    """What lies in data/ with the code that scored it."""
    fake_commits.commit(message)
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    side = Revision(WORKSPACE)
    deps = [{"path": path, "hash": "md5", "md5": committed.digest(side, path)} for path in CODE]
    lock["stages"]["score"] = {"cmd": "python -m stages.score", "deps": deps}
    Path("dvc.lock").write_text(quick_yaml.dump(lock))
    fake_commits.git("add", "-A")
    fake_commits.git("commit", "-q", "--amend", "-m", message)
    return fake_commits.git("rev-parse", "HEAD")
