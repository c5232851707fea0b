"""Servers of one GGUF, started and ended: this project's, llama.cpp's own, and that of llama-cpp-python."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from benchmarks import peers
from benchmarks.chat_clients import Load
from benchmarks.common import ROOT
from tradeoffs.plumbing.errors import UserError

PATIENCE = 120.0  # seconds until a server answers
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/#token=(\S+)")


@dataclass(frozen=True)
class Talked:
    """A model to talk with: a variant of the workspace in `folder`, and its GGUF. `context`: tokens of a sequence."""

    folder: Path
    variant: str
    gguf: Path
    context: int


@dataclass
class Server:
    process: subprocess.Popen
    port: int
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    ends_count: bool = False  # see benchmarks.chat_clients

    def begin(self, **load: Any) -> subprocess.Popen:
        """Clients who begin to ask; `load` as of benchmarks.chat_clients. `answers` waits for them."""
        asked = Load(port=self.port, model=self.model, headers=self.headers, ends_count=self.ends_count, **load)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chat_clients"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        with process.stdin as file:
            json.dump(asdict(asked), file)
        return process

    def answers(self, process: subprocess.Popen) -> dict[str, Any]:
        """What benchmarks.chat_clients prints."""
        assert process.stdout
        found: dict[str, Any] = json.loads(process.stdout.read() or "{}")
        if process.wait():
            raise UserError(f"benchmarks.chat_clients: exit code {process.returncode}")
        return found

    def load(self, **load: Any) -> dict[str, Any]:
        """What came of a load: `answers`, `took` (seconds), and `cpu`: seconds of processor time of each process."""
        before = self.cpu_seconds()
        found = self.answers(self.begin(**load))
        after = self.cpu_seconds()
        found["cpu"] = {side: after[side] - before.get(side, 0.0) for side in after} | {"clients": found["cpu_seconds"]}
        found["took"] = max(answer["done"] for answer in found["answers"])
        return found

    def cpu_seconds(self) -> dict[str, float]:
        """Of the server and of each process that it started, by what it is."""
        found: dict[str, float] = {}
        for one in self.processes():
            times = one.cpu_times()
            name = "server" if one.pid == self.process.pid else "model"
            found[name] = found.get(name, 0.0) + times.user + times.system
        return found

    def resident_mb(self) -> dict[str, float]:
        return {
            "server" if one.pid == self.process.pid else "model": one.memory_info().rss / 1e6
            for one in self.processes()
        }

    def processes(self) -> list[psutil.Process]:
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]


@contextmanager
def running(command: Sequence[object], folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Any, Path]]:
    """A process, and the file that it prints to; it has ended, with all that it started, when the block is left."""
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process, log
        finally:
            end(process)


def end(process: subprocess.Popen) -> None:
    """Asks it to end, and all that it started; ends what is left after a while."""
    try:
        there = psutil.Process(process.pid)
        all_of_it = [there, *there.children(recursive=True)]
    except psutil.NoSuchProcess:
        all_of_it = []
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    psutil.wait_procs(all_of_it, timeout=10)
    for one in all_of_it:
        if one.is_running():
            one.kill()
    process.wait()


@contextmanager
def ours(talked: Talked) -> Iterator[Server]:
    """As a user starts it."""
    command = [sys.executable, "-m", "tradeoffs.chat", "--serve", talked.variant, "--port", "0"]
    with running(command, talked.folder, {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}) as (process, log):
        found = _wait(process, log, lambda: ADDRESS.search(log.read_text(errors="replace")))
        headers = {"Authorization": f"Bearer {found[2]}"}
        yield Server(process, int(found[1]), talked.variant, headers)


@contextmanager
def llama_server(talked: Talked, places: int, *options: object, **environment: str) -> Iterator[Server]:
    """llama.cpp's own; `places`: answers at a time, each with the model's whole context."""
    port = _free_port()
    command = [peers.tool("llama-server"), "-m", talked.gguf, "--host", "127.0.0.1", "--port", port]
    command += ["--alias", talked.variant, "-np", places, "-c", places * talked.context, "-t", peers.threads()]
    with running([*command, "--no-ui", *options], talked.folder, environment) as (process, log):
        _wait(process, log, lambda: _answers(port, "/health"))
        yield Server(process, port, talked.variant, ends_count=True)


@contextmanager
def llama_cpp_server(talked: Talked, *options: object, **environment: str) -> Iterator[Server]:
    """That of llama-cpp-python; it answers one after the other."""
    port = _free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", talked.gguf, "--host", "127.0.0.1", "--port", port]
    command += ["--model_alias", talked.variant, "--n_ctx", talked.context, "--n_threads", peers.threads()]
    with running([*command, *options], talked.folder, environment) as (process, log):
        _wait(process, log, lambda: _answers(port, "/v1/models"))
        yield Server(process, port, talked.variant)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _wait(process: subprocess.Popen, log: Path, ready: Any) -> Any:
    """What `ready` says once it says something. Raises UserError with the end of the log if the process ends before."""
    until = time.monotonic() + PATIENCE
    while not (found := ready()):
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(errors="replace")[-2000:]
            raise UserError(f"no answer of the server after {PATIENCE:.0f} s, or it ended:\n{said}")
        time.sleep(0.05)
    return found
