"""A Git and DVC project whose commits hold finished runs without models: data in DVC's cache, dvc.lock in Git."""

from collections.abc import Callable, Iterable
from pathlib import Path

import fake_results
import pytest
import quick_yaml
from alone import GIT as ALONE
from alone import git
from dvc.repo import Repo

from stages import score
from tradeoffs import params
from tradeoffs.common.cells import COST, SCORES, Copied, cells, pairs, prepared, variants

REPO = Path(__file__).parents[1]
RUN = {
    "models": ["demo"],
    "datasets": ["demo"],
    "methods": ["base", "lora"],
    "precisions": [],
    "quants": ["f16", "q4_0"],
}
CODE = (Path("stages/score.py"), Path("tradeoffs/metrics/answers.py"))  # by which answers were scored


def begin(patch: pytest.MonkeyPatch, folder: Path, below: str = "") -> None:
    """An empty project in `folder`, or in a folder `below` that of Git; it is the working directory from here on."""
    for name, value in ALONE.items():
        patch.setenv(name, value)
    project = folder / below
    project.mkdir(parents=True, exist_ok=True)
    git("init", "-q", "-b", "main", cwd=folder)
    patch.chdir(project)
    Repo.init(subdir=bool(below)).close()
    with Path(".gitignore").open("a") as file:
        file.write("/data\n/.scratch\n")


def fill(items: int = 12, change: Callable[[], None] = lambda: None, **run: list) -> None:
    """A finished run in the working directory; `change` may edit what evaluation left before it is scored."""
    fake_results.params_file(Path(), REPO / "params.yaml", **(RUN | run))
    fake_results.write(Path(), params.load_all().run, items=items, questions=4)
    change()
    score.main()


def outputs(run: params.Run) -> Iterable[Path]:
    """What dvc.yaml's stages leave of a run list, as far as results are read from it."""
    yield from (SCORES, COST)
    for pair in pairs(run):
        yield pair.lengths
    for variant in variants(run):
        yield from (variant.items, variant.facts)
    for cell in cells(run):
        cell.seeds.mkdir(parents=True, exist_ok=True)
        yield from (cell.seeds, *(cell.training(seed).facts for seed in run.seeds))
    for dataset in run.datasets:
        yield from (Copied(dataset).items, prepared(dataset))


def commit(message: str) -> str:
    """Puts what lies in data/ into DVC's cache, as one stage made it, and commits dvc.lock; the commit's hash."""
    for path in CODE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    outs = [str(path) for path in outputs(params.load_all().run)]
    stage = {"cmd": "echo made", "deps": ["stages/score.py", "tradeoffs/metrics"], "outs": outs}
    Path("dvc.yaml").write_text(quick_yaml.dump({"stages": {"score": stage}}))
    Path("dvc.lock").unlink(missing_ok=True)
    with Repo() as repo:
        repo.commit(force=True)
    return committed(message)


def committed(message: str) -> str:
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", message)
    return git("rev-parse", "HEAD")
