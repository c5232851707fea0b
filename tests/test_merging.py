"""Two branches that each change something are merged: what is made is made again, as if both were changed on one."""

import re
import shutil
import subprocess
from pathlib import Path

import fake_pipeline
import forked
import pytest
import quick_yaml
from alone import ALONE, git
from fake_pipeline import REPO, call, dvc

from tradeoffs import readme
from tradeoffs.merge.made import COMMITTED, LOCK, is_made

# A stage whose outputs follow from its deps and params alone, and look like those of the real one.
STAND_IN = """
import hashlib, json, sys, yaml
from pathlib import Path
outs, deps, keys = (part.split() for part in " ".join(sys.argv[1:]).split(":"))
values = yaml.load(Path("params.yaml").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
made = hashlib.sha256()
for key in keys:
    value = values
    for part in key.split("."):
        value = value[part]
    made.update(json.dumps(value).encode())
for path in map(Path, deps):
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and "__pycache__" not in file.parts:
            made.update(file.read_bytes())
one = made.hexdigest()
lines = "".join(f"{number}: {one[number:number + 8]}\\n" for number in range(20))
PICTURE = ("quality_vs_size.png", "ladder.png", "methods.png")
for out in map(Path, outs):
    if out.name == "report":
        files = {"summary.md": f"## Headline\\n\\n{lines}", "only_%s.md" % one[:8]: lines}
        files["report.md"] = f"![x](../plots/quality_vs_size.png)\\n{lines}"
    elif out.name == "plots":
        files = {name: b"\\x89PNG\\r\\n\\x1a\\n\\0" + one.encode() for name in PICTURE} | {"training.csv": lines}
    elif out.suffix:
        files, out = {out.name: json.dumps({"it": one, "of": lines}, indent=1)}, out.parent
    else:
        files = {name: one for name in ("train.parquet", "valid.parquet", "pairs.parquet", "train.jsonl", "test.jsonl")}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_bytes(text if isinstance(text, bytes) else f"{text} {out}".encode())
"""
README = f"# Mine\n\nAbove.\n\n{readme.BEGIN}\nold\n{readme.END}\n\nBelow.\n\n## Usage\n\nText.\n"
SLOW_FIXTURES = {"server"}  # read by conftest.py


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of the project's, as somebody types it."""
    env = fake_pipeline.environment_with(**ALONE)
    return forked.python("-m", *words, cwd=cwd, env=env, libraries=forked.DVC)


def merge(folder: Path, *words: str) -> str:
    done = python("tradeoffs.merge", *words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(folder: Path) -> None:
    fake_pipeline.run(folder, **ALONE)


def make(folder: Path) -> None:
    fake_pipeline.make(folder, methods=["base", "lora", "full"], precisions=[], quants=[])
    spec = quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"]
    for name, stage in spec.items():
        words = (fake_pipeline.outs(stage), stage.get("deps", []), stage.get("params", []))
        if name in ("settings", "publish"):
            continue  # they are the real ones
        stage["cmd"] = f"python stand_in.py {' : '.join(' '.join(part) for part in words)}"
    (folder / "dvc.yaml").write_text(quick_yaml.dump({"stages": spec}, sort_keys=False))
    # Of one own hand-writing, so that two edits merge as they do in the real one.
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("\n", "\n\n"))
    (folder / "stand_in.py").write_text(STAND_IN)
    (folder / "README.md").write_text(README)
    for name in (".dvc/config", ".dvc/.gitignore", ".gitattributes"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, folder / name)


EDITS = {"lora": (r"(\n  lora:\n.*?\n +r:) 16", r"\1 8"), "full": (r"(\n  full:\n.*?\n +lr_factor:) 0.2", r"\1 0.4")}


def edit(folder: Path, *names: str) -> None:
    """Changes the block of a method, in the text: nothing else of params.yaml moves."""
    text = (folder / "params.yaml").read_text()
    for name in names:
        text, count = re.subn(*EDITS[name], text, count=1, flags=re.DOTALL)
        assert count == 1
    (folder / "params.yaml").write_text(text)


def commit(folder: Path, message: str) -> None:
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", message, cwd=folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A bare repository with a finished run on `main`; on `lora`, on `full` and on `both` with another value of these
    methods. What they made is in a DVC remote beside it; but for what `both` made, with which is compared. It is what
    `first` has checked out."""
    folder = tmp_path_factory.mktemp("team")
    first, bare = folder / "first", folder / "server.git"
    make(first)
    git("init", "-q", "-b", "main", cwd=first)
    run(first)
    commit(first, "A run")
    git("clone", "-q", "--bare", str(first), str(bare), cwd=folder)
    connect(first, folder)
    dvc("push", "-q", cwd=first, **ALONE)
    for name, methods in (("lora", ["lora"]), ("full", ["full"]), ("both", ["lora", "full"])):
        git("switch", "-q", "-c", name, "main", cwd=first)
        dvc("checkout", "-q", cwd=first, **ALONE)
        edit(first, *methods)
        run(first)
        commit(first, name)
        git("push", "-q", str(bare), name, cwd=first)
        if name != "both":
            dvc("push", "-q", cwd=first, **ALONE)
    return bare


def connect(clone: Path, folder: Path) -> None:
    (clone / ".dvc/config.local").write_text(
        f"[core]\n    remote = team\n['remote \"team\"']\n    url = {folder / 'remote'}\n"
    )


def cloned(bare: Path, folder: Path, branch: str = "main") -> Path:
    git("clone", "-q", "-b", branch, str(bare), str(folder), cwd=bare.parent)
    connect(folder, bare.parent)
    return folder


def state(folder: Path) -> dict[str, object]:
    """All that is committed, but for how long steps took; of dvc.lock what it says, in whatever order."""
    names = git("ls-files", "--", *COMMITTED, cwd=folder).split()
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in names if name != "metrics/times.json"}
    return found | {LOCK: quick_yaml.load((folder / LOCK).read_text())}


def in_conflict(folder: Path) -> set[str]:
    return set(git("diff", "--name-only", "--diff-filter=U", cwd=folder).split())


def is_as_both(folder: Path, server: Path) -> None:
    """The merge is committed, and what is committed is what both changes on one branch give; nothing is left to run."""
    assert git("status", "--porcelain", cwd=folder) == ""
    assert state(folder) == state(server.parent / "first")
    assert "up to date" in dvc("status", cwd=folder, **ALONE)


def test_two_changes_merged_by_the_driver_are_as_both_on_one_branch(server, tmp_path):
    clone = cloned(server, tmp_path / "clone", "lora")
    merge(clone, "--install")
    done = call("git", "merge", "-q", "origin/full", cwd=clone, **ALONE)
    assert done.returncode == 0 and "now: python -m tradeoffs.merge" in done.stderr, done.stderr
    git("grep", "-q", "^<<<<<<<", cwd=clone, fails=True)
    said = merge(clone)
    # What one side alone has run is pulled; what stands for both sides runs.
    assert set(re.findall(r"^\[\d+/\d+\] (?!Stage )(\w+)", said, re.MULTILINE)) - {"settings"} == {
        *("measure", "score", "aggregate", "publish")
    }
    assert "Next: git commit --amend" in said
    git("commit", "-q", "--amend", "--no-edit", cwd=clone)
    is_as_both(clone, server)


def test_without_the_driver_the_conflicts_of_made_files_are_resolved_afterwards(server, tmp_path):
    clone = cloned(server, tmp_path / "clone", "lora")
    git("merge", "origin/full", cwd=clone, fails=True)
    found = in_conflict(clone)
    assert len(found) >= 10 and all(is_made(path) or path == "README.md" for path in found), found
    said = merge(clone)
    assert "Next: git commit --no-edit" in said
    git("commit", "-q", "--no-edit", cwd=clone)
    is_as_both(clone, server)


def test_a_rebase_ends_in_the_same_state_as_a_merge(server, tmp_path):
    """And so in the same results, since these follow from it."""
    clone = cloned(server, tmp_path / "clone", "full")

    def reached() -> list[str]:
        assert git("status", "--porcelain", cwd=clone) == ""
        return [git("show", f"HEAD:{path}", cwd=clone) for path in ("params.yaml", LOCK, "README.md")]

    merge(clone, "--install")
    git("merge", "-q", "origin/lora", cwd=clone)
    merged = reached()
    assert merged[0] == git("show", "origin/both:params.yaml", cwd=clone)
    git("switch", "-q", "lora", cwd=clone)
    git("rebase", "-q", "origin/full", cwd=clone)
    assert reached() == merged
    merge(clone, "--uninstall")
    git("reset", "-q", "--hard", "origin/lora", cwd=clone)
    git("rebase", "origin/full", cwd=clone, fails=True)
    merge(clone, "--resolve")
    git("rebase", "--continue", cwd=clone)
    assert reached() == merged


def test_cherry_pick_and_stash_in_a_worktree_leave_no_conflict(server, tmp_path):
    clone = cloned(server, tmp_path / "clone")
    merge(clone, "--install")
    git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"), "origin/lora", cwd=clone)
    tree = tmp_path / "tree"
    git("cherry-pick", "origin/full", cwd=tree)
    assert in_conflict(tree) == set() and git("status", "--porcelain", cwd=tree) == ""
    git("reset", "-q", "--hard", "origin/lora", cwd=tree)
    git("checkout", "-q", "origin/both", "--", ".", cwd=tree)
    git("stash", "-q", cwd=tree)
    git("reset", "-q", "--hard", "origin/full", cwd=tree)
    call("git", "stash", "pop", cwd=tree, **ALONE)
    assert in_conflict(tree) <= {"params.yaml"}  # both changed one line of it, to the same


def test_what_people_write_is_theirs_to_resolve_and_nothing_runs_before(server, tmp_path):
    clone = cloned(server, tmp_path / "clone", "lora")
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("r: 8\n", "r: 4\n", 1))
    (clone / "stages/score.py").write_text("# ours\n")
    commit(clone, "ours")
    git("switch", "-q", "-c", "theirs", "origin/lora", cwd=clone)
    (clone / "params.yaml").write_text(text.replace("r: 8\n", "r: 32\n", 1))
    (clone / "stages/score.py").write_text("# theirs\n")
    (clone / "dvc.lock").write_text((clone / "dvc.lock").read_text().replace("md5: ", "md5: 0", 1))
    commit(clone, "theirs")
    git("merge", "lora", cwd=clone, fails=True)
    for words in ((), ("--resolve",)):
        done = python("tradeoffs.merge", *words, cwd=clone)
        assert done.returncode == 1 and "params.yaml, stages/score.py" in done.stderr, done.stderr
        assert "[1/" not in done.stdout
    assert in_conflict(clone) == {"params.yaml", "stages/score.py"}


def test_a_params_file_that_merged_into_a_wrong_one_is_refused(server, tmp_path):
    """Both add the same key, far enough from each other for Git to see no conflict."""
    clone = cloned(server, tmp_path / "clone")
    text = (clone / "params.yaml").read_text()
    for branch, changed in (("one", f"seed: 1\n\n{text}"), ("two", f"{text}\nseed: 2\n")):
        git("switch", "-q", "-c", branch, "origin/main", cwd=clone)
        (clone / "params.yaml").write_text(changed)
        commit(clone, branch)
    git("merge", "-q", "one", cwd=clone)
    done = python("tradeoffs.merge", cwd=clone)
    assert done.returncode == 1 and "seed stands twice" in done.stderr and "[1/" not in done.stdout


def test_the_driver_is_set_up_and_removed_by_one_command(server, tmp_path):
    clone = cloned(server, tmp_path / "clone", "lora")
    for _ in range(2):
        merge(clone, "--uninstall")
    git("merge", "origin/full", cwd=clone, fails=True)
    git("merge", "--abort", cwd=clone)
    merge(clone, "--install")
    git("merge", "-q", "origin/full", cwd=clone)
    git("reset", "-q", "--hard", "origin/lora", cwd=clone)
    merge(clone, "--uninstall")
    git("merge", "origin/full", cwd=clone, fails=True)


def test_an_experiment_changes_what_is_committed_with_it_and_its_undo_leaves_nothing(server, tmp_path):
    """The lines of docs/merging.md."""
    clone = cloned(server, tmp_path / "clone")
    dvc("pull", "-q", cwd=clone, **ALONE)
    before = state(clone)
    dvc("exp", "run", "-q", "-S", "run.methods=[base,lora]", cwd=clone, **ALONE)
    changed = set(git("diff", "--name-only", cwd=clone).split()) | own(clone)
    assert changed >= {"README.md", "models/dvc.yaml", "params.yaml", "dvc.lock", "report/summary.md"}
    assert all(path in COMMITTED or path.split("/")[0] in COMMITTED for path in changed)
    checks = {"readme": "README.md", "artifacts": "models/dvc.yaml"}
    for command in checks:
        done = python(f"tradeoffs.{command}", "--check", cwd=clone)
        assert done.returncode == 0, done.stderr

    page = (REPO / "docs/merging.md").read_text()
    add, undo = (re.findall(rf"^{word} .*", page, re.MULTILINE)[0] for word in ("git add", "git checkout"))
    for line in (add, undo):
        assert set(COMMITTED) <= set(line.split()), line
    call("bash", "-c", add, cwd=clone, **ALONE)
    assert git("diff", "--name-only", cwd=clone) == "" and own(clone) == set()
    git("reset", "-q", cwd=clone)
    git("checkout", "-q", *checks.values(), cwd=clone)
    for command, file in checks.items():
        done = python(f"tradeoffs.{command}", "--check", cwd=clone)
        assert done.returncode == 1 and file in done.stderr
    assert git("status", "--porcelain", *checks.values(), cwd=clone) == ""

    (clone / "metrics/mine.json").write_text("{}")
    tried = (clone / LOCK).read_text()
    done = call("bash", "-c", undo, cwd=clone, **ALONE)
    assert done.returncode == 0, done.stderr
    assert tried != (clone / LOCK).read_text() and state(clone) == before
    assert git("status", "--porcelain", cwd=clone) == "?? metrics/mine.json"
    assert "up to date" in dvc("status", cwd=clone, **ALONE)


def own(folder: Path) -> set[str]:
    """Files that Git neither has nor ignores."""
    return set(git("ls-files", "-o", "--exclude-standard", cwd=folder).split())


def test_a_fresh_clone_tells_what_would_run_also_with_own_data(server, tmp_path):
    """DVC takes data/raw for changed where a file in it, which `dvc add` tracks, is not there."""
    author = cloned(server, tmp_path / "author")
    dvc("pull", "-q", cwd=author, **ALONE)
    (author / "data/raw/support.jsonl").write_text("{}")
    (author / "models/raw/mine").mkdir()
    (author / "models/raw/mine/weights").write_text("1")
    dvc("add", "-q", "data/raw/support.jsonl", "models/raw/mine", cwd=author, **ALONE)
    run(author)
    done = python("tradeoffs.committed", cwd=author)
    assert done.returncode == 1 and "not committed, so a clone would have another: " in done.stderr, done.stderr
    assert "data/raw/support.jsonl.dvc" in done.stderr and "to run" not in done.stderr
    commit(author, "Own data")
    fresh = tmp_path / "fresh"
    git("clone", "-q", str(author), str(fresh), cwd=tmp_path)
    assert "Running stage 'prepare@demo'" in call("dvc", "repro", "--dry", "--allow-missing", cwd=fresh, **ALONE).stdout
    done = python("tradeoffs.committed", cwd=fresh)
    assert done.returncode == 0 and "models/raw/mine: not here" in done.stdout, done.stdout + done.stderr

    note = fresh / "data/raw/support.jsonl.dvc"
    note.write_text(note.read_text().replace("md5: 9", "md5: 8"))
    edit(fresh, "lora")
    (fresh / "README.md").write_text(README)
    done = python("tradeoffs.committed", cwd=fresh)
    assert done.returncode == 1 and "README.md: its results" in done.stderr, done.stderr
    found = set(re.findall(r"[a-z]+@[\w-]+", done.stderr))
    assert found >= {"prepare@demo", "finetune@demo-demo-lora-42"} and not any("full" in name for name in found)
