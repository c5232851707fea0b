"""Writes models/dvc.yaml, the list of DVC artifacts; the stage `publish` does, and `make run` at its end.

    python -m tradeoffs.artifacts
    python -m tradeoffs.artifacts --check      writes nothing; exit code 1 if it is not that of the run list

One for each adapter (or fully tuned model), merged model and GGUF that the run list asks for, under the name
`<model>-<dataset>-<method>-<trained | merged | quant>`; all are of the first seed. DVC expands no matrix in
`artifacts:`, hence this file; tests/test_pipeline.py holds it to the committed run list.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell, cells
from tradeoffs.methods import peft_facts
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

LIST = Path("models/dvc.yaml")
HEAD = "# Written by `python -m tradeoffs.artifacts` from the run list in params.yaml; see docs/remotes.md\n"


def listed(run: params.Run, methods: Mapping[str, params.Method]) -> dict[str, dict]:
    """Name -> path (relative to models/), type, desc and labels. Nothing stands here that a method cannot give:
    an untouched base has no trained weights, and what cannot be merged has no merged model and no GGUF."""
    return {
        str(cell.variant(form)): {
            "path": str(path.relative_to(LIST.parent)),
            "type": "model",
            "desc": desc,
            "labels": list(dict.fromkeys([kind, cell.model, cell.dataset, cell.method, form])),
        }
        for cell in cells(run)
        for form, kind, path, desc in _forms(run, methods[cell.method], cell)
    }


def _forms(run: params.Run, block: params.Method, cell: Cell) -> Iterator[tuple[str, str, Path, str]]:
    """Form, kind, path and description of what one cell gives."""
    weights = cell.training(run.seeds[0]).weights
    tuned = f"{cell.model}, tuned on {cell.dataset} by {cell.method}" if block.trains else f"{cell.model}, untouched"
    if block.peft:
        yield "trained", "adapter", weights, f"{block.peft} adapter of {tuned}"
    elif block.trains:
        yield "trained", "full", weights, f"All weights of {tuned}"
    if peft_facts.unmergeable(block):
        return
    yield "merged", "merged", cell.merged, f"Checkpoint of {tuned}; bf16 safetensors with tokenizer"
    for quant in run.quants:
        yield quant, "gguf", cell.variant(quant).gguf, f"GGUF {quant} of {tuned}"


def text(run: params.Run, methods: Mapping[str, params.Method]) -> str:
    """What models/dvc.yaml must hold."""
    return HEAD + yaml.safe_dump({"artifacts": listed(run, methods)}, sort_keys=False, allow_unicode=True, width=120)


def write(run: params.Run, methods: Mapping[str, params.Method], check: bool = False) -> None:
    """Raises UserError if, with `check`, the file is another."""
    before, wanted = LIST.read_text(encoding="utf-8") if LIST.is_file() else "", text(run, methods)
    if check and before != wanted:
        raise UserError(
            f"{LIST}: is not of the run list in params.yaml; run python -m tradeoffs.artifacts and commit it"
        )
    if before != wanted:
        files.write_text(LIST, wanted)


def main(check: bool = False) -> None:
    cfg = params.load_all()
    write(cfg.run, cfg.methods, check)


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("--check", action="store_true", help="write nothing, and fail where it would")
    cli.command(main, options)
