"""A checkpoint as a GGUF, by the project's own converter and quantiser."""

from pathlib import Path

from stages.quantize import quantize
from tradeoffs.common import files
from tradeoffs.convert import gguf_converter


def made(checkpoint: Path, quant: str) -> Path:
    """`checkpoint` as a GGUF beside it; made unless it is there."""
    target = checkpoint.with_name(f"{checkpoint.name}-{quant}.gguf")
    converted = checkpoint.with_name(f"{checkpoint.name}.gguf")
    if not target.is_file():
        if not converted.is_file():
            with files.new_file(converted) as unfinished:
                gguf_converter.convert(checkpoint, unfinished)
        with files.new_file(target) as unfinished:
            quantize(converted, unfinished, quant)
    return target
