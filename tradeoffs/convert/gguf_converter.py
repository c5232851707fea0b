"""llama.cpp's own converter, run in this process: a Hugging Face checkpoint in, an f16 GGUF out.

The converter is used as it is (see fetch_converter). Where it and the installed transformers disagree, what it looks
for is handed to it from outside: per model type in MISSING_KEYS, and the merge ranks of SentencePiece. What it trips
over is kept from it: MASKS.

It takes over a tokenizer's merges, not its program: llama.cpp has one of its own for each family. `tokenisation` says
where the two disagree.
"""

import errno
import functools
import json
import logging
import runpy
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from tradeoffs.convert import fetch_converter, trial
from tradeoffs.formats import trained_only
from tradeoffs.plumbing import clock
from tradeoffs.plumbing.errors import UserError

# Keys that the converter reads and transformers 5 no longer writes, by model_type: key and where its value is now.
MISSING_KEYS: dict[str, dict[str, Callable[[dict], Any]]] = {
    "gpt2": {"n_ctx": lambda config: config["n_positions"]},
    "gpt_neox": {"rotary_pct": lambda config: config["rope_parameters"]["partial_rotary_factor"]},
}
# Attention masks that GPT-2's checkpoints on the hub hold among the weights. The converter means to skip them.
MASKS = (".attn.bias", ".attn.masked_bias")
# What tokenizers are known to treat differently: numbers, white space, code, scripts, marks, what is not in NFC.
SAMPLES = (
    "The rate rose to 7 percent.",
    "12 345.67 + 8 = 12353,67; 2024-05-01",
    "1234567890 1 22 333 4444",
    "First line\n\nSecond line\n\n\n3rd",
    "\n\n2",
    "Answer:\n42",
    "a\n\n\n\n b\n \n  c",
    "\ttabs\tand  two   spaces ",
    " leading space",
    "   ",
    "Windows\r\nlines\r\n\r\n",
    "I'm, you're, WE'VE, don't, 'tis",
    "CamelCase snake_case SCREAMING",
    "def f(x):\n    return x ** 2  # square\n",
    "x_1 = {'a': 2}\t# don't",
    '{"a": [1, 2], "b": null}',
    "<b>html</b> https://example.com/?q=1&r=a_b#c",
    "!!!???... ---- ####",
    "naïve café Ærø ß",
    "e\u0301 and n\u0303, not composed",
    "\u00a0no break\u200bzero width\u3000wide",
    "Привет, мир",
    "你好，世界。2024年",
    "日本語のテキスト",
    "안녕하세요",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया",
    "שלום עולם",
    "สวัสดี",
    "😀👍🏽👩‍👩‍👧 — “quotes” …",
    "∑ x² ≤ ½ ⅔ ①",
)
QUESTION = "What are 3 of 12 loans?\n\n2024: 7 %"
# What says nothing about a checkpoint, only about the machine.
OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENOMEM)
TOKENIZER = "llama_cpp_tokenizer_fails"
LIMITS = {
    trained_only.NO_GGUF: "no format of llama.cpp is made of it",
    TOKENIZER: "llama.cpp's own tokenizer fails on its vocabulary, so a GGUF of it is scored by token ids alone",
}


def convert(checkpoint: Path, gguf: Path, hollow: bool = False) -> None:
    """Writes `checkpoint` (config, safetensors, tokenizer, chat template) to `gguf`, matrices in f16.

    `hollow`: all but the weights' numbers, in whose place there is a hole, so that neither disk nor memory grows with
    them; no number of the checkpoint is read. Raises trial.RefusedError with the converter's last lines if it refuses
    the checkpoint, and for a Gemma whose output layer is no longer its embedding; UserError if it is not installed or
    cannot write.
    """
    script = load()
    _check_head(checkpoint)
    import gguf as library

    write = library.GGUFWriter.write_tensors_to_file
    log = StringIO()
    handler = logging.StreamHandler(log)
    root, arguments, level = logging.getLogger(), sys.argv, logging.getLogger().level
    root.addHandler(handler)  # the converter leaves a root logger alone that has a handler
    root.setLevel(logging.INFO)
    sys.argv = [str(script), str(checkpoint), "--outtype", "f16", "--outfile", str(gguf)]
    if hollow:
        library.GGUFWriter.write_tensors_to_file = _leave_a_hole
    try:
        runpy.run_path(str(script), run_name="__main__")
    except MemoryError:
        raise
    except (SystemExit, Exception) as error:  # how a script says no: by whatever is at hand
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            raise UserError(f"{gguf}: cannot be written: {error.strerror}") from error
        raise _refused(checkpoint, log.getvalue(), error) from error
    finally:
        library.GGUFWriter.write_tensors_to_file = write
        root.removeHandler(handler)
        root.setLevel(level)
        sys.argv = arguments


def _refused(checkpoint: Path, log: str, error: BaseException) -> trial.RefusedError:
    said = [line for line in log.splitlines() if line.strip("* ")]
    name = f"{type(error).__name__}: {error}"
    lines = [line for line in f"{log}{name}".splitlines() if line.strip("* ")][-8:]
    reason = said[-1] if isinstance(error, SystemExit) and said else name.partition("\n")[0]
    message = "\n  ".join([f"{checkpoint}: llama.cpp's converter cannot convert it:", *lines])
    return trial.RefusedError(message, f"llama.cpp's converter cannot convert it: {reason.removeprefix('ERROR:')}")


def _leave_a_hole(writer: Any, **_progress: bool) -> None:
    """In place of the GGUFWriter's own method, which computes every tensor and writes it."""
    writer.write_ti_data_to_file()
    for file, tensors in zip(writer.fout, writer.tensors, strict=True):
        writer.write_padding(file, file.tell())
        file.truncate(file.tell() + sum(writer.ggml_pad(one.nbytes, writer.data_alignment) for one in tensors.values()))


def _check_head(checkpoint: Path) -> None:
    """llama.cpp's Gemma has the embedding for its output layer: one of its own would be left out without a word."""
    config = checkpoint / "config.json"
    found = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if str(found.get("model_type")).startswith("gemma") and found.get("tie_word_embeddings") is False:
        reason = f"llama.cpp runs {found['model_type']} only where output layer and embedding are the same"
        raise trial.RefusedError(
            f"{checkpoint}: {reason}, and tuning parted them; leave both out of the method's target_modules, "
            "target_parameters and token_indices (all-linear does)",
            reason,
        )


def tokenisation(checkpoint: Path, gguf: Path) -> dict[str, Any]:
    """On which of SAMPLES, and of a question in the chat template, llama.cpp makes other token ids than the checkpoint.

    `texts`: how many were tried; `same`: the share with the same ids; `differing`: the others, with both sides' ids;
    `adds_bos`: whether each puts a BOS before plain text. Where llama.cpp's tokenizer fails on one, `fails` says why,
    in place of `same` and `differing`. `misread`, where there are any: of a tokenizer that llama.cpp does not know, the
    ids for which it writes another text than the checkpoint's. Raises UserError if llama.cpp cannot take the file.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    texts = list(SAMPLES)
    if tokenizer.chat_template:
        asked = [{"role": "user", "content": QUESTION}]
        texts.append(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    found = trial.tried(gguf, texts, expected)
    adds_bos = {
        "checkpoint": tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id],
        "llama_cpp": found.adds_bos,
    }
    if found.ids is None:
        return {"texts": len(texts), "fails": found.why_not, "adds_bos": adds_bos}
    differing = [
        {"text": text, "checkpoint": ids, "llama_cpp": theirs}
        for text, ids, theirs in zip(texts, expected, found.ids, strict=True)
        if ids != theirs
    ]
    misread = [
        {"ids": ids, "checkpoint": ours, "llama_cpp": theirs}
        for ids, theirs in zip(expected, found.read or [], strict=False)
        if (ours := tokenizer.decode(ids, clean_up_tokenization_spaces=False)) != theirs
    ]
    return {
        "texts": len(texts),
        "same": 1 - len(differing) / len(texts),
        "differing": differing,
        **({"misread": misread} if misread else {}),
        "adds_bos": adds_bos,
    }


def limits(checkpoint: Path, where: str) -> dict[str, str]:
    """What llama.cpp cannot do with `checkpoint`, and why, found without a number of its weights: an entry
    trained_only.NO_GGUF where it cannot run it at all, TOKENIZER where its tokenizer alone fails; most often none.

    Says so of `where` in params.yaml. Raises UserError where the converter is missing, or disk or memory do not suffice
    to find out.
    """
    found = _limits(checkpoint)
    for what, why in found.items():
        print(f"note: {where}: {LIMITS[what]}: {why}")
    return found


def _limits(checkpoint: Path) -> dict[str, str]:
    gguf = checkpoint / "trial.gguf"
    try:
        with clock.phase("startup"):
            load()
        convert(checkpoint, gguf, hollow=True)
        found = trial.tried(gguf, SAMPLES)
    except trial.RefusedError as error:
        return {trained_only.NO_GGUF: error.reason}
    finally:
        gguf.unlink(missing_ok=True)
    return {} if found.ids is not None else {TOKENIZER: found.why_not}


@functools.cache
def load() -> Path:
    """Imports the converter (and with it torch and transformers) and hands it what it misses; its script."""
    folder = fetch_converter.folder()
    if not folder.is_dir():
        raise UserError(
            f"{folder}: llama.cpp's converter is missing; run `python -m tradeoffs.convert.fetch_converter`"
        )
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]  # its own gguf: the one on the package index differs
    import gguf
    from conversion.base import ModelBase, TextModel
    from conversion.gpt2 import GPT2Model

    load_hparams = ModelBase.load_hparams

    def with_missing_keys(checkpoint: Path, is_mistral_format: bool) -> dict[str, Any]:
        config = load_hparams(checkpoint, is_mistral_format)
        for key, value in MISSING_KEYS.get(config.get("model_type", ""), {}).items():
            if key not in config:
                config[key] = value(config)
        if config.get("multi_query") and not config.get("new_decoder_architecture"):
            config["num_kv_heads"] = 1  # of Falcon; transformers writes the number of all heads
        return config

    filter_tensors = GPT2Model.filter_tensors

    def without_masks(_class: type, item: tuple[str, Any]) -> tuple[str, Any] | None:
        return None if item[0].endswith(MASKS) else filter_tensors(item)

    known_pre_tokenizer = TextModel.get_vocab_base_pre

    def pre_tokenizer(model: Any, tokenizer: Any) -> str:
        try:
            return str(known_pre_tokenizer(model, tokenizer))
        except NotImplementedError:
            # Scores go by token ids, for which it does not matter; how far texts differ is found by `tokenisation`.
            print("note: llama.cpp has no pre-tokenizer like this model's, so in the GGUF stands its default one")
            return "default"

    ModelBase.load_hparams = staticmethod(with_missing_keys)
    TextModel.get_vocab_base_pre = pre_tokenizer
    GPT2Model.filter_tensors = classmethod(without_masks)
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
