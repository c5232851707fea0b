"""What a kill of DVC leaves of its files stops no run: dvc.lock comes from the last commit, locks of the dead go."""

import json
import os
import subprocess
from datetime import timedelta
from types import SimpleNamespace

import pytest
import quick_yaml
from dvc.lock import HardlinkLock, make_lock

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import mending

WHOLE = """schema: '2.0'
stages:
  prepare@demo:
    cmd: python -m stages.prepare --dataset demo
    deps:
    - path: stages/prepare.py
      hash: md5
      md5: 3b6a2f3b1a3c2f6d4f5e6a7b8c9d0e1f
      size: 1234
  base@demo:
    cmd: python -m stages.base --model demo
    outs:
    - path: data/general/demo.jsonl
      hash: md5
      md5: 4b6a2f3b1a3c2f6d4f5e6a7b8c9d0e1f
      size: 1234
    - path: models/base/demo
      hash: md5
      md5: 5b6a2f3b1a3c2f6d4f5e6a7b8c9d0e1f.dir
      size: 12345
      nfiles: 9
"""
MERGE = WHOLE.replace("      size: 1234\n", "<<<<<<< HEAD\n      size: 1\n=======\n      size: 2\n>>>>>>> other\n", 1)


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "dvc.lock"


def committed(lock, text=WHOLE):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
    lock.write_text(text)
    for words in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], cwd=lock.parent, check=True)


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 4096, MERGE.encode(), b"{", b"a: [1\n", b"- 1\n", b"\xff\xfe"])
def test_what_is_no_lock_file_is_replaced_by_that_of_the_last_commit(lock, caplog, content):
    committed(lock)
    lock.write_bytes(content)
    assert mending.mend(lock)
    assert lock.read_text() == WHOLE
    assert (lock.parent / mending.BROKEN).read_bytes() == content
    (said,) = caplog.messages
    assert ("conflict marks of a merge" in said) == (content == MERGE.encode())
    assert "that of the last commit is taken" in said and "run cache" in said


def test_cut_anywhere_it_is_known_to_be_cut_or_dvc_knows_what_it_lacks():
    """A step whose outputs are not all there has changed for DVC; one that seems whole must be, to the last line."""
    for end in range(len(WHOLE)):
        cut = WHOLE[:end]
        if mending.wrong_with(cut.encode(), thoroughly=False):
            continue
        stages = quick_yaml.load(cut).get("stages") or {}
        entries = [one for stage in stages.values() for kind in ("deps", "outs") for one in stage.get(kind) or []]
        assert all("size" in one for one in entries) and "models/base/demo" not in [one["path"] for one in entries]
    assert mending.wrong_with(WHOLE.encode(), thoroughly=False) == ""
    assert mending.wrong_with(WHOLE.encode(), thoroughly=True) == ""


def test_without_git_or_where_the_last_commit_is_broken_too_it_is_removed(lock, caplog):
    lock.write_text(WHOLE[:-3])
    assert mending.mend(lock) and not lock.exists()
    committed(lock, WHOLE[:-3])
    assert mending.mend(lock) and not lock.exists()
    assert "no commit here has it" in caplog.messages[0]


@pytest.mark.parametrize("git", ["echo 'fatal: detected dubious ownership' >&2; exit 128", None])
def test_where_git_cannot_say_what_the_last_commit_has_it_stays(lock, monkeypatch, git):
    committed(lock)
    lock.write_bytes(b"")
    (lock.parent / "bin").mkdir()
    if git:
        (lock.parent / "bin/git").write_text(f"#!/bin/sh\n{git}\n")
        (lock.parent / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(lock.parent / "bin"))
    with pytest.raises(UserError, match=r"is empty, and Git cannot say .*(dubious ownership|No such file)"):
        mending.mend(lock)
    assert lock.exists()


def test_before_the_first_commit_it_is_removed(lock):
    subprocess.run(["git", "init", "-q"], cwd=lock.parent, check=True)
    lock.write_bytes(b"")
    assert mending.mend(lock) and not lock.exists()


def test_what_is_whole_stays_and_what_is_not_there_is_none(lock):
    assert not mending.mend(lock)
    lock.write_text(WHOLE)
    assert not mending.mend(lock) and not mending.mend(lock, thoroughly=True)
    assert lock.read_text() == WHOLE


def test_what_is_broken_in_the_middle_is_found_when_dvc_cannot_read_it(lock):
    lock.write_text(WHOLE.replace("cmd: python -m stages.prepare", "cmd: [python"))
    assert not mending.mend(lock)
    assert mending.mend(lock, thoroughly=True)


def repo(folder, hardlink=False):
    lock = make_lock(str(folder / "lock"), tmp_dir=str(folder), hardlink_lock=hardlink)
    return SimpleNamespace(tmp_dir=str(folder), lock=lock, config={"core": {"hardlink_lock": hardlink}})


def ended():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[1]", b'{"read": 1}', b'{"read": {"a": [{}]}}', b"\xff", b"[" * 100_000]
)
def test_of_what_is_no_file_of_locks_nothing_is_left(tmp_path, content):
    (tmp_path / "rwlock").write_bytes(content)
    mending.forget_the_dead(repo(tmp_path))
    assert json.loads((tmp_path / "rwlock").read_text()) == {"read": {}, "write": {}}


def test_of_several_processes_that_hold_files_those_that_live_stay(tmp_path):
    """One that has got the number of a dead one is not that one: it began after the file was written."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as alive:
        here = {"pid": alive.pid, "cmd": "dvc repro"}
        gone = {"pid": ended(), "cmd": "dvc repro"}
        found = {"read": {"a": [here, gone], "b": [gone]}, "write": {"c": here, "d": gone, "e": here | {"pid": -1}}}
        (tmp_path / "rwlock").write_text(json.dumps(found))
        mending.forget_the_dead(repo(tmp_path))
        assert json.loads((tmp_path / "rwlock").read_text()) == {"read": {"a": [here]}, "write": {"c": here}}
        os.utime(tmp_path / "rwlock", (1e9, 1e9))
        mending.forget_the_dead(repo(tmp_path))
        assert json.loads((tmp_path / "rwlock").read_text()) == {"read": {}, "write": {}}
        alive.stdin.close()


@pytest.mark.parametrize("who", ["dead", "alive", "other kind"])
def test_a_lock_by_hard_links_of_a_dead_process_is_removed(tmp_path, who):
    of = repo(tmp_path, hardlink=True)
    held = HardlinkLock(str(tmp_path / "lock"), tmp_dir=str(tmp_path))
    pid = os.getppid() if who == "alive" else ended()
    text = "" if who == "other kind" else held._separator.join([str(tmp_path / "lock"), held.hostname, str(pid), "7"])
    (tmp_path / "lock").write_text(text)
    year = held.expiration + timedelta(days=365)
    os.utime(tmp_path / "lock", (year.timestamp(), year.timestamp()))
    mending.unlock_of_the_dead(of)
    assert (tmp_path / "lock").exists() == (who == "alive")


@pytest.mark.parametrize("kind", ["own", "with experiments", "shared", "linked"])
def test_what_dvc_has_left_half_copied_goes(tmp_path, kind):
    """But for what others may be at: in a cache of several projects, and of an experiment within the hour."""
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    if kind == "with experiments":
        (project / ".dvc/tmp/exps").mkdir(parents=True)
    cache = (tmp_path / "shared" if kind == "shared" else project / ".dvc/cache") / "files/md5"
    if kind == "linked":
        (tmp_path / "shared").mkdir()
        (project / ".dvc/cache").symlink_to(tmp_path / "shared")
    outs = [SimpleNamespace(fs_path=str(project / "models/gguf/demo"), is_in_repo=True)]
    of = SimpleNamespace(
        root_dir=str(project),
        tmp_dir=str(project / ".dvc/tmp"),
        cache=SimpleNamespace(local=SimpleNamespace(path=str(cache))),
        index=SimpleNamespace(stages=[SimpleNamespace(outs=outs)]),
    )
    name = ".EYloKniljgjVscPylQ2fuQ.tmp"
    copies = [cache / "01" / name, cache / name, project / "models/gguf" / name]
    kept = [cache / "01/23456789012345678901234567890a", project / "models/gguf/.mine.tmp"]
    for path in [*copies, *kept]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a")
    mending.remove_unfinished(of)
    assert [path.exists() for path in copies] == [kind != "own", kind != "own", False]
    for path in [path for path in copies if path.exists()]:
        os.utime(path, (1e9, 1e9))
    mending.remove_unfinished(of)
    theirs = kind in ("shared", "linked")
    assert [path.exists() for path in copies] == [theirs, theirs, False]
    assert all(path.exists() for path in kept)
