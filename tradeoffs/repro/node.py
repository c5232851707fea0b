"""What a machine of a cluster does first: clones of the commit, and in each a worker (`tradeoffs.repro.worker`).

It is sent there whole, before the project is: so it knows nothing but Python's own library.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "llm-tradeoffs-"  # of the folder, and something behind it
PATIENCE = 10.0  # seconds that a worker has to end
END = 4000  # characters of what a worker wrote last that are told where it ended


class Node:
    """A folder in TMPDIR, for as long as this lives: a clone of the commit in `bundle` for each slot, one DVC cache.

    `prefix`: the project's folder in its repository. `cache`: that of all machines, if they share one. Methods may be
    called by several threads, each for its own slot.
    """

    def __init__(self, bundle: bytes, prefix: str, cache: str | None) -> None:
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=NAME))
        self._held = (self._folder / "held").open("w")
        fcntl.flock(self._held, fcntl.LOCK_EX)  # until this process is gone
        self._prefix = prefix
        self._cache = cache or str(self._folder / "cache")
        (self._folder / "bundle").write_bytes(bundle)
        self._workers: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()

    def facts(self) -> dict[str, Any]:
        """Of this machine, as the project sees it (`tradeoffs.repro.worker --facts`). Raises RuntimeError where its
        Python cannot run the project."""
        done = subprocess.run(
            self._command("--facts"), cwd=self._clone(0), env=self._environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-END:].strip())
        return {"host": socket.gethostname(), **json.loads(done.stdout)}

    def run(self, slot: int, request: dict[str, Any]) -> dict[str, Any]:
        """The worker's answer. Raises RuntimeError if it ends without one."""
        with self._lock:
            worker = self._workers.get(slot)
            if worker is None or worker.poll() is not None:
                worker = self._workers[slot] = self._start(slot)
        assert worker.stdin and worker.stdout
        try:
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the worker ended with {worker.wait()}: {self._last_words(slot)}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def stop(self, slot: int) -> None:
        """Ends what runs there."""
        with self._lock:
            worker = self._workers.pop(slot, None)
        if worker:
            _end(worker)

    def close(self) -> None:
        """Ends all, and leaves nothing behind."""
        for slot in list(self._workers):
            self.stop(slot)
        _remove(self._folder)

    def closed(self) -> None:
        """It is when `close` returns."""

    def _start(self, slot: int) -> "subprocess.Popen[str]":
        with (self._folder / f"{slot}.log").open("wb") as log:
            return subprocess.Popen(
                self._command(),
                env=self._environment(),
                cwd=self._clone(slot),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tradeoffs.repro.worker", *words]

    def _clone(self, slot: int) -> Path:
        """The project's folder in it. Raises RuntimeError with what Git says."""
        clone = self._folder / f"clone-{slot}"
        if not clone.is_dir():
            unfinished = clone.with_name(f"unfinished-{slot}")
            shutil.rmtree(unfinished, ignore_errors=True)
            git = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--branch", "snapshot"]
            done = subprocess.run([*git, str(self._folder / "bundle"), str(unfinished)], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"git clone: {done.stderr.strip()[-END:]}")
            local = f"[cache]\n    dir = {self._cache}\n"
            (unfinished / self._prefix / ".dvc/config.local").write_text(local, encoding="utf-8")
            unfinished.rename(clone)
        return clone / self._prefix

    def _environment(self) -> dict[str, str]:
        """With the commands of this Python first, as `python` is in a step's command; threads are not Ray's to say."""
        ours = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return ours | {"PATH": path, "DVC_SITE_CACHE_DIR": str(self._folder / "site")}

    def _last_words(self, slot: int) -> str:
        return (self._folder / f"{slot}.log").read_text(encoding="utf-8", errors="replace")[-END:].strip()


def _end(worker: "subprocess.Popen[str]") -> None:
    """By the end of its input, after which it ends what it runs; after a while by force."""
    assert worker.stdin
    with suppress(OSError):
        worker.stdin.close()
    try:
        worker.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _remove(folder: Path) -> None:
    """What was just ended may still write for a moment."""
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.5)


def _sweep() -> None:
    """Removes what runs have left here that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{NAME}*"):
        with suppress(OSError), (folder / "held").open("r") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
