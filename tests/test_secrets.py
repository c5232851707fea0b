"""The token that opens a gated model and a private data set of the hub is in nothing that a whole run leaves behind."""

import os
import shutil
from pathlib import Path

import forked
import pyarrow.parquet as pq
import pytest
import small_run
from fake_hub import TOKEN, FakeHub
from fake_pipeline import REPO, dvc, environment_with
from tiny_gguf import make_checkpoint

from tradeoffs.common import files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a whole `dvc repro` on what only the token opens, the hub's cache in it, and what was printed."""
    folder = tmp_path_factory.mktemp("secrets")
    make_checkpoint(folder / "model")
    (folder / "model/run_info.json").unlink()
    (folder / "data").mkdir()
    files.write_jsonl(folder / "data/train.jsonl", small_run.sums(60))
    project = folder / "project"
    for name in ("stages", "tradeoffs"):
        shutil.copytree(REPO / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", "live/.gitignore", "data/tasks/.gitkeep"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, project / name)
    for name in ("data/raw", "models/raw", "rewards"):
        (project / name).mkdir(parents=True)
    with FakeHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        hub.publish("team/tiny", folder / "model", kind="model", access="gated")
        hub.publish("team/sums", folder / "data", access="private")
        source = {"hub": "team/tiny", "revision": "main", "licence": "mit", "gated": True, "prompt": "own"}
        data = {"path": None, "hub": "team/sums", "revision": "main", "splits": {"train": "train"}}
        small_run.set_up({"tiny": source}, ["lora"], ["bf16"], ["f16"], [], **data)
        dvc("init", "--no-scm", "-q", cwd=project)
        environment = hub.environment(project / "hub", HF_TOKEN=TOKEN)
        del environment["PATH"]  # `environment_with` puts this Python in front
        environment = environment_with(**environment)
        # Its stages are forks too, so that the libraries are imported once and not by each of them.
        with forked.Server((*forked.DVC, *forked.STAGES), environment) as server:
            server.command(folder / "bin")
            environment["PATH"] = f"{folder}/bin{os.pathsep}{environment['PATH']}"
            # Verbose: also what DVC tells only those who look for a fault.
            done = server.python("-m", "dvc", "repro", "-v", cwd=project, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project, done.stdout + done.stderr


def test_what_only_the_token_opens_was_really_used(run):
    project, _ = run
    assert files.read_json(project / "models/base/tiny/run_info.json")["source"] == "team/tiny"
    assert files.read_json(project / "data/prepared/sums/info.json")["source"] == "team/sums"
    assert (project / "metrics/summary.csv").read_text().count("tiny,sums,lora") == 3


def test_it_is_in_no_line_that_is_printed(run):
    assert TOKEN not in run[1]


def test_it_is_in_no_file_and_in_no_name_of_one(run):
    project, _ = run
    everything = [path for path in project.rglob("*") if path.is_file()]
    assert len(everything) > 100
    assert [path for path in everything if TOKEN in str(path)] == []
    assert [path for path in everything if TOKEN.encode() in path.read_bytes()] == []
    tables = [path for path in everything if path.suffix == ".parquet"]
    assert [path for path in tables if TOKEN in _text(path)] == []


def _text(path: Path) -> str:
    """What a Parquet file holds, which is compressed."""
    table = pq.read_table(path)
    return f"{table.schema.metadata} {table.to_pylist()}"
