"""A team shares data, models and finished runs through a remote: a local folder, or S3 by a real server on loopback."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fake_pipeline
import pytest
import quick_yaml
from alone import ALONE, git
from fake_pipeline import REPO, call, change, dvc, repro, run

from tradeoffs import artifacts, params

KEY, SECRET = "team-key", "team-secret-in-no-file"
SLOW_FIXTURES = {"origin"}  # read by conftest.py
NOBODY_THERE = "http://127.0.0.1:9"  # the discard port: refused at once


@dataclass(frozen=True)
class Remote:
    """What a user puts into .dvc/config.local (`settings`) and into the environment."""

    settings: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def s3_server(folder: Path) -> Iterator[Remote]:
    """rclone serves `folder`, whose folders are buckets; it checks the signature of every request."""
    command = [Path(sys.executable).with_name("rclone"), "serve", "s3", folder, "--addr", "127.0.0.1:0"]
    environment = {**os.environ, "RCLONE_CONFIG": "", "RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"'}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            endpoint = next(line.split("[")[1].split("/]")[0] for line in server.stderr if "Starting s3 server" in line)
            keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
            yield Remote({"url": "s3://team/tradeoffs", "endpointurl": endpoint}, keys)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A bare Git repository with a finished run; `author` beside it is the clone that ran it and still has the data."""
    folder = tmp_path_factory.mktemp("team")
    author = folder / "author"
    fake_pipeline.make(author, methods=["base", "lora"], precisions=["bf16"], quants=["q8_0", "q4_0"])
    (author / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore"):
        shutil.copy(REPO / name, author / name)
    git("init", "-q", "-b", "main", cwd=author)
    run(author, **ALONE)
    cfg = params.load_all(author / "params.yaml")
    (author / artifacts.LIST).write_text(artifacts.text(cfg.run, cfg.methods))
    git("add", "-A", cwd=author)
    git("commit", "-q", "-m", "A run", cwd=author)
    assert (
        call("gto", "register", "models:demo-demo-lora-q4_0", "--version", "v1.0.0", cwd=author, **ALONE).returncode
        == 0
    )
    git("clone", "-q", "--bare", str(author), str(folder / "origin.git"), cwd=folder)
    return folder / "origin.git"


@pytest.fixture(scope="module")
def author(origin):
    return origin.parent / "author"


@pytest.fixture(scope="module")
def folder_remote(origin, author):
    remote = Remote({"url": str(origin.parent / "remote")})
    connect(author, remote)
    dvc("push", "-q", cwd=author, **ALONE)
    return remote


def connect(clone: Path, remote: Remote) -> None:
    lines = [f"    {key} = {value}\n" for key, value in remote.settings.items()]
    (clone / ".dvc/config.local").write_text("".join(["[core]\n    remote = team\n['remote \"team\"']\n", *lines]))


def clone(origin: Path, folder: Path, remote: Remote) -> Path:
    git("clone", "-q", str(origin), str(folder), cwd=origin.parent)
    connect(folder, remote)
    return folder


def tracked(project: Path) -> dict[str, str]:
    """Content of every file that the pipeline wrote and Git does not hold."""
    found = [path for name in ("data", "models") for path in (project / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(project)): path.read_text() for path in found if "raw" not in path.parts}


def shares_everything(origin: Path, author: Path, folder: Path, remote: Remote) -> None:
    """What the author pushes, a second clone pulls; `dvc repro` has nothing to run there, and Git nothing to commit."""
    environment = {**ALONE, **remote.environment}
    connect(author, remote)
    dvc("push", "-q", cwd=author, **environment)
    second = clone(origin, folder, remote)
    assert len(tracked(second)) < len(tracked(author))
    dvc("pull", "-q", cwd=second, **environment)
    assert repro(second, **environment) == set()
    assert tracked(second) == tracked(author)
    assert git("status", "--porcelain", cwd=second) == ""


def test_a_second_clone_pulls_the_whole_comparison_and_runs_nothing(origin, author, tmp_path):
    shares_everything(origin, author, tmp_path / "second", Remote({"url": str(tmp_path / "remote")}))


def test_the_same_through_s3_with_keys_from_the_environment_only(origin, author, tmp_path):
    (tmp_path / "buckets/team").mkdir(parents=True)
    with s3_server(tmp_path / "buckets") as remote:
        shares_everything(origin, author, tmp_path / "second", remote)
        wrong = {**ALONE, **remote.environment, "AWS_SECRET_ACCESS_KEY": "another"}
        third = clone(origin, tmp_path / "third", remote)
        refused = call("dvc", "pull", cwd=third, **wrong)
        assert refused.returncode != 0 and "Forbidden" in refused.stderr
    written = [path for path in (tmp_path / "second").rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_what_a_colleague_has_computed_is_not_computed_again(origin, folder_remote, tmp_path):
    def edit(raw):
        raw["methods"]["lora"]["config"]["r"] = 3

    one = clone(origin, tmp_path / "one", folder_remote)
    dvc("pull", "-q", cwd=one, **ALONE)
    change(one, edit)
    ran = run(one, **ALONE)
    assert "finetune@demo-demo-lora-42" in ran
    dvc("push", "-q", "--run-cache", cwd=one, **ALONE)

    two = clone(origin, tmp_path / "two", folder_remote)
    change(two, edit)
    # Tables and report are in Git, not in the cache: what writes them in seconds is all that has to run.
    assert repro(two, "--pull", **ALONE) == {"settings", "aggregate", "publish"}
    for name in ("trained/demo-demo-lora/42/content", "gguf/demo-demo-lora-q4_0.gguf"):
        assert (two / "models" / name).read_text() == (one / "models" / name).read_text()


def test_without_access_to_the_remote_everything_is_run_from_source(origin, tmp_path):
    alone = clone(origin, tmp_path / "alone", Remote({"url": "s3://team/tradeoffs", "endpointurl": NOBODY_THERE}))
    ran = run(alone, **ALONE)
    # What settings makes is in Git.
    assert ran == set(quick_yaml.load(git("show", "HEAD:dvc.lock", cwd=alone))["stages"]) - {"settings"}


def test_one_adapter_or_gguf_is_got_without_the_rest(origin, author, folder_remote, tmp_path):
    got = tmp_path / "got"
    got.mkdir()
    remote = ("--remote", "team", "--remote-config", f"url={folder_remote.settings['url']}")
    dvc("get", str(origin), "models/trained/demo-demo-lora/42", "-o", "demo-demo-lora", *remote, cwd=got, **ALONE)
    dvc("artifacts", "get", str(origin), "models:demo-demo-lora-q4_0", "--rev", "v1.0.0", *remote, cwd=got, **ALONE)
    assert {path.name for path in got.iterdir()} == {"demo-demo-lora", "demo-demo-lora-q4_0.gguf"}
    for name, path in (
        ("demo-demo-lora/content", "trained/demo-demo-lora/42/content"),
        ("demo-demo-lora-q4_0.gguf", "gguf/demo-demo-lora-q4_0.gguf"),
    ):
        assert (got / name).read_text() == (author / "models" / path).read_text()


def test_a_data_set_comes_from_another_repository_and_is_updated_from_there(origin, folder_remote, tmp_path):
    corpora = tmp_path / "corpora"
    corpora.mkdir()
    git("init", "-q", "-b", "main", cwd=corpora)
    dvc("init", "-q", cwd=corpora, **ALONE)

    def publish(text: str) -> None:
        (corpora / "support.jsonl").write_text(text)
        dvc("add", "-q", "support.jsonl", cwd=corpora, **ALONE)
        git("add", "-A", cwd=corpora)
        git("commit", "-q", "-m", text, cwd=corpora)

    publish("first")
    user = clone(origin, tmp_path / "user", folder_remote)
    dvc("import", "-q", str(corpora), "support.jsonl", "-o", "data/raw/support.jsonl", cwd=user, **ALONE)
    assert (user / "data/raw/support.jsonl").read_text() == "first"
    assert repro(user, "prepare", **ALONE) == {"prepare@demo"}

    publish("second")
    assert repro(user, "prepare", **ALONE) == set()
    dvc("update", "-q", "data/raw/support.jsonl.dvc", cwd=user, **ALONE)
    assert (user / "data/raw/support.jsonl").read_text() == "second"
    assert repro(user, "prepare", **ALONE) == {"prepare@demo"}


def test_merged_models_may_stay_at_home(origin, author, tmp_path):
    """docs/remotes.md, `push: false`: the rest is shared, and a clone that lets them be missing runs nothing."""
    bulky = "models/merged/"
    remote = Remote({"url": str(tmp_path / "remote")})
    lean = tmp_path / "lean"
    shutil.copytree(author, lean, symlinks=True)
    connect(lean, remote)
    spec = quick_yaml.load((lean / "dvc.yaml").read_text())
    for stage in [one for one in spec["stages"].values() if "outs" in one]:
        stage["outs"] = [{out: {"push": False}} if str(out).startswith(bulky) else out for out in stage["outs"]]
    (lean / "dvc.yaml").write_text(quick_yaml.dump(spec, sort_keys=False))
    dvc("push", "-q", cwd=lean, **ALONE)
    git("commit", "-q", "-a", "-m", "Lean", cwd=lean)

    second = clone(lean, tmp_path / "second", remote)
    dvc("pull", "-q", "--allow-missing", cwd=second, **ALONE)
    assert repro(second, "--allow-missing", **ALONE) == set()
    missing = tracked(author).keys() - tracked(second).keys()
    assert missing == {path for path in tracked(author) if path.startswith(bulky)}


def test_no_remote_and_no_key_is_committed():
    """A remote is the team's own: .dvc/config names none, and .dvc/config.local, where it stands, is in no commit."""
    assert "remote" not in (REPO / ".dvc/config").read_text()
    assert "/config.local" in (REPO / ".dvc/.gitignore").read_text().splitlines()


def test_every_output_is_pushed():
    """An output that stays at home is made again by the next plain `dvc repro` of every other clone."""
    stages = quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"].values()
    options = [out for stage in stages for out in stage.get("outs", []) if isinstance(out, dict)]
    assert not [out for out in options if next(iter(out.values())).get("push") is False]
