"""Whether llama.cpp takes a GGUF and makes tokens by its vocabulary, tried in a process that it may end.

    python -m tradeoffs.convert.trial        {"gguf": ..., "texts": [...], "ids": [...]} on stdin, lines of JSON out

No number of the weights is read, and no memory is taken for them: a file of any size is tried in moments. Only that
process imports llama.cpp, which changes how the whole of one ends (see native).
"""

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

TOKENS = 64  # of the context for which its graphs are built
SECONDS, MEMORY = 600.0, 16 << 30  # for a vocabulary of somebody's; bytes of data, since GPUs reserve more addresses
OF_MEMORY = re.compile("bad_alloc|failed to allocate|can(no|')t allocate|mem_buffer != NULL", re.IGNORECASE)
BYTE_LEVEL = ("gpt2", "default")  # what the converter writes of a BPE that it does not know


class RefusedError(UserError):
    """llama.cpp cannot take a checkpoint or a GGUF, whatever the machine; `reason`: why, in one line."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Tried:
    """`ids` of each text and whether a BOS is put before it; None and `why_not` where its tokenizer fails.

    `read`: which text stands for ids that were given, where the vocabulary is one of BYTE_LEVEL, else None.
    """

    ids: list[list[int]] | None
    adds_bos: bool
    why_not: str = ""
    read: list[str] | None = None


def tried(gguf: Path, texts: Sequence[str], ids: Sequence[list[int]] = ()) -> Tried:
    """What llama.cpp makes of `gguf` and, special tokens in them read as such, of `texts` and of `ids`.

    Raises RefusedError if it cannot load it or build its graphs, or does not end, and another UserError if there is no
    memory for that.
    """
    code = str(Path(__file__).parents[2])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tradeoffs.convert.trial"],
            input=json.dumps({"gguf": str(gguf), "texts": list(texts), "ids": list(ids)}),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        why_not = f"llama.cpp is not done with it after {SECONDS:g} seconds"
        raise RefusedError(f"{gguf}: {why_not}", why_not) from error
    said = done.stdout.splitlines()
    if done.returncode == 0:
        return Tried(json.loads(said[1]), json.loads(said[0]), read=json.loads(said[2]))
    why_not = _why_not(done, gguf)
    if done.returncode == -signal.SIGKILL or OF_MEMORY.search(why_not):
        raise UserError(f"{gguf}: there may have been no memory to try it: {why_not}")
    if said:
        return Tried(None, json.loads(said[0]), why_not)
    raise RefusedError(f"{gguf}: {why_not}", why_not)


def _why_not(done: "subprocess.CompletedProcess[str]", gguf: Path) -> str:
    if done.returncode < 0:
        return f"llama.cpp was ended by signal {-done.returncode}"
    start = f"error: {gguf}: "
    said = [line.removeprefix(start) for line in done.stderr.splitlines() if line.startswith(start)]
    return said[0] if said else done.stderr.strip().rpartition("\n")[2]


def main() -> None:
    from tradeoffs.llama_cpp.native import llama_cpp

    asked = json.load(sys.stdin)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
    model = _load(asked["gguf"])
    vocab = llama_cpp.llama_model_get_vocab(model)
    print(json.dumps(bool(llama_cpp.llama_vocab_get_add_bos(vocab))), flush=True)
    print(json.dumps([tokens(vocab, text) for text in asked["texts"]]), flush=True)
    known = tuple(_metadata(model, f"tokenizer.ggml.{key}") for key in ("model", "pre")) != BYTE_LEVEL
    print(json.dumps(None if known else [_text(vocab, ids) for ids in asked["ids"]]), flush=True)


def _load(path: str) -> Any:
    """The model, of which nothing is freed: the process ends."""
    from tradeoffs.llama_cpp import native
    from tradeoffs.llama_cpp.native import llama_cpp

    native.start_log(path)
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0
    options.no_alloc, options.load_mode = True, llama_cpp.LLAMA_LOAD_MODE_NONE
    model: Any = llama_cpp.llama_model_load_from_file(path.encode(), options)
    if not model:
        raise UserError(f"{path}: llama.cpp cannot load it: {native.last_error()}")
    wanted = llama_cpp.llama_context_default_params()
    wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = TOKENS
    wanted.offload_kqv = wanted.op_offload = False
    if not llama_cpp.llama_init_from_model(model, wanted):
        raise UserError(f"{path}: llama.cpp cannot run it: {native.last_error()}")
    return model


def tokens(vocab: Any, text: str) -> list[int]:
    """llama.cpp's ids for `text`, special tokens in it read as such and none added."""
    from tradeoffs.llama_cpp.native import llama_cpp

    data = text.encode()
    count = -llama_cpp.llama_tokenize(vocab, data, len(data), None, 0, False, True)  # no room: minus what it takes
    ids = (ctypes.c_int32 * count)()
    llama_cpp.llama_tokenize(vocab, data, len(data), ids, count, False, True)
    return list(ids)


def _text(vocab: Any, ids: list[int]) -> str:
    """What `ids` stand for, special tokens written out."""
    from tradeoffs.llama_cpp.native import llama_cpp

    held = (ctypes.c_int32 * len(ids))(*ids)
    room = -llama_cpp.llama_detokenize(vocab, held, len(ids), b"", 0, False, True)  # no room: minus what it takes
    text = ctypes.create_string_buffer(max(room, 1))
    written = llama_cpp.llama_detokenize(vocab, held, len(ids), text, room, False, True)  # type: ignore[arg-type]
    return text.raw[: max(written, 0)].decode(errors="replace")


def _metadata(model: Any, key: str) -> str:
    from tradeoffs.llama_cpp.native import llama_cpp

    value = ctypes.create_string_buffer(64)
    llama_cpp.llama_model_meta_val_str(model, key.encode(), value, len(value))  # type: ignore[arg-type]
    return value.value.decode(errors="replace")


if __name__ == "__main__":
    cli.command(main)
