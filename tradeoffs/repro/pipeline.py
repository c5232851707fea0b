"""All that is asked of DVC, by its own API: which steps there are, what changed, what its cache holds, dvc.lock.

DVC's own `dvc repro` runs one step at a time, and reads and writes the whole dvc.lock after each. Here a step is split
in two, what comes before its command and what comes after it, so that commands can run side by side, and the lock file
is written now and then, whole, in the order in which `dvc repro` would have written it. Everything here belongs to one
thread: DVC's locks know no other. What is called is internal to DVC 3.67, to which requirements.lock pins it; a test
holds that the lock file is that of `dvc repro`, to the byte.
"""

import fcntl
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import psutil
from dvc.dependency import param
from dvc.lock import LockError, make_lock
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, rwlock
from dvc.stage import PipelineStage, Stage
from dvc.stage.cache import RunCacheNotFoundError
from dvc.stage.run import prepare_kwargs
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import dump_yaml, load_yaml
from dvc_data.hashfile.tree import Tree

from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
MOST_WAIT = 60.0  # seconds for what a killed run has left to end
# DVC's loggers that tell of a step, and its progress bars.
QUIET = {
    "dvc.stage": logging.WARNING,
    "dvc.stage.run": logging.WARNING,
    "dvc.stage.cache": logging.WARNING,
    "dvc.progress": logging.CRITICAL,
    "dvc_data.callbacks": logging.CRITICAL,
}


class Begun(Enum):
    UNCHANGED = "did not change"
    DONE = "is cached"
    RUN = "its command is to run"


@contextmanager
def opened(targets: Sequence[str] = ()) -> Iterator["Pipeline"]:
    """The project in the working directory, locked for this process as `dvc repro` locks it.

    Raises UserError if another run is at work in it.
    """
    for name, level in QUIET.items():  # whoever runs the steps says what happens to them
        logging.getLogger(name).setLevel(level)
    with (
        Repo() as repo,
        _alone(Path(str(repo.tmp_dir))) as held,
        lock_repo(repo),
        repo.scm_context(quiet=True),
        _params_parsed_once(),
    ):
        _forget_the_dead(repo)
        steps = Pipeline(repo, targets, held)
        try:
            yield steps
        finally:
            steps.release_all()


class Pipeline:
    """The steps of `targets` (all of dvc.yaml by default) and all that these depend on.

    `dependencies`: of each step, in the order in which `dvc repro` takes them, those that come before it. `planned`:
    those that may run, since something changed or may change; fewer do where a step leaves what was there before.
    `held`: the open file with the lock that keeps a second run out.
    """

    def __init__(self, repo: Repo, targets: Sequence[str] = (), held: int | None = None) -> None:
        self._repo, self.held = repo, held
        graph = get_active_graph(repo.index.graph)
        order: list[Stage] = plan_repro(graph, collect_stages(repo, targets or [PIPELINE]))
        self._stages = {stage.addressing: stage for stage in order}
        # What `dvc add` and `dvc import` made runs nothing, but may bring what follows from it.
        self.dependencies = {
            name: {before.addressing for before in graph.successors(stage)} for name, stage in self._stages.items()
        }
        self.planned = self._planned()
        self._done: dict[str, PipelineStage] = {}
        self._saved: dict[str, dict[str, str]] = {}  # what a step depends on, when it began
        self._held: dict[str, ExitStack] = {}
        self._lock_before, self._lock_version = _load(LOCK), _version(LOCK)
        self._written = 0

    @property
    def steps(self) -> list[str]:
        """All that have a command."""
        return [name for name, stage in self._stages.items() if stage.cmd]

    def command(self, name: str) -> list[str]:
        """Command lines for the shell."""
        cmd = self._stages[name].cmd
        return list(cmd) if isinstance(cmd, list) else cmd.splitlines()

    def environment(self, name: str) -> dict[str, str]:
        """That DVC gives to a step's command."""
        env: dict[str, str] = prepare_kwargs(self._stages[name])["env"]
        return env

    def folder(self, name: str) -> str:
        """The working directory of a step's command."""
        return str(self._stages[name].wdir)

    def meta(self, name: str) -> Mapping[str, object]:
        """What dvc.yaml says under `meta` of the stage; in neither lock file nor hash."""
        return self._stages[name].meta or {}

    def begin(self, name: str) -> Begun:
        """What comes before the command: nothing to do, outputs from the cache, or the old outputs removed."""
        stage = self._stages[name]
        if stage.frozen or not stage.cmd:
            if stage.frozen and not stage.is_import:
                logging.getLogger("dvc").warning("%s is frozen. Its dependencies are not reproduced.", stage)
            if not stage.reproduce():
                return Begun.UNCHANGED
            self._keep(stage)
            return Begun.DONE
        if not stage.changed():
            return Begun.UNCHANGED
        stage.remove_outs(ignore_remove=False, force=False)
        try:
            self._repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            stage.save_deps()
            self._saved[name] = _contents(stage)
            self._hold(name)
            return Begun.RUN
        self._save(stage)
        return Begun.DONE

    def finish(self, name: str) -> None:
        """What comes after the command: its outputs into the cache.

        Raises UserError if something that it depends on was changed meanwhile: nobody knows what it read, so what it
        made is removed. What is gone it has removed itself (`files.remove_leftovers`), or it would have missed it.
        """
        stage = self._stages[name]
        self.release(name)
        stage.save_deps()
        before, now = self._saved.pop(name), _contents(stage)
        if changed := [path for path in now if now[path] != before.get(path)]:
            stage.remove_outs(ignore_remove=False, force=False)
            raise UserError(
                f"{', '.join(changed)} changed while it ran, so nobody knows what it was made of; "
                "leave the files alone and run again"
            )
        self._save(stage)

    def release(self, name: str) -> None:
        """Lets other DVC commands have its inputs and outputs again."""
        if held := self._held.pop(name, None):
            with suppress(AssertionError, LockError):  # somebody has removed DVC's file of them, as it tells one to
                held.close()

    def release_all(self) -> None:
        for name in list(self._held):
            self.release(name)

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Inside, other DVC commands can work with the project, as while `dvc repro` waits for a command."""
        self._repo.lock.unlock()
        try:
            yield
        finally:
            self._lock_again()

    def _lock_again(self) -> None:
        said = False
        while not self._repo.lock.is_locked:
            try:
                self._repo.lock.lock()
            except LockError:  # after three seconds
                if not said:
                    logging.getLogger("dvc").warning("another DVC command is at work here: waiting for it to end")
                said = True

    def write(self) -> None:
        """Puts what was done into dvc.lock: a new file that takes its place, so it is whole whatever happens."""
        if len(self._done) == self._written:
            return
        if _version(LOCK) != self._lock_version:  # somebody else's, for other steps
            self._lock_before = _load(LOCK)
        data = dict(self._lock_before) or {"schema": "2.0"}
        stages = dict(data.get("stages", {}))
        for name in self._stages:
            if name in self._done:
                stages |= to_lockfile(self._done[name])
        data["stages"] = stages
        with files.new_file(LOCK) as unfinished:
            dump_yaml(str(unfinished), data)
        self._lock_version = _version(LOCK)
        self._repo.scm_context.track_file(LOCK)
        self._written = len(self._done)

    def _planned(self) -> list[str]:
        planned: set[str] = set()
        for name, stage in self._stages.items():
            if not planned.isdisjoint(self.dependencies[name]) or stage.changed():
                planned.add(name)
        return [name for name in self.steps if name in planned]

    def _save(self, stage: Stage) -> None:
        kept = not any(not out.use_cache for out in stage.outs if not (out.is_metric or out.is_plot))
        stage.save(run_cache=kept)  # as Stage.run has it
        stage.commit()
        self._keep(stage)

    def _keep(self, stage: Stage) -> None:
        if isinstance(stage, PipelineStage) and stage.relpath == PIPELINE:
            self._done[stage.addressing] = stage
        else:  # one with a file of its own: dvc import, dvc add; or of another dvc.yaml
            stage.dump(update_pipeline=False)

    def _hold(self, name: str) -> None:
        """Keeps other DVC commands from what the step reads and writes until `release`."""
        stage, held = self._stages[name], ExitStack()
        reads, writes = [dep.fs_path for dep in stage.deps], [out.fs_path for out in stage.outs]
        # Named by the step: two that read the same each hold it.
        who = f"{' '.join(sys.argv)} ({name})"
        held.enter_context(rwlock(self._repo.tmp_dir, self._repo.fs, who, reads, writes, _hardlink(self._repo)))
        self._held[name] = held


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
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


def _forget_the_dead(repo: Repo) -> None:
    """Takes out of DVC's file of what is being read and written what a killed process of this number has left there.

    In a container processes have the same numbers each time, so DVC would wait for this one. A file that is cut short
    was being written by a process that was killed; DVC would refuse it for ever.
    """
    path = Path(str(repo.tmp_dir), RWLOCK_FILE)
    if not path.is_file():
        return
    with make_lock(str(path.with_name(RWLOCK_LOCK)), str(repo.tmp_dir), hardlink_lock=_hardlink(repo)):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        mine = os.getpid()
        readers = {name: [one for one in some if one["pid"] != mine] for name, some in found.get("read", {}).items()}
        found["read"] = {name: some for name, some in readers.items() if some}
        found["write"] = {name: one for name, one in found.get("write", {}).items() if one["pid"] != mine}
        files.write_text(path, json.dumps(found))


def _hardlink(repo: Repo) -> bool:
    """Whether DVC locks by hard links, as it is told to where a file system knows nothing else."""
    return bool(repo.config["core"].get("hardlink_lock", False))


def _load(path: str) -> dict[str, Any]:
    found: dict[str, Any] = load_yaml(path) if Path(path).is_file() else {}
    return found


def _version(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


@contextmanager
def _params_parsed_once() -> Iterator[None]:
    """Inside, DVC parses a file of params again only if it has changed.

    Else it does so five times for every step, which takes as long as all else that it does.
    """
    parsed: dict[tuple[str, int, int], Any] = {}
    ordinary = param.load_path

    def load_path(path: str, fs: Any, **options: Any) -> Any:
        if fs.protocol != "local":
            return ordinary(path, fs, **options)
        found = Path(path).stat()
        key = (path, found.st_mtime_ns, found.st_size)
        if key not in parsed:
            parsed[key] = ordinary(path, fs, **options)
        return deepcopy(parsed[key])  # what two steps share, YAML writes as a reference

    param.load_path = load_path
    try:
        yield
    finally:
        param.load_path = ordinary


def _contents(stage: Stage) -> dict[str, str]:
    """Of each file that it depends on the hash, as last saved; of params what they are."""
    found: dict[str, str] = {}
    for dep in stage.deps:
        if isinstance(dep.obj, Tree):
            found |= {"/".join((str(dep), *key)): str(content) for key, _, content in dep.obj}
        else:
            found[str(dep)] = str(dep.hash_info)
    return found
