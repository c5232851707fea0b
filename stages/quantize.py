"""Quantise a GGUF with llama.cpp's own quantiser; f16 is the converter's file as it is.

IN   models/converted/<model>-<dataset>-<method>.gguf, .json
OUT  models/gguf/<model>-<dataset>-<method>-<quant>.gguf, .json
     python -m stages.quantize --model demo --dataset demo --method lora --quant q4_k_m
"""

import re
import shutil
from pathlib import Path

from tradeoffs import params
from tradeoffs.common import cores, files
from tradeoffs.common.cells import Cell
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import QUANTS
from tradeoffs.llama_cpp import native
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

# How llama.cpp's quantiser reports a tensor whose rows do not divide into the blocks of the type that was asked for.
FALLBACK = re.compile(
    r"(?P<tensor>\S+)\s+- ncols\s+(?P<row_length>\d+) not divisible by\s+(?P<block>\d+) "
    r"\(required for type\s+(?P<wanted>\S+?)\).*?falling back to\s+(?P<got>\S+)"
)


def main(model: str, dataset: str, method: str, quant: str) -> None:
    params.load_all()
    cell = Cell(model, dataset, method)
    source, gguf = cell.converted, cell.variant(quant).gguf
    if quant not in QUANTS:
        raise UserError(f"--quant: unknown value {quant!r} (there are: {', '.join(QUANTS)})")
    if not source.is_file():
        raise UserError(f"{source}: not found; `dvc repro convert` makes it")
    if found := trained_only.absent(source.with_suffix(".json")):
        trained_only.write_gguf(gguf, *found)
        return
    files.require_unchanged(source)
    with files.new_file(gguf) as unfinished:
        fallbacks = quantize(source, unfinished, quant)
        types = native.tensor_types(unfinished)
    made = {
        "quant": quant,
        "size_mb": gguf.stat().st_size / 1e6,
        "sha256": files.sha256(gguf),
        "tensor_types": types,
        "fallback_tensors": fallbacks,
    }
    files.write_json(
        gguf.with_suffix(".json"), files.run_info(**{**files.read_json(source.with_suffix(".json")), **made})
    )
    note = f"; {len(fallbacks)} tensors fell back to a larger type" if fallbacks else ""
    print(f"{gguf}: {made['size_mb']:.1f} MB, {types}{note}")


def quantize(source: Path, target: Path, quant: str) -> list[dict[str, str | int]]:
    """Writes `source` as `quant` to `target`; the tensors that llama.cpp had to give another type than it wanted.

    `source` is f16 already: that one is a copy, of which DVC keeps and pushes one. Raises
    UserError with llama.cpp's last lines if it fails.
    """
    if quant == "f16":
        shutil.copyfile(source, target)
        return []
    native.start_log(source)
    options = llama_cpp.llama_model_quantize_default_params()
    options.nthread = cores.usable()
    options.ftype = getattr(llama_cpp, QUANTS[quant])
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), options) != 0:
        raise UserError(f"{source}: llama.cpp cannot quantise it to {quant}{native.last_lines()}")
    return [
        {"tensor": m["tensor"], "row_length": int(m["row_length"]), "wanted": m["wanted"], "got": m["got"]}
        for m in FALLBACK.finditer(native.log())
    ]


if __name__ == "__main__":
    cli.run(main)
