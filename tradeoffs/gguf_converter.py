"""llama.cpp's own converter, run in this process: a Hugging Face checkpoint in, an f16 GGUF out.

The converter is used as it is (see fetch_converter). Where it and the installed transformers disagree, the value that
it looks for is handed to it from outside: per model type in MISSING_KEYS, and the merge ranks of SentencePiece.
"""

import functools
import json
import logging
import runpy
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from tradeoffs import fetch_converter
from tradeoffs.errors import UserError

# Keys that the converter reads and transformers 5 no longer writes, by model_type: key and where its value is now.
MISSING_KEYS: dict[str, dict[str, Callable[[dict], Any]]] = {
    "gpt2": {"n_ctx": lambda config: config["n_positions"]},
    "gpt_neox": {"rotary_pct": lambda config: config["rope_parameters"]["partial_rotary_factor"]},
}
# How the converter says no: it is a script, so by whatever is at hand.
REFUSALS = (
    SystemExit,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def convert(checkpoint: Path, gguf: Path) -> None:
    """Writes `checkpoint` (config, safetensors, tokenizer, chat template) to `gguf`, matrices in f16.

    Raises UserError with the converter's last lines if it is not installed or refuses the checkpoint.
    """
    script = load()
    log = StringIO()
    handler = logging.StreamHandler(log)
    root, arguments, level = logging.getLogger(), sys.argv, logging.getLogger().level
    root.addHandler(handler)  # the converter leaves a root logger alone that has a handler
    root.setLevel(logging.INFO)
    sys.argv = [str(script), str(checkpoint), "--outtype", "f16", "--outfile", str(gguf)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except REFUSALS as error:
        reason = f"{log.getvalue()}{type(error).__name__}: {error}"
        lines = [line for line in reason.splitlines() if line.strip("* ")][-8:]
        raise UserError("\n  ".join([f"{checkpoint}: llama.cpp's converter cannot convert it:", *lines])) from error
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        sys.argv = arguments


@functools.cache
def load() -> Path:
    """Imports the converter (and with it torch and transformers) and hands it what it misses; its script."""
    folder = fetch_converter.folder()
    if not folder.is_dir():
        raise UserError(f"{folder}: llama.cpp's converter is missing; run `python -m tradeoffs.fetch_converter`")
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]  # its own gguf: the one on the package index differs
    import gguf
    from conversion.base import ModelBase

    load_hparams = ModelBase.load_hparams

    def with_missing_keys(checkpoint: Path, is_mistral_format: bool) -> dict[str, Any]:
        config = load_hparams(checkpoint, is_mistral_format)
        for key, value in MISSING_KEYS.get(config.get("model_type", ""), {}).items():
            if key not in config:
                config[key] = value(config)
        return config

    ModelBase.load_hparams = staticmethod(with_missing_keys)
    gguf.LlamaHfVocab.get_token_score = _merge_score
    return folder / "convert_hf_to_gguf.py"


def _merge_score(vocab: Any, token_id: int) -> float:
    """Score of a token in a SentencePiece tokenizer of which only tokenizer.json is there: minus its merge's rank.

    llama.cpp merges the pair whose result has the highest score. The converter gives every token the same one, and
    llama.cpp would then cut words into other pieces than the model was trained on.
    """
    if not hasattr(vocab, "merge_scores"):
        model = json.loads(vocab.fname_tokenizer.read_text(encoding="utf-8"))["model"]
        vocab.merge_scores = {}
        for rank, merge in enumerate(model["merges"]):
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            vocab.merge_scores.setdefault(model["vocab"][left + right], -float(rank))
    return vocab.merge_scores.get(token_id, -1e6)
