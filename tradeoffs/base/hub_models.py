"""A model of the hub: what its repository holds, what fetching it takes, and its files in HF_HOME's cache.

Only what is read here is fetched: safetensors weights, config, tokenizer, chat template, licence. Never pickles, never
code. huggingface_hub starts a file of which a part is there from nothing once its process has ended; weights are
therefore downloaded to a part file of the cache, which the next run goes on with, and are checked by their SHA-256.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from configparser import ConfigParser, Error
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from tradeoffs.common import files
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import hub

if TYPE_CHECKING:  # to import it takes a second, and only models of the hub need it
    from huggingface_hub.hf_api import RepoFile

FICLONE = 0x40049409  # of Linux' ioctl_ficlone(2): a copy that shares its blocks until one of the two is changed
TRIES = 5  # to go on with a file of which nothing more came
SHARED = ("config.json", checkpoints.INDEX, *checkpoints.COMPANIONS)


@dataclass(frozen=True)
class Source:
    """A repository at a commit, with all but its weights in the cache. `folder` is its snapshot there."""

    repo: str
    commit: str
    where: str
    folder: Path
    small: list[str]
    weights: dict[str, int]  # size in bytes by name

    @property
    def storage(self) -> Path:
        """What the cache holds of the repository: blobs by their hash, and snapshots of links to them."""
        return self.folder.parents[1]

    @property
    def missing(self) -> list[str]:
        """Weights that are not in the cache yet."""
        return [name for name in self.weights if not (self.folder / name).exists()]


def find(repo: str, revision: str, where: str) -> Source:
    """Resolves the revision, checks that the repository holds a model of the kind that is read here, and fetches
    everything but its weights into HF_HOME's cache.

    `where` is the params key of the model ("models.gpt2"). What is in the cache already is not asked for again, so a
    commit that was fetched once needs no network. Raises UserError if the hub does not give it, or if it holds no
    safetensors weights, no tokenizer, or an architecture that needs code of its own.
    """
    import huggingface_hub

    commit = hub.resolve(repo, revision, "model", where)
    with hub.explained(repo, revision, "model", where):
        sizes = _sizes(repo, commit)
        _check_names(repo, set(sizes), where)
        small = [name for name in sizes if any(Path(name).match(pattern) for pattern in SHARED)]
        with _quiet():
            folder = Path(huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=small))
        checkpoints.check_architecture(folder, f"{where}.hub: {repo}")
        names = [path.name for path in checkpoints.weight_files(folder)]
        lost = [name for name in names if name not in sizes]
        if lost:
            raise UserError(
                f"{where}.hub: {repo} lacks {', '.join(lost)}, which {checkpoints.INDEX} names; take another revision"
            )
        return Source(repo, commit, where, folder, small, {name: sizes[name] for name in names})


def announce(source: Source, folder: Path) -> None:
    """Prints what the model takes, of the disk and of memory; `folder` is where its copy goes (models/base/NAME).

    Raises UserError if it does not fit the disk.
    """
    from huggingface_hub import constants

    size, cache = sum(source.weights.values()), _dvc_cache()
    downloads = Path(constants.HF_HUB_CACHE)
    with hub.explained(source.repo, source.commit, "model", source.where):
        count, exact = _parameters(source, size)
        missing = max(0, sum(source.weights[name] for name in source.missing) - _begun(source))
    download = f"{_bytes(missing)} to download into {downloads}" if missing else "nothing to download"
    print(
        f"{source.repo} at {source.commit}: {'' if exact else 'about '}{count / 1e6:,.1f} million parameters\n"
        f"  disk: {download}, up to {_bytes(2 * size)} for the copies in {folder.parent} and {cache}\n"
        f"  memory, without activations: {_bytes(2 * count)} to run (bf16) or to tune an adapter, {_bytes(4 * count)} "
        f"for the reference (float32), {_bytes(16 * count)} to tune in full (float32 weights, gradients, two moments)"
    )
    _check_room(source, [("download", downloads, missing), ("copy", folder.parent, size), ("DVC's copy", cache, size)])


def copy(source: Source, target: Path) -> None:
    """Fetches the weights that are not in the cache, and copies the checkpoint into the folder `target`."""
    import huggingface_hub

    wanted = [*source.small, *source.weights]
    with hub.explained(source.repo, source.commit, "model", source.where):
        for name in source.missing:
            _download(source, name)
        huggingface_hub.snapshot_download(source.repo, revision=source.commit, allow_patterns=wanted)
        for name in wanted:
            _clone((source.folder / name).resolve(), target / name)


def _sizes(repo: str, commit: str) -> dict[str, int]:
    """Bytes of every file at the root of the repository, by name; from the cache where it has the list."""
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    listed: Iterator[RepoFile]
    try:
        listed = iter(huggingface_hub.get_cached_repo_tree(repo, revision=commit))
    except CachedRepoTreeNotFoundError:
        tree = huggingface_hub.HfApi().list_repo_tree
        try:
            return {entry.path: entry.size for entry in tree(repo, revision=commit) if hasattr(entry, "size")}
        except (httpx.TransportError, OfflineModeIsEnabled):
            # Another program left no list of the files, but maybe the files: then what is there is what there is.
            folder = Path(huggingface_hub.snapshot_download(repo, revision=commit, local_files_only=True))
            return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return {entry.path: entry.size for entry in listed if "/" not in entry.path}


def _check_names(repo: str, names: set[str], where: str) -> None:
    """Raises UserError, with the way out, unless the files are those of a model in safetensors with a tokenizer."""
    there = f"there: {', '.join(sorted(names)) or 'nothing'}"
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if "adapter_config.json" in names and "config.json" not in names:
        raise UserError(
            f"{where}.hub: {repo} is an adapter, not a model ({there}); merge it into its base with PEFT, save "
            "the model with save_pretrained, and give that folder as `path`"
        )
    if not names & {"model.safetensors", checkpoints.INDEX}:
        reason = (
            f"only pickles ({', '.join(pickles[:3])}), which can run code when they are read" if pickles else "none"
        )
        raise UserError(
            f"{where}.hub: {repo} has no safetensors weights, {reason} ({there}); look for a revision that has them "
            "(its page lists pull requests, as refs/pr/1), or load it where you trust it, save it with save_pretrained "
            "and give that folder as `path`"
        )
    if "config.json" not in names:
        raise UserError(f"{where}.hub: {repo} has no config.json ({there}); it is no model of transformers")
    if not names & set(checkpoints.TOKENIZERS):
        raise UserError(
            f"{where}.hub: {repo} has neither {' nor '.join(checkpoints.TOKENIZERS)} ({there}); save it with its "
            "tokenizer into one folder with save_pretrained, and give that folder as `path`"
        )


def _parameters(source: Source, size: int) -> tuple[int, bool]:
    """How many numbers the weights hold, and whether that is exact: from the headers of the files, which come first in
    them; where the hub does not give a part of a file, from their size as 16-bit numbers."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, SafetensorsParsingError
    from huggingface_hub.utils import httpx

    if not source.missing:
        return checkpoints.parameters(source.folder), True
    header = huggingface_hub.HfApi().parse_safetensors_file_metadata
    try:
        found = [header(source.repo, name, revision=source.commit) for name in source.weights]
    except (SafetensorsParsingError, HfHubHTTPError, httpx.HTTPError):  # the download itself will say what is wrong
        return size // 2, False
    return sum(sum(one.parameter_count.values()) for one in found), True


def _check_room(source: Source, wanted: list[tuple[str, Path, int]]) -> None:
    """Raises UserError if what is wanted (what for, where, bytes) does not fit the disks that the places are on."""
    disks: dict[int, list[tuple[str, Path, int]]] = {}
    for what, path, size in wanted:
        disks.setdefault(_existing(path).stat().st_dev, []).append((what, path, size))
    for parts in disks.values():
        needed, free = sum(size for *_, size in parts), shutil.disk_usage(_existing(parts[0][1])).free
        if needed > free:
            for_what = ", ".join(f"{what} {_bytes(size)} in {path}" for what, path, size in parts if size)
            raise UserError(
                f"{source.where}.hub: the disk is too small for {source.repo}: {_bytes(needed)} needed ({for_what}), "
                f"{_bytes(free)} free; make room (`dvc gc --workspace`, `hf cache ls`), or set HF_HOME to a folder on "
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


def _begun(source: Source) -> int:
    """Bytes of the missing weights that an earlier run left behind; none where the hub does not tell their SHA-256."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import httpx

    blobs = source.storage / "blobs"
    if not source.missing or not any(blobs.glob("*.incomplete")):
        return 0
    try:  # the list of the files in the cache is without it
        told = huggingface_hub.HfApi().get_paths_info(source.repo, source.missing, revision=source.commit)
    except (HfHubHTTPError, httpx.HTTPError):  # the download itself will say what is wrong
        return 0
    parts = {_part(blobs / entry.lfs.sha256) for entry in told if isinstance(entry, RepoFile) and entry.lfs}
    return sum(part.stat().st_size for part in parts if part.exists())


def _part(blob: Path) -> Path:
    """The file that becomes the blob, as older versions of huggingface_hub, which went on with it, called it; today's
    leave one with a longer name."""
    return blob.with_name(f"{blob.name}.incomplete")


def _download(source: Source, name: str) -> None:
    """Makes a file of weights a blob of the cache, going on with the part that an earlier run left."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock, httpx

    url = huggingface_hub.hf_hub_url(source.repo, name, revision=source.commit)
    facts = huggingface_hub.get_hf_file_metadata(url)
    size = source.weights[name]
    if not facts.etag or size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        return  # snapshot_download can: such a file is to be had through its other protocol only
    blob = source.storage / "blobs" / facts.etag
    part = _part(blob)
    lock = source.storage.parent / ".locks" / source.storage.name / f"{facts.etag}.lock"  # huggingface_hub's own
    for path in (part, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():  # from another process, while this one waited
            return
        part.touch()
        if part.stat().st_size > size:
            os.truncate(part, 0)
        try:
            _go_on(part, name, url, size)
        except httpx.TransportError as error:
            raise UserError(
                f"{source.where}.hub: the download of {name} from {source.repo} broke off after "
                f"{_bytes(part.stat().st_size)} of {_bytes(size)} ({type(error).__name__}); run again, and it goes on"
            ) from error
        found = files.sha256(part) if len(facts.etag) == 64 else _git_id(part)
        if found != facts.etag:
            part.unlink()
            raise UserError(
                f"{source.where}.hub: {name} of {source.repo} arrived damaged (its hash is {found}, not {facts.etag}) "
                "and was removed; run again"
            )
        part.rename(blob)


def _go_on(part: Path, name: str, url: str, size: int) -> None:
    """Downloads what the part file lacks of `size` bytes, as long as something comes."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, httpx

    tries = TRIES
    while (begun := part.stat().st_size) < size:
        if begun:
            print(f"{name}: going on after {_bytes(begun)} of {_bytes(size)}", flush=True)
        try:
            with part.open("r+b") as file:
                file.seek(begun)
                # Not the address that the hub redirects to, which holds for an hour only.
                http_get(url, file, resume_size=begun, headers=build_hf_headers(), expected_size=size)
        except httpx.ReadError:  # a connection that was reset, the one kind that http_get does not go on after
            tries = TRIES if part.stat().st_size > begun else tries - 1
            if not tries:
                raise
        except OSError as error:
            if isinstance(error, HfHubHTTPError) or error.errno:
                raise
            return  # not of the expected size, says http_get; so its hash will be another one too


def _git_id(path: Path) -> str:
    """The id that Git gives a file, by which the hub names what is not in its large file storage."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _clone(source: Path, target: Path) -> None:
    """Copies a file; where the disk can, without taking room. Never a link: it would change with its other name."""
    with source.open("rb") as read, target.open("wb") as write:
        try:
            fcntl.ioctl(write.fileno(), FICLONE, read.fileno())
        except OSError:  # another disk, or one that cannot
            shutil.copyfileobj(read, write, 16 << 20)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars for small files and for what is here already."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
