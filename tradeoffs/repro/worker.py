"""Runs steps for a run on another machine, in a clone of its commit: a request a line, an answer a line, as JSON.

    python -m tradeoffs.repro.worker            started by `tradeoffs.repro.node`; ends when its input does
    python -m tradeoffs.repro.worker --facts    cores, memory and GPUs of this machine

A request names a `step`, what is `upstream` of it (entries of dvc.lock by step, whose outputs are fetched by DVC), what
it `reads` by hash, and the `environment` to add. An answer is its entry for dvc.lock (`lock`), with the outputs in the
remote or the shared cache by then, or an `error`, or what `differs` of what it reads; with each come its command's
`output` and its line of the `clock`.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from dvc.exceptions import DvcException

from tradeoffs.common import cores
from tradeoffs.plumbing import cli, clock
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import pipeline, processes, slots
from tradeoffs.repro.guard import Guard
from tradeoffs.repro.pipeline import Begun
from tradeoffs.repro.travelling import Travelling

OUTPUT = Path(".scratch/output.log")
PINS = Path("requirements.lock")
FEW = 5  # inputs that differ, by name
MOST_OUTPUT = 1_000_000  # bytes of what a command wrote that go back


class Worker:
    """For one step at a time."""

    def __init__(self, steps: Travelling) -> None:
        self._steps = steps
        self._forks: processes.Forks | None = None  # started by the first step that has a command to run
        self._running: processes.Running | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What `request` asks for has been done, or why it has not."""
        for log in (OUTPUT, clock.LOG):
            log.unlink(missing_ok=True)
        try:
            found = self._run(request["step"], request)
        except (UserError, DvcException, OSError) as error:
            self._steps.release_all()
            found = {"error": str(error) or repr(error)}
        return found | {"output": _end_of(OUTPUT), "clock": _end_of(clock.LOG)}

    def stop(self) -> None:
        if self._running:
            self._running.stop()
            self._running.wait(1.0)

    def _run(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        for before, entry in request["upstream"].items():
            self._steps.bring(before, entry)
        begun = self._steps.begin(name)
        mine, theirs = self._steps.reads(name), request["reads"]
        if other := sorted(path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path)):
            self._steps.release(name)
            return {"differs": ", ".join(other[:FEW]) + (f" and {len(other) - FEW} more" if len(other) > FEW else "")}
        if begun is Begun.RUN:
            self._commands(name, request["environment"])
            self._steps.finish(name)
        self._steps.push(name)
        return {"lock": self._steps.entry(name)}

    def _commands(self, name: str, environment: Mapping[str, str]) -> None:
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        ended: SimpleQueue[None] = SimpleQueue()
        given = self._steps.environment(name) | dict(environment)
        commands, folder = self._steps.command(name), self._steps.folder(name)
        if self._forks is None:
            every = [line for step in self._steps.steps for line in self._steps.command(step)]
            self._forks = processes.Forks(every, bool(slots.gpus()))
        self._running = processes.Running(commands, folder, given, OUTPUT, self._forks, lambda: ended.put(None))
        with self._steps.unlocked():
            while True:
                ended.get()
                if self._running.code or not self._running.commands:
                    break
                self._running.next()
        if code := self._running.code:
            self._running.end()
            raise UserError(f"failed to run: {' && '.join(commands)}, exited with {code}")
        self._running = None


def facts() -> dict[str, Any]:
    """Of this machine. Raises what DVC does where it cannot reach the remote."""
    with pipeline.opened(kind=Travelling) as steps:
        steps.probe()
    memory_mb = slots.MEMORY_SHARE * slots.free_mb()
    return {"cores": cores.usable(), "memory_mb": memory_mb, "gpus": slots.gpus(), "versions": versions()}


def versions() -> dict[str, str]:
    """Of Python and of what requirements.lock names, as installed."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    found = {"python": sys.version.split()[0]}
    for name in (line.partition("==")[0].strip() for line in lines if "==" in line and not line.startswith("#")):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _end_of(log: Path) -> str:
    with suppress(FileNotFoundError):
        return log.read_bytes()[-MOST_OUTPUT:].decode("utf-8", errors="replace")
    return ""


def main(facts_only: bool) -> None:
    if facts_only:
        print(json.dumps(facts()))
        return
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    asked = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer,
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # and a command that reads gets no request
    requests: SimpleQueue[str] = SimpleQueue()
    with pipeline.opened(kind=Travelling) as steps:
        steps.remove_unfinished()
        guard = Guard(steps.held)
        worker = Worker(steps)
        threading.Thread(target=_read, args=(asked, requests, worker), daemon=True).start()
        while line := requests.get():
            print(json.dumps(worker.answer(json.loads(line)), default=str), file=answers, flush=True)
    guard.dismiss()


def _read(asked: TextIO, requests: "SimpleQueue[str]", worker: Worker) -> None:
    """Where nobody asks any more, a command that still runs is of no use: it ends, and this process."""
    for line in asked:
        requests.put(line)
    worker.stop()
    os._exit(0)


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("--facts", dest="facts_only", action="store_true", help="what this machine has, as JSON")
    cli.command(main, options)
