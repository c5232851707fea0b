"""Disks that are too small, in turn as the checkout, DVC's cache, .scratch and the folder for temporary files.

Each is a tmpfs in a mount namespace of this process, with room for a part, drawn anew, of what is written there, under
the whole pipeline by stand-ins or under a real stage (`prepare`, and `base` of a small model).

The rule: a run either ends well or with exit code 1 and a message that says how much is free, without a traceback; what
then stands under an output's name is, to the byte, what an undisturbed project has there, and nothing half-written lies
beside it. With room made, the same command ends well, with no step by hand, and all outputs are those of the
undisturbed project, and so is what dvc.lock says (of a run in two parts, its entries stand in the order of the parts);
DVC's cache holds what its names say. Accepted is what ended well at once.
"""

import ctypes
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import kills, stand_ins
from benchmarks.breaking import Taken, Try
from benchmarks.breaking.kills import half_written
from tradeoffs.plumbing.errors import UserError

NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of unshare(2)
ROOM = 512 * 1024  # KiB: more than anything here takes
METHODS = ("lora",)
PLACES = {"checkout": ".", "cache": ".dvc/cache", "scratch": ".scratch", "temporary files": "temporary"}
STAGES = {"prepare": ("--dataset", "demo"), "base": ("--model", "demo")}
FREE = re.compile(r"MB free")
SMALL = {
    "sentences": 300,
    "vocabulary": 700,
    "hidden_size": 64,
    "intermediate_size": 64,
    "layers": 1,
}  # of models.demo.generate, where it has these


@dataclass(frozen=True)
class Work:
    """`calm`: a project in which `words` (of Python) were run undisturbed; `fresh`: before that."""

    name: str
    fresh: Path
    calm: Path
    words: Sequence[str]
    places: Sequence[str]


def tries(count: int, seed: int) -> Iterator[Try]:
    """Raises UserError where no file system can be mounted."""
    drawn = random.Random(seed)
    _own_mounts()
    with tempfile.TemporaryDirectory(prefix="disks-") as folder:
        works = [_pipeline(Path(folder))]
        works += [_stage(Path(folder), name) for name in (STAGES if count > 2 else ())]
        cases = [(work, place) for work in works for place in work.places]
        for number in range(count):
            work, place = cases[number % len(cases)]
            share = 0.0 if number < 2 else drawn.random()
            yield _try(work, place, share, Path(folder, f"try{number}"))


def _own_mounts() -> None:
    """What is mounted from here on is seen by this process and its children alone, and gone when they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS):
        raise UserError(f"disks: {os.strerror(ctypes.get_errno())}: run as root, where file systems can be mounted")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _pipeline(folder: Path) -> Work:
    fresh = folder / "fresh"
    kills.make(fresh, METHODS)
    return _worked("pipeline", fresh, ["-m", "tradeoffs.repro", "--jobs", "2"], list(PLACES))


def _stage(folder: Path, name: str) -> Work:
    fresh = folder / f"fresh-{name}"
    fresh.mkdir()
    for part in ("data/raw", "models/raw"):
        shutil.copytree(stand_ins.REPO / part, fresh / part)
    raw = yaml.load((stand_ins.REPO / "params.yaml").read_text(encoding="utf-8"), Loader=stand_ins.LOADER)
    made = raw["models"]["demo"]["generate"]
    made |= {key: value for key, value in SMALL.items() if key in made}
    (fresh / "params.yaml").write_text(yaml.dump(raw, Dumper=stand_ins.DUMPER, sort_keys=False))
    return _worked(name, fresh, ["-m", f"stages.{name}", *STAGES[name]], ["checkout", "scratch", "temporary files"])


def _worked(name: str, fresh: Path, words: Sequence[str], places: Sequence[str]) -> Work:
    for place in PLACES.values():
        (fresh / place).mkdir(parents=True, exist_ok=True)
    calm = shutil.copytree(fresh, fresh.with_name(f"calm-{name}"), symlinks=True)
    code, said = _run(words, calm)
    if code:
        raise UserError(f"{name}, undisturbed: exit code {code}\n{said[-2000:]}")
    return Work(name, fresh, calm, words, places)


def _run(words: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit code and all that it said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "TMPDIR": str(folder / "temporary")}
    if not (folder / "stages").is_dir():
        environment["PYTHONPATH"] = str(stand_ins.REPO)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def _try(work: Work, place: str, share: float, folder: Path) -> Try:
    what = f"{work.name}, {place} with {share:.3f} of the room that it takes"
    with _project(work, PLACES[place], share, folder) as make_room:
        code, said = _run(work.words, folder)
        if "Traceback" in said or code not in (0, 1):
            return Try(what, Taken.TRACEBACK, f"exit code {code}: {said[-1500:]}")
        if code and not FREE.search(said):
            return Try(what, Taken.TRACEBACK, f"it does not say what is full: {said[-1500:]}")
        if code and (wrong := _wrong(work, folder)):
            return Try(what, Taken.LOST, f"half-written: {', '.join(wrong)}")
        if not code and (differ := kills.differing(work.calm, folder)):
            return Try(what, Taken.SILENT, f"ended well, and differs in {', '.join(differ)}: {said[-500:]}")
        make_room()
        again, then = _run(work.words, folder)
        if again:
            return Try(what, Taken.MANUAL, f"with room, exit code {again}: {then[-1500:]}")
        if differ := [*_differing(work.calm, folder), *kills.damaged(folder), *half_written(folder)]:
            return Try(what, Taken.LOST, ", ".join(differ))
        return Try(what, Taken.REFUSED if code else Taken.ACCEPTED, said[-300:])


def _differing(calm: Path, folder: Path) -> list[str]:
    locks = [yaml.load((one / "dvc.lock").read_text(), Loader=stand_ins.LOADER) for one in (calm, folder) if _has(one)]
    same = len(locks) == 2 and locks[0] == locks[1]
    return [name for name in kills.differing(calm, folder) if not (name == "dvc.lock" and same)]


def _has(folder: Path) -> bool:
    return (folder / "dvc.lock").is_file()


def _wrong(work: Work, folder: Path) -> list[str]:
    """Files under names of outputs that are not what the undisturbed project has there."""
    theirs = kills.contents(work.calm)
    ours = kills.contents(folder)
    return [name for name, content in ours.items() if name != "dvc.lock" and theirs.get(name) != content]


@contextmanager
def _project(work: Work, place: str, share: float, folder: Path) -> Iterator[Callable[[], None]]:
    """A copy of the fresh project, one place of which is small; what it yields makes room there."""
    at = folder / place
    at.mkdir(parents=True)
    _mount(at, f"size={ROOM}k")
    try:
        shutil.copytree(work.fresh, folder, symlinks=True, dirs_exist_ok=True)
        used, needed = _kilobytes(work.fresh / place), _kilobytes(work.calm / place)
        _mount(at, f"remount,size={_taken(at) + 4 + int(share * max(0, needed - used))}k")
        yield lambda: _mount(at, f"remount,size={ROOM}k")
    finally:
        subprocess.run(["umount", str(at)], check=True)
        shutil.rmtree(folder)


def _mount(at: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(at)], check=True)


def _kilobytes(folder: Path) -> int:
    return sum(-(-path.lstat().st_size // 4096) * 4 for path in folder.rglob("*") if not path.is_dir())


def _taken(at: Path) -> int:
    """KiB of what is mounted there."""
    stat = os.statvfs(at)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize // 1024
