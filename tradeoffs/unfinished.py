"""What an evaluation has finished so far, kept until the whole is: killed half-way, the next run goes on from there."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tradeoffs import files

# Git ignores it, and DVC does not know of it: `persist` outputs would turn its run cache off.
FOLDER = Path(".scratch/unfinished")


@dataclass(frozen=True)
class Part:
    """Rows of a finished part, and the seconds it took: `wall`, `cpu`, and `gpu` where one was used."""

    rows: list[dict]
    seconds: dict[str, float]


class Unfinished:
    """The finished parts of one piece of work, each a file that is there whole or not at all.

    They belong to `name`, to the state of the files at `inputs` and to `settings`, and to the code that made them: when
    one of these is another, they are thrown away.
    """

    def __init__(self, name: str, schema: pa.Schema, inputs: Iterable[Path], *settings: object):
        self.schema = schema
        self.folder = FOLDER / name / _key(inputs, settings)
        for other in (FOLDER / name).glob("*"):
            if other != self.folder:
                shutil.rmtree(other)
        self.folder.mkdir(parents=True, exist_ok=True)
        found = len(list(self.folder.glob("[!.]*.parquet")))
        if found:
            print(f"{name}: an earlier run was cut short; going on after its {found} finished parts")

    def part(self, name: str, work: Callable[[], list[dict]], gpu_clock: Callable | None = None) -> Part:
        """Rows that `work` makes, unless this part is there already. `gpu_clock` is that of a Runtime."""
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            wall, cpu, gpu = time.perf_counter(), time.process_time(), gpu_clock() if gpu_clock else None
            rows = work()
            seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            if gpu is not None:
                seconds["gpu"] = gpu()
            files.write_table(path, rows, self.schema.with_metadata({"seconds": json.dumps(seconds)}))
        # Read also where it was just written, so that a part is the same to the last digit either way.
        return Part(self.read(name), json.loads(pq.read_schema(path).metadata[b"seconds"]))

    def read(self, name: str) -> list[dict]:
        return files.read_table(self.folder / f"{name}.parquet")

    def remove(self) -> None:
        shutil.rmtree(self.folder.parent)


def _key(inputs: Iterable[Path], settings: tuple[object, ...]) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(repr(files.run_info()).encode())
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found = file.stat()
            digest.update(f"{file} {found.st_size} {found.st_mtime_ns}".encode())
    for name, module in sorted(sys.modules.items()):
        if name.startswith("tradeoffs.") and module.__file__:
            digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]
