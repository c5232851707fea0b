"""Where a stage's time goes: start-up (interpreter and imports), loading, work.

    python -m tradeoffs.plumbing.clock          the table of the last run's stages; `make run` prints it at its end

Every stage adds one line to a git-ignored log, which this reads. It is no output of the pipeline: times differ from run
to run.
"""

import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Literal

from tradeoffs.common import cores
from tradeoffs.common.memory import peak_memory_mb

LOG = Path(".scratch/times.jsonl")
_phases: dict[str, float] = {}


@contextmanager
def phase(name: Literal["startup", "loading"]) -> Iterator[None]:
    """Counts the time inside as `name`, not as work: a heavy import that only some cells need, or loading weights."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        _phases[name] = _phases.get(name, 0.0) + time.perf_counter() - begun


def loading() -> AbstractContextManager[None]:
    """Counts the time inside as loading (weights, tokenizers)."""
    return phase("loading")


def seconds_since_start() -> float:
    """Age of this process in seconds, from the kernel's own record, so that the interpreter's start is counted too."""
    try:
        fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc_pid_stat(5): starttime
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, IndexError):  # no Linux: from the first import on
        return time.perf_counter() - _IMPORTED


_IMPORTED = time.perf_counter()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Writes the times of one stage to the log when it has succeeded; enter it when the imports are done."""
    _phases.clear()
    _phases.update(startup=seconds_since_start(), loading=0.0)
    yield
    total = seconds_since_start()
    row = {
        "stage": name,
        "step": os.environ.get("DVC_STAGE", ""),
        **_phases,
        "work": total - sum(_phases.values()),
        "cpu": time.process_time(),
        "peak_mb": peak_memory_mb(),
    }
    add(json.dumps(row) + "\n")


def add(lines: str) -> None:
    """Puts lines into the log: of a stage that has ended, here or on another machine.

    Where they do not fit the times are lost, and that is said: what the stage has made stands.
    """
    try:
        LOG.parent.mkdir(exist_ok=True)
        _append(lines.encode())
    except OSError as error:
        print(f"note: {LOG}: {error.strerror}: the times of this stage are not kept", file=sys.stderr)


def _append(lines: bytes) -> None:
    """All of them or none: half a line would be no line, and the next would stand in it.

    One at a time, since what is cut off must not be another's.
    """
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # a file system that has no locks
            fcntl.flock(log, fcntl.LOCK_EX)
        before = os.fstat(log).st_size
        written = os.write(log, lines)
        if written < len(lines):
            os.ftruncate(log, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(LOG))
    finally:
        os.close(log)


def peak_mb(step: str) -> float | None:
    """Most memory of the step of this name, as DVC has it, if it is in the log."""
    mark = f'"step": {json.dumps(step)},'
    return next((json.loads(row)["peak_mb"] for row in reversed(_rows()) if mark in row), None)


def _rows() -> list[str]:
    """The whole lines of the log: of one that a kill or a full disk has cut short, nothing is known."""
    rows = LOG.read_text(encoding="utf-8").splitlines() if LOG.exists() else []
    return [row for row in rows if row.startswith("{") and row.endswith("}") and row.count("{") == 1]


def table(wall: float | None = None, dvc: float = 0.0, count: int = 0) -> str:
    """The log as a table: per stage how many cells ran, seconds of start-up, loading and work, largest peak memory.

    `wall` is the whole run's seconds, `dvc` what went into DVC (hashing, caching, locking): then it also says how well
    the cores were used, `count` of them (0: those of this machine). Cells that ran side by side count one by one, so
    their seconds may add up to more.
    """
    rows = [json.loads(row) for row in _rows()]
    if not rows:
        return "Every stage was up to date: nothing ran."
    lines = [f"{'stage':<14}{'runs':>5}{'start-up':>10}{'loading':>9}{'work':>8}{'total':>8}{'peak MB':>9}"]
    sums = {"startup": 0.0, "loading": 0.0, "work": 0.0}
    for name in dict.fromkeys(row["stage"] for row in rows):
        mine = [row for row in rows if row["stage"] == name]
        part = {key: sum(row[key] for row in mine) for key in sums}
        sums = {key: sums[key] + part[key] for key in sums}
        lines.append(_line(name, len(mine), part, max(row["peak_mb"] for row in mine)))
    lines.append(_line("all stages", len(rows), sums, max(row["peak_mb"] for row in rows)))
    whole = sum(sums.values())
    if wall:
        lines.append(f"{'DVC itself':<14}{'':>5}{'':>10}{'':>9}{'':>8}{dvc:>7.1f}s")
        count = count or cores.usable()
        used = sum(row["cpu"] for row in rows) / (wall * count)
        lines.append(f"whole run {wall:.0f} s, with {used:.0%} of {count} cores busy")
    lines.append(f"start-up is {sums['startup'] / whole:.0%} of the time of stages")
    return "\n".join(lines)


def _line(name: str, runs: int, part: dict[str, float], peak: float) -> str:
    total = sum(part.values())
    seconds = f"{part['startup']:>9.1f}s{part['loading']:>8.1f}s{part['work']:>7.1f}s{total:>7.1f}s"
    return f"{name:<14}{runs:>5}{seconds}{peak:>9.0f}"


def main() -> None:
    print(table())


if __name__ == "__main__":
    from tradeoffs.plumbing import cli  # which imports this module

    cli.command(main)
