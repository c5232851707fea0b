"""GGUFs of several quants whose bytes, or those of the facts beside them, are others than were made.

A try breaks one file and reads it as evaluate_cpu does, or as quantize does. What is ACCEPTED is right if it comes to
the very result of the whole file: the same log-probabilities, the same quantised bytes. Damage that the facts beside it
vouch for (a fault of the converter: their SHA-256 is that of the broken file) has no such result; there it is enough
that reading ends in one sentence or goes through.
"""

import contextlib
import json
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.breaking import Taken, Tries, Try, attempt
from benchmarks.common import ROOT
from stages import evaluate_cpu, quantize
from tradeoffs.common import files
from tradeoffs.common.cells import Cell
from tradeoffs.convert import gguf_converter
from tradeoffs.evaluate.runtime import Target
from tradeoffs.plumbing.errors import UserError

QUANTS = ("f16", "q8_0", "q4_0", "q2_k")
MADE = "q8_0"  # by the tries that read as quantize does
FIELDS = Path("fields.json")
CELL, OTHER = Cell("m", "d", "base"), Cell("m", "d", "other")
IDS = np.arange(3, 60, dtype=np.int32)
EDGES = (0, 1, 2, 7, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
SPOILT = b"[" * 100_000, b"", b"{", b"[]", b"\xff\xfe", b"{}", b"null"
MEMORY = 8 * 2**30  # of address space that reading may take

Damage = Callable[[random.Random, bytearray], str]


@dataclass(frozen=True)
class File:
    """A whole GGUF: its content, that of the facts beside it, where its header's fields are, and what it comes to."""

    path: Path
    content: bytes
    facts: bytes
    fields: list[tuple[str, int, int]]  # name, place, size
    result: str


def tries(count: int, seed: int) -> Tries:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        some = _made()
        for number in range(count):
            yield _try(random.Random(f"{seed} {number}"), some)


def _try(rng: random.Random, some: list[File]) -> Try:
    file = rng.choice(some)
    broken, facts = bytearray(file.content), bytearray(file.facts)
    kind = rng.choice(("flip", "flip", "header flip", "cut", "longer", "zeros", "moved", "field", "facts", "other"))
    vouched = rng.random() < 0.3 and kind not in ("facts", "other")
    if kind == "facts":
        what = _facts(rng, facts)
    elif kind == "other":
        other = rng.choice([one for one in some if one != file])
        broken, what = bytearray(other.content), f"the content of {other.path.name}"
    else:
        what = _field(rng, broken, file) if kind == "field" else DAMAGES[kind](rng, broken)
    file.path.write_bytes(broken)
    if vouched:
        facts = bytearray(json.dumps({"sha256": files.sha256(file.path)}).encode())
    file.path.with_suffix(".json").write_bytes(facts)
    taken, said = _read(file.path)
    if taken is Taken.ACCEPTED and not vouched and said != file.result:
        taken, said = Taken.SILENT, f"{said} in place of {file.result}"
    file.path.write_bytes(file.content)
    file.path.with_suffix(".json").write_bytes(file.facts)
    return Try(f"{file.path}: {what}{', with its digest' if vouched else ''}", taken, said)


def _read(path: Path) -> tuple[Taken, str]:
    """How it was taken, and what came of what was accepted; that llama.cpp ends the process is a refusal where it does
    so in one sentence."""
    result, errors = Path("result"), Path("errors")
    result.unlink(missing_ok=True)

    def call() -> None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        result.write_text(_quantised(path) if path == CELL.converted else _scored(path))

    taken, said = attempt(call, memory=MEMORY)
    written = errors.read_text(errors="replace")
    if taken is Taken.TRACEBACK and said.endswith("exit code 1") and written.startswith("error: "):
        return (Taken.REFUSED, written) if written.count("\n") == 1 else (taken, written)
    return taken, result.read_text() if taken is Taken.ACCEPTED else said


def _scored(path: Path) -> str:
    with evaluate_cpu.read(path, 512) as runtime:
        (score,) = runtime.score([Target(IDS, np.arange(len(IDS)) > 0)])
    return score.logprob.tobytes().hex()


def _quantised(source: Path) -> str:
    quantize.main(CELL.model, CELL.dataset, CELL.method, MADE)
    return files.sha256(CELL.variant(MADE).gguf)


def _flip(rng: random.Random, content: bytearray, first: int = 0, last: int | None = None) -> str:
    place, bit = rng.randrange(first, min(last or len(content), len(content))), rng.randrange(8)
    content[place] ^= 1 << bit
    return f"bit {bit} of byte {place} flipped"


def _cut(rng: random.Random, content: bytearray) -> str:
    size = rng.choice((0, 1, 4, 24, rng.randrange(5000), rng.randrange(len(content)), len(content) - 1))
    del content[size:]
    return f"cut to {size} bytes"


def _longer(rng: random.Random, content: bytearray) -> str:
    more = rng.choice((1, 32, 4096))
    content += rng.randbytes(more)
    return f"{more} bytes longer"


def _zeros(rng: random.Random, content: bytearray) -> str:
    size = rng.choice((16, 512, 4096))
    place = rng.randrange(len(content) - size)
    content[place : place + size] = bytes(size)
    return f"{size} zeros at {place}"


def _moved(rng: random.Random, content: bytearray) -> str:
    """A sector that a disk wrote to another one's place."""
    source, target = rng.sample(range(len(content) // 512), 2)
    content[512 * target : 512 * (target + 1)] = content[512 * source : 512 * (source + 1)]
    return f"sector {source} in place of {target}"


def _field(rng: random.Random, content: bytearray, file: File) -> str:
    """A number of the header, or the first eight bytes of a text in it, as another."""
    name, place, size = rng.choice(file.fields)
    size = min(size, 8)
    value = rng.choice((*EDGES, rng.getrandbits(64)))
    content[place : place + size] = struct.pack("<Q", value)[:size]
    return f"{name} at {place}: {value}"


def _facts(rng: random.Random, facts: bytearray) -> str:
    if rng.random() < 0.6:
        return f"facts: {_flip(rng, facts)}"
    spoilt = rng.choice(SPOILT)
    facts[:] = spoilt
    return f"facts: {spoilt[:10]!r}"


DAMAGES: dict[str, Damage] = {
    "flip": _flip,
    "header flip": partial(_flip, last=6000),
    "cut": _cut,
    "longer": _longer,
    "zeros": _zeros,
    "moved": _moved,
}


def _made() -> list[File]:
    """Whole files in the working directory, by the project's own converter and quantiser: that of the converter, which
    quantize reads, and of each quant one of this model and one of another with the same shapes. They are made in a
    fork: no fork of a process whose libraries have started threads could use these."""
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    taken, said = attempt(_make, seconds=300)
    if taken is not Taken.ACCEPTED:
        raise UserError(f"no GGUF to break: {said}")
    return [_whole(Path(path), fields) for path, fields in files.read_json(FIELDS).items()]


def _make() -> None:
    paths = [CELL.converted]
    for seed, cell in enumerate((CELL, OTHER)):
        _checkpoint(cell.merged, seed)
        cell.converted.parent.mkdir(parents=True, exist_ok=True)
        gguf_converter.convert(cell.merged, cell.converted)
        files.write_json(cell.converted.with_suffix(".json"), {"sha256": files.sha256(cell.converted)})
        for quant in QUANTS:
            quantize.main(cell.model, cell.dataset, cell.method, quant)
        paths += [cell.variant(quant).gguf for quant in QUANTS]
    paths.remove(CELL.variant(MADE).gguf)  # which reading CELL.converted makes
    files.write_json(FIELDS, {str(path): list(_fields(path)) for path in paths})


def _whole(path: Path, fields: list[tuple[str, int, int]]) -> File:
    taken, result = _read(path)
    if taken is not Taken.ACCEPTED:
        raise UserError(f"{path}, which is whole, is not read: {result}")
    return File(path, path.read_bytes(), path.with_suffix(".json").read_bytes(), fields, result)


def _fields(path: Path) -> Iterator[tuple[str, int, int]]:
    import gguf  # the converter's own

    reader: Any = gguf.GGUFReader(path)
    yield "magic", 0, 4
    for field in (*reader.fields.values(), *(tensor.field for tensor in reader.tensors)):
        place = field.offset
        for part in field.parts[:40]:  # not each token of the vocabulary
            yield field.name, place, part.nbytes
            place += part.nbytes


def _checkpoint(folder: Path, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tradeoffs.base import demo_model, demo_pages
    from tradeoffs.common.files import new_folder

    torch.manual_seed(seed)
    with new_folder(folder) as made:
        tokenizer = demo_model.train_tokenizer(list(demo_pages.documents(100, 1)), 400, made, 128)
        sizes: dict[str, Any] = {
            "hidden_size": 256,
            "intermediate_size": 256,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
        }
        config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)
        LlamaForCausalLM(config).save_pretrained(made)
