"""All that is asked of DVC for experiments: its queue, a folder for each of them, and what becomes of it.

What a worker of `dvc queue start` does with an experiment (dvc/repo/experiments/queue/tasks.py and executor/base.py of
DVC 3.67), but that its steps are run by others, beside those of other experiments. To DVC's other commands it looks
like one that a worker has taken, and afterwards like one that a worker has run. What is called is internal to DVC, as
in pipeline.py.
"""

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from celery.result import AsyncResult
from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException, InvalidArgumentError
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.checkout import checkout
from dvc.repo.experiments.exceptions import ExperimentExistsError
from dvc.repo.experiments.executor.base import BaseExecutor, ExecutorInfo, ExecutorResult, TaskStatus
from dvc.repo.experiments.executor.local import TempDirExecutor
from dvc.repo.experiments.queue.base import BaseStashQueue, QueueEntry
from dvc.repo.experiments.queue.celery import LocalCeleryQueue
from dvc.repo.experiments.queue.remove import remove_tasks
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.repo.experiments.utils import get_exp_rwlock
from dvc.scm import NoSCM, add_no_submodules
from dvc.stage.exceptions import StageNotFound
from dvc.stage.run import prepare_kwargs
from dvc.stage.utils import _get_stage_files
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from dvc_task.proc.process import ProcessInfo
from funcy import retry
from hydra.errors import ConfigCompositionException, HydraException

from tradeoffs import params
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import asked, dvc_gaps, lacking, pipeline, stops

LOCATION = "tradeoffs.repro"  # in DVC's notes, of what such a run has taken
# Of the message of such an experiment, too: whatever ends a run, the next one finds by it what is to go back.
TAKEN = ".tradeoffs"
# Options of `dvc exp run` that change which steps run, or how, as they are by default.
OTHERS: dict[str, object] = {
    **dict.fromkeys(("all_pipelines", "allow_missing", "downstream", "dry", "force", "force_downstream"), False),
    **dict.fromkeys(("glob", "interactive", "no_commit", "pipeline", "pull", "recursive", "single_item"), False),
    **{"on_error": "fail", "run_cache": True},
}
NOISE = "\n    full_key"  # in what hydra says of a wrong key, what nobody need know


@contextmanager
def project() -> Iterator[int]:
    """The project in the working directory: no other run works in it meanwhile, all other commands of DVC can. The open
    file that holds its lock.

    Raises UserError if it is no Git repository, or if another run is at work in it.
    """
    with Repo() as repo:
        if isinstance(repo.scm, NoSCM):
            raise UserError(f"{repo.root_dir}: DVC keeps experiments in Git, and this project has none")
        folder = Path(str(repo.tmp_dir))
    logging.getLogger("dvc_data.index.checkout").setLevel(logging.ERROR)  # it warns of outputs that were never made
    with dvc_gaps.quiet(), dvc_gaps.alone(folder) as held:
        yield held


def queue(
    changes: Sequence[str], targets: Sequence[str], name: str | None, below: Sequence[str] = ()
) -> dict[str, str]:
    """Queues an experiment for each combination of `changes`, as `dvc exp run --queue -S` has them, over those of a
    preset, which all have.

    Returns what is to be said of each (its name and its combination) by its revision. Raises UserError if there is
    something wrong with one of them; then none is queued, and none stays so when it is told to stop.
    """
    found: dict[str, str] = {}
    with Repo() as repo:
        waiting = repo.experiments.celery_queue
        try:
            combinations = get_hydra_sweeps(to_path_overrides([*below, *changes]))
            for one in combinations:
                _check(one, targets)
            for number, one in enumerate(combinations, start=1):
                label = f"{name}-{number}" if name and len(combinations) > 1 else name
                # While DVC queues it, what is not committed is in Git's stash.
                with stops.put_off(), lock_repo(repo):
                    if new := [path for path in one if path in repo.scm.untracked_files()]:
                        repo.scm.add(new)  # or DVC would lose it
                    entry = repo.experiments.queue_one(waiting, targets=list(targets), params=one, name=label)
                    found[entry.stash_rev] = f"{entry.name}: {_said(one, below)}"
        except BaseException as error:
            # Of those that a worker has taken by now it has the only say.
            remove_tasks(waiting, [entry for entry in waiting.iter_queued() if entry.stash_rev in found])
            if isinstance(error, ExperimentExistsError):
                raise UserError(f"--name {name}: {error.name} is there already; dvc exp remove, or another") from error
            if isinstance(error.__cause__, StageNotFound):
                raise UserError(pipeline.no_step(repo, error.__cause__)) from error
            why = error.__cause__ if isinstance(error, InvalidArgumentError) else error
            if isinstance(why, (HydraException, OSError)):
                raise UserError(f"-S {' -S '.join(changes)}: {str(why).partition(NOISE)[0]}") from error
            raise
    return found


def _check(changes: Mapping[str, list[str]], targets: Sequence[str]) -> None:
    """What one combination makes of params.yaml. Raises UserError, and what DVC does where it is no change of it."""
    with TemporaryDirectory() as folder:
        for path, some in changes.items():
            copy = Path(shutil.copy(path, folder))
            ours = path == str(params.PATH)
            try:
                apply_overrides(copy, some)
            except InvalidArgumentError as error:
                wrong = ours and isinstance(error.__cause__, ConfigCompositionException)
                if wrong and (unknown := asked.no_keys(some, params.parsed(params.PATH))):
                    raise UserError("-S " + "\n  ".join(unknown)) from error
                raise
            if ours:
                found = params.load_all(copy, f"{params.PATH} of {_said(changes)}")
                if not targets:
                    lacking.require(found)


def _said(changes: Mapping[str, list[str]], below: Sequence[str] = ()) -> str:
    values = [f"{path}:{value}" for path, some in changes.items() for value in some if value not in below]
    return (" ".join(values) or "the preset").replace(f"{params.PATH}:", "")


def taken(revs: Collection[str] | None, most: int) -> list["Experiment"]:
    """So many of what is on DVC's queue, or of those of it alone: no worker takes them any more."""
    with Repo() as repo:
        waiting: LocalCeleryQueue = repo.experiments.celery_queue
        _put_back_what_was_killed(waiting)
        processed = Path(waiting.celery.conf.broker_transport_options["processed_folder"])
        found: list[Experiment] = []
        for message, entry in list(waiting._iter_queued()):
            if len(found) == most or (revs is not None and entry.stash_rev not in revs):
                continue
            if any(one.commits_as(entry) for one in found):  # one of them can be kept
                continue
            path = Path(waiting.celery._queued_msg_path_cache[message.delivery_tag])
            try:
                task = _Task(message.headers["id"], path.rename(processed / f"{path.name}{TAKEN}"), path)
            except FileNotFoundError:  # a worker was faster
                continue
            note = ExecutorInfo("", entry.baseline_rev, LOCATION, "", "", entry.name)
            note.dump_json(waiting.get_infofile_path(entry.stash_rev))
            _, options, _ = message.decode()
            found.append(Experiment(entry, task, options, {one.name for one in found}))
    return found


class _Task(NamedTuple):
    """What DVC's queue knows of an experiment: a message, in the folder of those that were taken, and where it was."""

    key: str
    path: Path
    before: Path


def _put_back_what_was_killed(waiting: LocalCeleryQueue) -> None:
    """Of a run that was killed. None is at work: `project` sees to that."""
    incoming = Path(waiting.celery.conf.broker_transport_options["data_folder_in"])
    for message, entry in list(waiting._iter_processed()):
        path = Path(waiting.celery._processed_msg_path_cache[message.delivery_tag])
        if path.suffix == TAKEN and not AsyncResult(message.headers["id"]).ready():
            _put_back(waiting, entry, _Task("", path, incoming / path.stem))


def _put_back(waiting: LocalCeleryQueue, entry: QueueEntry, task: _Task) -> None:
    """The message is the last: cut short, all of it can be done again."""
    if entry.stash_rev not in waiting.stash.stash_revs:
        _stash(waiting, entry)
    note = Path(waiting.get_infofile_path(entry.stash_rev))
    _remove_folder(note)
    shutil.rmtree(note.parent, ignore_errors=True)
    task.path.rename(task.before)


@retry(180, errors=LockError, timeout=1)  # as DVC has it
def _stash(waiting: LocalCeleryQueue, entry: QueueEntry) -> None:
    """Among those that are queued, as stash_failed does for another list."""
    said = waiting.stash.format_message(entry.head_rev, entry.baseline_rev, entry.name, entry.branch)
    with get_exp_rwlock(waiting.repo, writes=[entry.stash_ref]):
        waiting.scm.set_ref(waiting.stash.ref, entry.stash_rev, message=f"commit: {said}")


def _remove_folder(note: Path) -> None:
    """Of an experiment, as DVC's note of it names it."""
    with suppress(DvcException, OSError):  # there is none, or it was being written when the run was killed
        if folder := ExecutorInfo.load_json(str(note)).root_dir:
            shutil.rmtree(folder, ignore_errors=True)


class Experiment:
    """One taken off the queue. `open` makes its folder; then one of `commit`, `fail` and `put_back` ends it."""

    def __init__(self, entry: QueueEntry, task: _Task, options: dict[str, Any], others: Collection[str]) -> None:
        short = entry.stash_rev[:7]
        self.name = entry.name or short
        if self.name in others:  # of another commit
            self.name += f"-{short}"
        self.steps: _Steps
        self._entry, self._task, self._options = entry, task, options
        self._executor: BaseExecutor | None = None  # as long as there is a folder
        self._info: ExecutorInfo
        self._opened = ExitStack()

    def commits_as(self, other: QueueEntry) -> bool:
        """Whether DVC has one place for both."""
        return (self._entry.name, self._entry.baseline_rev) == (other.name, other.baseline_rev)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Inside, its folder is the working directory, as DVC and the steps need it."""
        assert self._executor
        with chdir(Path(self._executor.root_dir, self._info.wdir or ".")):
            yield

    def open(self, in_flight: set[str]) -> None:
        """Its code and data, with what it changes, in a folder of its own; `steps` are those that are to run there.

        Raises UserError, and what DVC and its libraries do, where that is not possible.
        """
        with self._main() as repo:
            location = {"location": LOCATION}
            executor = BaseStashQueue.init_executor(repo.experiments, self._entry, TempDirExecutor, **location)
            self._executor, self._info = executor, executor.info
            self._note(repo, TaskStatus.RUNNING)
            if self._entry.name and repo.scm.get_ref(str(ExpRefInfo(self._entry.baseline_rev, self._entry.name))):
                raise UserError(
                    f"{self.name} is there already: dvc exp remove {self.name}, or queue it by another name"
                )
            for path in self._options.get("copy_paths") or []:
                BaseExecutor._copy_path(Path(path).absolute(), Path(executor.root_dir, executor.dvc_dir).parent / path)
        with self.here():
            params.load_all()
            repo, _ = self._opened.enter_context(pipeline.project())
            arguments, options = BaseExecutor._repro_args(repo)
            if others := [name for name, usual in OTHERS.items() if options.get(name) not in (None, usual)]:
                raise UserError(f"queued with {', '.join(others)}, which `dvc queue start` alone can do")
            targets = (arguments[0] if arguments else options.get("targets")) or None
            checkout(repo, targets=targets, with_deps=targets is not None, force=True, allow_missing=True)
            self.steps = _Steps(repo, targets or (), in_flight, options.get("run_env") or {})
            self._opened.callback(self.steps.release_all)

    def commit(self) -> None:
        """Makes it an experiment of the project, and removes its folder."""
        with self.here():
            self.steps.write()
            result = self.steps.commit(self._info, self._options.get("message"))
        self._close()
        self._info.result_hash, self._info.result_ref = result.exp_hash, str(result.ref_info)
        with self._main() as repo:
            assert self._executor
            if not BaseStashQueue.collect_executor(repo.experiments, self._executor, result):
                raise UserError(f"Git could not fetch it from {self._executor.root_dir}")
            self._end(repo, TaskStatus.SUCCESS)

    def fail(self, why: str) -> None:
        """Leaves it among those that failed, as `dvc queue status` names them; `dvc queue logs` says why."""
        self._close()
        with self._main() as repo:
            waiting: LocalCeleryQueue = repo.experiments.celery_queue
            waiting.stash_failed(self._entry)
            rev = self._entry.stash_rev
            said = Path(waiting.get_infofile_path(rev)).with_suffix(".out")
            said.write_text(f"{why}\n", encoding="utf-8")
            waiting.proc[rev] = ProcessInfo(os.getpid(), None, str(said), None, 1)
            self._end(repo, TaskStatus.FAILED)

    def put_back(self) -> None:
        """On the queue, as if nobody had taken it."""
        self._close()
        with self._main() as repo:
            _put_back(repo.experiments.celery_queue, self._entry, self._task)

    def _main(self) -> Repo:
        """The project, as it is by now."""
        return Repo(self._entry.dvc_root)

    def _close(self) -> None:
        if self._executor:
            with self.here():
                self._opened.close()

    def _end(self, repo: Repo, status: TaskStatus) -> None:
        waiting: LocalCeleryQueue = repo.experiments.celery_queue
        if self._executor:
            self._note(repo, status)
            self._executor.cleanup(waiting.get_infofile_path(self._entry.stash_rev))
            self._executor = None
        else:  # it failed while its folder was made
            _remove_folder(Path(waiting.get_infofile_path(self._entry.stash_rev)))
        if status is TaskStatus.SUCCESS:
            waiting.celery.backend.mark_as_done(self._task.key, None)
        else:
            waiting.celery.backend.mark_as_failure(self._task.key, None)

    def _note(self, repo: Repo, status: TaskStatus) -> None:
        """What DVC's other commands read of it."""
        self._info.status = status
        self._info.dump_json(repo.experiments.celery_queue.get_infofile_path(self._entry.stash_rev))


class _Steps(pipeline.Pipeline):
    """In the folder of an experiment, of which its commands get to know by `run_env`."""

    def __init__(self, repo: Repo, targets: Sequence[str], in_flight: set[str], run_env: dict[str, str]) -> None:
        super().__init__(repo, targets, in_flight)
        self._prepare = partial(prepare_kwargs, run_env=run_env)

    def environment(self, name: str) -> dict[str, str]:
        env: dict[str, str] = self._prepare(self._stages[name])["env"]
        return env

    def key(self, name: str) -> str:
        """In DVC's run cache, of a step that runs; "" of any other."""
        return self._keys.get(name, "")

    def work(self) -> dict[str, str]:
        """What each step does, as far as dvc.yaml and params.yaml tell: alike where it most likely is the same."""
        found: dict[str, str] = {}
        for name, stage in self._stages.items():
            values = [dep.get_hash().value for dep in stage.deps if isinstance(dep, ParamsDependency)]
            before = sorted(found[one] for one in self.dependencies[name] if one in found)
            found[name] = str(hash(json.dumps([name, stage.cmd, values, before], default=str)))
        return found

    def commit(self, info: ExecutorInfo, message: str | None) -> ExecutorResult:
        """What is done, in Git, as BaseExecutor.reproduce has it when `dvc repro` has ended."""
        for stage in self._stages.values():
            self._repo.scm_context.add(_get_stage_files(stage))
        if paths := TempDirExecutor._get_top_level_paths(self._repo):
            add_no_submodules(self._repo.scm, paths)
        key = BaseExecutor.hash_exp(self._done.values())
        _, found, force = TempDirExecutor._repro_commit(self._repo, info, key, False, message=message)
        return ExecutorResult(key, found, force)
