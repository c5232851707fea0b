"""What a kill of plain DVC, or a merge, leaves of DVC's own files is mended before a run reads them, and that is said.

`dvc repro` writes dvc.lock in place: killed in that moment, it leaves it empty or cut. What the file lacks afterwards,
DVC's run cache has.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from dvc.lock import HardlinkLock, make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
from flufl.lock import NotLockedError
from voluptuous import Invalid

from tradeoffs.common import files
from tradeoffs.common.texts import on_a_line
from tradeoffs.plumbing.errors import UserError

STAGE = re.compile(r"^  [^\s#-].*:\n", re.MULTILINE)
BROKEN = Path(".scratch/dvc.lock.broken")  # as it was found
CLOCKS = 5.0  # seconds by which a file system's clock may be behind
COPY = re.compile(r"\.[\w-]{22}\.tmp")  # as DVC calls a file that it is still copying
OLD = 3600.0  # seconds
EXPERIMENTS = "exps"  # DVC's folder of their copies of the project, in its folder for temporary files
MARKS = re.compile(r"^(<<<<<<< |=======$|>>>>>>> )", re.MULTILINE)


class GitError(Exception):
    """What Git, or the system that should have started it, says."""


def mend(lock: Path, thoroughly: bool = False) -> bool:
    """Gives a dvc.lock that is broken the content of the last commit, or removes it where that has none of it.

    Whether it was; `thoroughly`: also where it was not a kill that has broken it, which takes as long as DVC's reading.
    Raises UserError, and leaves it, where Git cannot say what the last commit has.
    """
    if not lock.is_file():
        return False
    wrong = wrong_with(lock.read_bytes(), thoroughly)
    if not wrong:
        return False
    try:
        committed = _committed(lock)
    except GitError as error:
        raise UserError(
            f"{lock} {wrong}, and Git cannot say what the last commit has ({on_a_line(str(error))}); mend that, or "
            f"remove {lock} and have DVC's run cache give what it can, and run again"
        ) from None
    BROKEN.parent.mkdir(exist_ok=True)
    shutil.copy(lock, BROKEN)
    if committed is not None and not wrong_with(committed, thoroughly=True):
        with files.new_file(lock) as unfinished:
            unfinished.write_bytes(committed)
        then = "that of the last commit is taken"
    else:
        lock.unlink()
        then = "no commit here has it, so the run begins without"
    logging.getLogger("dvc").warning(
        "%s %s: %s, and DVC's run cache gives what it lacks; as found it is in %s", lock, wrong, then, BROKEN
    )
    return True


def wrong_with(content: bytes, thoroughly: bool) -> str:
    """What is wrong with a dvc.lock; "" if nothing is."""
    if not content.strip():
        return "is empty"
    try:
        text = content.decode("utf-8")
        if MARKS.search(text):
            return "has the conflict marks of a merge (<<<<<<<)"
        # What is written from its beginning on and cut short is whole up to its last stage.
        begin = [found.start() for found in STAGE.finditer(text)]
        end = f"schema: '2.0'\nstages:\n{text[begin[-1] :]}" if begin and not thoroughly else text
        found = COMPILED_LOCKFILE_SCHEMA(parse_yaml(end, "dvc.lock"))
    except (UnicodeDecodeError, YAMLFileCorruptedError, Invalid):
        return "is no lock file, or a part of one"
    return "" if text.endswith("\n") and _whole(found) else "is cut short"


def _whole(found: Mapping[str, Any]) -> bool:
    """Whether its last entry has all its lines: a file that was cut between two lines may be one that DVC can read."""
    stages = list(found.get("stages", {}).values())
    entries = stages[-1].get("outs") or stages[-1].get("deps") or [] if stages else []
    return all(map(_complete, entries))


def _complete(entry: Mapping[str, Any]) -> bool:
    if "md5" not in entry:  # of something that DVC knows otherwise, by an ETag for one
        return not entry.keys() <= {"path", "hash"}
    return "size" in entry and ("nfiles" in entry or not entry["md5"].endswith(".dir"))


def _committed(lock: Path) -> bytes | None:
    """As Git has it in HEAD; None without a repository, or where it has none. Raises GitError where it cannot say."""
    folder = lock.absolute().parent
    if not any((one / ".git").exists() for one in (folder, *folder.parents)):
        return None
    done = _git("show", f"HEAD:./{lock.name}", folder=folder)
    if done.returncode == 0:
        return done.stdout
    known = _git("rev-parse", "--verify", "--quiet", "HEAD", folder=folder)
    if known.returncode > 1:  # 1: there is no commit yet
        raise GitError(known.stderr.decode(errors="replace"))
    return None


def _git(*words: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True)
    except OSError as error:
        raise GitError(f"git: {error.strerror}") from None


def remove_unfinished(repo: Repo) -> None:
    """Removes what DVC has left half-copied, where it was killed or a disk was full, in its cache and beside outputs.

    In its cache experiments of `dvc exp run --temp` and of its queue, which lock their own copies of the project, may
    be at work: where there ever were any, what is an hour old. One outside of the project is not this project's to
    clean.
    """
    cache = Path(repo.cache.local.path).resolve()
    if cache.is_relative_to(Path(str(repo.root_dir)).resolve()):
        old = OLD if Path(str(repo.tmp_dir), EXPERIMENTS).exists() else 0.0
        for folder in [cache, *cache.glob("??")]:
            _remove_copies(folder, old)
    for folder in {Path(out.fs_path).parent for stage in repo.index.stages for out in stage.outs if out.is_in_repo}:
        _remove_copies(folder, 0.0)


def _remove_copies(folder: Path, old: float) -> None:
    with suppress(OSError):  # what cannot be removed does no harm
        for path in folder.glob(".*.tmp"):
            if COPY.fullmatch(path.name) and time.time() - path.stat().st_mtime >= old:
                path.unlink()


def unlock_of_the_dead(repo: Repo) -> None:
    """Removes the lock of the project that a killed process has left, which only one by hard links can be: the kernel
    releases the others."""
    lock = repo.lock
    if not isinstance(lock, HardlinkLock) or not Path(lock.lockfile).exists():
        return
    try:
        host, pid, _ = lock.details
    except NotLockedError:  # the file of a lock of the other kind
        host, pid = lock.hostname, 0
    if host == lock.hostname and not is_alive(pid):
        Path(lock.lockfile).unlink(missing_ok=True)


def forget_the_dead(repo: Repo) -> None:
    """Takes out of DVC's file of what is being read and written what killed processes have left there.

    Also that of this process's number: in a container processes have the same numbers each time, so DVC would wait for
    this one. A file that is cut short was being written by a process that was killed; DVC would refuse it for ever.
    """
    path = Path(str(repo.tmp_dir), RWLOCK_FILE)
    if not path.is_file():
        return
    with make_lock(str(path.with_name(RWLOCK_LOCK)), str(repo.tmp_dir), hardlink_lock=hardlink(repo)):
        try:
            found = SCHEMA(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, Invalid, RecursionError):
            found = {"read": {}, "write": {}}
        written = path.stat().st_mtime
        readers = {name: [one for one in some if _holds(one["pid"], written)] for name, some in found["read"].items()}
        found["read"] = {name: some for name, some in readers.items() if some}
        found["write"] = {name: one for name, one in found["write"].items() if _holds(one["pid"], written)}
        files.write_text(path, json.dumps(found))


def _holds(pid: int, written: float) -> bool:
    """Whether the process that has written its number until then is alive: one that began later is another."""
    if pid == os.getpid():
        return False
    with suppress(psutil.NoSuchProcess, ValueError, OverflowError):
        return is_alive(pid) and psutil.Process(pid).create_time() <= written + CLOCKS
    return False


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess, ValueError, OverflowError):
        return pid > 0 and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def hardlink(repo: Repo) -> bool:
    """Whether DVC locks by hard links, as it is told to where a file system knows nothing else."""
    return bool(repo.config["core"].get("hardlink_lock", False))
