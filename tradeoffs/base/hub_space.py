"""What a model of the hub takes of the disk and of memory, told before it is downloaded."""

import math
import os
import shutil
from configparser import ConfigParser, Error
from pathlib import Path

import platformdirs

from tradeoffs.base.hub_downloads import amount, left_behind
from tradeoffs.base.hub_models import Source
from tradeoffs.models import checkpoints, weights
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import hub


def announce(source: Source, folder: Path) -> None:
    """Prints what the model takes, of the disk and of memory; `folder` is where its copy goes (models/base/NAME).

    Raises UserError if it does not fit the disk, or if its weights are not those of the model in its config.
    """
    from huggingface_hub import constants

    size, cache = sum(source.weights.values()), _dvc_cache()
    downloads = Path(constants.HF_HUB_CACHE)
    with hub.explained(source.repo, source.commit, "model", source.where):
        headers = _headers(source)
        missing = max(0, sum(source.weights[name] for name in source.missing) - left_behind(source))
    if headers is not None:
        weights.check_names(source.folder, headers, f"{source.where}.hub: {source.repo}")
    # Where nothing tells, the size of 16-bit numbers does.
    count = size // 2 if headers is None else sum(math.prod(shape) for _, shape in headers.values())
    about = "about " if headers is None else ""
    download = f"{amount(missing)} to download into {downloads}" if missing else "nothing to download"
    print(
        f"{source.repo} at {source.commit}: {about}{count / 1e6:,.1f} million parameters\n"
        f"  disk: {download}, up to {amount(2 * size)} for the copies in {folder.parent} and {cache}\n"
        f"  memory, without activations: {amount(2 * count)} to run (bf16) or to tune an adapter, {amount(4 * count)} "
        f"for the reference (float32), {amount(16 * count)} to tune in full (float32 weights, gradients, two moments)"
    )
    _check_room(source, [("download", downloads, missing), ("copy", folder.parent, size), ("DVC's copy", cache, size)])


def _headers(source: Source) -> weights.Headers | None:
    """Type and shape of each tensor, from the headers of the files, which come first in them; None where the hub does
    not give a part of a file."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, SafetensorsParsingError
    from huggingface_hub.utils import httpx

    if not source.missing:
        return checkpoints.headers(source.folder)
    header = huggingface_hub.HfApi().parse_safetensors_file_metadata
    try:
        found = [header(source.repo, name, revision=source.commit) for name in source.weights]
    except (SafetensorsParsingError, HfHubHTTPError, httpx.HTTPError):  # the download itself will say what is wrong
        return None
    return {name: (tensor.dtype, tensor.shape) for one in found for name, tensor in one.tensors.items()}


def _check_room(source: Source, wanted: list[tuple[str, Path, int]]) -> None:
    """Raises UserError if what is wanted (what for, where, bytes) does not fit the disks that the places are on."""
    disks: dict[int, list[tuple[str, Path, int]]] = {}
    for what, path, size in wanted:
        disks.setdefault(_existing(path).stat().st_dev, []).append((what, path, size))
    for parts in disks.values():
        needed, free = sum(size for *_, size in parts), shutil.disk_usage(_existing(parts[0][1])).free
        if needed > free:
            for_what = ", ".join(f"{what} {amount(size)} in {path}" for what, path, size in parts if size)
            raise UserError(
                f"{source.where}.hub: the disk is too small for {source.repo}: {amount(needed)} needed ({for_what}), "
                f"{amount(free)} free; make room (`dvc gc --workspace`, `hf cache ls`), or set HF_HOME to a folder on "
                "another disk, or DVC's cache with `dvc cache dir`"
            )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _dvc_cache() -> Path:
    """Where DVC keeps what it has seen: `dvc cache dir`, read from its four files (dvc.config.Config, dvc.dirs), since
    to ask DVC takes seconds."""
    system = os.getenv("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir("dvc", "iterative")
    user = os.getenv("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir("dvc", "iterative")
    found = Path(".dvc/cache")
    for name in (f"{system}/config", f"{user}/config", ".dvc/config", ".dvc/config.local"):  # the last one wins
        config = ConfigParser(interpolation=None, strict=False)
        try:
            config.read(name, encoding="utf-8")
        except (Error, UnicodeDecodeError):
            continue  # DVC will say what is wrong with it
        if place := config.get("cache", "dir", fallback=None):
            found = Path(name).parent / Path(place).expanduser()
    return found
