"""The variants that were evaluated, by the names that commands are given: what lies in data/, whatever the run list."""

import pyarrow.parquet as pq

from tradeoffs.common.cells import ITEMS, SEEDS, TRAINED, Variant
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.results import reading


def named(name: str) -> Variant:
    """The variant, or the further training, of this name.

    Raises UserError if it was not evaluated, with the near match, or could not be: its method cannot be merged, or
    trains nothing and so has no further training.
    """
    known = sorted(path.stem for path in ITEMS.glob("[!.]*.parquet"))
    known += sorted(f"{path.parent.name}-{TRAINED}-{path.stem}" for path in SEEDS.glob("*/[!.]*.parquet"))
    if name not in known:
        hint = near(name, known) if known else ""
        raise UserError(f"{name}: no such variant in {ITEMS}{hint}; `dvc repro` makes those of the run list")
    variant = Variant.parse(name)
    reading.must_be_made(variant)
    if variant.seed is not None and not pq.read_metadata(variant.items).num_rows:
        other = variant.cell.variant(TRAINED)
        raise UserError(f"{variant}: its method trains nothing, so every seed has the same model; name {other}")
    return variant
