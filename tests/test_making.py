"""What is made of published files is what is used, to the byte."""

import hashlib
import io
import json
import struct
import tarfile

import numpy as np
from needs import needs

from benchmarks import assets, fetch, making

FILES = {file.make: file for held in fetch.read_table().values() for file in held if file.make}


def from_halves(matrix: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `halves_for_pairs`."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@needs("models/stories260k")
def test_the_weights_of_stories260k_are_made_to_the_byte(tmp_path):
    """From the very file that is published, whose SHA-256 is known: the weights that are there as llama2.c has them."""
    import torch
    from safetensors.numpy import load_file

    folder = assets.find("models/stories260k")
    tensors = load_file(folder / "model.safetensors")
    kinds = [
        *("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"),
    ]
    heads = {"self_attn.q_proj": 8, "self_attn.k_proj": 4}
    parts = [tensors["model.embed_tokens.weight"]]
    for kind in kinds:
        for layer in range(5):
            matrix = tensors[f"model.layers.{layer}.{kind}.weight"]
            parts.append(from_halves(matrix, heads[kind]) if kind in heads else matrix)
    angles = torch.outer(torch.arange(512), 1 / 10000.0 ** (torch.arange(0, 8, 2).float() / 8)).float()
    parts += [tensors["model.norm.weight"], torch.cos(angles).numpy(), torch.sin(angles).numpy()]
    source = tmp_path / "a.bin"
    source.write_bytes(struct.pack("7i", 64, 172, 5, 8, 4, 512, 512) + b"".join(part.tobytes() for part in parts))
    file = FILES["llama2c_weights"]
    assert hashlib.sha256(source.read_bytes()).hexdigest() == file.download.sha256
    assert making.llama2c_weights(source) == (folder / "model.safetensors").read_bytes()


@needs("models/stories260k")
def test_the_tokenizer_of_stories260k_is_made_to_the_byte(tmp_path):
    """From the very file that is published, whose SHA-256 is known: scores are the places of the pieces."""
    from tokenizers import Tokenizer

    folder = assets.find("models/stories260k")
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    pieces = sorted(ids, key=lambda piece: ids[piece])
    marks = {"<s>": "\n<s>\n", "</s>": "\n</s>\n"}
    written = [marks.get(piece, piece.replace("▁", " ")).encode() for piece in pieces]
    source = tmp_path / "a.bin"
    source.write_bytes(
        struct.pack("i", max(map(len, written)))
        + b"".join(
            struct.pack("<fi", -float(number - 259) if number >= 259 else 0.0, len(piece)) + piece
            for number, piece in enumerate(written)
        )
    )
    file = FILES["llama2c_tokenizer"]
    assert making.llama2c_tokenizer(source) == (folder / "tokenizer.json").read_bytes()
    assert hashlib.sha256(source.read_bytes()).hexdigest() == file.download.sha256


@needs("tokenizers/smollm2")
def test_the_tokenizer_of_smollm2_is_made_to_the_byte(tmp_path):
    """From the very file that is published, whose SHA-256 is known."""
    made = assets.find("tokenizers/smollm2/tokenizer.json")
    raw = json.loads(made.read_text(encoding="utf-8"))
    digits = {"type": "Digits", "individual_digits": True}
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, raw["pre_tokenizer"]]}
    raw["post_processor"] = raw["truncation"] = None
    raw["model"]["continuing_subword_prefix"] = raw["model"]["end_of_word_suffix"] = None
    raw["model"]["merges"] = [" ".join(pair) for pair in raw["model"]["merges"]]
    source = tmp_path / "tokenizer.json"
    source.write_text(json.dumps(raw, indent=2, ensure_ascii=False), encoding="utf-8")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == FILES["smollm2_tokenizer"].download.sha256
    assert making.smollm2_tokenizer(source) == made.read_bytes()


@needs("tokenizers/pythia")
def test_the_tokenizer_of_pythia_is_made_to_the_byte(tmp_path):
    made = assets.find("tokenizers/pythia/tokenizer.json").read_bytes()
    source = tmp_path / "tokenizer.json"
    source.write_bytes(made + b"\n")
    assert making.without_last_line_break(source) == made
    assert hashlib.sha256(source.read_bytes()).hexdigest() == FILES["without_last_line_break"].download.sha256
    assert source.stat().st_size == FILES["without_last_line_break"].download.size


def test_no_name_in_an_archive_leads_out_of_the_folder(tmp_path):
    names = ["data/dev/a_dev.csv", "data/dev/../../../out.csv", "data/test/../out.csv", "/dev/out.csv", "dev//out.csv"]
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        for name in [*names, "data/val/deeper/out.csv", "data/other/out.csv", "data/val/out.txt"]:
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"1\n"))
        link = tarfile.TarInfo("data/val/link.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../out.csv"
        archive.addfile(link)
    assert making.mmlu_folder(tmp_path / "data.tar") == {"dev/a_dev.csv": b"1\n"}
