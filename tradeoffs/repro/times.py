"""How long each step of the pipeline took, in metrics/times.json, and what follows from it for another run.

`make run` writes the file: all of it after a run of every step; after a shorter one what ran, if the machine is the
same. So all its times are of the one machine that it names.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from tradeoffs.common import files, machine
from tradeoffs.plumbing import clock

PATH = Path("metrics/times.json")
MEMORY = Path(".scratch/memory.json")
SLOWEST = 1 / 4  # of the speed that is kept: a machine that trains slower is taken for a busy one
SHORT = 30.0  # seconds: what takes less is not worth the two seconds of a calibration


@dataclass(frozen=True)
class Times:
    """`seconds` and most memory by the name that DVC has for a step; `hardware` as in run_info.json; `device` that it
    trains on.
    """

    hardware: dict[str, Any]
    device: str
    training_steps_per_second: float
    seconds: dict[str, float]
    peak_mb: dict[str, float] = field(default_factory=dict)

    def of(self, step: str) -> float | None:
        """Seconds of a step; of one that was not timed, the mean of its like. None where there is no such step."""
        if step in self.seconds:
            return self.seconds[step]
        kind = _kind(step)
        like = [took for name, took in self.seconds.items() if kind and _kind(name) == kind]
        return mean(like) if like else None


class Memory:
    """The most memory that steps took, in MB: as of the last run here, or else of that in metrics/times.json."""

    def __init__(self) -> None:
        before = read()
        self._peaks = dict(before.peak_mb) if before else {}
        self.seen: dict[str, float] = {}  # in this run
        with suppress(OSError, ValueError):
            self._peaks |= files.read_json(MEMORY)
        self._most: dict[str, float] = {}  # of what is alike
        for step, found in self._peaks.items():
            self._count(step, found)

    def of(self, step: str) -> float | None:
        """Of a step that never ran, the most of its like. None where there is no such step."""
        return self._peaks[step] if step in self._peaks else self._most.get(_kind(step))

    def learn(self, step: str) -> None:
        """A step has ended: what the log says of it counts from here on."""
        if found := clock.peak_mb(step):
            self._peaks[step] = self.seen[step] = found
            self._count(step, found)

    def keep(self) -> None:
        """For the next run here, also of what was not run to its end."""
        try:
            files.write_json(MEMORY, self._peaks)
        except OSError as error:  # what was made stands
            print(f"note: {MEMORY}: {error.strerror}: it is not kept how much memory steps took", file=sys.stderr)

    def _count(self, step: str, found: float) -> None:
        if kind := _kind(step):
            self._most[kind] = max(found, self._most.get(kind, 0.0))


def _kind(step: str) -> str:
    """What the steps of one stage, model and data set have in common; "" where nothing else is in the name."""
    stage, _, cell = step.partition("@")
    model, _, rest = cell.partition("-")
    dataset, _, rest = rest.partition("-")
    return f"{stage}@{model}-{dataset}" if rest else ""


def read() -> Times | None:
    """None if there is no such file, or if it holds something else (the marks of a merge)."""
    try:
        return Times(**files.read_json(PATH))
    except (OSError, ValueError, TypeError):
        return None


def hardware() -> dict[str, Any]:
    """Of this machine."""
    return machine.hardware()


def calibrated() -> tuple[float | None, str]:
    """Training steps per second here and now, and on which device, by a process of its own, in four seconds; two of
    them are imports. Where that fails (a GPU that others have filled), nothing is known of the machine."""
    command = [sys.executable, "-m", "tradeoffs.repro.calibration"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    rate, _, device = done.stdout.partition(" ")
    return (float(rate), device.strip()) if done.returncode == 0 else (None, "this device")


@dataclass(frozen=True)
class Estimate:
    """Of the `planned` steps among `every` one: `seconds` that each adds to the run, on this machine, of those that
    there are times of.

    `rate`, its training steps per second, is None where so little is to do that it was not measured; the machine then
    counts as one like that of the `times`. So does one that is `busy` with something else; where its load says so, the
    rate is None, too, and is not kept. Of another `device` nothing is known: the speed of a GPU says nothing of the
    steps that run on the CPU.
    """

    planned: Sequence[str]
    every: Sequence[str]
    times: Times | None
    rate: float | None
    device: str
    seconds: Mapping[str, float]
    busy: bool = False

    @property
    def whole(self) -> bool:
        return len(self.planned) == len(self.every)


def estimate(
    planned: Sequence[str], every: Sequence[str], share: Mapping[str, float], computes: bool = True
) -> Estimate:
    """What the `planned` steps among `every` one will take; of its own time a step adds `share` to that of the run.
    `computes`: whether any of them trains or is measured; how fast the machine does so says nothing of others."""
    times = read()
    known = {name: took for name in planned if times and (took := times.of(name)) is not None}
    short = len(known) == len(planned) < len(every) and sum(known.values()) < SHORT
    if short or not computes:
        rate, device = None, times.device if times else "this device"
    else:
        rate, device = calibrated()
    if times and times.device != device:
        known = {}
    loaded = bool(known) and os.getloadavg()[0] > (os.cpu_count() or 1)
    busy = loaded or bool(known and times and rate and rate < SLOWEST * times.training_steps_per_second)
    factor = times.training_steps_per_second / rate if times and rate and not busy else 1.0
    seconds = {name: took * share[name] * factor for name, took in known.items()}
    return Estimate(planned, every, times, None if loaded else rate, device, seconds, busy)


def keep(took: Mapping[str, float], memory: Memory, expected: Estimate) -> None:
    """Writes the times of a run: seconds and most memory of each step that ran. One that DVC took from its cache did
    not, and is none of them."""
    mine, there = hardware(), set(expected.every)
    if expected.rate and there == set(took):
        seconds, peaks, rate = {}, {}, expected.rate
    elif expected.times and machine.same(expected.times.hardware, mine) and expected.times.device == expected.device:
        seconds, peaks, rate = expected.times.seconds, expected.times.peak_mb, expected.times.training_steps_per_second
    else:
        return
    seconds = {name: round(found, 1) for name, found in sorted({**seconds, **took}.items()) if name in there}
    peaks = {name: round(found) for name, found in sorted({**peaks, **memory.seen}.items()) if name in there}
    files.write_json(PATH, asdict(Times(mine, expected.device, rate, seconds, peaks)))


def announcement(found: Estimate) -> list[str]:
    """What is to run, for how long, and what that is taken from."""
    kinds = Counter(name.partition("@")[0] for name in found.planned)
    named = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in kinds.items())
    lines = [f"{len(found.planned)} of {len(found.every)} steps to run: {named}."]
    untimed = len(found.planned) - len(found.seconds)
    if found.times is None or not found.seconds:
        known = f"{PATH} has no times of them on {found.device}; a run that ends writes it"
        return [*lines, f"How long that takes is not known: {known}."]
    spread = "at least" if untimed else "about" if found.whole else "at most about"
    why = f"; {untimed} of them were never timed" if untimed else ""
    lines.append(f"On this machine ({_named(hardware())}) {spread} {spoken(sum(found.seconds.values()))}{why}.")
    if found.busy:
        where = f"({_named(found.times.hardware)}); {PATH}"
        lines.append(f"The machine is busy: the estimate is that of a quiet one, where the steps were timed {where}")
    elif found.rate:
        theirs = found.times.training_steps_per_second
        factor = found.rate / theirs
        lines.append(
            f"It trains {found.rate:.0f} steps of a small network per second, {factor:.2g} times as many as where the "
            f"steps were timed ({_named(found.times.hardware)}: {theirs:.0f}); {PATH}"
        )
    return lines


def spoken(seconds: float) -> str:
    """Seconds as one says them: `40 s`, `12 min`, `1 h 5 min`."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _named(found: Mapping[str, Any]) -> str:
    return f"{found['processor']}, {found['cores']} cores"
