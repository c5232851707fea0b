"""Steps on the machines of a Ray cluster: which there are, what is sent to them, what comes back.

Ray starts a `tradeoffs.repro.node` on each machine and carries requests and answers, of a few KB each. The code goes as
a bundle of one commit, outputs go through DVC: the remote, or a cache that all machines share.
"""

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import node, worker
from tradeoffs.repro.places import Here, LostError, Machine, Place
from tradeoffs.repro.slots import Slots
from tradeoffs.repro.snapshot import settle, snapshot
from tradeoffs.repro.travelling import Travelling

# Set where the user has not said otherwise: Ray takes no one's word for who they are, and tells nobody who uses it.
SAFE = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
MOST = 500  # characters of what Ray says
CLOSING = 10.0  # seconds that a machine has to remove what it was lent
LOOK = 5.0  # seconds between two looks for machines that have joined
MOST_LOST = 2  # times that a machine which was lost is taken again
LOCAL = "local"  # Ray's own word for a cluster of this machine, for as long as the run


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
        """Asks for it."""
        self._closing = self._actor.close.remote()

    def closed(self) -> None:
        self._get(self._closing, timeout=CLOSING)

    def _get(self, asked: Any, timeout: float | None = None) -> Any:
        import ray

        try:
            return ray.get(asked, timeout=timeout)
        except ray.exceptions.RayTaskError as error:  # of the node itself
            raise RuntimeError(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise LostError(" ".join(str(error).split())[:MOST]) from error


class Cluster:
    """`places`: the machines that are ready, more when some join (`joined` is called then), fewer when some are lost;
    after them `home`, for what cannot be done elsewhere."""

    def __init__(self, pipeline: Travelling, bundle: bytes, prefix: str, home: Here) -> None:
        import ray

        ray.cloudpickle.register_pickle_by_value(node)
        self.places: list[Place] = [home]
        self.joined: Callable[[], None] = lambda: None
        self._pipeline, self._bundle, self._prefix = pipeline, ray.put(bundle), prefix
        self._versions = worker.versions()
        self._known: set[str] = set()
        self._lost: Counter[str] = Counter()
        self._most_gpus = 0
        self._refused: dict[str, str] = {}
        self._changed = threading.Condition()
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def machines(self) -> list[Machine]:
        return [one for one in self.places if isinstance(one, Machine)]

    @property
    def slots(self) -> Slots:
        """To estimate by: as many steps as all machines take, each with the GPUs of the one that has most."""
        return Slots(sum(one.slots.jobs for one in self.machines), [str(one) for one in range(self._most_gpus)])

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

    def expects(self) -> bool:
        """Whether machines may still join."""
        with self._changed:
            return len(self.machines) + len(self._refused) < len(self._known)

    def _has_gpus(self) -> bool:
        return self._most_gpus > 0

    def _lose(self, machine: Machine) -> None:
        with self._changed:
            if machine in self.places:
                self.places.remove(machine)
                self._lost[machine.key] += 1
                if self._lost[machine.key] <= MOST_LOST:
                    self._known.discard(machine.key)  # it may be the step's fault, or Ray's

    def close(self) -> None:
        self._over.set()
        for machine in self.machines:
            machine.node.close()
        for machine in self.machines:
            with suppress(LostError, RuntimeError):
                machine.node.closed()

    def _watch(self) -> None:
        import ray

        while not self._over.is_set():
            with suppress(ray.exceptions.RayError):
                there = [found for found in ray.nodes() if found["Alive"] and found["Resources"].get("CPU", 0) >= 1]
                self._most_gpus = int(max((found["Resources"].get("GPU", 0) for found in there), default=0))
                for found in there:
                    if found["NodeID"] not in self._known:
                        self._known.add(found["NodeID"])
                        threading.Thread(target=self._join, args=(found,), daemon=True).start()
            self._over.wait(LOOK)

    def _join(self, found: Mapping[str, Any]) -> None:
        """Takes all of the machine, once nobody else uses it."""
        key, jobs, gpus = found["NodeID"], int(found["Resources"]["CPU"]), found["Resources"].get("GPU", 0)
        name = found["NodeManagerHostname"]
        actor: Actor | None = None
        try:
            actor = self._actor(key, found["Resources"]["CPU"], gpus, jobs)
            facts = actor.facts()
            wrong = _differing(facts["versions"], self._versions)
            facts["gpus"] = facts["gpus"][: int(gpus)]  # what Ray was told not to use is somebody else's
        except Exception as error:  # whatever it is, the others can be used
            facts, wrong = {}, str(error) or repr(error)
        with self._changed:
            if wrong or actor is None:
                self._refused[key] = f"{name}: {wrong}"
                print(f"warning: {name} is left out: {wrong}", file=sys.stderr, flush=True)
                if actor:
                    actor.close()
            else:
                machine = Machine(actor, facts, jobs, self._pipeline, self._lose, self._has_gpus)
                machine.key = key
                self.places.insert(-1, machine)
            self._changed.notify_all()
        self.joined()

    def _actor(self, key: str, cpus: float, gpus: float, jobs: int) -> Actor:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(key, soft=False),
            "max_concurrency": 2 * jobs + 2,  # each slot runs and may be stopped
        }
        made = ray.remote(node.Node).options(**options)
        return Actor(made.remote(self._bundle, self._prefix, self._pipeline.shares))


@contextmanager
def connected(address: str, pipeline: Travelling, home: Here) -> Iterator[Cluster]:
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
    settle()
    bundle, prefix = snapshot()
    local: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"--ray {address}: {error}") from error
    try:
        cluster = Cluster(pipeline, bundle, prefix, home)
        try:
            with pipeline.unlocked():
                cluster.wait()
            yield cluster
        finally:
            cluster.close()
    finally:
        ray.shutdown()


def _differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """The versions of libraries that are not those of this machine, in words; "" where all are."""
    names = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    pairs = ", ".join(f"{name} {theirs.get(name, 'missing')}, here {ours.get(name, 'missing')}" for name in names)
    return f"it has other versions than this machine: {pairs}" if names else ""
