"""The command of a step as a process: one that DVC would start, or a fork that has imported the slow libraries.

Importing torch and transformers takes longer than the work of many a step. A fork (of multiprocessing's forkserver) has
them at once; all else is its own, as a new interpreter's: arguments, environment, working directory, the project's
code, threads, a GPU. However the run ends, its processes end with it.
"""

import atexit
import ctypes
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

# Stages that import these libraries whatever their cell. Not measure, which starts what it measures in its own ways.
STAGES = {"base", "tokenize", "finetune", "reference", "merge", "convert", "evaluate_gpu", "copying", "score"}
# What defines things when it is imported and does nothing else.
LIBRARIES = ["torch", "transformers.models.auto.modeling_auto", "transformers.modeling_layers"]
# These ask whether there is a GPU when they are imported, and no fork of a process that has asked can use one.
WITHOUT_GPU = ["peft", "transformers.trainer", "sentence_transformers"]
# No character that means more to a shell than itself.
PLAIN = re.compile(r"python -m [\w.]+(?: +[\w./:@,+-]+)* *", re.ASCII)
FORKED = re.compile(r"python -m stages\.(\w+)((?: +[\w./:@,+-]+)*) *", re.ASCII)


def words(command: str) -> list[str]:
    """Module and arguments of a command that may be a fork; of any other, none."""
    found = FORKED.fullmatch(command)
    return [f"stages.{found[1]}", *found[2].split()] if found and found[1] in STAGES else []


def prepare_forks(commands: Sequence[str]) -> bool:
    """Starts the process that forks, if two of the `commands` at least may be forks; whether it did."""
    if sys.platform != "linux" or sum(bool(words(command)) for command in commands) < 2:
        return False
    context = multiprocessing.get_context("forkserver")
    # `stages` first: it says what libraries need not warn of when they are imported.
    context.set_forkserver_preload(["stages", *LIBRARIES, *([] if Path("/dev/nvidiactl").exists() else WITHOUT_GPU)])
    from multiprocessing import forkserver

    forkserver.ensure_running()
    return True


class Running:
    """Commands that run one after the other; `ended` is called with the exit code, from another thread.

    The first that fails is the last; below 0, its code is the signal that ended it. Their output goes to the file `log`
    if there is one, otherwise where that of this process goes.
    """

    def __init__(
        self,
        commands: Sequence[str],
        folder: str,
        environment: Mapping[str, str],
        log: Path | None,
        forks: bool,
        ended: Callable[[int], None],
    ) -> None:
        self._commands, self._folder, self._environment = list(commands), folder, dict(environment)
        self._log, self._forks, self._ended = log, forks, ended
        self._process: Any = None
        self._stopped = self._over = False
        self._start()

    def stop(self) -> None:
        """Ends it, and what it has started."""
        self._stopped = True
        if not self._over:
            _terminate(self._process.pid)

    def _start(self) -> None:
        """From the main thread only: a child that is to end with its parent ends with the thread that made it."""
        command = self._commands.pop(0)
        process = self._fork(command) if self._forks and words(command) and _is_ours(self._environment) else None
        self._process = process or _popen(command, self._folder, self._environment, self._log)
        threading.Thread(target=self._wait, daemon=True).start()

    def _fork(self, command: str) -> Any:
        """None if there is no process that forks: it could not start, or was ended."""
        arguments = (words(command), self._folder, self._environment, self._log and str(self._log))
        process = multiprocessing.get_context("forkserver").Process(target=_become, args=arguments)
        try:
            process.start()
        except (OSError, EOFError):
            self._forks = False
            return None
        return process

    def _wait(self) -> None:
        self._process.wait() if isinstance(self._process, subprocess.Popen) else self._process.join()
        self._over = True
        code = self._process.returncode if isinstance(self._process, subprocess.Popen) else self._process.exitcode
        self._ended(code)

    def next(self) -> bool:
        """Starts the command after the one that has ended; False if that was the last."""
        if not self._commands or self._stopped:
            return False
        self._over = False
        self._start()
        return True


def _popen(command: str, folder: str, environment: dict[str, str], log: Path | None) -> subprocess.Popen[bytes]:
    """By a shell, as DVC has it, unless that would do nothing but start it: what ends a shell does not end more."""
    if PLAIN.fullmatch(command):
        arguments = shlex.split(command)
        arguments[0] = shutil.which(arguments[0], path=environment.get("PATH")) or arguments[0]
    else:
        from dvc.stage.run import _make_cmd, get_executable

        arguments = _make_cmd(get_executable(), command)
    with (log or Path(os.devnull)).open("ab") as output:
        to: dict[str, Any] = {"stdout": output, "stderr": output} if log else {}
        end_with_us = _end_with(os.getpid()) if sys.platform == "linux" else None
        return subprocess.Popen(arguments, cwd=folder, env=environment, preexec_fn=end_with_us, **to)


@cache
def _end_with(parent: int) -> Callable[[], None]:
    """What a new process does to end when `parent`, its parent, has ended (PR_SET_PDEATHSIG of prctl(2))."""
    prctl = ctypes.CDLL(None).prctl

    def end_with_parent() -> None:
        prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return end_with_parent


def _terminate(pid: int) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.terminate()


def _is_ours(environment: Mapping[str, str]) -> bool:
    """Whether `python` is the interpreter, of the same virtual environment, that runs this."""
    found, mine = Path(shutil.which("python", path=environment.get("PATH")) or ""), Path(sys.executable)
    return found.samefile(mine) and found.parent.resolve() == mine.parent.resolve()


def _become(command: list[str], folder: str, environment: dict[str, str], log: str | None) -> None:
    """Runs `python -m *command` in this process."""
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    if log:
        to = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(to, 1)
        os.dup2(to, 2)
    multiprocessing.set_start_method(None, force=True)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # multiprocessing has put /dev/null in its place
    os.chdir(folder)
    os.environ.update(environment)  # and what the libraries put there, which they do only when they are imported
    if "torch" in sys.modules and (threads := environment.get("OMP_NUM_THREADS", "")).isdecimal():
        sys.modules["torch"].set_num_threads(int(threads))  # it has read the variable long ago
    # Not the step's own: what a step keeps when it is cut short belongs to the code that it had loaded.
    for module in [name for name in sys.modules if name.partition(".")[0] in ("tradeoffs", "stages")]:
        sys.modules.pop(module)
    sys.argv = command
    sys.path[0] = folder
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except (Exception, KeyboardInterrupt) as error:
        sys.excepthook(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
        if isinstance(error, KeyboardInterrupt):
            atexit._run_exitfuncs()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)  # as Python ends itself then
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _end_with_the_run() -> None:
    """However that ends, by SIGKILL, too."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
