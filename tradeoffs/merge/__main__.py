"""After a merge: what is made takes either side, and the run makes again what differs. docs/merging.md tells the whole.

    python -m tradeoffs.merge --install      once per clone: from now on Git leaves no conflict in what is made
    git merge origin/main                    or rebase, cherry-pick, stash pop
    python -m tradeoffs.merge                resolves what is made, pulls, runs what differs, stages the results
    python -m tradeoffs.merge --resolve      only resolves: between two commits of a rebase
    python -m tradeoffs.merge --uninstall    Git merges dvc.lock, metrics/, plots/ and report/ as it did before

What people write, params.yaml, code, docs, the text of README.md, is merged by them: while it is in conflict, nothing
runs.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tradeoffs import params, readme
from tradeoffs.common.texts import harmless
from tradeoffs.merge import conflicts, tree
from tradeoffs.merge.made import ARTIFACTS, INPUTS, LOCK, OUTPUTS, RESULTS
from tradeoffs.merge.tree import git
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

SECTION = "merge.tradeoffs"  # as .gitattributes names it


def install() -> None:
    """Names the driver in this clone's configuration, for all its worktrees."""
    python, below = (shlex.quote(word).replace("%", "%%") for word in (sys.executable, tree.prefix()))
    # Git runs it at the top of the repository, with names of files from there on.
    where = "" if below == "''" else f"PYTHONPATH={below} "
    git("config", f"{SECTION}.name", "either side of what a run makes again")
    git("config", f"{SECTION}.driver", f"{where}{python} -m tradeoffs.merge.driver %O %A %B %L %P")
    print("Installed: Git merges what is made by itself. After a merge or rebase: python -m tradeoffs.merge")


def uninstall() -> None:
    if git("config", "--default", "", "--get", f"{SECTION}.driver").strip():
        git("config", "--remove-section", SECTION)
    print("Not installed (any more): Git merges what is made as text, and leaves its conflicts.")


def resolve() -> None:
    """Raises UserError with what somebody must resolve, and with what is wrong in params.yaml as it was merged."""
    done = conflicts.resolve()
    if done.made:
        print(harmless(f"Resolved, since a run makes them: {', '.join(done.made)}"))
    if done.left:
        raise UserError(
            f"still in conflict, and yours to resolve: {', '.join(done.left)}; edit them, `git add` them, "
            "then run this again"
        )
    params.load_all()


def bring() -> None:
    """What both sides have run, from the remote if there is one, else from the cache. What is missing is made again."""
    from dvc.repo import Repo

    with Repo() as repo:
        remote = repo.config["core"].get("remote")
    command = ["pull" if remote else "checkout", "--allow-missing"]
    if subprocess.run([sys.executable, "-m", "dvc", *command], check=False).returncode:
        print(f"warning: `dvc {' '.join(command)}` failed: what it did not bring is made again", file=sys.stderr)


def run() -> None:
    """What differs, and what follows from the results. Raises UserError if a step fails."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if subprocess.run([sys.executable, "-m", "tradeoffs.repro"], env=env, check=False).returncode:
        raise UserError("the run failed, see above; nothing was staged: mend it, then run this again")
    if readme.is_wanted():
        readme.write()  # the driver's block is ours, also where theirs alone has run and nothing is left to run


def require_inputs() -> None:
    """Raises UserError where results would be committed with other inputs than those that they were made of."""
    merging = bool(tree.under_way())
    if not (found := tree.uncommitted(INPUTS, unless_staged=merging)):
        return
    if merging:
        raise UserError(f"not staged: {', '.join(found)}; `git add` what belongs to the merge, then run this again")
    raise UserError(
        f"not committed: {', '.join(found)}, and no merge is under way; commit it, then run this again. Or run it "
        "as it is (`make run`), and commit it with its results (docs/merging.md)"
    )


def stage() -> str:
    """Puts the results into the index; what to do next."""
    # In metrics/ no new file comes of a merge: one that Git does not know is somebody's own. The folders are outputs.
    git("add", "-u", "--", *(path for path in RESULTS if git("ls-files", "--", path)))
    git("add", "-A", "--", *(path for path in (LOCK, ARTIFACTS, *OUTPUTS) if Path(path).exists()))
    if following := tree.under_way():
        return following
    if not git("diff", "--cached", "--name-only"):
        return ""
    return "git commit --amend --no-edit" if tree.is_unpushed_merge() else "git commit -m 'Results of what was merged'"


def main(install_it: bool, uninstall_it: bool, only_resolve: bool) -> None:
    if not Path("dvc.yaml").is_file():
        raise UserError(f"{Path.cwd()}: no dvc.yaml here; run from the folder that holds it")
    if install_it or uninstall_it:
        (install if install_it else uninstall)()
        return
    resolve()
    if only_resolve:
        print("Nothing is in conflict. The results fit the merge after: python -m tradeoffs.merge")
        return
    require_inputs()
    bring()
    run()
    following = stage()
    print(f"Next: {following}" if following else "Nothing to commit: what is committed was made of the merged state.")


if __name__ == "__main__":
    options = cli.parser()
    one = options.add_mutually_exclusive_group()
    one.add_argument("--install", dest="install_it", action="store_true", help="set up Git's merge driver, once")
    one.add_argument("--uninstall", dest="uninstall_it", action="store_true", help="remove it")
    one.add_argument("--resolve", dest="only_resolve", action="store_true", help="run nothing")
    cli.command(main, options)
