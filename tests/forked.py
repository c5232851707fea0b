"""Python programs in forks of a process that has imported the slow libraries once, for tests that start many.

    done = forked.python("-m", "dvc", "repro", cwd=folder)       # as subprocess.run([sys.executable, ...])

A fork has its own arguments, working directory, environment and output, and imports the project's own code itself,
which is not among the libraries. It differs from a new interpreter in what libraries read from the environment when
they are imported, and in PYTHONHASHSEED: both are the server's. `HUB` leaves out huggingface_hub and what imports it,
so that its programs read HF_ENDPOINT and HF_HOME themselves.
"""

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn, Self

# What is imported once. Of the hub's clients only what they import beside huggingface_hub; of DVC what `repro` needs.
DVC = (
    "dvc.cli",
    "dvc.repo.reproduce",
    "dvc.commands.repro",
    "dvc.dvcfile",
    "dvc.data_cloud",
    "pygit2",
    "dulwich.client",
)
HUB = ("torch", "pyarrow.parquet", "pandas", "aiohttp", "fsspec.asyn", "tokenizers", "yaml")
STAGES = ("torch", "transformers", "accelerate", "bitsandbytes", "peft", "sentence_transformers", "matplotlib.figure")


class Server:
    """The process that forks; `python` runs a program in one of its forks. It ends with the process that made it."""

    def __init__(self, libraries: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forked-")  # the path of a socket must be short
        self.address = f"{self._folder.name}/socket"
        command = [sys.executable, __file__, "serve", self.address, *libraries]
        # Nothing is ever written to its input: the end of it says that this process is gone.
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "ready\n", "its error is on stderr"
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        atexit.unregister(self.close)
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def python(
        self, *words: object, cwd: str | Path = ".", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What `python *words` printed and its exit code; below 0, the signal that ended it."""
        command = [str(word) for word in words]
        with (
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as error,
            Path(os.devnull).open() as none,
        ):
            files = [none.fileno(), out.fileno(), error.fileno()]
            code = _ask(
                self.address, command, str(Path(cwd).resolve()), dict(os.environ if env is None else env), files
            )
            out.seek(0)
            error.seek(0)
            return subprocess.CompletedProcess(["python", *command], code, out.read(), error.read())

    def command(self, folder: Path) -> str:
        """Makes `folder`/python, a command that runs its arguments in a fork of this server; its path."""
        folder.mkdir()
        words = f'"{sys.executable}" -I -S "{__file__}" ask "{self.address}"'
        (folder / "python").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / "python").chmod(0o755)
        return str(folder / "python")


@cache
def server(libraries: Sequence[str] = STAGES) -> Server:
    """Started when it is first needed, once per process."""
    return Server(libraries)


def python(
    *words: object, cwd: str | Path = ".", env: Mapping[str, str] | None = None, libraries: Sequence[str] = STAGES
) -> subprocess.CompletedProcess[str]:
    return server(libraries).python(*words, cwd=cwd, env=env)


def command(folder: Path, libraries: Sequence[str] = STAGES) -> str:
    """Makes `folder`/python, a command that runs its arguments in a fork; its path."""
    return server(libraries).command(folder)


def _ask(address: str, words: list[str], cwd: str, env: dict[str, str], files: list[int]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"."], files)
        with connection.makefile("rw") as line:
            line.write(json.dumps([words, cwd, env]) + "\n")
            line.flush()
            return int(line.readline())


def _serve(address: str, *libraries: str) -> None:
    for name in libraries:
        importlib.import_module(name)
    del sys.path[0]  # this file's folder
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks that wait for programs
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _wait_for_one(connection)
            connection.close()


def _wait_for_one(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rw") as line:
        words, cwd, env = json.loads(line.readline())
        program = os.fork()
        if program == 0:
            _become(words, cwd, env, files)
        code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        line.write(f"{code}\n")
    os._exit(0)


def _become(words: list[str], cwd: str, env: dict[str, str], files: list[int]) -> NoReturn:
    """Runs `python *words` in this process."""
    for target, file in enumerate(files):
        os.dup2(file, target)
    os.closerange(3, 1000)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # it is looked for once
    code = 0
    try:
        _run(*words[words[0] == "-u" :])  # what -u is for, no test needs
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


def _run(kind: str, *words: str) -> None:
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if kind == "-m":
        name, *arguments = words
        sys.path[:0] = [str(Path.cwd()), *paths]
        sys.argv = [name, *arguments]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        code, *arguments = words
        sys.path[:0] = ["", *paths]
        sys.argv = ["-c", *arguments]
        sys.modules["__main__"] = program = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), program.__dict__)
    else:
        sys.path[:0] = [str(Path(kind).resolve().parent), *paths]
        sys.argv = [kind, *words]
        runpy.run_path(kind, run_name="__main__")


def main(task: str, address: str, *words: str) -> None:
    if task == "serve":
        _serve(address, *words)
    else:
        code = _ask(address, list(words), str(Path.cwd()), dict(os.environ), [0, 1, 2])
        sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(*sys.argv[1:])
