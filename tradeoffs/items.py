"""The files per variant that evaluation leaves behind: reading them, and clearing away those of earlier run lists."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tradeoffs import trained_only
from tradeoffs.errors import UserError
from tradeoffs.variants import TRAINED, Variant


def read(variant: Variant, columns: list[str]) -> pa.Table:
    """Some columns of data/items/<variant>.parquet, one row per item. Raises UserError if it was not evaluated."""
    path = Path("data/items", f"{variant}.parquet")
    must_exist(path)
    return pq.read_table(path, columns=columns)


def must_exist(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing, though params.yaml (run) asks for it; run `dvc repro`, which makes it")


def must_be_made(variant: str) -> None:
    """Raises UserError if a variant was never made because its method cannot be merged."""
    if why := trained_only.reason(Path("data/cost", f"{variant}.json")):
        cell = variant.rpartition("-")[0]
        sentence = trained_only.sentence(why)
        raise UserError(f"{variant}: there is none, its method exists {sentence}; name {cell}-{TRAINED}")


def remove_leftovers(folder: str, wanted: Iterable[str]) -> None:
    """Deletes what earlier, longer run lists left in a folder of outputs, so that it cannot pass for a result.

    DVC keeps it in its cache: what comes back to the run list is checked out, not computed again.
    """
    keep = set(wanted)
    for path in sorted(Path(folder).glob("[!.]*")):
        if path.name in keep:
            continue
        print(f"removed {path}: not in the run list")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
