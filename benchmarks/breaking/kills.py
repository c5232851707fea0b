"""SIGKILL at random moments: to the driver, to a cell or to the whole group, by the runner and by serial `dvc repro`.

The rule: one more `python -m tradeoffs.repro` ends well and leaves outputs, and dvc.lock, that are to the byte those of
a second project in which the same parameters were run undisturbed; no file of DVC's cache holds other than its name
says, nothing half-written lies about, and no process is at work in the folder afterwards. Accepted is what meets it.
Every third kill of a serial driver waits for dvc.lock to be written, which plain DVC does in place.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks import kills
from benchmarks.breaking import Taken, Try
from tradeoffs.plumbing.errors import UserError

METHODS = ("lora",)
KINDS = [(by, of) for by in ("runner", "serial") for of in ("driver", "cell", "group")]
WRITING = 3  # one in so many kills of a serial driver is in the moment in which dvc.lock is written
TOO_LATE = 3  # times as many kills may come too late as there are tries


def tries(count: int, seed: int) -> Iterator[Try]:
    drawn, late, number = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        calm, killed = Path(place, "calm"), Path(place, "killed")
        kills.make(calm, METHODS)
        kills.undisturbed(calm)
        shutil.copytree(calm, killed, symlinks=True)
        done = 0
        while done < count:
            number += 1
            if late > TOO_LATE * count + 10:
                raise UserError(f"{late} kills came too late and {done} did not")
            by, of = KINDS[done % len(KINDS)]
            in_writing = (by, of) == ("serial", "driver") and (done // len(KINDS)) % WRITING == 0
            one = _try(calm, killed, drawn, number, (by, of), in_writing)
            if one is None:
                late += 1
            else:
                done += 1
                yield one


def _try(
    calm: Path, killed: Path, drawn: random.Random, number: int, kind: tuple[str, str], in_writing: bool
) -> Try | None:
    """None where what was to be killed had ended; then the project is as it should be all the same."""
    key = drawn.choice(kills.PARAMS)
    for project in (calm, killed):
        kills.change(project, key, number)
    first, last = kills.undisturbed(calm)
    by, of = kind
    share = drawn.random()
    serial = by == "serial"
    run = kills.start(killed, serial)
    hit = _wait_for_the_lock(run, killed) if in_writing else _wait(run, share * last if of != "cell" else first)
    hit = hit and _kill(run, of, share, drawn)
    code = run.wait()
    if not hit or code == 0:
        kills.runs_until_done(killed)
        if differ := kills.differing(calm, killed):
            raise UserError(f"a run that nobody killed differs in {', '.join(differ)}")
        return None
    when = "while dvc.lock is written" if in_writing else f"after {share:.3f} of the time"
    return Try(f"{number}: {key}, {of} of {by}, {when}", *_judged(calm, killed))


def _wait(run: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it is still at work after so long."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(seconds)
    return run.poll() is None


def _wait_for_the_lock(run: subprocess.Popen[bytes], folder: Path) -> bool:
    """Until dvc.lock is shorter than it was: it is being written in place. Whether that was seen."""
    lock = folder / "dvc.lock"
    size = lock.stat().st_size if lock.exists() else 0
    while run.poll() is None:
        for _ in range(1000):
            with suppress(OSError):
                now = lock.stat().st_size
                if now < size:
                    return True
                size = now
    return False


def _kill(run: subprocess.Popen[bytes], of: str, share: float, drawn: random.Random) -> bool:
    """Whether there was something to kill."""
    if of == "driver":
        run.kill()
    elif of == "group":
        os.killpg(run.pid, signal.SIGKILL)
    else:
        return _kill_cell(run, share, drawn)
    return True


def _kill_cell(run: subprocess.Popen[bytes], share: float, drawn: random.Random) -> bool:
    """One that runs after some others have: the share says how many are let go by."""
    seen: set[int] = set()
    while run.poll() is None:
        for _, step in kills.steps_of(run.pid):
            seen.add(step.pid)
            if len(seen) > 8 * share:
                time.sleep(0.1 * drawn.random())
                with suppress(psutil.Error):
                    step.kill()
                    return True
        time.sleep(0.002)
    return False


def _judged(calm: Path, killed: Path) -> tuple[Taken, str]:
    code = kills.start(killed).wait()
    said = kills.log(killed)[-600:]
    if "Traceback" in said:
        return Taken.TRACEBACK, said
    if code:
        kills.runs_until_done(killed)  # so that the next begins with a whole one
        return Taken.MANUAL, said
    if differ := kills.differing(calm, killed):
        return Taken.LOST, ", ".join(differ)
    if count := kills.left(killed):
        return Taken.MANUAL, f"{count} processes are still at work"
    if rest := [*kills.damaged(killed), *half_written(killed)]:
        return Taken.LOST, ", ".join(rest)
    return Taken.ACCEPTED, ""


def half_written(folder: Path) -> list[str]:
    """What our own writing leaves only when it is cut short, and must be gone when it was done again."""
    found = [path for name in kills.MADE for path in (folder / name).rglob("*unfinished*")]
    return [str(path.relative_to(folder)) for path in [*found, *folder.glob("*unfinished*")]]
