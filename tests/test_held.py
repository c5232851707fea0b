"""Two processes never make the same step, the second names the first, and no lock outlives its process."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tradeoffs.plumbing import cli, held
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
# What another process does: it holds a lock, with a child that outlives it, until its input ends.
HOLDS = """
import os, subprocess, sys
from tradeoffs.plumbing import held
with held.alone("finetune", ["demo", 42]):
    if os.fork() == 0:
        os.read(0, 1)
        os._exit(0)
    subprocess.Popen(["cat"], stdout=subprocess.DEVNULL)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_STAGE", "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def other():
    """Another process that holds the lock of a cell."""
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDS], env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_the_second_names_the_first_and_what_to_do(other):
    with (
        pytest.raises(UserError, match=rf"finetune@demo-42 is .*\({other.pid} since 2.*kill {other.pid}\)"),
        held.alone("finetune", ["demo", 42]),
    ):
        pass


def test_what_a_killed_process_held_is_free_though_what_it_has_started_goes_on(other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    held.wait_for_others()
    with held.alone("finetune", ["demo", 42]):
        pass
    assert not list(held.FOLDER.iterdir())


def test_other_cells_and_other_processes_of_one_training_run_beside_it(other, monkeypatch):
    with held.alone("finetune", ["demo", 43]):
        pass
    monkeypatch.setenv("RANK", "1")
    with held.alone("finetune", ["demo", 42]):
        pass


def test_the_name_that_dvc_gives_is_that_of_the_lock(other, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "finetune@demo-42")
    with pytest.raises(UserError, match="finetune@demo-42 is"), held.alone("finetune", []):
        pass


def test_a_run_waits_for_it_and_then_names_it(other, monkeypatch, capsys):
    monkeypatch.setattr(held, "MOST_WAIT", 0.0)
    with pytest.raises(UserError, match=f"finetune@demo-42 is .*kill {other.pid}"):
        held.wait_for_others()
    monkeypatch.setattr(held, "MOST_WAIT", 60.0)
    monkeypatch.setattr(held.time, "sleep", lambda _: (other.kill(), other.wait()))
    held.wait_for_others()
    assert f"waiting, for 60 s at most: finetune@demo-42 is being made by another process ({other.pid} since" in (
        capsys.readouterr().err
    )


def test_of_another_machine_no_process_is_to_be_killed_here(other):
    lock = held.FOLDER / "finetune@demo-42"
    lock.write_text(f"{other.pid} since 2026-01-01 00:00:00 on elsewhere")
    with (
        pytest.raises(UserError, match=r"on elsewhere\), .* end it on its machine, and run again"),
        held.alone("finetune", ["demo", 42]),
    ):
        pass


def test_whoever_looks_removes_no_file_that_is_the_next_ones(tmp_path, monkeypatch):
    """Between opening it and locking it its holder has ended, and another has made it anew."""
    path = tmp_path / "lock"
    path.write_text("the first")
    real = held.fcntl.lockf

    def lockf(file, how):
        monkeypatch.setattr(held.fcntl, "lockf", taken)
        path.unlink()
        path.write_text("the second")
        real(file, how)

    def taken(file, how):
        raise BlockingIOError(errno.EAGAIN, "taken")

    monkeypatch.setattr(held.fcntl, "lockf", lockf)
    assert "(the second)" in held._held(path)
    assert path.read_text() == "the second"


def test_a_lock_that_may_not_be_opened_is_said_and_stops_no_run(monkeypatch, capsys):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with held.alone("prepare", ["demo"]):
        monkeypatch.setattr(Path, "open", refused)
        held.wait_for_others()
    monkeypatch.setattr(held.os, "open", refused)
    with held.alone("prepare", ["demo"]):
        pass
    assert "note: .scratch/locks/prepare@demo cannot be locked (Permission denied)" in capsys.readouterr().err


def test_a_stage_that_is_being_made_is_not_made_twice(other, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(sys, "argv", ["finetune", "--model", "demo", "--seed", "42"])
    monkeypatch.setattr(cli, "_started", lambda: "stages.finetune")

    def main(model: str, seed: int) -> None:
        made.append((model, seed))

    with pytest.raises(SystemExit, match="error: finetune@demo-42 is being made by another process"):
        cli.run(main)
    assert not made
    other.kill()
    other.wait()
    cli.run(main)
    assert made == [("demo", 42)]


def test_where_nothing_can_be_written_the_stage_goes_on_and_says_so_itself(tmp_path):
    (tmp_path / ".scratch").write_text("a file")
    with held.alone("prepare", ["demo"]):
        pass
