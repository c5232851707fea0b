"""Whether what is committed belongs together: dvc.lock, README.md and models/dvc.yaml to params.yaml and the code.

    python -m tradeoffs.committed

For CI, and before a push: it needs no data, in a fresh clone neither, and exit code 1 names what would run, what is
stale and what is not committed. Stages are looked at as by `dvc repro --dry --allow-missing`, but for folders such as
data/raw that hold files of your own: where such a file is not there, its `.dvc` file tells what it is.
"""

from collections.abc import Iterator
from pathlib import Path

from dvc.dependency import Dependency
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc_data.hashfile.tree import Tree

from tradeoffs import artifacts, params, readme
from tradeoffs.common import settings
from tradeoffs.common.texts import harmless
from tradeoffs.merge import tree
from tradeoffs.merge.made import INPUTS, RESULTS
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError


def would_run(repo: Repo) -> tuple[list[str], list[str]]:
    """The steps that `dvc repro` would run for more than missing data; what is lacking, and not known without it."""
    graph = get_active_graph(repo.index.graph)
    order = plan_repro(graph, list(repo.index.stages))
    own = [out for stage in order if not stage.cmd for out in stage.outs if not out.exists]
    moved = {str(path) for path in settings.moved(params.load_all(), Path.cwd())}  # that `settings` writes before them
    found: list[str] = []
    unknown: set[str] = set()
    for stage in order:
        for dep in stage.deps:
            if lacking := [out for out in own if _lies_in(out, dep)] if dep.exists else []:
                hashed = _with(dep, lacking)
                unknown.update(() if hashed else map(str, lacking))
                dep.get_hash = lambda known=hashed or dep.hash_info: known
        changed = stage.changed(allow_missing=True, upstream=list(graph.successors(stage)))
        if stage.cmd and (changed or any(dep.fs_path in moved for dep in stage.deps)):
            found.append(stage.addressing)
    return found, sorted(unknown)


def _lies_in(out: Output, dep: Dependency) -> bool:
    return Path(out.fs_path).is_relative_to(dep.fs_path)


def _with(dep: Dependency, lacking: list[Output]) -> object:
    """The hash of a folder as if what is lacking were there; None if a lacking folder's listing is not in the cache."""
    _, _, there = dep._build(dep.cache, dep.fs_path, dep.fs, dep.hash_name, ignore=dep.dvcignore, dry_run=True)
    tree = Tree()
    for key, meta, content in there:
        tree.add(key, meta, content)
    for out in lacking:
        inside = Path(out.fs_path).relative_to(dep.fs_path).parts
        if not out.hash_info.isdir:
            tree.add(inside, out.meta, out.hash_info)
            continue
        try:
            listed = Tree.load(out.cache, out.hash_info)
        except FileNotFoundError:
            return None
        for key, meta, content in listed:
            tree.add((*inside, *key), meta, content)
    tree.digest()
    return tree.hash_info


def problems() -> Iterator[str]:
    if found := tree.uncommitted((*INPUTS, *RESULTS)):
        yield f"not committed, so a clone would have another: {', '.join(found)}"
    with Repo() as repo, lock_repo(repo):
        steps, unknown = would_run(repo)
    for path in unknown:
        print(harmless(f"{path}: not here, so what is in it is not known; taken for what it was when it was run"))
    if steps:
        yield f"dvc.lock is not of this params.yaml, code and data; to run: {', '.join(steps)} (make run, commit it)"
    for check in ([readme.write] if readme.is_wanted() else []) + [artifacts.main]:
        try:
            check(check=True)
        except UserError as error:
            yield str(error)


def main() -> None:
    try:
        found = list(problems())
    except DvcException as error:
        raise UserError(f"DVC: {error}") from error
    if found:
        raise UserError("\n  ".join(["what is committed does not belong together:", *found]))
    print("What is committed belongs together: nothing would run, and README.md and models/dvc.yaml are of it.")


if __name__ == "__main__":
    cli.command(main)
