"""A GGUF with what it is in its metadata, in place of what the converter guessed from the name of a folder.

Written by llama.cpp's own library, which comes with the converter; no byte of a tensor changes.
"""

import sys
from pathlib import Path
from typing import Any

from tradeoffs.common import files
from tradeoffs.common.texts import harmless, on_a_line
from tradeoffs.convert import fetch_converter
from tradeoffs.export.chosen import Chosen
from tradeoffs.export.licences import Terms
from tradeoffs.plumbing.errors import UserError

ADD_BOS, EOT = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.eot_token_id"
ENDS = ("tokenizer.ggml.eos_token_id", EOT, "tokenizer.ggml.eom_token_id")  # what ends an answer in llama.cpp
# What says what a file is; all of it is written anew. How it is built (type, alignment, version) stays.
KEPT = (
    "general.architecture",
    "general.alignment",
    "general.type",
    "general.file_type",
    "general.quantization_version",
)


def write(
    chosen: Chosen, target: Path, described: dict[str, Any], template: str | None, adds_bos: bool | None
) -> list[int]:
    """Copies the variant's GGUF to `target` with `described` as its metadata (see `description`), and the prompt
    template and the tokens that end an answer as evaluation used them; those of them that it has no place for.

    `template`: None for a model of plain text. `adds_bos`: whether a runtime puts a BOS before a text; None: as it is.
    Raises UserError if the file is not what was made, or if the converter is missing.
    """
    files.require_unchanged(chosen.path)
    library, copy, details = _library()
    reader = library.GGUFReader(chosen.path, "r")
    writer = library.GGUFWriter(target, arch=reader.get_field("general.architecture").contents(), use_temp_file=False)
    if (alignment := reader.get_field("general.alignment")) is not None:
        writer.data_alignment = alignment.contents()
    kinds = library.GGUFValueType
    new = {
        key: details(
            kinds.ARRAY if isinstance(value, list) else kinds.UINT32 if type(value) is int else kinds.STRING, value
        )
        for key, value in described.items()
    }
    if template:
        new["tokenizer.chat_template"] = details(kinds.STRING, template)
    if adds_bos is not None:
        new[ADD_BOS] = details(kinds.BOOL, adds_bos)
    told = {field.contents() for key in ENDS if (field := reader.get_field(key)) is not None}
    others = [token for token in chosen.tokens["stop_ids"] if token not in told]
    if others and reader.get_field(EOT) is None:
        new[EOT] = details(kinds.UINT32, others.pop(0))
    old = [key for key in reader.fields if key.startswith("general.") and key not in (*KEPT, *new)]
    copy(reader, writer, new, old)
    return others


def description(chosen: Chosen, terms: Terms, numbers: str, tags: list[str]) -> dict[str, Any]:
    """general.* of the metadata, by the names of GGUF's specification; texts on a line, with nothing that a terminal
    obeys. `numbers`: what was measured, in a sentence."""
    base, *data = terms.sources
    quantised = chosen.variant.format not in ("f16", "bf16")
    texts: dict[str, Any] = {
        "general.name": str(chosen.variant),
        "general.description": numbers,
        "general.finetune": f"{chosen.variant.dataset}-{chosen.variant.method}" if chosen.method.trains else None,
        "general.author": terms.author,
        "general.quantized_by": terms.author if quantised else None,
        "general.license": terms.stated,
        "general.base_model.0.name": base.hub or base.name,
        "general.base_model.0.version": base.revision,
        "general.base_model.0.organization": base.hub.split("/")[0] if base.hub else None,
        "general.base_model.0.repo_url": f"https://huggingface.co/{base.hub}" if base.hub else None,
    }
    for place, one in enumerate(data):
        texts[f"general.dataset.{place}.name"] = one.hub or one.name
        texts[f"general.dataset.{place}.version"] = one.revision
        texts[f"general.dataset.{place}.repo_url"] = f"https://huggingface.co/datasets/{one.hub}" if one.hub else None
    written: dict[str, Any] = {key: on_a_line(text) for key, text in texts.items() if text}
    written |= {"general.base_model.count": 1, "general.tags": [harmless(tag) for tag in tags]}
    return written | ({"general.dataset.count": len(data)} if data else {})


def adds_bos(path: Path) -> bool | None:
    """Whether the file says that a runtime puts a BOS before a text; None where it does not say."""
    field = _library()[0].GGUFReader(path, "r").get_field(ADD_BOS)
    return None if field is None else bool(field.contents())


def _library() -> tuple[Any, Any, Any]:
    """llama.cpp's library for GGUF, its function that copies a file with other metadata, and what that takes."""
    folder = fetch_converter.folder() / "gguf-py"
    if not folder.is_dir():
        raise UserError(f"{folder}: missing; run `python -m tradeoffs.convert.fetch_converter`")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # its own gguf: the one on the package index differs
    import gguf
    from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

    return gguf, copy_with_new_metadata, MetadataDetails
