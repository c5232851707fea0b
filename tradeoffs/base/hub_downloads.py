"""The files of a model of the hub, fetched into HF_HOME's cache and copied from there.

huggingface_hub starts a file of which a part is there from nothing once its process has ended; weights are therefore
downloaded to a part file of the cache, which the next run goes on with, and are checked by their SHA-256.
"""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from tradeoffs.base.hub_models import Source
from tradeoffs.common import files
from tradeoffs.common.texts import harmless
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import hub

FICLONE = 0x40049409  # of Linux' ioctl_ficlone(2): a copy that shares its blocks until one of the two is changed
TRIES = 5  # to go on with a file of which nothing more came


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


def left_behind(source: Source) -> int:
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
                f"{amount(part.stat().st_size)} of {amount(size)} ({type(error).__name__}); run again, and it goes on"
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
            print(f"{harmless(name)}: going on after {amount(begun)} of {amount(size)}", flush=True)
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


def amount(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
