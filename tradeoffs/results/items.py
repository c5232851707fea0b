"""The files per variant that evaluation leaves behind: reading them, and clearing away those of earlier run lists."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tradeoffs.common.cells import Variant
from tradeoffs.plumbing.errors import UserError


def read(variant: Variant, columns: list[str]) -> pa.Table:
    """Some columns of data/items/<variant>.parquet, one row per item. Raises UserError if it was not evaluated."""
    must_exist(variant.items)
    return pq.read_table(variant.items, columns=columns)


def must_exist(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing, though params.yaml (run) asks for it; run `dvc repro`, which makes it")


def remove_leftovers(wanted: Sequence[Path]) -> None:
    """Deletes what earlier, longer run lists left beside the `wanted` outputs of a folder: it cannot pass for a result.

    DVC keeps it in its cache: what comes back to the run list is checked out, not computed again.
    """
    for path in sorted(wanted[0].parent.glob("[!.]*")):
        if path in wanted:
            continue
        print(f"removed {path}: not in the run list")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
