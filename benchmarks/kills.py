"""Whether a run that is killed at any moment is made whole by starting it again, and by nothing else.

    python -m benchmarks.kills [--quick]

Fifty times a parameter is changed and `python -m tradeoffs.repro` started; at a random moment the run, or the process
of a step, gets SIGKILL; then the run is started again until it ends well. Outputs and dvc.lock are compared, byte by
byte, with those of a second project in which the same parameters were run undisturbed. Stages are stand-ins: each
writes, in parts and by a worker in a session of its own, what follows from what it declares to read. A quick run kills
five times.
"""

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import yaml

from benchmarks import common, stand_ins
from benchmarks.common import SCRATCH
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import runner

KILLS, QUICK = 50, 5
RUN = "run"
SEED = 7
METHODS = ("lora", "base", "full")  # quick, two of them
# What is changed: all steps follow from the first, fewer from each after it.
PARAMS = ("seed", "train.steps", "methods.lora.config.r", "evaluate.max_new_tokens")
MADE = ("data", "models", "metrics", "plots", "report")
OWN = "metrics/times.json"  # the run's own times, which differ
MOST_RUNS = 5  # after a kill: whoever needs more does not end
PATIENCE = 10.0  # seconds that what is left has to end
STEP = re.compile(r"^\[(\d+)/(\d+)\]", re.MULTILINE)

STAGE = '''
import hashlib, json, os, shutil, subprocess, sys
from pathlib import Path
import yaml
from tradeoffs.plumbing import cli, clock, held

WORKER = """
import json, sys, time
from pathlib import Path
work = json.load(sys.stdin)
try:
    for name, content in work:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with open(name, "w") as file:
            for part in (content[:99], content[99:]):
                file.write(part)
                file.flush()
                time.sleep(0.025 / len(work))
except OSError as error:
    sys.exit(error.errno)
"""
PARTS = ["train.parquet", "valid.parquet", "pairs.parquet", "train.jsonl", "test.jsonl", "content"]
given = dict(zip((word.removeprefix("--") for word in sys.argv[1::2]), sys.argv[2::2]))

with cli.explained(), held.alone({name!r}, given.values()), clock.stage({name!r}):
    read = hashlib.sha256()
    params = yaml.load(Path("params.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    given.setdefault("seed", str(params["run"]["seeds"][0]))
    for key in {params!r}:
        value = params
        for part in key.format(**given).split("."):
            value = value[part]
        read.update(json.dumps([key, value]).encode())
    for root in (Path(dep.format(**given)) for dep in {deps!r}):
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file():
                read.update(str(path).encode() + path.read_bytes())
    outs = [Path(out.format(**given)) for out in {outs!r}]
    names = [str(name) for out in outs for name in ([out] if out.suffix else [out / part for part in PARTS])]
    work = [(name, 9 * hashlib.sha256(name.encode() + read.digest()).hexdigest()) for name in names]
    worker = [sys.executable, "-IS", "-c", WORKER]
    code = subprocess.run(worker, input=json.dumps(work), text=True, start_new_session=True).returncode
    if code:
        for out in outs:
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        raise OSError(code, os.strerror(code)) if code > 0 else SystemExit(1)
'''


@dataclass(frozen=True)
class Kill:
    """One that hit: the run, or a step of which sort; after how many seconds; how many of the steps had begun.

    `runs`: started until one ended well. `differ`: files that are not those of the undisturbed project; `left`:
    processes that were at work in the folder after that.
    """

    of: str
    seconds: float
    begun: int
    steps: int
    runs: int
    differ: list[str]
    left: int

    @property
    def phase(self) -> str:
        if not self.begun:
            return "before the first step"
        if self.begun == self.steps:
            return "in the last step or after it"
        return f"{('first', 'second', 'last')[3 * self.begun // self.steps]} third of the steps"


@dataclass
class Found:
    kills: list[Kill] = field(default_factory=list)
    too_late: int = 0  # the run, or the step, had ended
    damaged: list[str] = field(default_factory=list)  # files in DVC's cache that do not hold what their names say


def main(arguments: Namespace) -> None:
    folder = SCRATCH / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    found = tried(folder, QUICK, METHODS[:2]) if arguments.quick else tried(folder, KILLS, METHODS)
    shutil.rmtree(folder)
    common.write(
        "kills",
        None,
        None,
        {
            "rounds_that_differ": sum(bool(kill.differ) for kill in found.kills),
            "runs_after_a_kill": max(kill.runs for kill in found.kills),
            "processes_left": sum(kill.left for kill in found.kills),
            "damaged_in_the_cache": len(found.damaged),
        },
        quick=arguments.quick,
        at_most={
            "rounds_that_differ": 0,
            "runs_after_a_kill": 1,
            "processes_left": 0,
            "damaged_in_the_cache": 0,
        },
        kills_of=Counter(kill.of for kill in found.kills),
        too_late=found.too_late,
        moments=Counter(kill.phase for kill in found.kills),
        kills=[asdict(kill) for kill in found.kills],
        damaged=found.damaged,
        compared="outputs and dvc.lock, byte by byte, with those of an undisturbed run for the same parameters, after "
        "each kill and the runs that followed it",
    )


def tried(folder: Path, count: int, methods: Sequence[str]) -> Found:
    """`count` kills that hit, in projects made in `folder`. Raises UserError where a run that nobody kills fails."""
    drawn, found = random.Random(SEED), Found()
    calm, killed = folder / "calm", folder / "killed"
    make(calm, methods)
    undisturbed(calm)
    shutil.copytree(calm, killed, symlinks=True)
    number = 0
    while len(found.kills) < count:
        number += 1
        if found.too_late > 3 * count:
            raise UserError(f"{found.too_late} kills came too late and {len(found.kills)} did not")
        key = drawn.choice(PARAMS)
        for project in (calm, killed):
            change(project, key, number)
        first, last = undisturbed(calm)
        of_the_run = drawn.random() < 0.5
        after = drawn.uniform(0.0 if of_the_run else first, last)
        hit = kill(killed, of_the_run, after, drawn)
        runs = runs_until_done(killed) if hit else 0
        differ = differing(calm, killed)
        if hit is None and differ:
            raise UserError(f"a run that nobody killed differs in {', '.join(differ)}")
        if hit is None:
            found.too_late += 1
            continue
        of, begun, steps = hit
        found.kills.append(Kill(of, after, begun, steps, runs, differ, left(killed)))
        print(f"{len(found.kills)}: {key}: {found.kills[-1]}", flush=True)
    found.damaged = damaged(killed)
    return found


def make(folder: Path, methods: Sequence[str]) -> None:
    """A project of which nothing has run: the real dvc.yaml, whose commands find stand-ins."""
    folder.mkdir(parents=True)
    stand_ins.make(folder, methods=list(methods), precisions=["bf16"], quants=["q8_0"])
    raw = yaml.load((stand_ins.REPO / "dvc.yaml").read_text(encoding="utf-8"), Loader=stand_ins.LOADER)
    stages = raw["stages"]
    (folder / "dvc.yaml").write_text(yaml.dump({"stages": stages}, Dumper=stand_ins.DUMPER, sort_keys=False))
    for name, stage in stages.items():
        if name == "settings":  # as it is: what it writes decides what else runs
            continue
        deps = [dep for dep in stage["deps"] if dep.startswith(("data/", "models/", "metrics/"))]
        lists = {"outs": [*stand_ins.outs(stage)], "deps": deps, "params": stage.get("params", [])}
        text = STAGE.replace("{name!r}", repr(name))
        for kind, templates in lists.items():
            text = text.replace(f"{{{kind}!r}}", repr([_template(one) for one in templates]))
        (folder / "stages" / f"{name}.py").write_text(text)
    processes = folder / "tradeoffs/repro/processes.py"  # forks there are, of a process that has no libraries to load
    text = re.sub(
        r"^(LIBRARIES|WITHOUT_GPU) = \[.*\]$", r"\1: list[str] = []", processes.read_text(), flags=re.MULTILINE
    )
    processes.write_text(text)
    call(["dvc", "init", "--no-scm", "--quiet"], folder)


def _template(text: str) -> str:
    """One of dvc.yaml as `str.format` has it, with a stage's options as names."""
    return re.sub(r"\$\{item\.(\w+)\}", r"{\1}", text).replace("${run.seeds[0]}", "{seed}")


def change(folder: Path, key: str, number: int) -> None:
    """Gives a parameter a value that it never had: as many more as `number` than the first."""
    path = folder / "params.yaml"
    raw = yaml.load(path.read_text(encoding="utf-8"), Loader=stand_ins.LOADER)
    first = yaml.load((stand_ins.REPO / "params.yaml").read_text(encoding="utf-8"), Loader=stand_ins.LOADER)
    *sections, last = key.split(".")
    inner = raw
    for section in sections:
        inner, first = inner[section], first[section]
    inner[last] = first[last] + number
    path.write_text(yaml.dump(raw, Dumper=stand_ins.DUMPER, sort_keys=False))


def undisturbed(folder: Path) -> tuple[float, float]:
    """Seconds after which the first step of a run began, and after which the run ended."""
    begun = time.monotonic()
    run, first = start(folder), None
    while run.poll() is None:
        first = first or (time.monotonic() - begun if said(folder)[0] else None)
        time.sleep(0.01)
    last = time.monotonic() - begun
    if run.returncode:
        raise UserError(f"a run that nobody killed: exit code {run.returncode}\n{log(folder)[-2000:]}")
    return first or last, last


def kill(folder: Path, of_the_run: bool, after: float, drawn: random.Random) -> tuple[str, int, int] | None:
    """Kills a run so many seconds after its start, or a step that is running then or next: what it was, steps begun, of
    how many. None where that had ended."""
    run = start(folder)
    with suppress(subprocess.TimeoutExpired):
        run.wait(after)
    of = RUN if of_the_run else ""
    while not of and run.poll() is None:
        if running := list(steps_of(run.pid)):
            of, step = drawn.choice(running)
            with suppress(psutil.Error):  # it has ended: the run will end well
                step.kill()
        time.sleep(0.001)
    steps = said(folder)
    if of == RUN:
        run.kill()
    return (of, *steps) if run.wait() else None


def steps_of(pid: int) -> Iterator[tuple[str, psutil.Process]]:
    """The own process of each step that a run has started: a command, or a fork of its server."""
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children():
            with suppress(psutil.Error):
                words = child.cmdline()
                if any("multiprocessing.forkserver" in word for word in words):
                    yield from (("step, a fork", fork) for fork in child.children())
                elif "-m" in words and any(word.startswith("stages.") for word in words):
                    yield "step, a command", child
                elif any("-m stages." in word for word in words):  # the shell of plain DVC
                    yield from (("step, a command", one) for one in child.children() or [child])


def runs_until_done(folder: Path) -> int:
    for count in range(1, MOST_RUNS + 1):
        if start(folder).wait() == 0:
            return count
        print(log(folder)[-2000:], flush=True)
    raise UserError(f"a run that was killed does not end well: started {MOST_RUNS} times\n{log(folder)[-2000:]}")


def start(folder: Path, serial: bool = False) -> subprocess.Popen[bytes]:
    """A run, or with `serial` that of plain DVC, as the leader of a group of its own."""
    words = ["dvc", "repro"] if serial else [runner.__package__, "--jobs", "3"]
    with (folder / "log").open("wb") as output:
        command = [sys.executable, "-m", *words]
        return subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=output, stderr=output, start_new_session=True
        )


def log(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace")


def said(folder: Path) -> tuple[int, int]:
    """How many steps have begun, and of how many, as a run has said."""
    found = STEP.findall(log(folder))
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def call(module: list[str], folder: Path) -> None:
    subprocess.run([sys.executable, "-m", *module], cwd=folder, env=_environment(), check=True)


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def differing(calm: Path, killed: Path) -> list[str]:
    """Files that are not the same in both projects, or only in one."""
    ours, theirs = contents(killed), contents(calm)
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for name in MADE for path in (folder / name).rglob("*") if path.is_file()]
    lock = folder / "dvc.lock"
    paths += [lock] if lock.exists() else []
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    found.pop(OWN, None)
    return found


def left(folder: Path) -> int:
    """How many processes work in the folder, and do not end."""
    end = time.monotonic() + PATIENCE
    while (count := sum(_works_in(process, folder) for process in psutil.process_iter())) and time.monotonic() < end:
        time.sleep(0.01)
    return count


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error, OSError):
        return Path(process.cwd()) == folder.resolve()
    return False


def damaged(folder: Path) -> list[str]:
    """Files of DVC's cache whose MD5 is not their name."""
    found = []
    for path in (folder / ".dvc/cache/files/md5").rglob("*"):
        name = f"{path.parent.name}{path.name}".removesuffix(".dir")
        if path.is_file() and hashlib.md5(path.read_bytes()).hexdigest() != name:
            found.append(str(path.relative_to(folder)))
    return found


if __name__ == "__main__":
    common.run(main)
