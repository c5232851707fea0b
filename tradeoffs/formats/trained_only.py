"""Methods that cannot be merged: what stands in place of a checkpoint, a GGUF and an evaluation that there cannot be.

They are evaluated as they left training, in no other format. The pipeline has their cells in every stage all the same,
so each stage writes its outputs: empty ones, and a JSON that says why, which the next stage reads.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tradeoffs.common import files
from tradeoffs.common.cells import Variant

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "unmergeable"


def reason(described: Path) -> str | None:
    """Why there is nothing where the JSON file `described` would say what there is; None where there is something."""
    return files.read_json(described).get(KEY) if described.is_file() else None


def write_gguf(gguf: Path, why: str) -> None:
    """An empty file in place of a GGUF, and the reason beside it."""
    files.write_text(gguf, "")
    files.write_json(gguf.with_suffix(".json"), {KEY: why})
    print(f"{gguf.stem}: {sentence(why)}")


def write_evaluation(variant: Variant, schema: "pa.Schema", why: str) -> None:
    """No items, by the schema that items have, and the reason in place of facts."""
    files.write_table(variant.items, [], schema)
    files.write_json(variant.facts, {KEY: why})
    print(f"{variant}: {sentence(why)}")


def sentence(why: str) -> str:
    return f"as trained only: {why}"
