"""The process of one variant: started, loaded, gone."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE

import psutil

from tradeoffs.chat import messages
from tradeoffs.chat.inbox import Inbox
from tradeoffs.chat.messages import Asked, Failed, Ready
from tradeoffs.common.texts import harmless, on_a_line
from tradeoffs.plumbing.errors import UserError

COMMAND = (sys.executable, "-m", "tradeoffs.chat.worker")
LINE = 64 << 20  # bytes of a line of events at most
SAID = 20_000  # characters of what it said on stderr that are kept
HUNG = 60.0  # seconds: no step of a model takes so long
ENDING = 2.0  # seconds that a process may take to end, once nothing can come from it any more
# What a model's process needs to know of its surroundings: by how its name begins. Not what else may stand there:
# tokens, passwords, addresses of databases.
NEEDED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_", "TMP", "TEMP", "TZ", "PYTHON", "VIRTUAL_ENV", "XDG_CACHE"),
    *("LD_", "DYLD_", "MALLOC_", "GLIBC_", "HF_HOME"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "RAYON_", "TOKENIZERS_", "TORCH", "PYTORCH_", "TRANSFORMERS_"),
    *("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "BNB_", "TRITON_", "GGML_", "LLAMA_"),
)
SECRET = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASS|KEY|CREDENTIALS?|AUTH)(?:_|$)", re.IGNORECASE)


class Process:
    """`ready` is set once the model is loaded, or fails with what became of the process, in one sentence. So does each
    answer that had not ended by then."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.alive = False  # it may have memory
        self.open = False  # it can be asked
        self._watched: psutil.Process | None = None
        self._heard = time.monotonic()  # when it last said something
        self._hung = False
        self.answers: dict[str, Inbox] = {}  # by id, of those that it has not ended

    async def start(self, command: Sequence[str]) -> None:
        """Raises UserError where none can be started."""
        self._begun = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(*command, "--fd", f"{theirs.fileno()}", "--", self.variant),
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                stdout=DEVNULL,  # that of a chat in a terminal is for answers alone
                stderr=PIPE,
                env=environment(os.environ),
                start_new_session=True,  # Ctrl-C ends an answer, not the model
            )
            self._events, self._writer = await asyncio.open_connection(sock=ours, limit=LINE)
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                why = f"no process can be started for it: {error.strerror}"
                raise UserError(f"{self.variant}: {why}") from error
            raise
        finally:
            theirs.close()
        self.alive = self.open = True
        self._said = ""
        self.ended = asyncio.create_task(self._read())  # done once it has no memory any more
        self._tasks = [self.ended, asyncio.create_task(self._listen())]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def memory_mb(self) -> float:
        """Resident memory now, in 1e6 bytes; 0 where there is none any more."""
        with suppress(psutil.Error):
            self._watched = self._watched or psutil.Process(self.pid)
            return float(self._watched.memory_info().rss / 1e6)
        return 0.0

    @property
    def running(self) -> int:
        """Answers that it works on; others wait for their turn."""
        return sum(inbox.begun for inbox in self.answers.values())

    def ask(self, asked: Asked, since: float, inbox: Inbox) -> None:
        self.answers[asked.id] = inbox
        self._write(messages.request(asked, since))

    def leave(self, name: str) -> None:
        """Ends an answer; what it has until then still comes."""
        self._write(messages.leave(name))

    def forget(self, name: str) -> None:
        """Ends an answer that nobody reads any more."""
        if self.answers.pop(name, None):
            self.leave(name)

    def end_if_hung(self) -> None:
        """To be called where an answer has not ended in its time: one that has said nothing for very long is ended."""
        if self.alive and time.monotonic() - self._heard > HUNG:
            self._hung = True
            with suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """Ends it, and waits until its memory is free."""
        if self.alive:
            self.open = False
            self._writer.close()
            await asyncio.wait(self._tasks)

    def _write(self, text: bytes) -> None:
        if self.open:
            self._writer.write(text)

    async def _read(self) -> None:
        try:
            while text := await self._events.readline():
                self._heard = time.monotonic()
                for event in messages.events(text):
                    if isinstance(event, Ready):
                        self.ready.set_result(replace(event, seconds=time.monotonic() - self._begun))
                    elif inbox := self.answers.get(event.id):
                        inbox.put(event)
                        if inbox.ended:
                            del self.answers[event.id]
        except (OSError, ValueError):  # it was killed with something unread; a line without an end
            pass
        finally:
            self.open = False
            self._writer.close()
            await self._ended()

    async def _ended(self) -> None:
        waiting = asyncio.create_task(self._process.wait())
        if not (await asyncio.wait([waiting], timeout=ENDING))[0]:
            with suppress(ProcessLookupError):
                self._process.kill()
        code = await waiting
        self.alive = False
        await asyncio.wait(self._tasks[1:], timeout=ENDING)  # what it still has to say
        hung = f"{self.variant}: its process did nothing for {HUNG:g} s and was ended"
        said = hung if self._hung else explained(self.variant, code, self._said)
        if not self.ready.done():
            self.ready.set_exception(UserError(said))
            self.ready.exception()  # whether anybody waits or not
        for name, inbox in self.answers.items():
            inbox.put(Failed(name, "died", f"{said}; the next question starts another"))
        self.answers.clear()

    async def _listen(self) -> None:
        """Keeps the end of what it says on stderr, and passes on what a bug of ours says there."""
        assert self._process.stderr
        while found := await self._process.stderr.read(SAID):
            self._said = (self._said + found.decode(errors="replace"))[-SAID:]
        if "Traceback" in self._said:
            print(harmless(self._said), file=sys.stderr, end="")


def explained(variant: str, code: int, said: str) -> str:
    """What became of a process, by its exit code and the end of what it said on stderr: its own message where it had
    one, as a variant has that cannot be loaded, or llama.cpp before it gives up."""
    lines = [line for line in said.splitlines() if line.strip()]
    own = [line.partition("error: ")[2] for line in lines if line.startswith("error: ")]
    if own:
        return f"{variant}: {on_a_line(own[-1])}"
    if code < 0:
        killed = " (there may have been no memory for it)" if -code == signal.SIGKILL else ""
        return f"{variant}: its process was ended by {_signal(-code)}{killed}"
    last = f" ({on_a_line(lines[-1])})" if lines and code else ""
    return f"{variant}: its process ended with code {code}{last}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Of a model's process: what it needs of `ours`. It has its files here, so it never asks the hub."""
    kept = {name: ours[name] for name in ours if name.startswith(NEEDED) and not SECRET.search(name)}
    code = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [code, kept.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
