"""Steps on the machines of a Ray cluster: which there are, what is sent to them, what comes back.

Ray starts a `tradeoffs.repro.node` on each machine and carries requests and answers, of a few KB each. The code goes as
a bundle of one commit, outputs go through DVC: the remote, or a cache that all machines share.
"""

import logging
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import node
from tradeoffs.repro.pipeline import Pipeline
from tradeoffs.repro.places import Here, LostError, Machine, Place
from tradeoffs.repro.slots import Slots

# Set where the user has not said otherwise: Ray takes no one's word for who they are, and tells nobody who uses it.
SAFE = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
CLOSING = 10.0  # seconds that a machine has to remove what it was lent
LOOK = 5.0  # seconds between two looks for machines that have joined
LOCAL = "local"  # Ray's own word for a cluster of this machine, for as long as the run
NAME = ["-c", "user.name=llm-tradeoffs", "-c", "user.email=llm-tradeoffs@localhost"]


class Actor:
    """A node on another machine (`places.Node`): Ray carries what is said."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def facts(self) -> dict[str, Any]:
        return self._get(self._actor.facts.remote())

    def run(self, slot: int, request: dict[str, Any]) -> dict[str, Any]:
        return self._get(self._actor.run.remote(slot, request))

    def stop(self, slot: int) -> None:
        self._actor.stop.remote(slot)

    def close(self) -> None:
        self._get(self._actor.close.remote(), timeout=CLOSING)

    def _get(self, asked: Any, timeout: float | None = None) -> Any:
        import ray

        try:
            return ray.get(asked, timeout=timeout)
        except ray.exceptions.RayTaskError as error:  # of the node itself
            raise RuntimeError(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise LostError(str(error).partition("\n")[0]) from error


class Cluster:
    """`places`: the machines that are ready, more when some join (`joined` is called then), fewer when some are lost;
    after them `home`, for what cannot be done elsewhere."""

    def __init__(self, pipeline: Pipeline, bundle: bytes, home: Here) -> None:
        import ray

        ray.cloudpickle.register_pickle_by_value(node)
        self.places: list[Place] = [home]
        self.joined: Callable[[], None] = lambda: None
        self._pipeline, self._bundle = pipeline, ray.put(bundle)
        self._versions = files.run_info()["versions"]
        self._known: set[str] = set()
        self._refused: dict[str, str] = {}
        self._changed = threading.Condition()
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def machines(self) -> list[Machine]:
        return [one for one in self.places if isinstance(one, Machine)]

    @property
    def slots(self) -> Slots:
        """Of all machines together, to estimate by."""
        devices = [device for one in self.machines for device in one.slots.devices]
        return Slots(sum(one.slots.jobs for one in self.machines), devices)

    @property
    def cores(self) -> int:
        return sum(one.cores for one in self.machines)

    def wait(self) -> None:
        """For the first machine. Raises UserError if none can be used."""
        with self._changed:
            while not self.machines:
                if self._known and len(self._refused) == len(self._known):
                    raise UserError("no machine of the cluster can be used:\n" + "\n".join(self._refused.values()))
                if not self._changed.wait(timeout=2 * LOOK):
                    print("waiting for a machine of the cluster whose cores are free", flush=True)

    def _has_gpus(self) -> bool:
        return any(one.slots.gpu for one in self.machines)

    def _lose(self, machine: Machine) -> None:
        with self._changed:
            if machine in self.places:
                self.places.remove(machine)

    def close(self) -> None:
        self._over.set()
        for machine in self.machines:
            with suppress(LostError, RuntimeError):
                machine.node.close()

    def _watch(self) -> None:
        import ray

        while not self._over.is_set():
            with suppress(ray.exceptions.RayError):
                for found in ray.nodes():
                    jobs = int(found["Resources"].get("CPU", 0))
                    if found["Alive"] and jobs and found["NodeID"] not in self._known:
                        self._known.add(found["NodeID"])
                        threading.Thread(target=self._join, args=(found, jobs), daemon=True).start()
            self._over.wait(LOOK)

    def _join(self, found: Mapping[str, Any], jobs: int) -> None:
        """Takes all of the machine, once nobody else uses it."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": found["Resources"]["CPU"],
            "num_gpus": found["Resources"].get("GPU", 0),
            "scheduling_strategy": NodeAffinitySchedulingStrategy(found["NodeID"], soft=False),
            "max_concurrency": 2 * jobs + 2,  # each slot runs and may be stopped
        }
        actor = Actor(ray.remote(node.Node).options(**options).remote(self._bundle, self._pipeline.shares))
        try:
            facts = actor.facts()
            wrong = _differing(facts["versions"], self._versions)
        except (LostError, RuntimeError) as error:
            facts, wrong = {"host": found["NodeManagerHostname"]}, str(error)
        with self._changed:
            if wrong:
                self._refused[found["NodeID"]] = f"{facts['host']}: {wrong}"
                print(f"warning: {facts['host']} is left out: {wrong}", file=sys.stderr, flush=True)
            else:
                self.places.insert(-1, Machine(actor, facts, jobs, self._pipeline, self._lose, self._has_gpus))
            self._changed.notify_all()
        self.joined()


@contextmanager
def connected(address: str, pipeline: Pipeline, home: Here) -> Iterator[Cluster]:
    """Raises UserError where Ray, the cluster, Git or a way for the outputs is missing."""
    if not (pipeline.shares or pipeline.remote):
        raise UserError(
            "--ray: outputs need a way between machines: `dvc remote add -d NAME URL`, or `dvc config cache.dir "
            "FOLDER` of a folder that all machines share (docs/cluster.md)"
        )
    for name, value in SAFE.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError(
            "--ray: Ray is not installed; pip install -c requirements.lock -r requirements-cluster.lock"
        ) from None
    bundle = snapshot()
    local: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"--ray {address}: {error}") from error
    try:
        cluster = Cluster(pipeline, bundle, home)
        try:
            cluster.wait()
            yield cluster
        finally:
            cluster.close()
    finally:
        ray.shutdown()


def snapshot() -> bytes:
    """A Git bundle whose branch `snapshot` is one commit of the working tree: what is committed, changed and new, but
    nothing that Git ignores. Neither index nor branches of the repository change. Raises UserError without Git."""
    reference = f"refs/llm-tradeoffs/{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as scratch:
        index = os.environ | {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        _git("add", "--all", env=index)
        tree = _git("write-tree", env=index).decode().strip()
        commit = _git(*NAME, "commit-tree", tree, "-m", "What a run was started with").decode().strip()
        bare = Path(scratch, "bare")
        _git("init", "--quiet", "--bare", str(bare))
        _git("update-ref", reference, commit)
        try:
            _git("push", "--quiet", str(bare), f"{reference}:refs/heads/snapshot")
        finally:
            _git("update-ref", "-d", reference)
        return _git("bundle", "create", "--quiet", "-", "refs/heads/snapshot", cwd=bare)


def _git(*words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> bytes:
    done = subprocess.run(["git", *words], env=env, cwd=cwd, capture_output=True)
    if done.returncode:
        raise UserError(f"git {' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """The versions of libraries that are not those of this machine, in words; "" where all are."""
    names = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    pairs = ", ".join(f"{name} {theirs.get(name, 'missing')}, here {ours.get(name, 'missing')}" for name in names)
    return f"it has other versions than this machine: {pairs}" if names else ""
