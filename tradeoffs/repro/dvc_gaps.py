"""What DVC leaves open for a run of its own: that it says less, who else is at work, what need not be done twice."""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, TextIO

import psutil
from dvc.dependency import param
from dvc.dependency.base import Dependency
from dvc.lock import make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK
from fsspec.implementations.memory import MemoryFileSystem

from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

# DVC's loggers that tell of a step, and its progress bars.
QUIET = {
    "dvc.stage": logging.WARNING,
    "dvc.stage.run": logging.WARNING,
    "dvc.stage.cache": logging.WARNING,
    "dvc.progress": logging.CRITICAL,
    "dvc_data.callbacks": logging.CRITICAL,
}
MOST_WAIT = 60.0  # seconds for what a killed run has left to end
MISSING = object()


@contextmanager
def quiet() -> Iterator[None]:
    """What holds for all that is asked of DVC by this process: it says less of a step, parses params once, and finds
    at once what it has in memory."""
    for name, level in QUIET.items():  # whoever runs the steps says what happens to them
        logging.getLogger(name).setLevel(level)
    with _params_parsed_once(), _files_in_memory_found_at_once():
        yield


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Holds a file in DVC's folder for its own files: a second run would remove what the first has made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tradeoffs-repro").open("a+") as file:
        try:
            _lock(file)
        except OSError as error:  # some file systems cannot
            logging.getLogger("dvc").warning("%s cannot be locked (%s): start no second run here", folder, error)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def _lock(file: TextIO) -> None:
    """Waits for what a killed run has left: its guard holds the lock until that is ended.

    Raises UserError where a run is alive, or what it has left does not end.
    """
    end = time.monotonic() + MOST_WAIT
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().strip()
            if not other.isdecimal() or _is_alive(int(other)) or time.monotonic() > end:
                raise UserError(
                    f"another run is at work in {Path.cwd()} (process {other or 'unknown'}), or what it has started; "
                    "wait for it to end, or end it"
                ) from None
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def forget_the_dead(repo: Repo) -> None:
    """Takes out of DVC's file of what is being read and written what a killed process of this number has left there.

    In a container processes have the same numbers each time, so DVC would wait for this one. A file that is cut short
    was being written by a process that was killed; DVC would refuse it for ever.
    """
    path = Path(str(repo.tmp_dir), RWLOCK_FILE)
    if not path.is_file():
        return
    with make_lock(str(path.with_name(RWLOCK_LOCK)), str(repo.tmp_dir), hardlink_lock=hardlink(repo)):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        mine = os.getpid()
        readers = {name: [one for one in some if one["pid"] != mine] for name, some in found.get("read", {}).items()}
        found["read"] = {name: some for name, some in readers.items() if some}
        found["write"] = {name: one for name, one in found.get("write", {}).items() if one["pid"] != mine}
        files.write_text(path, json.dumps(found))


def hardlink(repo: Repo) -> bool:
    """Whether DVC locks by hard links, as it is told to where a file system knows nothing else."""
    return bool(repo.config["core"].get("hardlink_lock", False))


@contextmanager
def hashed_once() -> Iterator[None]:
    """Inside, DVC hashes what a step depends on once: for when nothing runs that could change it.

    Else it does so ten times for every step, five or so on either side of its command.
    """
    found: dict[tuple[str, str], Any] = {}
    ordinary = Dependency._build

    def build(self: Dependency, odb: Any, path: str, fs: Any, name: str, **more: Any) -> Any:
        if (path, name) not in found:
            found[path, name] = ordinary(self, odb, path, fs, name, **more)
        return found[path, name]

    Dependency._build = build
    try:
        yield
    finally:
        Dependency._build = ordinary


@contextmanager
def _files_in_memory_found_at_once() -> Iterator[None]:
    """Inside, a file of fsspec's memory is found by its name.

    DVC leaves there what it has hashed of a folder, each time; and fsspec looks first, through all that is there,
    whether it is a folder, so that the hundredth step takes longer than the first.
    """
    ordinary = MemoryFileSystem.info

    def info(self: MemoryFileSystem, path: str, **more: Any) -> Any:
        file = self.store.get(self._strip_protocol(path))
        if file is None:
            return ordinary(self, path, **more)
        return {"name": self._strip_protocol(path), "size": file.size, "type": "file", "created": file.created}

    MemoryFileSystem.info = info
    try:
        yield
    finally:
        MemoryFileSystem.info = ordinary


@contextmanager
def _params_parsed_once() -> Iterator[None]:
    """Inside, DVC parses a file of params again only if it has changed, and takes a value from where its name says.

    Else it parses it five times for every step, and looks for each value through all others.
    """
    parsed: dict[tuple[str, int, int], Any] = {}
    ordinary = param.read_param_file

    def read_param_file(fs: Any, path: str, keys: list[str] | None = None, flatten: bool = False, **more: Any) -> Any:
        if fs.protocol != "local" or not keys or not flatten or more:
            return ordinary(fs, path, keys, flatten, **more)
        found = Path(path).stat()
        file = (path, found.st_mtime_ns, found.st_size)
        if file not in parsed:
            parsed[file] = param.load_path(path, fs)
        values = {key: _value(parsed[file], key) for key in keys}
        if any(value is MISSING for value in values.values()):  # a pattern, or not there
            return ordinary(fs, path, keys, flatten)
        return deepcopy(values)  # what two steps share, YAML writes as a reference

    param.read_param_file = read_param_file
    try:
        yield
    finally:
        param.read_param_file = ordinary


def _value(params: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(params, dict) or name not in params:
            return MISSING
        params = params[name]
    return params
