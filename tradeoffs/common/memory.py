"""Resident memory of this process: the most so far, and now."""

import resource
import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """Most resident memory so far, in 1e6 bytes.

    From VmHWM of proc_pid_status(5) where there is one: ru_maxrss of getrusage(2) survives exec, so a small process
    started by a large one would report the large one's.
    """
    return _status_mb("VmHWM") or _most_mb()


def resident_mb() -> float:
    """Resident memory now, in 1e6 bytes; the most so far where there is no /proc (macOS)."""
    return _status_mb("VmRSS") or _most_mb()


def _status_mb(name: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6
    except (OSError, StopIteration):
        return None


def _most_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
