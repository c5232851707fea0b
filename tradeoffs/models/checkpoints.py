"""A checkpoint folder, read without loading it: is everything there, what travels with the weights, how many."""

import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tradeoffs.common import files
from tradeoffs.common.limits import limited
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
# Whereto a file of a checkpoint may be a link, beside its own folder: into what the hub, DVC and git-annex keep by the
# digest of what it holds.
CACHES = (
    re.compile(r"/models--[^/]+/blobs/[^/]+$"),
    re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$"),
    re.compile(r"/\.git/annex/objects/.+"),
)
LAYERS = 10_000  # more of them no model has: what config.json gives is built, if only to see that it fits the weights
COUNT = re.compile(r"^(num|n)_.*(layer|expert)s?$|^num_experts")
READ = (".json", ".model", ".txt", ".jinja")  # of COMPANIONS, what is read and not only passed on
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
    for path in _companions(source):
        shutil.copyfile(path, target / path.name)


def _companions(source: Path) -> list[Path]:
    return sorted({path for pattern in COMPANIONS for path in source.glob(pattern) if path.is_file()})


def drop_other_template(folder: Path, where: str) -> None:
    """Takes the chat template out of tokenizer_config.json, which the GGUF converter prefers to chat_template.jinja."""
    path = folder / "tokenizer_config.json"
    described = read_object(path, where) if path.is_file() else {}
    if described.pop("chat_template", None) is not None:
        files.write_text(path, json.dumps(described, indent=2, ensure_ascii=False) + "\n")


def check(source: Path, where: str) -> None:
    """Raises UserError unless `source` holds config.json, a tokenizer and all of its weights as safetensors."""
    if not source.is_dir():
        raise UserError(f"{where}: no folder {source} (seen from {Path.cwd()}); give the folder of a checkpoint")
    there = sorted(path.name for path in source.iterdir() if path.is_file())
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
    # Not of the weights, which often lie on another disk: what is no safetensors is refused, and nothing of it is told.
    for path in (source / "config.json", source / INDEX, *_companions(source)):
        _require_own(path, where)
    for path in sorted(source.iterdir()):  # or what it says would be taken from the file that is read in its place
        if path.suffix in READ and any(path.match(pattern) for pattern in COMPANIONS) and not path.is_file():
            raise UserError(f"{where}: {path} is no file (a folder, a pipe, or a link to nothing); put the file there")


def _require_own(path: Path, where: str) -> None:
    """Raises UserError if a file is a link that leads out of its folder: whoever made it chose a file of this machine.

    CACHES are no way out.
    """
    folder, found = path.parent.resolve(), path.resolve()
    if not (found.is_relative_to(folder) or any(cache.search(found.as_posix()) for cache in CACHES)):
        raise UserError(
            f"{where}: {path} is a link that leads out of the folder, to {found}; put the file itself there, or take "
            "it away"
        )


def read_object(path: Path, where: str) -> dict[str, Any]:
    """What a JSON file of a checkpoint holds. Raises UserError if that is no JSON object, or not all of it numbers."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_constant)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number without end, too deep
        raise UserError(
            f"{where}: {path.name} is not valid JSON ({error}); save the model with save_pretrained"
        ) from error
    if not isinstance(found, dict):
        raise UserError(
            f"{where}: {path.name} is not valid JSON for a checkpoint (a {type(found).__name__}, no object); save the "
            "model with save_pretrained"
        )
    return found


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("NaN is no number")
    return float(name)  # time_step_limit of Mamba 2 ends with Infinity


def check_architecture(folder: Path, where: str) -> None:
    """Raises UserError unless transformers itself knows the language model that config.json describes: code that comes
    with a checkpoint (`auto_map`) is never run."""
    from transformers import AutoConfig
    from transformers import __version__ as version
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    described = read_object(folder / "config.json", where)
    kind = described.get("model_type")
    known = f"transformers {version} knows no causal language model of type {str(kind)[:80]!r}"
    if not isinstance(kind, str) or kind not in CAUSAL:
        why = ", and code that comes with a checkpoint is never run" if "auto_map" in described else ""
        raise UserError(f"{where}: {known}{why}; take a version of the model that needs no code of its own, or update")
    if described.get("quantization_config") is not None:
        raise UserError(
            f"{where}: its weights are quantised already (quantization_config in config.json); take the model as it "
            "was before, since every format is made from that"
        )
    _check_counts(described, f"{where}: config.json")
    try:
        limited(f"{where}: to read config.json", lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except UserError:
        raise
    except Exception as error:  # a class for each type of model, and each checks in its own way
        raise UserError(f"{where}: config.json cannot be read as one of {kind!r}: {first_line(error)}") from error


def _check_counts(described: dict[str, Any], where: str) -> None:
    """Raises UserError for more layers or experts than any model has, in the config itself or in a part of it."""
    for part in (described, *(value for value in described.values() if isinstance(value, dict))):
        for key, value in part.items():
            if COUNT.search(key) and isinstance(value, int) and not 0 <= value <= LAYERS:
                raise UserError(f"{where}: {key} is {value}; expected a number from 0 to {LAYERS}")


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line[:500] for line in lines if line), type(error).__name__)


def load_tokenizer(folder: Path, where: str) -> Any:
    """The tokenizer of a checkpoint; raises UserError if it cannot be read, or not without code that comes with it, or
    if it is one of another model, with more tokens than this one knows."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer("a"), tokenizer.get_vocab()
    except Exception as error:  # tokenizers' own is a plain Exception, and each class of transformers has its ways
        described = folder / "tokenizer_config.json"
        if described.is_file() and "auto_map" in described.read_text(encoding="utf-8", errors="replace"):
            raise UserError(
                f"{where}: its tokenizer needs code of its own (auto_map in tokenizer_config.json), and code that "
                "comes with a checkpoint is never run; take a version of the model whose tokenizer needs none"
            ) from error
        raise UserError(f"{where}: its tokenizer cannot be read: {first_line(error)}") from error
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    _check_vocabulary(tokenizer, getattr(config, "vocab_size", None), where)
    _check_marks(tokenizer, folder, where)
    return tokenizer


def _check_marks(tokenizer: Any, folder: Path, where: str) -> None:
    """Raises UserError if what begins or ends a text is no token of the vocabulary: transformers adds one, which the
    model has never seen."""
    from tokenizers import Tokenizer

    added = tokenizer.get_added_vocab()
    marks = [token for token in (tokenizer.bos_token, tokenizer.eos_token) if token in added]
    if not (marks and (folder / "tokenizer.json").is_file()):
        return
    held = Tokenizer.from_file(str(folder / "tokenizer.json"))
    beside = [folder / name for name in ("tokenizer_config.json", "added_tokens.json")]
    described, extra = (read_object(path, where) if path.is_file() else {} for path in beside)
    of_config = dict(described.get("added_tokens_decoder") or {}).values()
    known = {str(token.get("content")) for token in of_config} | set(extra)
    for token in marks:
        if held.token_to_id(token) is None and token not in known:
            raise UserError(
                f"{where}: its tokenizer_config.json has {token!r} begin or end a text, which is no token of "
                "tokenizer.json; take both files from where the weights are from"
            )


def _check_vocabulary(tokenizer: Any, rows: int | None, where: str) -> None:
    """Raises UserError if text, or the tokens around it, become ids for which the model has no embedding. Tokens that
    were added and are never used may lie beyond them, as those of published models do."""
    added = tokenizer.get_added_vocab()
    used = {token: id for token, id in tokenizer.get_vocab().items() if token not in added}
    for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token):
        if token is not None:
            used[token] = tokenizer.convert_tokens_to_ids(token)
    beyond = {token: id for token, id in used.items() if rows is not None and id is not None and id >= rows}
    if beyond:
        token = max(beyond, key=beyond.__getitem__)
        raise UserError(
            f"{where}: its tokenizer is another model's: {token!r} is token {beyond[token]}, and config.json gives the "
            f"model {rows} (vocab_size); take the tokenizer from where the weights are from"
        )


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
    index = read_object(folder / INDEX, str(folder)).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise UserError(
            f"{folder / INDEX}: no weight_map, from names of tensors to those of files; save the model with "
            "save_pretrained"
        )
    names = index.values()
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"{folder / INDEX}: weight_map names {name!r}; expected the name of a .safetensors file beside it; "
                "save the model with save_pretrained"
            )
    return [folder / name for name in sorted(set(names))]


def headers(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """Type (F32, BF16, ...) and shape of each tensor, by its name; the weights themselves are not read.

    Raises UserError if a file is no safetensors, or not whole, or if two files hold a tensor of one name.
    """
    found: dict[str, tuple[str, list[int]]] = {}
    for path in weight_files(folder):
        with opened(path) as weights:
            for name in weights.keys():  # noqa: SIM118
                if name in found:
                    raise UserError(f"{path}: holds {name}, and so does another file; save the model again, in one go")
                part = weights.get_slice(name)
                found[name] = part.get_dtype(), part.get_shape()
    return found


def opened(path: Path) -> Any:
    """A safetensors file, to be read by tensors. Raises UserError if it is none, or not whole."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: damaged or incomplete safetensors ({first_line(error)}); copy or download it again"
        ) from error


def parameters(folder: Path) -> int:
    """How many numbers the weights hold; tied weights, which are stored once, count once."""
    return sum(math.prod(shape) for _, shape in headers(folder).values())


def weights_id(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, over the digests of its files in the order of their names."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(bytes.fromhex(files.sha256(path)))
    return digest.hexdigest()
