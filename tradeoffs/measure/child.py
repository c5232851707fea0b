"""The process that measures one thing: loads it, measures it, says what it found.

    python -m tradeoffs.measure.child        work as JSON on stdin, what was found as one line of JSON on stdout

Only what the thing's runtime needs is imported, so that the process is no larger than one that serves it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tradeoffs.common.memory import resident_mb
from tradeoffs.evaluate.runtime import Runtime
from tradeoffs.formats.names import CUDA
from tradeoffs.measure import speed
from tradeoffs.measure.work import Work
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError


def measured(text: str) -> str:
    """The work in `text` done in this process; both as JSON. A UserError becomes `{"error": its message}`."""
    work = Work.of_json(text)
    try:
        found = _of_gguf(work) if "gguf" in work.loaded else _of_torch(work)
    except UserError as error:
        found = {"error": str(error)}
    return json.dumps(found)


def _of_gguf(work: Work) -> dict[str, Any]:
    from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

    gguf, on_gpu = Path(work.loaded["gguf"]), work.on == CUDA
    return _measured(work, lambda: LlamaCppRuntime(gguf, work.batch_tokens, on_gpu=on_gpu))


def _of_torch(work: Work) -> dict[str, Any]:
    from tradeoffs.measure import torch_things

    torch_things.import_all(work)
    return _measured(work, lambda: torch_things.load(work))


def _measured(work: Work, load: Any) -> dict[str, Any]:
    before, begun = resident_mb(), time.perf_counter()
    runtime: Runtime = load()
    return speed.measure(runtime, work, before, time.perf_counter() - begun)


def main() -> None:
    print(measured(sys.stdin.read()), flush=True)


if __name__ == "__main__":
    cli.command(main)
