"""A process for each measurement.

A GGUF gets one that has imported numpy and llama_cpp alone: subprocess, since what multiprocessing starts also imports
the stage's own module and all that hangs on it. On a CPU a model of transformers gets a fork of a process that has
imported the heavy libraries and has done nothing else (multiprocessing's forkserver), so that a round costs no import.
With CUDA each is started afresh: a fork of a process that has touched a GPU cannot use it. One that measures on the CPU
beside it sees no GPU.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tradeoffs.common import cores
from tradeoffs.formats.names import CPU
from tradeoffs.measure import child
from tradeoffs.measure.work import Work
from tradeoffs.plumbing.errors import UserError

HEAVY = ["tradeoffs.measure.torch_things", "peft", "bitsandbytes", "accelerate"]
VISIBLE = "CUDA_VISIBLE_DEVICES"
LAST = 2000  # characters of what a process that failed had to say


def gpu() -> str | None:
    """The name of the CUDA GPU, if there is one; asked here, since those who fork must not have asked."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def prepare(more: Sequence[str]) -> None:
    """To be called first. The process that others are forked from will import HEAVY, and `more`."""
    cores.wait_as_libraries_do()
    multiprocessing.get_context("forkserver").set_forkserver_preload([*HEAVY, *more])


def measure(work: Work, name: str, afresh: bool) -> dict[str, Any]:
    """What a process of its own finds of this work; `afresh`: one that is no fork.

    Raises UserError with its message if it fails.
    """
    text = _afresh(work, name) if afresh or "gguf" in work.loaded else _forked(work, name)
    found = json.loads(text)
    if "error" in found:
        raise UserError(f"{name}: {found['error']}")
    return found


def _afresh(work: Work, name: str) -> str:
    code = str(Path(child.__file__).parents[2])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, "-m", child.__name__],
        input=work.as_json(),
        env=env | ({VISIBLE: ""} if work.on == CPU else {}),
        capture_output=True,
        text=True,
        errors="replace",
    )
    *notes, found = done.stdout.splitlines() or [""]
    if done.returncode != 0 or not found:
        raise _failed(name, done.returncode, done.stderr)
    for note in notes:
        print(note)
    return found


def _forked(work: Work, name: str) -> str:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile() as said:
        process = context.Process(target=_child, args=(work.as_json(), theirs, said.name))
        process.start()
        theirs.close()
        try:
            text: str = ours.recv()
        except EOFError:  # it ended without an answer
            process.join()
            raise _failed(name, int(process.exitcode or 0), said.read().decode(errors="replace")) from None
        process.join()
        return text


def _child(text: str, answer: Connection, said: str) -> None:
    """Progress bars and notes of libraries go to the file `said`: they would write over the stage's own bar."""
    with Path(said).open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    answer.send(child.measured(text))


def _failed(name: str, code: int, said: str) -> UserError:
    explained = [line.partition("error: ")[2] for line in said.splitlines() if line.startswith("error: ")]
    if code == 1 and explained:
        return UserError(f"{name}: {explained[-1]}")
    how = f"was ended by signal {-code} (9: there may have been no memory for it)" if code < 0 else "failed"
    return UserError(f"{name}: the process that measures it {how}\n{said[-LAST:]}".rstrip())
