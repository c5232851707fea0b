"""Writes models/dvc.yaml, the list of DVC artifacts: `python -m tradeoffs.artifacts`, at the end of `make run`.

One for each adapter (or fully tuned model), merged model and GGUF that the run list asks for, under the name
`<model>-<dataset>-<method>-<trained | merged | quant>`. DVC expands no matrix in `artifacts:`, hence this file;
tests/test_pipeline.py holds it to the committed run list.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from tradeoffs import files, params, peft_facts, variants

LIST = Path("models/dvc.yaml")
HEAD = "# Written by `python -m tradeoffs.artifacts` from the run list in params.yaml; see docs/remotes.md\n"


def listed(cfg: params.Params) -> dict[str, dict]:
    """Name -> path (relative to models/), type, desc and labels. Nothing stands here that a method cannot give:
    an untouched base has no trained weights, and what cannot be merged has no merged model and no GGUF."""
    return {
        f"{model}-{dataset}-{method}-{form}": {
            "path": path,
            "type": "model",
            "desc": desc,
            "labels": list(dict.fromkeys([kind, model, dataset, method, form])),
        }
        for model, dataset, method in variants.cells(cfg.run)
        for form, kind, path, desc in _forms(cfg, model, dataset, method)
    }


def _forms(cfg: params.Params, model: str, dataset: str, method: str) -> Iterator[tuple[str, str, str, str]]:
    """Form, kind, path and description of what one cell gives."""
    cell, block = f"{model}-{dataset}-{method}", cfg.methods[method]
    tuned = f"{model}, tuned on {dataset} by {method}" if block.trains else f"{model}, untouched"
    if block.peft:
        yield "trained", "adapter", f"trained/{cell}", f"{block.peft} adapter of {tuned}"
    elif block.trains:
        yield "trained", "full", f"trained/{cell}", f"All weights of {tuned}"
    if peft_facts.unmergeable(block):
        return
    yield "merged", "merged", f"merged/{cell}", f"Checkpoint of {tuned}; bf16 safetensors with tokenizer"
    for quant in cfg.run.quants:
        yield quant, "gguf", f"gguf/{cell}-{quant}.gguf", f"GGUF {quant} of {tuned}"


def text(cfg: params.Params) -> str:
    """What models/dvc.yaml must hold."""
    return HEAD + yaml.safe_dump({"artifacts": listed(cfg)}, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    files.write_text(LIST, text(params.load_all()))
