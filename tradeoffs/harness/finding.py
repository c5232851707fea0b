"""Tasks of lm-evaluation-harness by their names: where they stand, whether they may run, and with which data."""

import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError, near

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from tradeoffs.params import Harness

INSTALL = ".venv/bin/python -m pip install -c requirements.lock -r requirements-harness.lock"
INDEX = Path(".scratch/harness")
SEED = 1234  # of which examples stand before a question: that of `lm_eval`
LOGGERS = ("lm_eval", "datasets", "evaluate")


@dataclass(frozen=True)
class Loaded:
    """What a name of `evaluate.tasks` stands for: the tasks by their names, and the groups of them."""

    name: str
    tasks: dict[str, Any]
    groups: dict[str, Any]


def require() -> str:
    """The installed version. Raises UserError with the command that installs it."""
    try:
        return metadata.version("lm-eval")
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"evaluate.tasks names tasks of lm-evaluation-harness, which is not installed; install it: {INSTALL}"
        ) from error


def load(name: str, asked: "Harness") -> Loaded:
    """A task, or a group of them, with its data.

    Raises UserError if lm-evaluation-harness is not installed, if there is no such task, if it runs code that models
    write and nobody said that it may, if its data cannot be had, or if it cannot be asked as it says.
    """
    require()
    # Metrics that lm-evaluation-harness has not are programs of the hub: none is fetched.
    os.environ["HF_EVALUATE_OFFLINE"] = "1"
    with quiet():
        manager = _manager(Path(asked.folder))
        _require_known(manager, [name], asked)
        _refuse_unsafe(manager, name, asked.unsafe_code)
        try:
            found = manager.load([name])
        except Exception as error:  # of a library, about a task's own file, its data, or what it imports
            raise UserError(_unloaded(name, error)) from error
        for task in found["tasks"].values():
            if getattr(task, "UNSAFE_CODE", False) and not asked.unsafe_code:
                raise UserError(_unsafe(name, task.config.task))
            if getattr(task, "MULTIMODAL", False):
                raise UserError(f"evaluate.tasks: {name} asks about pictures or sound, and models are asked texts here")
            if asked.shots != "task" and task.config.num_fewshot != 0:  # 0: it says of itself that it takes none
                task.set_config("num_fewshot", asked.shots)
            elif task.config.num_fewshot is None:
                task.set_config("num_fewshot", 0)
            task.set_fewshot_seed(SEED)
    return Loaded(name, found["tasks"], found.get("groups") or {})


def require_known(names: Sequence[str], asked: "Harness") -> None:
    """Raises UserError if lm-evaluation-harness is not installed, or with every name that it does not know."""
    require()
    with quiet():
        _require_known(_manager(Path(asked.folder)), names, asked)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notes that the libraries log, and what tasks print while they are set up."""
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _manager(folder: Path) -> "TaskManager":
    """All that is installed, and what stands in a folder of one's own, which goes before it.

    No file of it is run, or looked into further than its name, before a task of it is asked for. The index of what is
    installed, of 14,000 files, is made once.
    """
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    if not folder.is_dir():
        raise UserError(
            f"params.yaml: evaluate.harness.folder: {folder} is no folder; name that of your own tasks, or "
            "examples/tasks"
        )
    own = TaskManager(include_defaults=False, include_path=str(folder))
    kept = INDEX / f"index-{require()}.json"
    root = Path(str(resources.files("lm_eval"))) / "tasks"
    if not kept.is_file():
        every = TaskManager().task_index
        listed = {
            name: [one.kind.name, str(one.yaml_path.relative_to(root)) if one.yaml_path else None, sorted(one.tags)]
            for name, one in every.items()
        }
        files.write_json(kept, listed)
    index = {
        name: Entry(name, Kind[kind], root / path if path else None, tags=set(tags))
        for name, (kind, path, tags) in files.read_facts(kept).items()
    }
    own._index = index | own._index
    return own


def _require_known(manager: "TaskManager", names: Sequence[str], asked: "Harness") -> None:
    entries = manager.task_index
    if unknown := [name for name in names if name not in entries]:
        said = [f"there is no task {name!r}{near(name, entries)}" for name in unknown]
        raise UserError(
            f"params.yaml: evaluate.tasks: {'; '.join(said)}; looked for in lm-eval {require()} and in {asked.folder}"
        )


def _leaves(manager: "TaskManager", name: str, seen: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every task that a name stands for, with what its file says; no function that it names is imported."""
    from lm_eval.tasks._yaml_loader import load_yaml

    entry = manager.task_index.get(name)
    if entry is None or name in seen:
        return
    seen.add(name)
    for tagged in sorted(entry.tags) if entry.kind.name == "TAG" else ():
        yield from _leaves(manager, tagged, seen)
    if entry.yaml_path is None:
        return
    config = load_yaml(entry.yaml_path, resolve_func=False)
    members = config.get("task") if entry.kind.name == "GROUP" else None
    if not isinstance(members, list):
        yield name, config
        return
    yield from _members(manager, name, members, seen)


def _members(
    manager: "TaskManager", group: str, members: Sequence[Any], seen: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for member in members:
        if isinstance(member, str):
            yield from _leaves(manager, member, seen)
            continue
        yield group, member  # what it says over what it names
        inner = member.get("task")
        if isinstance(inner, list):
            yield from _members(manager, group, inner, seen)
        for named in (inner, member.get("group")):
            if isinstance(named, str):
                yield from _leaves(manager, named, seen)


def _refuse_unsafe(manager: "TaskManager", name: str, allowed: bool) -> None:
    """Before anything of the task is imported: a file that its task runs may do so at once."""
    for task, config in () if allowed else _leaves(manager, name, set()):
        if config.get("unsafe_code"):
            raise UserError(_unsafe(name, task))


def _unsafe(name: str, task: str) -> str:
    which = name if name == task else f"{name} ({task})"
    return (
        f"evaluate.tasks: {which} runs programs that the model writes, on this machine; set "
        "evaluate.harness.unsafe_code: true where they may (docs/security.md), or leave the task out"
    )


def _unloaded(name: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:500] or type(error).__name__
    if isinstance(error, ImportError):
        return f"evaluate.tasks: {name} needs what is not installed: {said}"
    chain = [one for one in (error, error.__cause__, error.__context__) if one is not None]
    offline = any(isinstance(one, OSError) or "offline" in str(one).lower() for one in chain)
    if offline:
        return (
            f"evaluate.tasks: the data of {name} cannot be had: {said}; without the hub, give a copy of the task in "
            "evaluate.harness.folder files of this machine: dataset_path: json, dataset_kwargs: {data_files: ...} "
            "(docs/tasks.md)"
        )
    return f"evaluate.tasks: {name} cannot be set up: {type(error).__name__}: {said}"
