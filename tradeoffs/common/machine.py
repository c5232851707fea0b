"""The machine that something is made or measured on: what `hardware` of run_info.json and data/cost.json says."""

import csv
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tradeoffs.common import cores

# nvidia-smi(1) needs no CUDA context, after which no fork could use a GPU.
ASK = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
FIELDS = ASK[1].partition("=")[2].split(",")
PATIENCE = 10.0  # seconds: a driver that hangs holds no run up
PASSED_ON = "TRADEOFFS_GPUS"  # in the environment: the host, and what nvidia-smi said on it
LIMITS = ("memory.max", "memory.limit_in_bytes")  # of control groups, version 2 and 1 (cgroups(7))
MIB, GB = 2**20, 1e9
# Of two numbers of GB on one machine: a kernel, a hypervisor or a driver keeps a little more or less for itself.
NEAR = 0.05
ROUNDED = 1.0  # of the machine's memory, which is told whole; a GPU's is told by tenths
Hardware = dict[str, Any]


def hardware() -> Hardware:
    """What this process may use. GB are 1e9 bytes.

    `machine`, `processor`, `cores`: how many it may use; `memory_gb`: of the machine, or what its control groups let it
    have, whole, since the kernel keeps a little more or less of it from start to start. Where there are NVIDIA's GPUs
    `gpus`, a `name`, `memory_gb` (unless the GPU shares the machine's) and `count` for each kind, and their `driver`.
    """
    found: Hardware = {"machine": platform.machine(), "processor": _processor(), "cores": cores.usable()}
    memory = memory_gb()
    found |= {} if memory is None else {"memory_gb": memory}
    kinds, driver = gpus()
    return found | ({"gpus": [dict(kind) for kind in kinds], "driver": driver} if kinds else {})


def used() -> Hardware:
    """The same with `threads`, how many of the cores a computation here takes: where that decides what is recorded."""
    return hardware() | {"threads": cores.threads()}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two are the same as far as both say: what an older version did not ask for is no difference, and a driver
    is no hardware.

    The same machine has the same processor, cores (and threads, where they count) and kinds of GPUs, as many of each,
    and as much memory: of the machine and of each GPU within 5 %, of the machine also within the whole GB that it is
    rounded to.
    """
    known = one.keys() & other.keys() - {"driver"}
    if "memory_gb" in known and ("gpus" in one) != ("gpus" in other):  # both were asked, and one has none
        return False
    return (bool(known) or one == other) and all(_alike(key, one[key], other[key]) for key in known)


def _alike(key: str, one: Any, other: Any, rounded: float = ROUNDED) -> bool:
    if key == "memory_gb":
        return abs(one - other) <= max(rounded, NEAR * max(one, other))
    if key == "gpus" and len(one) == len(other):
        return all(
            mine.keys() == its.keys() and all(_alike(name, mine[name], its[name], 0.0) for name in mine)
            for mine, its in zip(one, other, strict=True)
        )
    return bool(one == other)


def memory_gb(root: Path = Path("/")) -> int | None:
    """Memory that this process may use; None where the system does not tell. `root` holds proc/ and sys/."""
    try:
        every = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):
        return None
    for folder in cores.groups("memory", root):
        for name in LIMITS:
            try:
                every.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # not there, or `max`
                continue
    return max(1, round(min(every) / GB))


@cache
def gpus() -> tuple[tuple[Mapping[str, Any], ...], str]:
    """NVIDIA's GPUs of the machine by their kinds, and the driver; none where nvidia-smi is not there or fails.

    All of them, whatever CUDA_VISIBLE_DEVICES says: which one a step was given is no matter of the machine.
    """
    said = _passed_on()
    said = _asked() if said is None else said
    rows = [row for row in csv.reader(said.splitlines(), skipinitialspace=True) if len(row) == len(FIELDS)]
    counted = Counter((name, memory) for name, memory, _ in rows)
    kinds = [{"name": name, **_memory(memory), "count": count} for (name, memory), count in counted.items()]
    return tuple(kinds), rows[0][2].strip() if rows else ""


def pass_on() -> None:
    """Asks once for all processes on this machine that are started from here on, as the steps of a run are."""
    os.environ[PASSED_ON] = json.dumps([platform.node(), _asked()])
    gpus.cache_clear()


def _passed_on() -> str | None:
    """What nvidia-smi said to the process that started this one; None if that did not ask, or on another machine."""
    try:
        host, said = json.loads(os.environ.get(PASSED_ON, ""))
    except (ValueError, TypeError):
        return None
    return said if host == platform.node() and isinstance(said, str) else None


def _asked() -> str:
    """What nvidia-smi says, a line for each GPU; "" where it is not there, fails, or does not answer, which is said."""
    try:
        process = subprocess.Popen(ASK, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace")
    except OSError:
        return ""
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()  # without waiting for its end: who waits for a driver may end by no signal
        print(f"note: {ASK[0]} has not answered for {PATIENCE:g} s (a driver that hangs?): no GPU is recorded")
        return ""
    return said if process.returncode == 0 else ""


def _memory(mebibytes: str) -> dict[str, float]:
    """`[N/A]` of a GPU that has none of its own."""
    try:
        return {"memory_gb": round(float(mebibytes) * MIB / GB, 1)}
    except ValueError:
        return {}


def _processor() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return names[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        return platform.processor()
