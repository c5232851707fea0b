"""A checkpoint folder, read without loading it: is everything there, what travels with the weights, how many."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
# What travels with the weights from stage to stage: generation settings, whatever a tokenizer of transformers or of the
# GGUF converter may read, and the licence. Never code (*.py) and never pickles (*.bin, *.pt).
COMPANIONS = (
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "LICENSE*",  # some licences ask to be passed on with every copy
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
MADE_BY = {"base": "base", "trained": "finetune", "merged": "merge"}


def copy(source: Path, target: Path, where: str) -> None:
    """Copies a user's checkpoint into the folder `target`, unchanged.

    Raises UserError that names `where` (the params key), what is missing, what is there, and what to do.
    """
    check(source, where)
    check_architecture(source, f"{where}: {source}")
    for path in (source / "config.json", source / INDEX, *weight_files(source)):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    copy_companions(source, target)


def copy_companions(source: Path, target: Path) -> None:
    """Copies what travels with the weights from one checkpoint folder to another."""
    for path in sorted({path for pattern in COMPANIONS for path in source.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, target / path.name)


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
    missing = [path.name for path in weight_files(source) if path.name not in there]
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


def check_architecture(folder: Path, where: str) -> None:
    """Raises UserError unless transformers itself knows the language model that config.json describes: code that comes
    with a checkpoint (`auto_map`) is never run."""
    from transformers import AutoConfig
    from transformers import __version__ as version
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = described.get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: config.json is not valid JSON ({error}); save the model with save_pretrained"
        ) from error
    known = f"transformers {version} knows no causal language model of type {kind!r}"
    if kind not in CAUSAL:
        why = ", and code that comes with a checkpoint is never run" if "auto_map" in described else ""
        raise UserError(f"{where}: {known}{why}; take a version of the model that needs no code of its own, or update")
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, TypeError, KeyError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{where}: config.json cannot be read as one of {kind!r}: {first}") from error


def load_tokenizer(folder: Path, where: str) -> Any:
    """The tokenizer of a checkpoint; raises UserError if it cannot be read, or not without code that comes with it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        described = folder / "tokenizer_config.json"
        if described.is_file() and "auto_map" in described.read_text(encoding="utf-8", errors="replace"):
            raise UserError(
                f"{where}: its tokenizer needs code of its own (auto_map in tokenizer_config.json), and code that "
                "comes with a checkpoint is never run; take a version of the model whose tokenizer needs none"
            ) from error
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{where}: its tokenizer cannot be read: {first}") from error


def require(folder: Path, file: str) -> None:
    """Raises UserError, with what is there and which stage makes it, if `folder` lacks `file`."""
    if (folder / file).is_file():
        return
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None
    there = "the folder does not exist" if present is None else f"there are: {', '.join(present) or 'no files'}"
    # A training lies one folder deeper, by its seed.
    maker = next((MADE_BY[parent.name] for parent in folder.parents[:2] if parent.name in MADE_BY), None)
    way_out = f"run `dvc repro` to make it (stage {maker})" if maker else f"give a folder that holds {file}"
    raise UserError(f"{folder}: no {file} ({there}); {way_out}")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, there or not: the shards that the index names, or model.safetensors.

    Raises UserError if the index names anything but safetensors in the same folder.
    """
    if not (folder / INDEX).is_file():
        return [folder / "model.safetensors"]
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    names = index["weight_map"].values()
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"{folder / INDEX}: weight_map names {name!r}; expected the name of a .safetensors file beside it; "
                "save the model with save_pretrained"
            )
    return [folder / name for name in sorted(set(names))]


def parameters(folder: Path) -> int:
    """How many numbers the weights hold; tied weights, which are stored once, count once."""
    count = 0
    for path in weight_files(folder):
        with safe_open(path, framework="numpy") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


def weights_id(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, over the digests of its files in the order of their names."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(bytes.fromhex(files.sha256(path)))
    return digest.hexdigest()
