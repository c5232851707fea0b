"""Reading and writing the pipeline's files: whole or not at all, finite numbers only."""

import hashlib
import json
import math
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from tradeoffs.common import machine
from tradeoffs.plumbing.errors import UserError

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "llama_cpp_python",
    "sentencepiece",
    "tokenizers",
)
BRING_BACK = "delete it: `dvc checkout` brings it back, or `dvc repro` makes it again"


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill; it becomes `path` when the block ends well and is removed when it does not."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    unfinished.rename(path)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A path to write to; the file becomes `path` when the block ends well and is removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: pyarrow, matplotlib and others choose the format by it.
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with new_file(path) as target:
        target.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """JSON with six significant digits. Raises ValueError on NaN or infinity: a metric is a number or it is absent."""
    write_text(path, json.dumps(rounded(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_facts(path: str | Path) -> dict[str, Any]:
    """What is known of an artefact. Raises UserError if the file is no JSON object."""
    try:
        found = read_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, no JSON ({error}); {BRING_BACK}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged, no JSON object; {BRING_BACK}")
    return found


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    with new_file(path) as target, target.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: str | Path) -> list[dict]:
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_table(path: str | Path, rows: list[dict], schema: Any) -> None:
    """Parquet with exactly the columns of `schema` (a pyarrow.Schema); a key that a row lacks is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with new_file(path) as target:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), target, compression="zstd")


def read_table(path: str | Path, columns: list[str] | None = None) -> list[dict]:
    """Rows of a Parquet file, of all its columns or of some."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=columns).to_pylist()


def must_exist(path: Path) -> None:
    """Raises UserError if a stage's output that the run list asks for is not there."""
    if not path.is_file():
        raise UserError(f"{path}: missing, though params.yaml (run) asks for it; run `dvc repro`, which makes it")


def remove_leftovers(
    wanted: Sequence[Path], only_kept_by_dvc: bool = False, named: Callable[[str], bool] = lambda name: True
) -> None:
    """Deletes what earlier, longer run lists left beside the `wanted` outputs of a folder: it cannot pass for a result.

    DVC keeps it in its cache: what comes back to the run list is checked out, not computed again. With
    `only_kept_by_dvc` that is looked up first, and what is not there stays: it may be work that nothing brings back.
    What is not `named` as an output stays too. Of a link the link goes, not what it leads to.
    """
    left = [path for path in sorted(wanted[0].parent.glob("[!.]*")) if path not in wanted and named(path.name)]
    cache = _dvc_cache() if left and only_kept_by_dvc else None
    for path in left:
        if only_kept_by_dvc and not (cache and _is_kept(path, cache)):
            print(f"note: {path}: not in the run list, and not in DVC's cache, so it stays")
            continue
        print(f"removed {path}: not in the run list")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _dvc_cache() -> Path | None:
    """Where DVC keeps the content of files, by their MD5; None without DVC."""
    try:
        said = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return Path(said.strip(), "files", "md5")


def _is_kept(path: Path, cache: Path) -> bool:
    """Whether DVC's cache holds every file of an output, which has some."""
    found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in found:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "md5").hexdigest()
        if not (cache / digest[:2] / digest[2:]).is_file():
            return False
    return bool(found)


def rounded(value: Any) -> Any:
    """Every float in nested dicts and lists at six significant digits. Raises ValueError on NaN and infinity."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return float(f"{value:.6g}")
    return value


def sha256(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_unchanged(path: Path) -> None:
    """Raises UserError unless `path` is the file whose SHA-256 is among the facts beside it (suffix .json): most damage
    to weights would load, and answer otherwise."""
    must_exist(path)
    described = path.with_suffix(".json")
    must_exist(described)
    if "sha256" not in (facts := read_facts(described)):
        raise UserError(f"{described}: damaged, no sha256 of {path.name}; {BRING_BACK}")
    if facts["sha256"] != sha256(path):
        raise UserError(f"{path}: damaged: it is not what was made (sha256 in {described}); {BRING_BACK}")


def content_id(*parts: str) -> str:
    """First 16 hex digits of the SHA-256 of the parts: the same content has the same id in every run."""
    # Two characters that no text is known to hold stand for themselves: what is between the parts is in none of them.
    apart = (part.replace("\x1e", "\x1e0").replace("\x1f", "\x1e1") for part in parts)
    return hashlib.sha256("\x1f".join(apart).encode()).hexdigest()[:16]


def note_if_unwatched(path: str | Path, watched: str, stage: str) -> None:
    """Says that DVC will not see a change of the user's file or folder `path` if it lies outside of `watched`."""
    if not Path(path).resolve().is_relative_to(Path(watched).resolve()):
        print(
            f"note: {path} lies outside of {watched}; DVC does not see when it changes: then run dvc repro -f {stage}"
        )


def run_info(**facts: Any) -> dict[str, Any]:
    """What made an artefact: hardware, library versions and the given facts. Holds no times: same input, same bytes."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:  # an extra that is not installed
            continue
    return {**facts, "hardware": machine.hardware(), "python": platform.python_version(), "versions": versions}


def params_hash(*sections: Any) -> str:
    """Twelve hex digits that change when any of the given parameter sections does."""
    return hashlib.sha256(repr(sections).encode()).hexdigest()[:12]
