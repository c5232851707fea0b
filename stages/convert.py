"""Convert a merged checkpoint to GGUF (f16) with llama.cpp's own converter, tokenizer and chat template included.

IN   models/merged/<model>-<dataset>-<method>/
OUT  models/converted/<model>-<dataset>-<method>.gguf, .json
     python -m stages.convert --model demo --dataset demo --method lora
"""

from pathlib import Path

from tradeoffs import cli, clock, fetch_converter, files, gguf_converter, params, trained_only
from tradeoffs.errors import UserError
from tradeoffs.llama_cpp_native import tensor_types

READS = ()


def main(model: str, dataset: str, method: str) -> None:
    params.load(READS)
    cell = f"{model}-{dataset}-{method}"
    checkpoint, gguf = Path("models/merged") / cell, Path("models/converted") / f"{cell}.gguf"
    if why_not := trained_only.reason(checkpoint / "run_info.json"):
        trained_only.write_gguf(gguf, why_not)
        return
    if not (checkpoint / "config.json").is_file():
        raise UserError(f"{checkpoint}: no checkpoint here (config.json is missing); `dvc repro merge` makes it")
    with clock.phase("startup"):  # torch and transformers come with the converter's own imports
        gguf_converter.load()
    with files.new_file(gguf) as unfinished:
        gguf_converter.convert(checkpoint, unfinished)
        types = tensor_types(unfinished)
    made = {
        "converter": fetch_converter.folder().name,
        "size_mb": gguf.stat().st_size / 1e6,
        "tensor_types": types,
    }
    files.write_json(
        gguf.with_suffix(".json"), files.run_info(**{**files.read_json(checkpoint / "run_info.json"), **made})
    )
    print(f"{gguf}: {made['size_mb']:.1f} MB, {types}")


if __name__ == "__main__":
    cli.run(main)
