"""Writes models/dvc.yaml, the list of DVC artifacts; `make run` does it at its end.

    python -m tradeoffs.artifacts

One for each adapter (or fully tuned model), merged model and GGUF that the run list asks for, under the name
`<model>-<dataset>-<method>-<trained | merged | quant>`; all are of the first seed. DVC expands no matrix in
`artifacts:`, hence this file; tests/test_pipeline.py holds it to the committed run list.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell, cells
from tradeoffs.methods import peft_facts
from tradeoffs.plumbing import cli

LIST = Path("models/dvc.yaml")
HEAD = "# Written by `python -m tradeoffs.artifacts` from the run list in params.yaml; see docs/remotes.md\n"


def listed(cfg: params.Params) -> dict[str, dict]:
    """Name -> path (relative to models/), type, desc and labels. Nothing stands here that a method cannot give:
    an untouched base has no trained weights, and what cannot be merged has no merged model and no GGUF."""
    return {
        str(cell.variant(form)): {
            "path": str(path.relative_to(LIST.parent)),
            "type": "model",
            "desc": desc,
            "labels": list(dict.fromkeys([kind, cell.model, cell.dataset, cell.method, form])),
        }
        for cell in cells(cfg.run)
        for form, kind, path, desc in _forms(cfg, cell)
    }


def _forms(cfg: params.Params, cell: Cell) -> Iterator[tuple[str, str, Path, str]]:
    """Form, kind, path and description of what one cell gives."""
    block = cfg.methods[cell.method]
    weights = cell.training(cfg.run.seeds[0]).weights
    tuned = f"{cell.model}, tuned on {cell.dataset} by {cell.method}" if block.trains else f"{cell.model}, untouched"
    if block.peft:
        yield "trained", "adapter", weights, f"{block.peft} adapter of {tuned}"
    elif block.trains:
        yield "trained", "full", weights, f"All weights of {tuned}"
    if peft_facts.unmergeable(block):
        return
    yield "merged", "merged", cell.merged, f"Checkpoint of {tuned}; bf16 safetensors with tokenizer"
    for quant in cfg.run.quants:
        yield quant, "gguf", cell.variant(quant).gguf, f"GGUF {quant} of {tuned}"


def text(cfg: params.Params) -> str:
    """What models/dvc.yaml must hold."""
    return HEAD + yaml.safe_dump({"artifacts": listed(cfg)}, sort_keys=False, allow_unicode=True, width=120)


def main() -> None:
    files.write_text(LIST, text(params.load_all()))


if __name__ == "__main__":
    cli.command(main)
