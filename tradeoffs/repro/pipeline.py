"""All that is asked of DVC, by its own API: which steps there are, what changed, what its cache holds, dvc.lock.

DVC's own `dvc repro` runs one step at a time, and reads and writes the whole dvc.lock after each. Here a step is split
in two, what comes before its command and what comes after it, so that commands can run side by side, and the lock file
is written now and then, whole, in the order in which `dvc repro` would have written it. Everything here belongs to one
thread: DVC's locks know no other. What is called is internal to DVC 3.67, to which requirements.lock pins it; a test
holds that the lock file is that of `dvc repro`, to the byte.
"""

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.rwlock import rwlock
from dvc.stage import PipelineStage, Stage
from dvc.stage.cache import RunCacheNotFoundError, _can_hash, _get_stage_hash
from dvc.stage.exceptions import StageNotFound
from dvc.stage.run import prepare_kwargs
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import ParseError, dump_yaml, load_yaml
from dvc.utils.strictyaml import YAMLValidationError
from dvc_data.hashfile.tree import Tree

from tradeoffs import params
from tradeoffs.common import files, settings
from tradeoffs.plumbing import held as steps_held
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import asked
from tradeoffs.repro.dvc_gaps import alone, hashed_once, quiet, transferred, writable_site_cache
from tradeoffs.repro.mending import forget_the_dead, hardlink, mend, remove_unfinished, unlock_of_the_dead

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
SETTINGS = "settings"  # the stage


class Begun(Enum):
    UNCHANGED = "did not change"
    DONE = "is cached"
    RUN = "its command is to run"
    LATER = "another experiment is at the same work, and leaves it in the cache"


@contextmanager
def opened(targets: Sequence[str] = (), kind: "type[Pipeline] | None" = None) -> Iterator[Any]:
    """The project in the working directory, a Pipeline or a `kind` of it, locked for this process as by `dvc repro`.

    Raises UserError if another run is at work in it.
    """
    with quiet(), project() as (repo, held):
        steps_held.wait_for_others()
        _read(repo)
        steps = (kind or Pipeline)(repo, targets, held=held)
        try:
            yield steps
        finally:
            steps.release_all()


@contextmanager
def project() -> Iterator[tuple[Repo, int]]:
    """As `opened`, before it is known which steps there are; and the open file that holds its lock."""
    writable_site_cache()
    with Repo() as repo, alone(Path(str(repo.tmp_dir))) as held:
        unlock_of_the_dead(repo)
        with lock_repo(repo), repo.scm_context(quiet=True):
            forget_the_dead(repo)
            yield repo, held


def _read(repo: Repo) -> None:
    """Lets DVC read which steps there are, of a dvc.lock that is mended before if need be."""
    mend(Path(LOCK))
    try:
        _ = repo.index.stages
    except (ParseError, YAMLValidationError):  # what is broken may be another file
        if not mend(Path(LOCK), thoroughly=True):
            raise
        repo._reset()


class Pipeline:
    """The steps of `targets` (all of dvc.yaml by default) and all that these depend on.

    `dependencies`: of each step, in the order in which `dvc repro` takes them, those that come before it. `planned`:
    those that may run, since something changed or may change; fewer do where a step leaves what was there before.
    `in_flight`: the work that is going on, here and in what else shares it. `held`: the open file with the lock that
    keeps a second run out.
    """

    def __init__(
        self, repo: Repo, targets: Sequence[str] = (), in_flight: set[str] | None = None, held: int | None = None
    ) -> None:
        self._repo, self.held = repo, held
        self._in_flight = set() if in_flight is None else in_flight  # keys of DVC's run cache
        self._keys: dict[str, str] = {}
        self._awaited: dict[str, str] = {}  # of those that are for later
        graph = get_active_graph(repo.index.graph)
        try:
            wanted = collect_stages(repo, targets) if targets else [one for one in repo.index.stages if _is_ours(one)]
        except StageNotFound as error:
            raise UserError(no_step(repo, error)) from error
        order: list[Stage] = plan_repro(graph, wanted)
        self._stages = {stage.addressing: stage for stage in order}
        # What `dvc add` and `dvc import` made runs nothing, but may bring what follows from it.
        self.dependencies = {
            name: {before.addressing for before in graph.successors(stage)} for name, stage in self._stages.items()
        }
        self._done: dict[str, PipelineStage] = {}
        self._saved: dict[str, dict[str, str]] = {}  # what a step depends on, when it began
        self._held: dict[str, ExitStack] = {}
        self._lock_before: dict[str, Any] | None = None
        self._lock_version = _version(LOCK)
        self._written = 0

    @cached_property
    def planned(self) -> list[str]:
        planned, moved = set[str](), self._moved()
        for name, stage in self._stages.items():
            before = self.dependencies[name] & planned - {SETTINGS}  # which runs for every change, and moves few files
            if before or stage.changed() or any(dep.fs_path in moved for dep in stage.deps):
                planned.add(name)
        return [name for name in self.steps if name in planned]

    def _moved(self) -> set[str]:
        """The files that the stage `settings` is to write anew, with something else in them."""
        stage = self._stages.get(SETTINGS)
        if stage is None or not stage.changed():
            return set()
        root = Path(stage.wdir)
        return {str(path) for path in settings.moved(params.load_all(root / params.PATH), root)}

    @property
    def steps(self) -> list[str]:  # all that have a command
        return [name for name, stage in self._stages.items() if stage.cmd]

    def command(self, name: str) -> list[str]:
        """Command lines for the shell."""
        cmd = self._stages[name].cmd
        return list(cmd) if isinstance(cmd, list) else cmd.splitlines()

    def environment(self, name: str) -> dict[str, str]:  # that DVC gives to a step's command
        env: dict[str, str] = prepare_kwargs(self._stages[name])["env"]
        return env

    def folder(self, name: str) -> str:  # the working directory of a step's command
        return str(self._stages[name].wdir)

    def meta(self, name: str) -> Mapping[str, object]:
        """What dvc.yaml says under `meta` of the stage; in neither lock file nor hash."""
        return self._stages[name].meta or {}

    def experiment(self, name: str) -> str:
        """To which it belongs: a step that fails ends no other."""
        return ""

    def settle(self) -> None:
        """Looks, between two steps, which experiments are complete."""

    def remove_unfinished(self) -> None:
        """Removes what DVC has left half-copied: before something runs, and after it has failed."""
        remove_unfinished(self._repo)

    def begin(self, name: str) -> Begun:
        """What comes before the command: nothing to do, outputs from the cache, or the old outputs removed."""
        if self._awaited.get(name) in self._in_flight:
            return Begun.LATER
        stage = self._stages[name]
        if stage.frozen or not stage.cmd:
            if stage.frozen and not stage.is_import:
                logging.getLogger("dvc").warning("%s is frozen. Its dependencies are not reproduced.", stage)
            if not stage.reproduce():
                return Begun.UNCHANGED
            self._keep(stage)
            return Begun.DONE
        with hashed_once():
            return self._begin(name, stage)

    def _begin(self, name: str, stage: PipelineStage) -> Begun:
        if not stage.changed():
            return Begun.UNCHANGED
        stage.remove_outs(ignore_remove=False, force=False)
        try:
            self._repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            stage.save_deps()
            for out in stage.outs:
                out.clear()  # with those of dvc.lock and the new deps a second `begin` would restore what was before
            if key := _get_stage_hash(stage) if _can_hash(stage) else "":
                if key in self._in_flight:
                    self._awaited[name] = key
                    return Begun.LATER
                self._in_flight.add(key)
                self._keys[name] = key
            self._saved[name] = contents(stage)
            self._hold(name)
            return Begun.RUN
        self._save(stage)
        return Begun.DONE

    def finish(self, name: str) -> None:
        """What comes after the command: its outputs into the cache.

        Raises UserError if something that it depends on was changed meanwhile: nobody knows what it read, so what it
        made is removed. What is gone it has removed itself (`files.remove_leftovers`), or it would have missed it.
        """
        with hashed_once():
            self._finish(name)

    def _finish(self, name: str) -> None:
        stage = self._stages[name]
        self.release(name)
        stage.save_deps()
        before, now = self._saved.pop(name), contents(stage)
        if changed := [path for path in now if now[path] != before.get(path)]:
            stage.remove_outs(ignore_remove=False, force=False)
            raise UserError(
                f"{', '.join(changed)} changed while it ran, so nobody knows what it was made of; "
                "leave the files alone and run again"
            )
        self._save(stage)

    def release(self, name: str) -> None:
        """Lets other DVC commands have its inputs and outputs again, and others do the same work."""
        self._in_flight.discard(self._keys.pop(name, ""))
        if held := self._held.pop(name, None):
            with suppress(AssertionError, LockError):  # somebody has removed DVC's file of them, as it tells one to
                held.close()

    def release_all(self) -> None:
        for name in {*self._held, *self._keys}:
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
        if self._lock_before is None or _version(LOCK) != self._lock_version:  # somebody else's, for other steps
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

    def _save(self, stage: Stage) -> None:
        kept = not any(not out.use_cache for out in stage.outs if not (out.is_metric or out.is_plot))
        stage.save(run_cache=kept)  # as Stage.run has it
        with transferred() as lost:
            stage.commit()
        if lost:
            raise UserError(not_in_the_cache(stage, lost))
        self._keep(stage)

    def _keep(self, stage: Stage) -> None:
        if _is_ours(stage):
            self._done[stage.addressing] = stage
        else:  # one with a file of its own: dvc import, dvc add; or of another dvc.yaml
            stage.dump(update_pipeline=False)

    def _hold(self, name: str) -> None:
        """Keeps other DVC commands from what the step reads and writes until `release`."""
        stage, held = self._stages[name], ExitStack()
        reads, writes = [dep.fs_path for dep in stage.deps], [out.fs_path for out in stage.outs]
        # Named by the step: two that read the same each hold it.
        who = f"{' '.join(sys.argv)} ({name})"
        held.enter_context(rwlock(self._repo.tmp_dir, self._repo.fs, who, reads, writes, hardlink(self._repo)))
        self._held[name] = held


def no_step(repo: Repo, error: StageNotFound) -> str:
    """What to say of a target that DVC has not found, with the near match where it would be one of this dvc.yaml."""
    if error.file != PIPELINE:
        return str(error)
    return asked.no_step(error.name, [stage.addressing for stage in repo.index.stages if _is_ours(stage)])


def _is_ours(stage: Stage) -> bool:
    """Whether it is of this project's dvc.yaml, not of another one or of a file of its own."""
    return isinstance(stage, PipelineStage) and stage.relpath == PIPELINE


def not_in_the_cache(stage: Stage, lost: Sequence[str]) -> str:
    """What to say where DVC's cache did not take all that a step has made; why, DVC has logged."""
    cache = stage.repo.cache.local.path
    with suppress(OSError):
        cache = f"{cache}, with {shutil.disk_usage(cache).free / 1e6:.1f} MB free"
    outs = ", ".join(str(out) for out in stage.outs if out.use_cache)
    return (
        f"{len(lost)} of the files of {outs} could not be put into DVC's cache ({cache}), so it does not count "
        f"as made; make room there and run again, or `dvc commit -f {stage.addressing}` to keep what it has made"
    )


def _load(path: str) -> dict[str, Any]:
    found: dict[str, Any] = load_yaml(path) if Path(path).is_file() else {}
    return found


def _version(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def contents(stage: Stage) -> dict[str, str]:
    """Of each file that it depends on the hash, as last saved; of params what they are."""
    found: dict[str, str] = {}
    for dep in stage.deps:
        if isinstance(dep.obj, Tree):
            found |= {"/".join((str(dep), *key)): str(content) for key, _, content in dep.obj}
        else:
            found[str(dep)] = json.dumps(dep.hash_info.value, sort_keys=True, default=str)
    return found
