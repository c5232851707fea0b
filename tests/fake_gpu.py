"""Makes a made-up run one whose models of transformers ran on a GPU, as a machine with one leaves its files."""

from pathlib import Path

import pyarrow.parquet as pq

from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.formats.names import QUANTS

NAME = "NVIDIA H200"
HARDWARE = {"processor": "Abacus", "machine": "wood", "cores": 2, "memory_gb": 31}
HARDWARE |= {"gpus": [{"name": NAME, "memory_gb": 150.8, "count": 2}], "driver": "550.127.08"}
# MB by format, as it was set aside. Not in the order of what the same processes take of the host: a format that is
# small on disk can be the larger one there.
RESERVED = {"trained": 1200.0, "bf16": 978.0, "int8": 1446.0, "nf4": 700.0}
IN_USE = 0.9  # of it
TRAINED = 20_490.0  # MB that a training set aside
ANSWER = 31.25  # MB above the weights that an answer to a prompt took


def runs_on_it(variant: Variant) -> bool:
    """All but GGUFs, which llama.cpp keeps on the CPU."""
    return variant.format not in QUANTS


def put_on_gpu(folder: Path) -> None:
    """Changes data/items, data/facts, data/cost.json and data/training of the run in `folder`, nothing else."""
    for path in folder.glob("data/items/*.parquet"):
        if runs_on_it(Variant.parse(path.stem)):
            said = pq.read_schema(path).metadata
            rows = files.read_table(path)
            rows = [row | ({"answer_gpu_mb": ANSWER} if row["split"] == "prompt" else {}) for row in rows]
            files.write_table(path, rows, ITEMS.with_metadata(said))
    for path in sorted(folder.glob("data/facts/*.json")):
        here = {"device": NAME} if runs_on_it(Variant.parse(path.stem)) else {}
        files.write_json(path, files.read_json(path) | {"hardware": HARDWARE} | here)
    written = files.read_json(folder / "data/cost.json") | {"hardware": HARDWARE | {"threads": 1}}
    for thing in written["things"]:
        variant = Variant.parse(thing["members"][0])
        for number, found in enumerate(thing["rounds"]) if runs_on_it(variant) else ():
            reserved = RESERVED[variant.format] + 2 * number
            found |= {"device": NAME, "peak_gpu_memory_mb": IN_USE * reserved, "peak_gpu_memory_reserved_mb": reserved}
    files.write_json(folder / "data/cost.json", written)
    for path in folder.glob("data/training/*/*.json"):
        row = files.read_json(path)
        if "peak_memory_mb" in row:
            peaks = {"peak_gpu_memory_mb": IN_USE * TRAINED, "peak_gpu_memory_reserved_mb": TRAINED}
            files.write_json(path, row | peaks | {"hardware": HARDWARE | {"threads": 2}})
