"""Peak resident memory of this process."""

import resource
import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """Most resident memory so far, in 1e6 bytes.

    From VmHWM of proc_pid_status(5) where there is one: ru_maxrss of getrusage(2) survives exec, so a small process
    started by a large one would report the large one's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1024 if sys.platform == "darwin" else 1  # bytes on macOS, KiB elsewhere
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    return kib * 1024 / 1e6
