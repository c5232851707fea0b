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
