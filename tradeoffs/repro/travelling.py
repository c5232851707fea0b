"""What goes between clones of a project when steps run in several: inputs and outputs through DVC, entries of dvc.lock.

As in pipeline.py, what is called is internal to DVC.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from dvc.exceptions import DvcException
from dvc.stage import PipelineStage, Stage
from dvc.stage.loader import StageLoader
from dvc.stage.serialize import to_lockfile

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro.pipeline import SETTINGS, Pipeline, contents

PAUSES = (2.0, 10.0, 30.0)  # seconds between tries: after hours of training, a remote that hiccups is asked again


class Travelling(Pipeline):
    """A Pipeline of which steps run in other clones, or that runs steps for another clone."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._travelled: dict[str, Mapping[str, Any]] = {}  # what other clones have, or had, by its entry
        self._staying: set[str] = set()
        self.travels = cache(self._travels)

    @property
    def remote(self) -> str | None:
        """The name of the default remote."""
        found: str | None = self._repo.config["core"].get("remote")
        return found

    @property
    def shares(self) -> str | None:
        """The folder of a cache that is not this clone's own, unless there is a remote: other clones reach that one."""
        found = None if self.remote else self._repo.config["cache"].get("dir")
        return str(self._repo.cache.local_cache_dir) if found else None

    def probe(self) -> None:
        """Raises what DVC does where the remote cannot be reached from here."""
        if self.remote:
            remote = self._repo.cloud.get_remote_odb()
            remote.fs.exists(remote.path)

    def _travels(self, name: str) -> bool:
        """Whether a step can run in another clone: what it and those before it write goes through DVC, all of it."""
        mine = self._stages[name]
        # What `settings` writes goes along with the commit.
        before = [self._stages[one] for one in self.dependencies[name] if one != SETTINGS]
        outs = [out for stage in (mine, *before) for out in stage.outs]
        known = mine.outs and not mine.frozen and not any(out.persist for out in mine.outs)
        through_dvc = all(out.use_cache and (self.shares or out.can_push) for out in outs)
        return bool(known and through_dvc and not any(stage.is_repo_import for stage in before))

    def stay(self, name: str) -> None:
        """Another clone lacks what the step reads: it has to run here."""
        self._staying.add(name)

    def stays(self, name: str) -> bool:
        return name in self._staying or not self.travels(name)

    def reads(self, name: str) -> dict[str, str]:
        """The hash of each file that a step depends on, and what the params are, as of its `begin`."""
        return contents(self._stages[name])

    def entry(self, name: str) -> dict[str, Any]:
        """What dvc.lock says of a step that is done; nothing of what has a file of its own (`dvc add`)."""
        stage = self._stages[name]
        return dict(to_lockfile(stage)[stage.name]) if isinstance(stage, PipelineStage) else {}

    def push(self, name: str) -> None:
        """A step's outputs to where other clones find them. Raises UserError if not all of them arrive."""
        if self.shares or name in self._travelled:
            return
        for odb, objects in self._stages[name].get_used_objs().items():
            if failed := _tried(self._repo.cloud.push, objects, odb):
                raise UserError(f"{len(failed)} files of {name} could not be pushed to the remote")
        self._travelled[name] = {}

    def bring(self, name: str, entry: Mapping[str, Any]) -> None:
        """A step's outputs as another clone has left them, by its `entry` for dvc.lock, in place of the command.

        Raises UserError if the entry is not of the step as it was begun here, DvcException where nobody has the files.
        """
        stage = self._stages[name]
        if self._travelled.get(name) == entry:
            return
        mine = name in self._held  # begun here
        self.release(name)  # checking out takes the lock itself
        before = (stage.cmd, _hashes(stage))
        if entry:
            StageLoader.fill_from_lock(stage, entry)
        if mine and before != (entry["cmd"], _hashes(stage)):
            raise UserError(f"what came back is not of {name} as it is here: its command, params or deps differ")
        if not (self.shares or stage.outs_cached()):
            for odb, objects in stage.get_used_objs().items():
                _tried(self._repo.cloud.pull, objects, odb)  # what is missing then, checkout names
        stage.checkout(force=True)
        self._travelled[name] = entry


def _hashes(stage: Stage) -> dict[str, str]:
    """Of what it depends on, as last saved or read from a lock file."""
    return {str(dep): json.dumps(dep.hash_info.value, sort_keys=True, default=str) for dep in stage.deps}


def _tried(transfer: Callable[..., Any], objects: set[Any], odb: Any) -> set[Any]:
    """The objects that are left after a few tries."""
    for pause in PAUSES:
        try:
            if not (failed := transfer(objects, odb=odb).failed):
                return set(failed)
        except (DvcException, OSError) as error:
            logging.getLogger("dvc").warning("%s; trying again in %g s", error, pause)
        time.sleep(pause)
    return set(transfer(objects, odb=odb).failed)
