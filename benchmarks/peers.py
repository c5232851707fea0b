"""llama.cpp's own tools, built from the source archive of the installed llama-cpp-python: same code on both sides.

    python -m benchmarks.peers      builds them into .scratch/llama.cpp-<version>/ unless they are there

The wheel of llama-cpp-python is a Release build for the machine's own instructions (GGML_NATIVE) with OpenMP, unless
CMAKE_ARGS said otherwise; so is this one. `instructions` shows what a side really uses.
"""

import re
import shutil
import subprocess
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

from benchmarks.common import ROOT
from tradeoffs.common import cores, files
from tradeoffs.convert import fetch_converter
from tradeoffs.llama_cpp.native import llama_cpp
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

TOOLS = ("llama-perplexity", "llama-bench", "llama-server")
VERSION = metadata.version("llama-cpp-python")
FOLDER = ROOT / ".scratch" / f"llama.cpp-{VERSION}"
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    *(f"-DLLAMA_{part}=OFF" for part in ("CURL", "OPENSSL", "USE_PREBUILT_UI")),
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "APP", "UI")),
)


def tool(name: str) -> Path:
    """The program `name` of TOOLS, built first if it is not there.

    Raises UserError if cmake is missing, or with the end of the log if the build fails.
    """
    if not (FOLDER / name).is_file():
        build()
    return FOLDER / name


def build() -> None:
    """Downloads the source archive and builds TOOLS into FOLDER; some minutes."""
    if not shutil.which("cmake"):
        raise UserError("cmake: not found; llama.cpp's own tools are built with it (Debian: apt install cmake)")
    print(f"building {', '.join(TOOLS)} of llama-cpp-python {VERSION}; this takes some minutes", flush=True)
    with tempfile.TemporaryDirectory() as temporary, files.new_folder(FOLDER) as unfinished:
        source, made = Path(temporary, "source"), Path(temporary, "build")
        with tarfile.open(fetch_converter.download(VERSION, Path(temporary))) as archive:
            archive.extractall(source, filter="data")
        _run("cmake", "-S", source / f"llama_cpp_python-{VERSION}/vendor/llama.cpp", "-B", made, *OPTIONS)
        _run("cmake", "--build", made, "--parallel", cores.usable(), "--target", *TOOLS)
        for name in TOOLS:
            shutil.copy2(made / "bin" / name, unfinished / name)


def _run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise UserError(f"llama.cpp {VERSION}: {command[0]} failed\n{done.stdout[-2000:]}")


def threads() -> int:
    """As many as LlamaCppRuntime takes."""
    return cores.usable()


def instructions(output: str | None = None) -> str:
    """What llama.cpp lists as used by the installed wheel, or by the tool that printed `output`: AVX2, OPENMP, ..."""
    lines = [line for line in (output or "").splitlines() if "system_info:" in line]
    text = llama_cpp.llama_print_system_info().decode() if output is None else "".join(lines[:1])
    return " ".join(re.findall(r"\b([A-Z0-9_]+) = 1\b", text))


def main() -> None:
    for program in TOOLS:
        print(tool(program).relative_to(ROOT))


if __name__ == "__main__":
    cli.command(main)
