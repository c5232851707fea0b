"""Adapters and checkpoints as they are published: weights unchanged, and around them nothing of this machine."""

import json
import shutil
from pathlib import Path
from typing import Any

from tradeoffs.common import files
from tradeoffs.export.chosen import Chosen
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError

# Keys under which transformers keeps where something was loaded from.
PATHS = ("_name_or_path", "name_or_path", "tokenizer_file", "special_tokens_map_file", "vocab_file", "merges_file")


def write(chosen: Chosen, folder: Path) -> None:
    """Weights, configuration, tokenizer and prompt template of an adapter, full weights or a merged checkpoint.

    Raises UserError if the adapter's own files are not what PEFT writes.
    """
    if chosen.form == "adapter":
        _copy_adapter(chosen, folder)
    else:
        names = ["config.json", checkpoints.INDEX, "generation_config.json"]
        for path in (*(chosen.path / name for name in names), *checkpoints.weight_files(chosen.path)):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    # An adapter goes with them too: its prompt template may be another than that of its base on the hub.
    own = chosen.path if chosen.form == "merged" else chosen.cell.base
    checkpoints.copy_companions(own, folder)
    if chosen.form == "full" and (chosen.path / "generation_config.json").is_file():
        shutil.copyfile(chosen.path / "generation_config.json", folder / "generation_config.json")
    for path in sorted(folder.glob("*.json")):
        _forget_paths(path)


def base_of(chosen: Chosen) -> tuple[str, str | None]:
    """What stands in an adapter's configuration as its base, and the revision: the hub's, or the project's folder."""
    if chosen.model.hub:
        return str(chosen.base["source"]), str(chosen.base["commit"])
    return str(chosen.cell.base), None


def _copy_adapter(chosen: Chosen, folder: Path) -> None:
    wanted = [chosen.path / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    for path in wanted:
        checkpoints.require(chosen.path, path.name)
        shutil.copyfile(path, folder / path.name)
    path = folder / "adapter_config.json"
    config = checkpoints.read_object(path, str(chosen.path))
    config["base_model_name_or_path"], config["revision"] = base_of(chosen)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _forget_paths(path: Path) -> None:
    """Takes away where transformers has loaded a file from: that is a folder of some machine, or nothing new."""
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name}: damaged, no JSON ({error}); {files.BRING_BACK}") from error
    if (kept := _without_paths(held)) != held:
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_paths(held: Any) -> Any:
    """A token of a vocabulary may be called as a key of PATHS is; its value is a number."""
    if isinstance(held, list):
        return [_without_paths(one) for one in held]
    if not isinstance(held, dict):
        return held
    kept = {key: value for key, value in held.items() if not (key in PATHS and isinstance(value, str | None))}
    return {key: _without_paths(value) for key, value in kept.items()}
