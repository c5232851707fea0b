"""Two branches that each change something are merged: what is made is made again, as if both were changed on one."""

import re
import shutil
import subprocess
from pathlib import Path

import fake_pipeline
import forked
import pytest
import quick_yaml
from fake_pipeline import REPO, call, dvc
from test_remotes import ALONE

from tradeoffs import readme
from tradeoffs.merge import driver
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
        files = {"summary.md": f"## Headline\\n\\n{lines}", "only_%s.md" % one[0]: lines}
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


def git(*words: str, cwd: Path, fails: bool = False) -> str:
    done = call("git", *words, cwd=cwd, **ALONE, GIT_EDITOR="true")
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout


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
    for command in ("tradeoffs.readme", "tradeoffs.artifacts"):
        assert python(command, cwd=folder).returncode == 0


def make(folder: Path) -> None:
    fake_pipeline.make(folder, methods=["base", "lora", "full"], precisions=[], quants=[])
    spec = quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"]
    for stage in spec.values():
        words = (fake_pipeline.outs(stage), stage.get("deps", []), stage.get("params", []))
        if "outs" not in stage:
            continue  # publish is the real one
        stage["cmd"] = f"python stand_in.py {' : '.join(' '.join(part) for part in words)}"
    (folder / "dvc.yaml").write_text(quick_yaml.dump({"stages": spec}, sort_keys=False))
    # Of one own hand-writing, so that two edits merge as they do in the real one.
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("\n", "\n\n"))
    (folder / "stand_in.py").write_text(STAND_IN)
    (folder / "README.md").write_text(README)
    for name in (".dvc/config", ".dvc/.gitignore", ".gitattributes"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, folder / name)


EDITS = {"lora": (r"(\n  lora:\n.*?\n +r:) 16", r"\1 8"), "full": (r"(\n  full:\n.*?\n +lr:) 0.001", r"\1 0.002")}


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
    methods. What they made is in a DVC remote beside it; but for what `both` made, with which is compared."""
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
        clone = cloned(bare, folder / f"of-{name}")
        git("switch", "-q", "-c", name, cwd=clone)
        dvc("pull", "-q", cwd=clone, **ALONE)
        edit(clone, *methods)
        run(clone)
        commit(clone, name)
        git("push", "-q", "origin", name, cwd=clone)
        if name != "both":
            dvc("push", "-q", cwd=clone, **ALONE)
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
    assert state(folder) == state(server.parent / "of-both")
    assert "up to date" in dvc("status", cwd=folder, **ALONE)


def test_two_changes_merged_by_the_driver_are_as_both_on_one_branch(server, tmp_path):
    clone = cloned(server, tmp_path / "clone", "lora")
    merge(clone, "--install")
    git("merge", "-q", "origin/full", cwd=clone)
    git("grep", "-q", "^<<<<<<<", cwd=clone, fails=True)
    said = merge(clone)
    # What one side alone has run is pulled; what stands for both sides runs.
    assert set(re.findall(r"^\[\d+/\d+\] (\w+)", said, re.MULTILINE)) == {"measure", "score", "aggregate", "publish"}
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


@pytest.mark.parametrize("driver", [True, False])
def test_a_rebase_ends_in_the_same_state(server, tmp_path, driver):
    clone = cloned(server, tmp_path / "clone", "lora")
    if driver:
        merge(clone, "--install")
        git("rebase", "-q", "origin/full", cwd=clone)
    else:
        git("rebase", "origin/full", cwd=clone, fails=True)
        merge(clone, "--resolve")
        git("rebase", "--continue", cwd=clone)
    merge(clone)
    git("commit", "-q", "--amend", "--no-edit", cwd=clone)
    is_as_both(clone, server)


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


def test_the_undo_of_an_experiment_leaves_nothing(server, tmp_path):
    """The line of docs/merging.md; and all that an experiment changes is among what is committed with it."""
    clone = cloned(server, tmp_path / "clone")
    dvc("pull", "-q", cwd=clone, **ALONE)
    before = state(clone)
    dvc("exp", "run", "-q", "-S", "methods.lora.config.r=8", cwd=clone, **ALONE)
    changed = {line[3:] for line in git("status", "--porcelain", "-uall", cwd=clone).splitlines()}
    assert changed >= {"README.md", "params.yaml", "dvc.lock", "report/summary.md"}
    assert all(path in COMMITTED or path.split("/")[0] in COMMITTED for path in changed)
    page = (REPO / "docs/merging.md").read_text()
    add, undo = (re.findall(rf"^{word} .*", page, re.MULTILINE)[0] for word in ("git add", "git checkout"))
    for line in (add, undo):
        assert set(COMMITTED) <= set(line.split()), line
    tried = (clone / LOCK).read_text()
    call("bash", "-c", add, cwd=clone, **ALONE)
    assert git("diff", "--name-only", cwd=clone) == git("ls-files", "-o", "--exclude-standard", cwd=clone) == ""
    git("reset", "-q", cwd=clone)
    done = call("bash", "-c", undo, cwd=clone, **ALONE)
    assert done.returncode == 0, done.stderr
    assert (
        tried != (clone / LOCK).read_text() and state(clone) == before and git("status", "--porcelain", cwd=clone) == ""
    )
    assert "up to date" in dvc("status", cwd=clone, **ALONE)


def test_an_experiment_refreshes_the_readme_and_the_list_of_artifacts(server, tmp_path):
    clone = cloned(server, tmp_path / "clone")
    dvc("pull", "-q", cwd=clone, **ALONE)
    assert python("tradeoffs.readme", "--check", cwd=clone).returncode == 0
    dvc("exp", "run", "-q", "-S", "run.methods=[base,lora]", cwd=clone, **ALONE)
    for command in ("readme", "artifacts"):
        done = python(f"tradeoffs.{command}", "--check", cwd=clone)
        assert done.returncode == 0, done.stderr
    git("checkout", "-q", "README.md", "models/dvc.yaml", cwd=clone)
    for command, file in (("readme", "README.md"), ("artifacts", "models/dvc.yaml")):
        done = python(f"tradeoffs.{command}", "--check", cwd=clone)
        assert done.returncode == 1 and file in done.stderr
    assert git("status", "--porcelain", "README.md", "models/dvc.yaml", cwd=clone) == ""


def test_a_fresh_clone_tells_what_would_run_also_with_own_data(server, tmp_path):
    """DVC takes data/raw for changed where a file in it, which `dvc add` tracks, is not there."""
    author = cloned(server, tmp_path / "author")
    dvc("pull", "-q", cwd=author, **ALONE)
    (author / "data/raw/support.jsonl").write_text("{}")
    (author / "models/raw/mine").mkdir()
    (author / "models/raw/mine/weights").write_text("1")
    dvc("add", "-q", "data/raw/support.jsonl", "models/raw/mine", cwd=author, **ALONE)
    run(author)
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


# --- the driver, without a repository

LOCKED = "schema: '2.0'\nstages:\n"


def entry(name: str, value: object) -> str:
    return f"  {name}:\n    cmd: python {value}\n    outs:\n    - path: {name}\n"


def lock(**entries: object) -> bytes:
    return (LOCKED + "".join(entry(name, value) for name, value in entries.items())).encode()


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}),  # each by one
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),  # by both
        ({"a": 1}, {"a": 1, "b": 1}, {"a": 1, "c": 1}, {"a": 1, "b": 1, "c": 1}),  # added
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}, {"a": 1, "b": 1}, {"a": 1}),  # removed
        ({"a": 1, "b": 1}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2}),  # removed and changed
    ],
)
def test_each_entry_of_the_lock_is_of_who_changed_it(base, ours, theirs, expected):
    assert driver.merged(LOCK, lock(**base), lock(**ours), lock(**theirs)) == (lock(**expected), False)


def test_the_real_lock_is_read_entry_by_entry():
    text = (REPO / LOCK).read_bytes()
    head, found = driver._entries(text)
    assert (head + "".join(found.values())).encode() == text
    assert {name.rstrip(":") for name in found} == set(quick_yaml.load(text.decode())["stages"])
    assert driver.merged(LOCK, b"", text, text) == (text, False)


@pytest.mark.parametrize(
    "broken", [b"", b"<<<<<<< ours\n", b"\xff", LOCKED.encode() + b"a: 1\n", lock(a=1) + lock(a=1)]
)
def test_a_lock_that_is_none_gives_way_to_the_other(broken):
    assert driver.merged(LOCK, lock(a=1), broken, lock(a=2)) == (lock(a=2), False)
    assert driver.merged(LOCK, lock(a=1), lock(a=2), broken) == (lock(a=2), False)


def page(block: str, below: str = "Below.") -> bytes:
    return f"Above.\n{readme.BEGIN}\n{block}\n{readme.END}\n{below}\n".encode()


def test_the_text_of_the_readme_is_merged_and_its_block_is_ours():
    assert driver.merged("README.md", page("1"), page("2"), page("3", "More.")) == (page("2", "More."), False)
    content, conflicts = driver.merged("README.md", page("1"), page("2", "x"), page("3", "y"))
    assert conflicts and b"<<<<<<< ours\nx\n=======\ny\n>>>>>>> theirs" in content
    assert b"3" not in content


def test_a_picture_is_that_of_one_side_to_the_byte():
    assert driver.merged("plots/a.png", b"\x89PNG\0", b"\x89PNG\1", b"\x89PNG\2") == (b"\x89PNG\1", False)


def test_what_is_written_by_people_is_not_taken_for_made():
    assert [
        path for path in ("params.yaml", "README.md", "stages/score.py", "reports/x", "models/raw/x") if is_made(path)
    ] == []
    assert all(is_made(path) for path in ("dvc.lock", "models/dvc.yaml", "metrics/cost.json", "plots/a/b.png"))


def test_every_output_that_git_holds_is_known_and_has_the_driver():
    """And nothing else has it."""
    stages = quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"].values()
    kept = [
        out for stage in stages for kind in ("outs", "metrics") for out in stage.get(kind, []) if isinstance(out, dict)
    ]
    paths = [path for out in kept for path, options in out.items() if options.get("cache") is False]
    assert len(paths) > 5 and all(is_made(path) for path in paths)
    files = git("ls-files", cwd=REPO).splitlines()
    found = git("check-attr", "merge", "--", *files, cwd=REPO).splitlines()
    driven = {line.split(": ")[0] for line in found if line.endswith(": tradeoffs")}
    assert driven == {path for path in files if is_made(path)} | {"README.md"}
