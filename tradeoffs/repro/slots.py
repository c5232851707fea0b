"""Which steps may run beside each other on this machine: by cores, memory and GPU; nothing beside what is measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from tradeoffs.common import cores
from tradeoffs.plumbing.errors import UserError

MEMORY_SHARE = 0.8  # of what is free at the beginning: the rest is for what grows, and for whoever works here


@dataclass(frozen=True)
class Needs:
    """Of a step: by `meta` in dvc.yaml, and the most memory that it took last time, in MB; None: not known."""

    exclusive: bool = False
    gpu: bool = False
    memory_mb: float | None = None

    @classmethod
    def of(cls, name: str, meta: Mapping[str, object], memory_mb: float | None) -> "Needs":
        """Raises UserError on a key or a value that means nothing here."""
        for key, value in meta.items():
            if key not in ("exclusive", "gpu") or not isinstance(value, bool):
                stage = name.partition("@")[0]
                raise UserError(
                    f"dvc.yaml: stages.{stage}.meta.{key}: expected exclusive or gpu, each true or false, got {value!r}"
                )
        return cls(bool(meta.get("exclusive")), bool(meta.get("gpu")), memory_mb)


class Slots:
    """Up to `jobs` steps at a time. With a GPU, one at a time of those that use it."""

    def __init__(self, jobs: int, has_gpu: bool, memory_mb: float | None = None) -> None:
        self.jobs, self._has_gpu = jobs, has_gpu
        self._memory_mb = MEMORY_SHARE * psutil.virtual_memory().available / 1e6 if memory_mb is None else memory_mb

    def threads(self, steps: int) -> int:
        """Of each of so many `steps` that could run now."""
        return max(1, cores.usable() // min(self.jobs, steps))

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
        if self._has_gpu and needs.gpu and any(one.gpu for one in others):
            return False
        return sum(one.memory_mb or 0.0 for one in (needs, *others)) <= self._memory_mb
