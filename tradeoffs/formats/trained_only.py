"""What stands in place of a checkpoint, a GGUF and an evaluation that there cannot be.

A method that cannot be merged is evaluated as it left training, in no other format; of a model that llama.cpp cannot
run there are all formats but llama.cpp's. The pipeline has their cells in every stage all the same, so each stage
writes its outputs: empty ones, and a JSON that says why, which the next stage reads.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradeoffs.common import files
from tradeoffs.common.cells import Variant

if TYPE_CHECKING:
    import pyarrow as pa

KEY, NO_GGUF = "unmergeable", "no_gguf"
SAID = {KEY: "as trained only", NO_GGUF: "in no format of llama.cpp"}


def absent(described: Path) -> tuple[str, str] | None:
    """Why there is nothing where the JSON file `described` would say what there is, and which of the keys of SAID that
    is; None where there is something. Raises UserError if the file is damaged."""
    if not described.is_file():
        return None
    return in_place_of(files.read_facts(described))


def in_place_of(facts: dict[str, Any]) -> tuple[str, str] | None:
    """The same of what such a file holds."""
    return next(((facts[key], key) for key in SAID if key in facts), None)


def write_gguf(gguf: Path, why: str, key: str) -> None:
    """An empty file in place of a GGUF, and the reason beside it."""
    files.write_text(gguf, "")
    files.write_json(gguf.with_suffix(".json"), {key: why})
    print(f"{gguf.stem}: {sentence(why, key)}")


def write_evaluation(variant: Variant, schema: "pa.Schema", why: str, key: str) -> None:
    """No items, by the schema that items have, and the reason in place of facts."""
    files.write_table(variant.items, [], schema)
    files.write_json(variant.facts, {key: why})
    print(f"{variant}: {sentence(why, key)}")


def sentence(why: str, key: str) -> str:
    return f"{SAID[key]}: {why}"
