"""How assets are made that are not published as they are used: each from one downloaded file, always the same bytes."""

import io
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Made = bytes | dict[str, bytes]  # a file, or the files of a folder by their path in it
MMLU_FILE = re.compile(r"(dev|val|test)/[^/]+\.csv")


def without_last_line_break(source: Path) -> bytes:
    return source.read_bytes().removesuffix(b"\n")


def mmlu_folder(source: Path) -> dict[str, bytes]:
    """dev, val and test of MMLU's published archive, in which they lie in a folder `data`.

    Nothing else of it is taken, so no name in it leads out of the folder that is made.
    """
    found = {}
    with tarfile.open(source) as archive:
        for member in archive:
            name = member.name.removeprefix("data/")
            if member.isfile() and MMLU_FILE.fullmatch(name):
                content = archive.extractfile(member)
                assert content is not None  # a plain file has content
                found[name] = content.read()
    return found


def smollm2_tokenizer(source: Path) -> bytes:
    """SmolLM2's tokenizer.json as transformers 5 saves it, by the class that its configuration names: as GPT-2's.

    That cuts a text as GPT-2 does, where the published file sets digits apart first; the token ids are the same ones.
    """
    from tokenizers import Tokenizer, pre_tokenizers, processors

    made: Any = Tokenizer.from_file(str(source))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    made.model.continuing_subword_prefix = made.model.end_of_word_suffix = ""
    made.enable_truncation(128)
    return made.to_str(pretty=True).encode()


def llama2c_weights(source: Path) -> bytes:
    """A checkpoint of llama2.c (version 0: `legacy_export` in its export.py) as safetensors of transformers' Llama.

    Seven int32 come first (width, feed-forward width, layers, heads, key and value heads, tokens, longest sequence),
    then float32: one kind of matrix after the other, each for all layers, and tables of angles that nothing here needs.
    """
    from safetensors.numpy import save

    content = source.read_bytes()
    width, hidden, layers, heads, kv_heads, tokens, _ = struct.unpack("7i", content[:28])
    kv_width = width // heads * kv_heads
    numbers, at = np.frombuffer(content[28:], "<f4"), 0

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        begun, at = at, at + int(np.prod(shape))
        return numbers[begun:at].reshape(shape)

    found = {"model.embed_tokens.weight": take(tokens, width)}
    kinds = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (kv_width, width),
        "self_attn.v_proj": (kv_width, width),
        "self_attn.o_proj": (width, width),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
        "mlp.up_proj": (hidden, width),
    }
    for kind, shape in kinds.items():
        for layer in range(layers):
            matrix = take(*shape)
            if kind in ("self_attn.q_proj", "self_attn.k_proj"):
                matrix = halves_for_pairs(matrix, shape[0] // (width // heads))
            found[f"model.layers.{layer}.{kind}.weight"] = matrix
    found["model.norm.weight"] = take(width)
    return save({name: np.ascontiguousarray(value) for name, value in found.items()}, metadata={"format": "pt"})


def halves_for_pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order of transformers' rotary embedding.

    It turns number i of a head together with number i + half; llama2.c, as Meta's code, each number with its neighbour.
    """
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def llama2c_tokenizer(source: Path) -> bytes:
    """A tokenizer of llama2.c (tokenizer.bin: score, length and bytes of each SentencePiece piece) as tokenizer.json.

    SentencePiece's BPE joins the pair whose piece has the highest score; tokenizers' BPE takes a list of pairs, the
    first ones first. So every pair that makes a piece stands in it, in the order of the pieces' scores.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    scores = read_pieces(source.read_bytes())
    ids = {piece: number for number, piece in enumerate(scores)}
    pairs = [
        (piece[:cut], piece[cut:], score)
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    pairs.sort(key=lambda pair: (-pair[2], ids[pair[0]], ids[pair[1]]))
    merges = [(left, right) for left, right, _ in pairs]
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    made.add_special_tokens([AddedToken(mark, normalized=False) for mark in ("<unk>", "<s>", "</s>")])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", ids["<s>"])]
    )
    return made.to_str(pretty=True).encode()


def read_pieces(content: bytes) -> dict[str, float]:
    """The scores of a llama2.c tokenizer's pieces, in the order of their ids, written as SentencePiece writes them."""
    stream = io.BytesIO(content[4:])  # the length of the longest piece comes first
    found = {}
    while head := stream.read(8):
        score, length = struct.unpack("<fi", head)
        piece = stream.read(length).decode()
        # A space stands for SentencePiece's mark of one; the marks of beginning and end have line breaks around them.
        found[piece.strip("\n") if piece in ("\n<s>\n", "\n</s>\n") else piece.replace(" ", "▁")] = score
    return found


MAKERS: dict[str, Callable[[Path], Made]] = {
    maker.__name__: maker
    for maker in (without_last_line_break, mmlu_folder, smollm2_tokenizer, llama2c_weights, llama2c_tokenizer)
}
