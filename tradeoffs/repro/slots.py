"""Which steps may run beside each other on this machine: by cores, memory and GPUs; nothing beside what is measured."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tradeoffs.common import cores
from tradeoffs.plumbing.errors import UserError

MEMORY_SHARE = 0.8  # of what is free at the beginning: the rest is for what grows, and for whoever works here
# Of `meta` in dvc.yaml; others are the user's own.
KEYS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "exclusive": ("true or false", lambda value: isinstance(value, bool)),
    "gpu": ("true, false or how many GPUs", lambda value: isinstance(value, int) and value >= 0),
    "memory_mb": ("a whole number of MB", lambda value: type(value) is int and value > 0),
}
VISIBLE = "CUDA_VISIBLE_DEVICES"
UNCOUNTED = ("dxg", "kfd")  # of CUDA in WSL, of ROCm: there is a GPU, and no file for each
# Of cgroups, 2 and 1: the limit, what is used of it, and the name of that part of it which is given back when needed.
LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Needs:
    """Of a step, by `meta` in dvc.yaml: whether it is measured, how many GPUs it takes, and the most memory in MB, by
    default what it took last time; None: not known."""

    exclusive: bool = False
    gpu: int = 0
    memory_mb: float | None = None

    @classmethod
    def of(cls, name: str, meta: Mapping[str, Any], memory_mb: float | None) -> "Needs":
        """Raises UserError where one of the KEYS has a value that it cannot have, or something like it stands there."""
        for key, value in meta.items():
            near = difflib.get_close_matches(key, KEYS, 1)
            if near and not (key in KEYS and KEYS[key][1](value)):
                raise UserError(
                    f"dvc.yaml: stages.{_stage(name)}.meta.{key}: expected {near[0]}: {KEYS[near[0]][0]}, got {value!r}"
                )
        return cls(bool(meta.get("exclusive")), int(meta.get("gpu", 0)), meta.get("memory_mb", memory_mb))


class Slots:
    """Up to `jobs` steps at a time on a machine of `count` cores, by default this one; each of the `devices`, as
    CUDA_VISIBLE_DEVICES names them, is for one at a time."""

    def __init__(
        self, jobs: int, devices: Sequence[str] = (), memory_mb: float | None = None, count: int | None = None
    ) -> None:
        self.jobs, self.devices = jobs, list(devices)
        self._cores = count or cores.usable()
        self._memory_mb = MEMORY_SHARE * free_mb() if memory_mb is None else memory_mb
        self._taken: dict[str, list[str]] = {}  # by step

    @property
    def gpu(self) -> bool:
        return bool(self.devices)

    def check(self, needs: Mapping[str, Needs]) -> None:
        """Raises UserError where a step needs more GPUs than there are; without any, steps run on the CPU."""
        for name, one in needs.items():
            if one.gpu > len(self.devices) > 0:
                raise UserError(
                    f"dvc.yaml: stages.{_stage(name)}.meta.gpu: {name} needs {one.gpu} GPUs, there are "
                    f"{len(self.devices)} ({', '.join(self.devices)}); ask for fewer (launch.gpus in params.yaml), or "
                    f"name more of this machine's in {VISIBLE}"
                )

    def side_by_side(self, needs: Needs) -> int:
        """How many steps that need the same run at a time, at most."""
        if self.gpu and needs.gpu:
            return max(1, min(self.jobs, len(self.devices) // needs.gpu))
        return 1 if needs.exclusive else self.jobs

    def alone(self, needs: Needs) -> bool:
        """Whether nothing runs beside it: nobody knows what memory it takes, or it is measured.

        What is measured on some of the GPUs may have its like beside it, on others.
        """
        with_others = 0 < needs.gpu < len(self.devices)
        return self.jobs == 1 or needs.memory_mb is None or (needs.exclusive and not with_others)

    def fits(self, needs: Needs, running: Iterable[Needs]) -> bool:
        """Whether it can start beside what is `running`. It always can where nothing is."""
        others = list(running)
        if not others:
            return True
        everyone = [needs, *others]
        if len(others) >= self.jobs or any(self.alone(one) for one in everyone):
            return False
        if len({one.exclusive for one in everyone}) > 1:
            return False
        if self.gpu and sum(one.gpu for one in everyone) > len(self.devices):
            return False
        return sum(one.memory_mb or 0.0 for one in everyone) <= self._memory_mb

    def take(self, name: str, needs: Needs) -> dict[str, str]:
        """Gives a step the GPUs that it needs until `release`: what its environment has to say of them."""
        if not (self.gpu and needs.gpu):
            return {}
        taken = {device for devices in self._taken.values() for device in devices}
        self._taken[name] = [device for device in self.devices if device not in taken][: needs.gpu]
        return {VISIBLE: ",".join(self._taken[name])}

    def release(self, name: str) -> None:
        self._taken.pop(name, None)

    def threads(self, needs: Needs, running: Sequence[Needs], waiting: Iterable[Needs]) -> int:
        """Its share of the cores, beside what is running and what of the `waiting` could run as well."""
        beside = [*running, needs]
        for one in waiting:
            if self.fits(one, beside):
                beside.append(one)
        return max(1, self._cores // len(beside))


def shares(needs: Mapping[str, Needs], slots: Slots) -> dict[str, float]:
    """The part of its own time that each step adds to the run: of those of one stage, some go on at a time.

    Raises UserError where one needs more GPUs than there are.
    """
    slots.check(needs)
    alike = Counter(map(_stage, needs))  # of all experiments
    return {name: 1 / min(slots.side_by_side(one), alike[_stage(name)]) for name, one in needs.items()}


def gpus(root: Path = Path("/dev")) -> list[str]:
    """The GPUs that steps may use, as CUDA_VISIBLE_DEVICES names them, of those that it lets the user have.

    Without asking a library, after which no fork could use one. Where they cannot be counted (UNCOUNTED) there is one,
    unless that variable names more.
    """
    count = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in root.glob("nvidia*"))
    if not count and not any((root / name).exists() for name in UNCOUNTED):
        return []
    named = os.environ.get(VISIBLE)
    if named is None:
        return [str(number) for number in range(count or 1)]
    found = []
    for entry in map(str.strip, named.split(",")):
        if not entry or entry.startswith("-") or (count and entry.isdecimal() and int(entry) >= count):
            break  # CUDA heeds nothing from the first on that it does not know
        found.append(entry)
    return list(dict.fromkeys(found))


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


def _stage(step: str) -> str:
    return step.partition("@")[0].rpartition("/")[2]
