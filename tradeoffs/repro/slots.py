"""Which steps may run beside each other on this machine: by cores, memory and GPU; nothing beside what is measured."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tradeoffs.common import cores
from tradeoffs.plumbing.errors import UserError

MEMORY_SHARE = 0.8  # of what is free at the beginning: the rest is for what grows, and for whoever works here
KEYS = ("exclusive", "gpu")  # of `meta` in dvc.yaml; others are the user's own
GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of CUDA, of CUDA in WSL, of ROCm
# Of cgroups, 2 and 1: the limit, what is used of it, and the name of that part of it which is given back when needed.
LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Needs:
    """Of a step: by `meta` in dvc.yaml, and the most memory that it took last time, in MB; None: not known."""

    exclusive: bool = False
    gpu: bool = False
    memory_mb: float | None = None

    @classmethod
    def of(cls, name: str, meta: Mapping[str, object], memory_mb: float | None) -> "Needs":
        """Raises UserError where it is not said whether it is exclusive or needs a GPU, but something like it."""
        for key, value in meta.items():
            wrong = not isinstance(value, bool) if key in KEYS else difflib.get_close_matches(key, KEYS)
            if wrong:
                stage = name.partition("@")[0]
                raise UserError(
                    f"dvc.yaml: stages.{stage}.meta.{key}: expected exclusive or gpu, each true or false, got {value!r}"
                )
        return cls(bool(meta.get("exclusive")), bool(meta.get("gpu")), memory_mb)


class Slots:
    """Up to `jobs` steps at a time; with a GPU, one at a time of those that use it."""

    def __init__(self, jobs: int, gpu: bool, memory_mb: float | None = None) -> None:
        self.jobs, self.gpu = jobs, gpu
        self._memory_mb = MEMORY_SHARE * free_mb() if memory_mb is None else memory_mb

    def alone(self, needs: Needs) -> bool:
        """Whether nothing runs beside it: it is measured, or nobody knows what memory it takes."""
        return self.jobs == 1 or needs.exclusive or needs.memory_mb is None

    def fits(self, needs: Needs, running: Iterable[Needs]) -> bool:
        """Whether it can start beside what is `running`. It always can where nothing is."""
        others = list(running)
        if not others:
            return True
        if len(others) >= self.jobs or any(self.alone(one) for one in (needs, *others)):
            return False
        if self.gpu and needs.gpu and any(one.gpu for one in others):
            return False
        return sum(one.memory_mb or 0.0 for one in (needs, *others)) <= self._memory_mb

    def threads(self, needs: Needs, running: Sequence[Needs], waiting: Iterable[Needs]) -> int:
        """Its share of the cores, beside what is running and what of the `waiting` could run as well."""
        beside = [*running, needs]
        for one in waiting:
            if self.fits(one, beside):
                beside.append(one)
        return max(1, cores.usable() // len(beside))


def shares(needs: Mapping[str, Needs], jobs: int, gpu: bool) -> dict[str, float]:
    """The part of its own time that each step adds to the run: of those of one stage, `jobs` go on at a time."""
    stages = {name: name.partition("@")[0].rpartition("/")[2] for name in needs}  # of all experiments
    alike = Counter(stages.values())
    alone = {name for name, one in needs.items() if one.exclusive or (gpu and one.gpu)}
    return {name: 1.0 if name in alone else 1 / min(jobs, alike[stages[name]]) for name in needs}


def has_gpu() -> bool:
    """Without asking a library, after which no fork could use it."""
    return any(Path(device).exists() for device in GPUS)


def free_mb(root: Path = Path("/")) -> float:
    """Memory that nobody uses: of the machine, or of a control group (a container, a batch job) that has less."""
    free = [psutil.virtual_memory().available]
    for folder in cores.groups("memory", root):
        for limit, used, given_back in LIMITS:
            try:
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                free.append(max(0, left + int(stat.get(given_back, 0))))
            except (OSError, ValueError):  # not there, or `max`
                continue
    return min(free) / 1e6
