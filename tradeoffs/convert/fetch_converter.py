"""Fetch the GGUF converter that belongs to the installed llama-cpp-python. Part of set-up; needs the package index.

OUT  <environment>/share/llama.cpp-<version of llama-cpp-python>/   converter, its model descriptions, its gguf library
     python -m tradeoffs.convert.fetch_converter

The converter is on no package index by itself, but the source archive of llama-cpp-python carries it, so that converter
and runtime always match. It lies beside the installed packages and not in the checkout: a queued experiment runs in a
copy of the checkout that holds nothing that Git ignores.
"""

import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

from tradeoffs.common import files
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

PARTS = ("LICENSE", "convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/")


def folder() -> Path:
    """Where the converter for the installed llama-cpp-python lies, or would lie."""
    return Path(sys.prefix) / "share" / f"llama.cpp-{metadata.version('llama-cpp-python')}"


def main() -> None:
    target = folder()
    if target.is_dir():
        print(f"{target}: already there")
        return
    version = target.name.removeprefix("llama.cpp-")
    with tempfile.TemporaryDirectory() as downloads:
        archive = download(version, Path(downloads))
        with files.new_folder(target) as unfinished:
            extract(archive, f"llama_cpp_python-{version}/vendor/llama.cpp/", unfinished)
    print(f"{target}: fetched")


def download(version: str, into: Path) -> Path:
    """The source archive of llama-cpp-python; it is not built."""
    package = "llama-cpp-python"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", package, "--dest", str(into)]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, f"{package}=={version}"], capture_output=True, text=True
    )
    if pip.returncode != 0:
        raise UserError(
            f"pip cannot download {package}=={version}; is the package index in reach?\n{pip.stderr[-1000:]}"
        )
    return next(into.glob("*.tar.gz"))


def extract(archive: Path, prefix: str, target: Path) -> None:
    """The parts of the archive that the converter needs, without the leading `prefix`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(prefix)
            if name != member.name and name.startswith(PARTS):
                tar.extract(member.replace(name=name), target, filter="data")
    if not (target / "convert_hf_to_gguf.py").is_file():
        raise UserError(
            f"{archive.name}: holds no {prefix}convert_hf_to_gguf.py; pin the llama-cpp-python of requirements.lock"
        )


if __name__ == "__main__":
    cli.command(main)
