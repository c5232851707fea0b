"""What an evaluation has finished so far, kept until the whole is: killed half-way, the next run goes on from there."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tradeoffs.common import files

# Git ignores it, and DVC does not know of it: `persist` outputs would turn its run cache off.
FOLDER = Path(".scratch/unfinished")


class Unfinished:
    """The finished parts of one piece of work, each a file that is there whole or not at all.

    They belong to `name`, to the state of the files at `inputs`, to `settings`, to this machine, its libraries and the
    code: when one of these is another, they are thrown away.
    """

    def __init__(self, name: str, schema: pa.Schema, inputs: Iterable[Path], *settings: object):
        self.schema = schema
        self.folder = workplace(f"evaluate/{name}", inputs, *settings)
        found = len(list(self.folder.glob("[!.]*.parquet")))
        if found:
            print(f"{name}: an earlier run was cut short; going on after its {found} finished parts")

    def part(self, name: str, work: Callable[[], list[dict]], gpu_clock: Callable | None = None) -> dict[str, float]:
        """Lets `work` make the rows of a part, unless they are there already; the seconds that it took, or had taken.

        `wall` and `cpu`, and `gpu` where `gpu_clock` (of a Runtime) gives one.
        """
        path = self._path(name)
        if not self.has(name):
            wall, cpu, gpu = time.perf_counter(), time.process_time(), gpu_clock() if gpu_clock else None
            rows = work()
            seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            if gpu is not None:
                seconds["gpu"] = gpu()
            files.write_table(path, rows, self.schema.with_metadata({"seconds": json.dumps(seconds)}))
        return self.seconds(name)

    def seconds(self, name: str) -> dict[str, float]:
        """What a finished part took, by clock."""
        found: dict[str, float] = json.loads(pq.read_schema(self._path(name)).metadata[b"seconds"])
        return found

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def read(self, name: str) -> list[dict]:
        """The rows of a finished part."""
        return files.read_table(self._path(name))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def remove(self) -> None:
        remove(str(self.folder.parent.relative_to(FOLDER)))


def workplace(name: str, inputs: Iterable[Path], *settings: object, first: bool = True) -> Path:
    """The folder for unfinished work on `name`, by all that decides its result; what is left of other work is removed.

    Of several processes that share it only the `first` removes.
    """
    folder = FOLDER / name / _key(inputs, settings)
    for other in folder.parent.glob("*") if first else ():
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove(name: str) -> None:
    """Removes what was kept of `name`, whose results are there; killed in between, no half is left to go on from."""
    folder = FOLDER / name
    if folder.is_dir():
        gone = folder.rename(folder.with_name(f".{folder.name}.removed"))
        shutil.rmtree(gone)


def own_code() -> set[Path]:
    """The project's own files that this process runs; a stage itself is the module __main__."""
    package = Path(__file__).parents[1]
    rooms = tuple(f"{room}{os.sep}" for room in (package, package.with_name("stages")))
    # As text: a process has thousands of modules, and this is asked before every training and evaluation.
    loaded = {str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}
    return {Path(file) for file in loaded if file.startswith(rooms)}


def _key(inputs: Iterable[Path], settings: tuple[object, ...]) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(repr(files.run_info()).encode())
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found = file.stat()
            digest.update(f"{file} {found.st_size} {found.st_mtime_ns}".encode())
    for file in sorted(own_code()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
