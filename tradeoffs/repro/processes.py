"""The command of a step as a process: one that DVC would start, or a fork that has imported the slow libraries.

Importing torch and transformers takes longer than the work of many a step. A fork (of multiprocessing's forkserver) has
them at once; all else is its own, as a new interpreter's: arguments, environment, working directory, the project's
code, threads, a GPU, and the memory that is counted as its own.

However a run or a step is cut short, what it has started (the workers of `accelerate launch`) ends with it: guard.py.
"""

import atexit
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
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

import psutil

from tradeoffs.repro import guard

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


class Forks:
    """The process that forks, started if two of the `commands` at least may be forks; `on` as long as it works."""

    def __init__(self, commands: Sequence[str], gpu: bool) -> None:
        self.on = sys.platform == "linux" and sum(bool(words(command)) for command in commands) > 1
        if self.on:
            # `stages` first: it says what libraries need not warn of when they are imported. The last notes what is
            # in memory by then.
            libraries = ["stages", *LIBRARIES, *([] if gpu else WITHOUT_GPU), "tradeoffs.repro.resident"]
            multiprocessing.get_context("forkserver").set_forkserver_preload(libraries)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for who started it
            try:
                forkserver.ensure_running()
            except OSError:  # no folder for its socket, or one with too long a name
                self.on = False
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def start(self, command: str, folder: str, environment: dict[str, str], log: Path | None) -> Any:
        """A process, or None if this command is no fork."""
        if not (self.on and words(command) and _is_ours(environment)):
            return None
        arguments = (words(command), folder, environment, log and str(log))
        process = multiprocessing.get_context("forkserver").Process(target=_become, args=arguments)
        try:
            process.start()
        except (OSError, EOFError):  # it could not start, or was ended
            self.on = False
            return None
        return process


class Running:
    """Commands that run one after the other; `ended` is called, from another thread, when one has ended.

    Their output goes to the file `log` if there is one, otherwise where that of this process goes. They are of the run
    that has a guard in this process. Raises OSError where a command cannot be started.
    """

    def __init__(
        self,
        commands: Sequence[str],
        folder: str,
        environment: Mapping[str, str],
        log: Path | None,
        forks: Forks,
        ended: Callable[[], None],
    ) -> None:
        self.commands = list(commands)  # that have not begun
        self.why, self.again = "", False  # these are of what runs elsewhere (`places.Running`)
        self._folder, self._environment = folder, dict(environment)
        self._log, self._forks, self._ended = log, forks, ended
        self._mark = guard.mark_step(self._environment)
        self._told_to_end = False
        self.next()

    def next(self) -> None:
        """Starts the command after the one that has ended well."""
        command = self.commands.pop(0)
        process = self._forks.start(command, self._folder, self._environment, self._log)
        self._process = process or _popen(command, self._folder, self._environment, self._log)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    @property
    def code(self) -> int:
        """The exit code of what has ended; below 0, the signal that ended it."""
        self._thread.join()
        code = self._process.wait() if isinstance(self._process, subprocess.Popen) else self._process.exitcode
        return int(code)

    def deliver(self) -> None:
        """Its outputs are where they belong."""

    def end(self) -> None:
        """Ends what is left of it, which would go on beside whoever runs the step again."""
        guard.end(self._mark)

    def stop(self) -> None:
        """Tells it to end, and what it has started."""
        if self._thread.is_alive():
            self._told_to_end = True
            with suppress(psutil.Error):
                for process in {psutil.Process(self._process.pid), *guard.marked(self._mark)}:
                    with suppress(psutil.Error):
                        process.terminate()

    def wait(self, seconds: float) -> None:
        """Until it has ended, and what it has started if it was told to end; after so long it is made to. Of what has
        failed nothing is left."""
        end = time.monotonic() + seconds
        self._thread.join(seconds)
        if self._thread.is_alive():
            with suppress(psutil.Error):
                psutil.Process(self._process.pid).kill()
            self._thread.join()
        while self._told_to_end and time.monotonic() < end and guard.marked(self._mark):
            time.sleep(guard.PAUSE)
        if self._told_to_end or self.code:
            self.end()

    def _wait(self) -> None:
        if isinstance(self._process, subprocess.Popen):
            self._process.wait()
        else:  # not join: the exit code can be read once, and the main thread may be doing so
            connection.wait([self._process.sentinel])
        self._ended()


def _popen(command: str, folder: str, environment: dict[str, str], log: Path | None) -> subprocess.Popen[bytes]:
    """By a shell, as DVC has it, unless that would do nothing but start it."""
    if PLAIN.fullmatch(command):
        arguments = shlex.split(command)
        arguments[0] = shutil.which(arguments[0], path=environment.get("PATH")) or arguments[0]
    else:
        from dvc.stage.run import _make_cmd, get_executable

        arguments = _make_cmd(get_executable(), command)
    with (log or Path(os.devnull)).open("ab") as output:
        to: dict[str, Any] = {"stdout": output, "stderr": output} if log else {}
        return subprocess.Popen(arguments, cwd=folder, env=environment, **to)


def _is_ours(environment: Mapping[str, str]) -> bool:
    """Whether `python` is the interpreter, of the same virtual environment, that runs this."""
    found, mine = Path(shutil.which("python", path=environment.get("PATH")) or ""), Path(sys.executable)
    return found.samefile(mine) and found.parent.resolve() == mine.parent.resolve()


def _become(command: list[str], folder: str, environment: dict[str, str], log: str | None) -> None:
    """Runs `python -m *command` in this process."""
    with suppress(OSError, ValueError):
        guard.show(environment[guard.MARK])
    from tradeoffs.repro import resident  # imported before the fork

    resident.touch()
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
