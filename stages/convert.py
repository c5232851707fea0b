"""Convert a merged checkpoint to GGUF (f16) with llama.cpp's own converter, tokenizer and chat template included.

IN   models/merged/<model>-<dataset>-<method>/
OUT  models/converted/<model>-<dataset>-<method>.gguf, .json
     python -m stages.convert --model demo --dataset demo --method lora
"""

from pathlib import Path
from typing import Any

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell
from tradeoffs.convert import fetch_converter, gguf_converter
from tradeoffs.formats import trained_only
from tradeoffs.llama_cpp.native import tensor_types
from tradeoffs.plumbing import cli, clock
from tradeoffs.plumbing.errors import UserError


def main(model: str, dataset: str, method: str) -> None:
    params.load_all()
    cell = Cell(model, dataset, method)
    checkpoint, gguf = cell.merged, cell.converted
    if found := _nothing_to_convert(checkpoint / "run_info.json"):
        trained_only.write_gguf(gguf, *found)
        return
    if not (checkpoint / "config.json").is_file():
        raise UserError(f"{checkpoint}: no checkpoint here (config.json is missing); `dvc repro merge` makes it")
    with clock.phase("startup"):  # torch and transformers come with the converter's own imports
        gguf_converter.load()
    with files.new_file(gguf) as unfinished:
        gguf_converter.convert(checkpoint, unfinished)
        types = tensor_types(unfinished)
        tokenisation = gguf_converter.tokenisation(checkpoint, unfinished)
    made = {
        "converter": fetch_converter.folder().name,
        "size_mb": gguf.stat().st_size / 1e6,
        "sha256": files.sha256(gguf),
        "tensor_types": types,
        "llama_cpp_tokenisation": tokenisation,
    }
    files.write_json(
        gguf.with_suffix(".json"), files.run_info(**{**files.read_json(checkpoint / "run_info.json"), **made})
    )
    print(f"{gguf}: {made['size_mb']:.1f} MB, {types}")
    _note(tokenisation, gguf.with_suffix(".json"))


def _nothing_to_convert(described: Path) -> tuple[str, str] | None:
    """See `trained_only.absent`; of a base that llama.cpp cannot run, what was merged into it is no other."""
    facts = files.read_facts(described) if described.is_file() else {}
    return trained_only.in_place_of(facts) or trained_only.in_place_of(facts.get("base", {}))


def _note(found: dict[str, Any], described: Path) -> None:
    """Says where whoever types text into the GGUF gets other tokens than the model was trained on."""
    if "fails" in found:
        print(
            f"note: llama.cpp's own tokenizer fails on this vocabulary ({found['fails']}): programs that give it text "
            "end; no score here is touched, all go by token ids"
        )
    elif found["differing"]:
        print(
            f"note: llama.cpp cuts {len(found['differing'])} of {found['texts']} sample texts into other tokens than "
            f"the checkpoint's tokenizer, {found['differing'][0]['text']!r} for one (all: llama_cpp_tokenisation in "
            f"{described}); no score here is touched, all go by token ids"
        )
    if wrong := found.get("misread"):
        print(
            f"note: llama.cpp writes another text for the ids of {len(wrong)} of {found['texts']} samples, "
            f"{wrong[0]['llama_cpp']!r} for {wrong[0]['checkpoint']!r}: what programs show of this GGUF's answers is "
            "not what it says; no score here is touched, all go by token ids"
        )
    checkpoint, llama_cpp = (found["adds_bos"][name] for name in ("checkpoint", "llama_cpp"))
    if checkpoint != llama_cpp:
        print(
            f"note: before plain text {'llama.cpp' if llama_cpp else 'the checkpoint'} puts a BOS token and "
            f"{'the checkpoint' if llama_cpp else 'llama.cpp'} none; no score here is touched, all go by token ids"
        )


if __name__ == "__main__":
    cli.run(main)
