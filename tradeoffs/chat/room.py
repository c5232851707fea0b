"""How much memory a model takes, before it is loaded: by what was measured, or by its files; and how much there is."""

from pathlib import Path

import psutil

from tradeoffs.common import cores
from tradeoffs.common.cells import TRAINED, Variant
from tradeoffs.formats.names import QUANTS

# MB of a process that has imported what it needs, and has no model yet.
LLAMA_CPP, TRANSFORMERS = 200.0, 500.0
SHARE = 0.8  # of the machine's memory is for models; the rest for what they do not say, and for whoever works here
LIMITS = ("memory.max", "memory.limit_in_bytes")  # of cgroups, 2 and 1


def estimate_mb(variant: Variant, measured: float | None) -> float:
    """What a variant takes in a process of its own: `measured`, its `peak_memory_mb` of metrics/summary.csv, if that is
    known, else by the size of its files. Without any it cannot be loaded: what is missing, the process says itself."""
    libraries = LLAMA_CPP if variant.format in QUANTS else TRANSFORMERS
    return max(measured or 0.0, libraries + _files_mb(variant))


def limit_mb(root: Path = Path("/")) -> float:
    """What models may have together, unless the user says so: a share of the machine's memory, or of what the control
    groups above this process (a container, a batch job) leave to it."""
    found = [psutil.virtual_memory().total]
    for folder in cores.groups("memory", root):
        for name in LIMITS:
            try:
                found.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # not there, or `max`
                continue
    return SHARE * min(found) / 1e6


def _files_mb(variant: Variant) -> float:
    """Weights on disk, as many bytes as in memory or more: int8 and nf4 are made of what is larger."""
    if variant.format in QUANTS:
        found = [variant.gguf]
    elif variant.format == TRAINED:
        weights = [variant.cell.base, *Path("models/trained", str(variant.cell)).glob("*")]
        found = [path for folder in weights[:2] for path in folder.glob("*.safetensors")]
    else:
        found = list(variant.cell.merged.glob("*.safetensors"))
    return sum(path.stat().st_size for path in found if path.is_file()) / 1e6
