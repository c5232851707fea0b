"""A local checkpoint folder: is everything there, and take over what the pipeline needs."""

import hashlib
import json
import shutil
from pathlib import Path

from tradeoffs import files
from tradeoffs.errors import UserError

TOKENIZERS = ("tokenizer.json", "tokenizer.model")
INDEX = "model.safetensors.index.json"
# What travels besides the weights: configuration and tokenizer. Never code (*.py) and never pickles (*.bin, *.pt).
PATTERNS = (
    "config.json",
    "generation_config.json",
    INDEX,
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)


def copy(source: Path, target: Path, where: str) -> None:
    """Copies a checkpoint's files into the folder `target`, unchanged.

    Raises UserError that names `where` (the params key), what is missing, what is there, and what to do.
    """
    check(source, where)
    names = {path.name for pattern in PATTERNS for path in source.glob(pattern) if path.is_file()}
    for name in sorted(names | set(weight_files(source))):
        shutil.copyfile(source / name, target / name)


def check(source: Path, where: str) -> None:
    """Raises UserError unless `source` holds config.json, a tokenizer and all of its weights as safetensors."""
    if not source.is_dir():
        raise UserError(f"{where}: no folder {source} (seen from {Path.cwd()}); give the folder of a checkpoint")
    there = sorted(path.name for path in source.iterdir())
    listing = f"there: {', '.join(there) or 'nothing'}"
    if "config.json" not in there:
        raise UserError(f"{where}: {source} has no config.json ({listing}); save the model with save_pretrained")
    if not any(name in there for name in TOKENIZERS):
        raise UserError(
            f"{where}: {source} has neither {' nor '.join(TOKENIZERS)} ({listing}); "
            "save the tokenizer into the same folder with tokenizer.save_pretrained"
        )
    missing = [name for name in weight_files(source) if name not in there]
    if missing and INDEX in there:
        raise UserError(
            f"{where}: {source} lacks {', '.join(missing)}, which {INDEX} names ({listing}); copy the whole checkpoint"
        )
    if missing:
        pickled = [name for name in there if name.endswith((".bin", ".pt", ".pth"))]
        reason = f"only the pickle {pickled[0]}, which can run code when it is read" if pickled else "no weights"
        raise UserError(
            f"{where}: {source} has {reason}; expected {missing[0]} ({listing}); "
            "load it where you trust it and save it with model.save_pretrained"
        )


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold the weights: the shards that the index names, or model.safetensors."""
    if not (folder / INDEX).is_file():
        return ["model.safetensors"]
    return sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))


def weights_id(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, over the digests of its files in the order of their names."""
    digest = hashlib.sha256()
    for name in weight_files(folder):
        digest.update(bytes.fromhex(files.sha256(folder / name)))
    return digest.hexdigest()
