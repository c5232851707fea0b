"""How much memory a model takes, before it is loaded: by what was measured, or by its files; and how much there is.

What a GGUF's process keeps of conversations is laid down here, so that it is known before that starts.
"""

from pathlib import Path
from typing import Any

import psutil

from tradeoffs.common import cores, files
from tradeoffs.common.batching import HOST_BATCH, fitting_batch
from tradeoffs.common.cells import TRAINED, Variant
from tradeoffs.formats.names import QUANTS

# MB of a process that has imported what it needs, and has no model yet.
LLAMA_CPP, TRANSFORMERS = 100.0, 480.0
SHARE = 0.8  # of the machine's memory is for models; the rest for what they do not say, and for whoever works here
LIMITS = ("memory.max", "memory.limit_in_bytes")  # of cgroups, 2 and 1

PLACES = (32, 16, 8)  # answers of a GGUF that grow at a time: as many of these as have room for a whole context each
APART_BYTES = 2e9  # of keys and values at most, if each has such room
APART_SHARE = 1 / 8  # and of the memory that models may have together
SHARED_BYTES = 2e9  # if all share one: a model whose context takes more gets a shorter one
KEPT, KEPT_BYTES = 64, 256e6  # whole contexts that are kept of what has ended, if each has such room; bytes at most


def estimate_mb(variant: Variant, measured: float | None, most_mb: float) -> float:
    """What a variant takes in a process of its own, once it is loaded, where all may have `most_mb`: `measured`, its
    `peak_memory_mb` of metrics/summary.csv, if that is known and more than its files and what is kept of
    conversations. Without any files it cannot be loaded: what is missing, the process says itself."""
    # In transformers, what is kept of conversations grows with them.
    found = LLAMA_CPP + _caches_mb(variant, most_mb) if variant.format in QUANTS else TRANSFORMERS
    return max(measured or 0.0, found + _files_mb(variant))


def bytes_per_token(layers: int, width: int, heads: int, kv_heads: int) -> float:
    """Of float16 keys and values of a GGUF in all layers, all heads counted as those of the first."""
    return 2 * 2 * layers * width * (kv_heads / heads if heads and kv_heads else 1)


def places(context: int, token_bytes: float, most_mb: float) -> int | None:
    """How many answers of a GGUF have room for a whole context each: there is memory for it, or it takes no more than
    what all would share. None: all share one."""
    allowed = min(APART_BYTES, APART_SHARE * most_mb * 1e6)
    most = max(allowed, shared_tokens(context, token_bytes) * token_bytes) / (context * token_bytes)
    return next((places for places in PLACES if places <= most), None)


def kept_bytes(context_bytes: float, most_mb: float) -> float:
    """Of what has ended, where answers have room each."""
    return min(KEPT_BYTES, APART_SHARE * most_mb * 1e6, KEPT * context_bytes)


def shared_tokens(context: int, token_bytes: float) -> int:
    """That all answers of a GGUF share, where they have no room each: as many as an evaluation's batch has, or a whole
    context where that is more and fits into SHARED_BYTES."""
    return max(fitting_batch(token_bytes, HOST_BATCH), min(context, int(SHARED_BYTES / token_bytes)))


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


def _caches_mb(variant: Variant, most_mb: float) -> float:
    """Of a GGUF, by the configuration of what it was made of; 0 where that does not say it in the usual words."""
    path = variant.cell.base / "config.json"
    found: dict[str, Any] = files.read_json(path) if path.is_file() else {}
    found = {"num_key_value_heads": found.get("num_attention_heads")} | found | found.get("text_config", {})
    names = "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "max_position_embeddings"
    numbers = [found[name] for name in names if isinstance(found.get(name), int) and found[name] > 0]
    if len(numbers) < len(names):
        return 0.0
    *shape, context = numbers
    token = bytes_per_token(*shape)
    if count := places(context, token, most_mb):
        return (count * context * token + kept_bytes(context * token, most_mb)) / 1e6
    return shared_tokens(context, token) * token / 1e6


def _files_mb(variant: Variant) -> float:
    """Weights on disk, as many bytes as in memory or more: int8 and nf4 are made of what is larger; of float32, which
    a merged checkpoint, in bfloat16, is not, twice as many."""
    if variant.format in QUANTS:
        found = [variant.gguf]
    elif variant.format == TRAINED:
        weights = [variant.cell.base, *Path("models/trained", str(variant.cell)).glob("*")]
        found = [path for folder in weights[:2] for path in folder.glob("*.safetensors")]
    else:
        found = list(variant.cell.merged.glob("*.safetensors"))
    grown = 2 if variant.format == "float32" else 1
    return grown * sum(path.stat().st_size for path in found if path.is_file()) / 1e6
