"""What lies in a checkpoint folder, read without loading it: file names and safetensors headers."""

import math
import shutil
from pathlib import Path

from safetensors import safe_open

from tradeoffs.errors import UserError

# Whatever a tokenizer of transformers or of the GGUF converter may read; those that exist travel with the weights.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
MADE_BY = {"base": "base", "trained": "finetune", "merged": "merge"}


def require(folder: Path, file: str) -> None:
    """Raises UserError, with what is there and which stage makes it, if `folder` lacks `file`."""
    if (folder / file).is_file():
        return
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None
    there = "the folder does not exist" if present is None else f"there are: {', '.join(present) or 'no files'}"
    maker = MADE_BY.get(folder.parent.name)
    way_out = f"run `dvc repro` to make it (stage {maker})" if maker else f"give a folder that holds {file}"
    raise UserError(f"{folder}: no {file} ({there}); {way_out}")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a full checkpoint, one or several shards. Raises UserError if there are none."""
    found = sorted(folder.glob("model*.safetensors"))
    if not found:
        require(folder, "model.safetensors")
    return found


def parameters(folder: Path) -> int:
    """How many numbers the weights hold; tied weights, which are stored once, count once."""
    count = 0
    for path in weight_files(folder):
        with safe_open(path, framework="numpy") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


def copy_companions(source: Path, target: Path) -> None:
    """Copies tokenizer and generation settings from one checkpoint folder to another."""
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
