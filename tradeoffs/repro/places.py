"""Where steps run: here, or on machines of a cluster."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tradeoffs.plumbing import clock
from tradeoffs.repro import processes
from tradeoffs.repro.pipeline import Pipeline
from tradeoffs.repro.slots import Needs, Slots
from tradeoffs.repro.travelling import Travelling

if TYPE_CHECKING:
    from tradeoffs.repro.together import Together


class Running(Protocol):
    """Of a step: `code` is the exit code of the command that has ended, `commands` are those that have not begun.

    `why`: what another machine says went wrong; `again`: it is to begin again elsewhere. `deliver` puts the outputs
    where they belong, `end` ends what is left of one that failed.
    """

    commands: list[str]
    why: str
    again: bool

    @property
    def code(self) -> int: ...
    def next(self) -> None: ...
    def deliver(self) -> None: ...
    def end(self) -> None: ...
    def stop(self) -> None: ...
    def wait(self, seconds: float) -> None: ...


class Place(Protocol):
    """A machine, with what fits beside each other on it. `name`: "" where there is only one."""

    name: str
    slots: Slots

    def takes(self, step: str, needs: Needs) -> bool:
        """Whether it may run there at all."""
        ...

    def start(self, step: str, environment: Mapping[str, str], log: Path | None, ended: Callable[[], None]) -> Running:
        """`environment` is added to what DVC gives; `ended` is called when a command has ended, from another thread."""
        ...

    def give_back(self, step: str) -> None:
        """A step that is to begin `again` does so elsewhere."""
        ...


class LostError(Exception):
    """A machine does not answer any more."""


class Node(Protocol):
    """What is asked of another machine, as `node.Node` does it. All but `run` return at once. Raise LostError."""

    def run(self, slot: int, request: dict[str, Any]) -> dict[str, Any]: ...
    def stop(self, slot: int) -> None: ...
    def close(self) -> None: ...
    def closed(self) -> None: ...


class Here:
    """This machine. It takes all but what can be done `elsewhere`, if there are others."""

    def __init__(
        self, pipeline: "Pipeline | Together", slots: Slots, elsewhere: Callable[[str], bool] | None = None
    ) -> None:
        self.name, self.slots = "", slots
        self._pipeline, self._elsewhere = pipeline, elsewhere
        self._forks: processes.Forks | None = None

    def takes(self, step: str, _: Needs) -> bool:
        return not (self._elsewhere and self._elsewhere(step))

    def start(
        self, step: str, environment: Mapping[str, str], log: Path | None, ended: Callable[[], None]
    ) -> processes.Running:
        if self._forks is None:
            steps = [name for name in self._pipeline.planned if not (self._elsewhere and self._elsewhere(name))]
            commands = [line for name in steps for line in self._pipeline.command(name)]
            self._forks = processes.Forks(commands, self.slots.gpu)
        given = self._pipeline.environment(step) | dict(environment)
        commands, folder = self._pipeline.command(step), self._pipeline.folder(step)
        return processes.Running(commands, folder, given, log, self._forks, ended)

    def give_back(self, step: str) -> None:
        raise AssertionError("there is nowhere else")


class Machine:
    """Another one, of which `facts` tells what `worker.facts` does; `lost` is called when it does not answer.

    What uses a GPU waits for a machine that has one, if `others_have_gpus`.
    """

    key = ""  # by which whoever made it knows it

    def __init__(
        self,
        node: Node,
        facts: Mapping[str, Any],
        jobs: int,
        pipeline: Travelling,
        lost: Callable[["Machine"], None],
        others_have_gpus: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name: str = facts["host"]
        self.cores: int = facts["cores"]
        self.slots = Slots(jobs, facts["gpus"], facts["memory_mb"], facts["cores"])
        self.node, self._pipeline, self._lost = node, pipeline, lost
        self._others_have_gpus = others_have_gpus
        self._free = list(range(jobs))
        self._running: dict[str, Away] = {}

    def takes(self, step: str, needs: Needs) -> bool:
        enough = needs.gpu <= len(self.slots.devices) or not self._others_have_gpus()
        return enough and not self._pipeline.stays(step)

    def start(self, step: str, environment: Mapping[str, str], log: Path | None, ended: Callable[[], None]) -> "Away":
        before = self._pipeline.dependencies[step]
        for one in before:
            self._pipeline.push(one)
        request = {
            "step": step,
            "upstream": {one: self._pipeline.entry(one) for one in before},
            "reads": self._pipeline.reads(step),
            "environment": dict(environment),
        }
        slot = self._free.pop()

        def over() -> None:
            self._free.append(slot)
            ended()

        self._running[step] = Away(self.node, slot, request, self._pipeline, log, over)
        return self._running[step]

    def give_back(self, step: str) -> None:
        if self._running[step].lost:
            self._lost(self)
        else:
            self._pipeline.stay(step)


class Away:
    """A step on another machine."""

    def __init__(
        self,
        node: Node,
        slot: int,
        request: dict[str, Any],
        pipeline: Travelling,
        log: Path | None,
        ended: Callable[[], None],
    ) -> None:
        self.commands: list[str] = []
        self.why, self.again, self.lost = "", False, False
        self._entry: Mapping[str, Any] | None = None  # for dvc.lock
        self._node, self._slot, self._log, self._ended = node, slot, log, ended
        self._step, self._pipeline = request["step"], pipeline
        self._thread = threading.Thread(target=self._ask, args=(request,), daemon=True)
        self._thread.start()

    @property
    def code(self) -> int:
        self._thread.join()
        return 0 if self._entry is not None else 1

    def next(self) -> None:
        raise AssertionError("the other machine runs all commands of a step")

    def deliver(self) -> None:
        assert self._entry is not None
        self._pipeline.bring(self._step, self._entry)

    def end(self) -> None:
        """The other machine has done it."""

    def stop(self) -> None:
        if self._thread.is_alive():
            self._node.stop(self._slot)

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _ask(self, request: dict[str, Any]) -> None:
        try:
            answer = self._node.run(self._slot, request)
            if self._log:
                self._log.write_text(answer["output"], encoding="utf-8")
            clock.add(answer["clock"])
            self._entry, self.why = answer.get("lock"), answer.get("error", "")
            if differs := answer.get("differs"):
                self.again, self.why = True, f"has other inputs, which are neither in Git nor in DVC: {differs}"
        except LostError as error:
            self.again, self.lost, self.why = True, True, f"does not answer any more ({error})"
        except Exception as error:  # the run is told, whatever it is
            self.why = str(error) or repr(error)
        finally:
            self._ended()
