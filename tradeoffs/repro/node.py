"""What a machine of a cluster does first: clones of the commit, and in each a worker (`tradeoffs.repro.worker`).

It is sent there whole, before the project is: so it knows nothing but Python's own library.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

END = 4000  # characters of what a worker wrote last that are told where it ended


class Node:
    """A folder in TMPDIR, for as long as this lives: `slots` clones of the commit in `bundle`, with one DVC cache.

    `cache`: that of all machines, if they share one. Methods may be called by several threads, each for its own slot.
    """

    def __init__(self, bundle: bytes, cache: str | None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="llm-tradeoffs-"))
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
            worker.terminate()
            worker.wait()

    def close(self) -> None:
        """Ends all, and leaves nothing behind."""
        for slot in list(self._workers):
            self.stop(slot)
        shutil.rmtree(self._folder, ignore_errors=True)

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
        clone = self._folder / f"clone-{slot}"
        if not clone.is_dir():
            unfinished = clone.with_name(f"unfinished-{slot}")
            git = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--branch", "snapshot"]
            subprocess.run([*git, str(self._folder / "bundle"), str(unfinished)], check=True)
            local = f"[cache]\n    dir = {self._cache}\n"
            (unfinished / ".dvc/config.local").write_text(local, encoding="utf-8")
            unfinished.rename(clone)
        return clone

    def _environment(self) -> dict[str, str]:
        """With the commands of this Python first, as `python` is in a step's command; threads are not Ray's to say."""
        ours = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        return ours | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def _last_words(self, slot: int) -> str:
        return (self._folder / f"{slot}.log").read_text(encoding="utf-8", errors="replace")[-END:].strip()
