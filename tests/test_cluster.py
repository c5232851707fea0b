"""Steps on other machines, each with clones of its own: the same dvc.lock, and what one loses another does."""

import os
import subprocess
import sys
from pathlib import Path

import fake_pipeline
import forked
import pytest

from tradeoffs.repro.snapshot import snapshot

SLOW_FIXTURES = {"project", "serial"}  # read by conftest.py
GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "team" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
# The same content in every run, so that two runs have the same lock file.
STAND_IN = fake_pipeline.STAND_IN.replace("os.urandom(8).hex()", "str(folder / name)")
# Machines that are threads of the run: all is as with a cluster but that nothing carries what is said.
RUNS = """
import os, sys
from tradeoffs.repro import node, pipeline, places, runner, screen
from tradeoffs.repro.slots import Needs, Slots
from tradeoffs.repro.snapshot import settle, snapshot
from tradeoffs.repro.travelling import Travelling

class Dies(node.Node):
    calls = 0

    def run(self, slot, request):
        Dies.calls += 1
        answer = super().run(slot, request)
        if Dies.calls >= {dies}:
            raise places.LostError("it is gone")
        return answer

with pipeline.opened(kind=Travelling) as steps:
    here = places.Here(steps, Slots(1, (), 1e6), lambda name: not steps.stays(name))
    where = [here]
    settle()
    bundle, prefix = snapshot()
    lose = lambda one: where.remove(one) if one in where else None
    for number, kind in enumerate([Dies, node.Node]):
        there = kind(bundle, prefix, steps.shares)
        facts = there.facts() | {{"host": f"machine-{{number}}", "memory_mb": 1e6}}
        where.insert(-1, places.Machine(there, facts, 2, steps, lose))
    machines = where[:-1]
    said = screen.Screen(steps.planned, {{}}, dict.fromkeys(steps.planned, 1.0))
    run = runner.Runner(steps, lambda name: Needs(memory_mb=1.0), where, said, lambda name: None)
    run.run()
    for one in machines:
        one.node.close()
sys.exit(bool(run.failed))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A commit of the stand-ins, with a folder as DVC's remote; nothing has run."""
    folder = tmp_path_factory.mktemp("cluster") / "project"
    folder.mkdir()
    fake_pipeline.make(folder, methods=["base", "lora"], precisions=["bf16"], quants=["q8_0"])
    (folder / "stand_in.py").write_text(STAND_IN)
    git("init", "-q", "-b", "main", folder=folder)
    fake_pipeline.dvc("init", "-q", cwd=folder)
    fake_pipeline.dvc("remote", "add", "-d", "team", str(folder.parent / "remote"), cwd=folder)
    git("add", "-A", folder=folder)
    git("commit", "-q", "-m", "A project", folder=folder)
    return folder


@pytest.fixture(scope="module")
def serial(project, tmp_path_factory):
    """The same after `dvc repro`."""
    folder = clone(project, tmp_path_factory.mktemp("serial"))
    fake_pipeline.dvc("repro", "-q", cwd=folder)
    return folder


def git(*words: str, folder: Path) -> str:
    done = fake_pipeline.call("git", *words, cwd=folder, **GIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def clone(folder: Path, beside: Path) -> Path:
    git("clone", "-q", str(folder), str(beside / "clone"), folder=beside)
    return beside / "clone"


def run(folder: Path, dies: float = float("inf")) -> subprocess.CompletedProcess[str]:
    (folder.parent / "tmp").mkdir(exist_ok=True)
    environment = fake_pipeline.environment_with(TMPDIR=str(folder.parent / "tmp"), **GIT)
    program = RUNS.format(dies="float('inf')" if dies == float("inf") else dies)
    return forked.python("-c", program, cwd=folder, env=environment, libraries=forked.DVC)


def test_other_machines_leave_the_lock_file_of_dvc_repro_and_nothing_to_run(project, serial, tmp_path):
    folder = clone(project, tmp_path)
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "dvc.lock").read_bytes() == (serial / "dvc.lock").read_bytes()
    assert "up to date" in fake_pipeline.dvc("status", cwd=folder)
    assert {"machine-0", "machine-1"} <= {
        line.split(", on ")[1].split(",")[0] for line in done.stdout.splitlines() if ", on " in line
    }
    assert not list((tmp_path / "tmp").iterdir()), "a machine left its clones behind"


def test_what_was_running_on_a_lost_machine_runs_on_another(project, serial, tmp_path):
    folder = clone(project, tmp_path)
    done = run(folder, dies=3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "machine-0 does not answer any more" in done.stdout
    assert (folder / "dvc.lock").read_bytes() == (serial / "dvc.lock").read_bytes()


def test_uncommitted_changes_go_along(project, tmp_path):
    folder = clone(project, tmp_path)
    (folder / "stand_in.py").write_text(STAND_IN.replace("str(folder", "'changed' + str(folder"))
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "data/prepared/demo/content").read_text().startswith("changed")
    assert git("status", "--porcelain", "stand_in.py", folder=folder) == " M stand_in.py\n"


def test_what_fails_elsewhere_is_shown_with_what_it_wrote(project, tmp_path):
    folder = clone(project, tmp_path)
    (folder / "stand_in.py").write_text("import sys\nsys.exit('no such optimizer')")
    done = run(folder)
    assert done.returncode == 1
    assert "no such optimizer" in done.stderr
    assert "failed to run: python -IS stand_in.py" in done.stderr
    assert "no such optimizer" in (folder / ".scratch/logs/prepare@demo.log").read_text()


def test_a_step_with_an_input_that_others_lack_runs_where_it_was_started(project, tmp_path):
    folder = clone(project, tmp_path)
    with (folder / ".gitignore").open("a") as ignored:
        ignored.write("/data/raw/secret.csv\n")
    (folder / "data/raw/secret.csv").write_text("question,answer\n")
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neither in Git nor in DVC: data/raw/secret.csv: prepare@demo begins again elsewhere" in done.stdout
    assert "prepare@demo\n" in done.stdout and "tokenize@demo-demo, on machine" in done.stdout
    assert "up to date" in fake_pipeline.dvc("status", cwd=folder)


def test_leftovers_of_a_longer_run_list_stop_nothing(project, tmp_path):
    folder = clone(project, tmp_path)
    for name in ("data/items/gone.parquet", "data/facts/gone.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of a method that is no longer listed")
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "score begins again elsewhere" in done.stdout  # where the leftovers are, and it removes them


def test_a_snapshot_holds_what_is_new_and_changed_and_leaves_the_repository_as_it_is(project, tmp_path, monkeypatch):
    folder = clone(project, tmp_path)
    (folder / "new.txt").write_text("new")
    (folder / "params.yaml").write_text("changed")
    before = git("status", "--porcelain", folder=folder), git("for-each-ref", folder=folder)
    monkeypatch.chdir(folder)
    (tmp_path / "bundle").write_bytes(snapshot()[0])
    git("clone", "-q", "-b", "snapshot", "bundle", "copy", folder=tmp_path)
    assert (tmp_path / "copy/new.txt").read_text() == "new"
    assert (tmp_path / "copy/params.yaml").read_text() == "changed"
    assert before == (git("status", "--porcelain", folder=folder), git("for-each-ref", folder=folder))


def test_a_cluster_without_a_way_for_outputs_is_refused(tmp_path, project):
    folder = clone(project, tmp_path)
    fake_pipeline.dvc("remote", "remove", "team", cwd=folder)
    done = fake_pipeline.call(sys.executable, "-m", "tradeoffs.repro", "--ray", "local", cwd=folder)
    assert done.returncode == 1
    assert "dvc remote add -d" in done.stderr
    assert not (folder / "dvc.lock").exists()
