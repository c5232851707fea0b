"""How many cores this process may use: not all that the machine has, in a container or under a batch scheduler."""

import os
from collections.abc import Iterator
from pathlib import Path

SPINS, FEW = "GOMP_SPINCOUNT", "300"  # turns of libgomp's waiting before a thread sleeps


def usable(root: Path = Path("/")) -> int:
    """Cores that this process may run on (sched_setaffinity(2)), at most what its control groups pay for; at least 1.

    A quota of a core and a half is one: a second thread would be stopped half of the time, and the first wait for it.
    `root` holds proc/ and sys/; where there is no such thing (macOS, Windows), all cores count.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    return max(1, min([count, *(int(quota) for quota in _quotas(root))]))


def threads() -> int:
    """Of a computation in this process: as many as OMP_NUM_THREADS says, as other libraries; at most the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable(), int(asked)) if asked.isdecimal() and int(asked) else usable()


def wait_politely() -> None:
    """Lets OpenMP's threads that wait for each other give way soon, unless the user's environment says how they wait.

    libgomp's own 300,000 turns suit a machine that does nothing else. Beside a busy one a thread spins while the one it
    waits for has no core: a training takes four times as long, llama.cpp eight times; with this both take what is left
    of the cores. The price is up to a quarter more time on a machine that does nothing else. With more turns it is
    less, and so is what is left beside load (`benchmarks/beside_load.py`).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPINS, FEW)


def wait_as_libraries_do() -> None:
    """Takes that back for the processes started from here on: what is measured is alone on the machine."""
    if os.environ.get(SPINS) == FEW:
        del os.environ[SPINS]


def groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders of the control groups above this process that may limit what `controller` controls (cgroups(7))."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (f"sys/fs/cgroup/{name}" for name in ({controller, controllers} if controllers else {"", "unified"}))
        for mount in (root / name for name in mounts):
            group = mount / path.strip("/")
            # In a container the path may be that of the host: its own group is then what lies at the mount.
            for folder in (group, *group.parents):
                if not folder.is_relative_to(mount):
                    break
                yield folder


def _quotas(root: Path) -> list[float]:
    """Cores' worth of time that each control group above this process allows, of those that limit it."""
    found = groups("cpu", root)
    return [quota for folder in found for quota in (_version_2(folder), _version_1(folder)) if quota]


def _version_2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # not there, or `max`
        return None


def _version_1(folder: Path) -> float | None:
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None  # -1: no limit
