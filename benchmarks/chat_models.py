"""Models to talk with: the default's recommended one, and one of a real model's size behind the same server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import common, ggufs
from benchmarks.assets import ROOT, find
from benchmarks.chat_servers import Talked
from benchmarks.common import SCRATCH
from benchmarks.generation import QUESTIONS
from tradeoffs.common import cells, files
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing.errors import UserError

CONTEXT = 2048  # of the drawn model
SHORT = 120  # characters of a question: five turns fit the context of 512 tokens that the default's model has


def default() -> Talked:
    """What the committed decision recommends, if it is a GGUF; else the first GGUF there is. Raises UserError before
    `make run`."""
    decided = files.read_json(ROOT / "metrics/decision.json")
    recommended = next(iter(decided.values()))["recommended"]
    found = [path for path in sorted((ROOT / "models/gguf").glob("*.gguf")) if (ROOT / "models/base").is_dir()]
    if not found:
        raise UserError("models/gguf: nothing to talk with; `make run` makes it")
    gguf = next((path for path in found if path.stem == recommended), found[0])
    variant = Variant.parse(gguf.stem)
    context = files.read_json(ROOT / variant.cell.tokens / "info.json")["context"]
    return Talked(ROOT, str(variant), gguf, context)


def default_questions() -> list[str]:
    """Short ones of the default's data set, each once: of all its splits, those that were never trained on first."""
    folder = ROOT / cells.prepared("demo")
    rows = [row for split in ("test", "valid", "train") for row in files.read_jsonl(folder / f"{split}.jsonl")]
    return list(dict.fromkeys(row["prompt"] for row in rows if len(row["prompt"]) <= SHORT))


def drawn() -> Talked:
    """SmolLM2-135M's shape with random weights, q8_0: what is computed takes its time, and says nothing. Its context is
    2,048 tokens, so that each server has 32 places with room for a whole one."""
    checkpoint = common.smollm2_135m(SCRATCH / f"smollm2-135m-{CONTEXT}", CONTEXT)
    return workspace(SCRATCH / "chat", checkpoint, ggufs.made(checkpoint, "q8_0"), CONTEXT)


def drawn_questions() -> list[str]:
    rows = files.read_json(find(QUESTIONS))
    return [row["instruction"] for row in rows if len(row["instruction"]) <= SHORT]


def workspace(folder: Path, checkpoint: Path, gguf: Path, context: int) -> Talked:
    """A checkout after a run of one variant: what the chat reads of it, made in `folder` of a checkpoint with its
    tokenizer and a GGUF of it."""
    from transformers import AutoTokenizer

    variant = Variant("drawn", "demo", "lora", gguf.stem.rpartition("-")[2])
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["run"] |= {"models": ["drawn"], "methods": ["lora"], "precisions": ["bf16"], "quants": [variant.format]}
    raw["models"]["drawn"] = {"path": str(checkpoint), "prompt": "own"}
    files.write_text(folder / "params.yaml", yaml.safe_dump(raw, sort_keys=False))
    _link(folder / variant.cell.base, checkpoint)
    _link(folder / variant.gguf, gguf)
    files.write_json(folder / variant.gguf.with_suffix(".json"), {"sha256": files.sha256(gguf)})
    files.write_json(folder / variant.facts, {"max_new_tokens": 48})
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    files.write_json(
        folder / variant.cell.tokens / "info.json", {"stop_ids": [tokenizer.eos_token_id], "context": context}
    )
    return Talked(folder, str(variant), gguf, context)


def conversations(questions: Sequence[str], count: int, turns: int) -> list[list[str]]:
    """`count` conversations of `turns` questions each, no two of which begin alike, as far as there are questions."""
    if len(questions) < count:
        raise UserError(f"{len(questions)} questions are too few for {count} conversations")
    # The first turns are the first questions; the others go on from there, around.
    return [[questions[(at + turn * count) % len(questions)] for turn in range(turns)] for at in range(count)]


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
