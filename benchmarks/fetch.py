"""Brings the real models, texts and tokenizers that tests, benchmarks and examples use into their folder.

    python -m benchmarks.fetch                 # all that is published
    python -m benchmarks.fetch gpt2 mmlu       # these
    python -m benchmarks.fetch --list          # what there is: where from, under which licence, how large

The folder is the one that TRADEOFFS_ASSETS names (without it, `shared` beside the checkout), or --into. Each file comes
from its public source at a pinned commit, and its SHA-256 is checked before it is moved into place. A download that
broke off goes on where it was. What is there and right stays; what is there and wrong is refused.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import yaml
from tqdm import tqdm

from benchmarks import assets, making
from tradeoffs.common import files
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError, near

TABLE = Path(__file__).with_name("assets.yaml")
HUB = "https://huggingface.co"
PINNED = re.compile(r"/[0-9a-f]{40}/")  # a commit, as a part of an address
TIMEOUT = 60  # seconds in which nothing comes
BLOCK = 1 << 16


@dataclass(frozen=True)
class Download:
    """A published file, its size in bytes; nothing is made of one that is not what its SHA-256 says."""

    url: str
    size: int | None  # None: as much as the server gives
    sha256: str


@dataclass(frozen=True)
class File:
    """A file of the assets, or a folder of them; `path` within their folder, `size` in bytes.

    It has one of: a download (with a maker, where it is not published as it is used), a text, or a reason why there is
    nothing to fetch.
    """

    asset: str
    licence: str
    path: str
    size: int
    sha256: str
    download: Download | None = None
    make: str | None = None
    text: str | None = None
    unpublished: str | None = None

    @property
    def source(self) -> str:
        """Where it is from, for people to read."""
        if not self.download:
            return f"written from {TABLE.relative_to(assets.ROOT)}"
        made = f" (made from it by {self.make} of benchmarks/making.py)" if self.make else ""
        return self.download.url + made


def read_table(path: Path = TABLE) -> dict[str, list[File]]:
    """The files of every asset, by its name."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: [_file(name, block, *entry) for entry in block["files"].items()] for name, block in raw.items()}


def _file(asset: str, block: dict[str, Any], path: str, facts: dict[str, Any]) -> File:
    facts = dict(facts)
    found = File(asset, block["licence"], path, facts.pop("size"), facts.pop("sha256"))
    if url := facts.pop("url", None):
        published = facts.pop("download", {"size": found.size, "sha256": found.sha256})
        found = replace(found, download=Download(url, published.get("size"), published["sha256"]))
    return replace(found, **facts)


def main(names: Sequence[str], into: Path, list: bool) -> None:
    table = read_table()
    if list:
        print(listed(table))
    else:
        bring(names, into, table)


def bring(names: Sequence[str], into: Path, table: dict[str, list[File]]) -> None:
    """Fetches the assets of these names, or all that are published if there are none.

    Raises UserError, before anything is fetched, for a name that is not in the table, for a named asset that is not
    published or not pinned, and for files that are there and wrong; in the end, for each that could not be fetched.
    """
    if unknown := [name for name in names if name not in table]:
        raise UserError("; ".join(f"{name}: no such asset{near(name, table)}" for name in unknown))
    wanted = [file for name in names or table for file in table[name]]
    there = [file for file in wanted if (into / file.path).exists()]
    if wrong := [problem for file in there if (problem := mistake(file, into))]:
        raise UserError("\n  ".join([f"{into} holds other files than the table says; nothing was fetched", *wrong]))
    for file in there:
        print(f"{file.path}: already there")
    refused = {file: reason for file in wanted if file not in there and (reason := refusal(file))}
    if names and refused:
        raise UserError("; ".join(f"{file.asset}: {file.path}: {reason}" for file, reason in refused.items()))
    failed = _fetch_each([file for file in wanted if file not in there and file not in refused], into)
    for file, reason in refused.items():
        print(f"{file.path}: left out: {reason}")
    if failed:
        raise UserError("\n  ".join([f"{len(failed)} of {len(wanted)} files are missing", *failed]))


def refusal(file: File) -> str | None:
    """Why a file is not to be fetched at all; None where it is."""
    if file.unpublished:
        return file.unpublished
    if file.download and not PINNED.search(file.download.url):
        return f"{file.download.url} names no commit, so what it gives may change"
    return None


def _fetch_each(wanted: Iterable[File], into: Path) -> list[str]:
    """Fetches one after the other, goes on after one that fails, and gives what failed."""
    failed = []
    for file in wanted:
        try:
            fetch(file, into)
        except UserError as error:
            failed.append(str(error))
            print(f"{file.path}: failed", flush=True)
        else:
            print(f"{file.path}: {_mb(file.size)}, {file.licence}, {file.source}", flush=True)
    return failed


def mistake(file: File, into: Path) -> str | None:
    """What is wrong with a file that is there; None where it is as the table says."""
    found = digest(into / file.path)
    if found == file.sha256:
        return None
    return f"{file.path}: its SHA-256 is {found}, not {file.sha256}; move it away and fetch again"


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of what `sha256sum` says of the CSV files in a folder of folders, sorted by path."""
    if not path.is_dir():
        return files.sha256(path)
    held = sorted(str(one.relative_to(path)) for one in path.glob("*/*.csv"))
    lines = "".join(f"{files.sha256(path / name)}  {name}\n" for name in held)
    return hashlib.sha256(lines.encode()).hexdigest()


def fetch(file: File, into: Path) -> None:
    """Puts a file that is missing into its place, whole and checked. Raises UserError if it cannot be had."""
    if file.text is not None:
        place(file, into, file.text.encode())
        return
    assert file.download is not None  # what is unpublished is never fetched
    part = into / ".parts" / f"{files.content_id(file.download.url)}-{Path(file.download.url).name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    download(file.download, part)
    if file.make:
        try:
            place(file, into, making.MAKERS[file.make](part))
        finally:
            part.unlink()
    else:
        (into / file.path).parent.mkdir(parents=True, exist_ok=True)
        part.replace(into / file.path)
    if not any(part.parent.iterdir()):
        part.parent.rmdir()


def place(file: File, into: Path, made: making.Made) -> None:
    """Writes what was made, if it is what the table says. Raises UserError, and writes nothing, if it is not."""
    new = files.new_folder if isinstance(made, dict) else files.new_file
    with new(into / file.path) as unfinished:
        for name, content in made.items() if isinstance(made, dict) else [("", made)]:
            target = unfinished / name if name else unfinished
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if (found := digest(unfinished)) != file.sha256:
            raise UserError(
                f"{file.path}: what was made (SHA-256 {found}) is not what it should be ({file.sha256}); are the "
                f"libraries those of requirements.lock? Source: {file.source}"
            )


def download(wanted: Download, part: Path) -> None:
    """Downloads a file to `part`, going on after what is there, as long as something comes.

    Raises UserError if the server does not give it, if it breaks off (the part stays), and if what came is not what the
    table says (the part is removed).
    """
    if wanted.size and part.exists() and part.stat().st_size > wanted.size:
        part.unlink()
    part.touch()
    while not (part.stat().st_size and part.stat().st_size == wanted.size):
        begun = part.stat().st_size
        try:
            _go_on(wanted, part)
            break
        except (OSError, HTTPException) as error:  # also of a connection that ended too early
            if (size := part.stat().st_size) <= begun:
                of = f" of {_mb(wanted.size)}" if wanted.size else ""
                raise UserError(
                    f"{wanted.url}: broke off after {_mb(size)}{of} ({error}); run again, and it goes on"
                ) from error
    if (found := files.sha256(part)) != wanted.sha256:
        part.unlink()
        raise UserError(
            f"{wanted.url}: what came is not what the table says (its SHA-256 is {found}, not {wanted.sha256}) "
            "and was removed; run again, and if it stays so, the source has changed"
        )


def _go_on(wanted: Download, part: Path) -> None:
    """One request for what the part lacks. Returns once the server has given all that it has.

    Raises UserError if the server refuses, and ConnectionError or what urllib raises if the answer breaks off.
    """
    begun = part.stat().st_size
    url = wanted.url.replace(HUB, os.environ.get("HF_ENDPOINT") or HUB, 1)
    request = Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and begun:  # nothing comes after what is there
            return
        raise UserError(f"{url}: {error.code} {error.reason}") from error
    except URLError as error:
        if not begun:
            part.unlink()
        raise UserError(f"{url}: cannot be reached ({error.reason}); check the network, and run again") from error
    with response:
        # A server that cannot give a part gives the whole.
        kept = begun if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        expected = kept + int(length) if length else None
        with (
            part.open("ab" if kept else "wb") as target,
            tqdm(total=expected, initial=kept, unit="B", unit_scale=True, desc=Path(url).name, leave=False) as bar,
        ):
            while block := response.read(BLOCK):
                target.write(block)
                bar.update(len(block))
    if expected and part.stat().st_size < expected:
        raise ConnectionError("the connection ended")


def listed(table: dict[str, list[File]]) -> str:
    """Name, size and licence of every asset, and of every file its size and where it is from."""
    lines = []
    for name, held in table.items():
        lines.append(f"{name}: {_mb(sum(file.size for file in held))}, {held[0].licence}")
        lines += [f"  {file.path}: {_mb(file.size)}, {_whence(file)}" for file in held]
    return "\n".join(lines)


def _whence(file: File) -> str:
    reason = refusal(file)
    return f"not fetched: {reason}" if reason else file.source


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("names", nargs="*", metavar="NAME", help="an asset of --list (without any: all)")
    parser.add_argument("--into", type=Path, default=assets.FOLDER, help="the folder (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="what there is; fetches nothing")
    cli.command(main, parser)
