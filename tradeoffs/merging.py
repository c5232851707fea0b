"""One self-contained bfloat16 checkpoint out of a base and what was trained on it."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from tradeoffs import checkpoints, clock, files
from tradeoffs.errors import UserError
from tradeoffs.params import Load, MergeOnto, Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAVED = torch.bfloat16  # what a merged checkpoint holds
CPU = torch.device("cpu")  # float32 weights may not fit where the quantised ones do


def merge(base: Path, trained: Path, name: str, method: Method, onto: MergeOnto, folder: Path) -> None:
    """Writes weights and config of `methods.{name}`, merged, as bfloat16 to `folder`; all arithmetic is float32.

    Raises UserError if the method has nothing that can be merged into the weights.
    """
    if method.peft:
        _merge_adapter(base, trained, name, method, onto, folder)
    else:
        # Nothing to add up: the files are rewritten name by name, so no model class is needed.
        to_bfloat16(trained if method.full else base, folder)


def to_bfloat16(source: Path, folder: Path) -> None:
    """Copies a checkpoint's weights and config with every floating-point tensor as bfloat16; names and shards stay."""
    for path in checkpoints.weight_files(source):
        tensors = {name: _saved(tensor) for name, tensor in load_file(path).items()}
        save_file(tensors, folder / path.name, metadata={"format": "pt"})
    index = source / "model.safetensors.index.json"
    if index.is_file():
        shutil.copyfile(index, folder / index.name)
    config = files.read_json(source / "config.json")
    config.pop("torch_dtype", None)  # what dtype was called before transformers 5
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n", encoding="utf-8")


def base_as_trained(base: Path, load: Load) -> "PreTrainedModel":
    """The base in plain float32 layers that hold just the weights that its quantised layers compute with.

    nf4: code book value times block scale, whose own quantisation is undone too. int8: value times row scale / 127.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    from tradeoffs.loading import load_model

    plain = load_model(base, None, torch.float32, place=CPU)
    for name, layer in load_model(base, load, torch.float32).named_modules():
        weight: Any = getattr(layer, "weight", None)
        if isinstance(layer, Linear4bit):
            values = dequantize_4bit(weight.data, weight.quant_state)
        elif isinstance(layer, Linear8bitLt):
            values = weight.data.float() * weight.SCB[:, None] / 127
        else:
            continue
        plain.get_submodule(name).weight = torch.nn.Parameter(values.float().to(CPU))
    return plain


def _merge_adapter(base: Path, trained: Path, name: str, method: Method, onto: MergeOnto, folder: Path) -> None:
    with clock.phase("startup"):  # transformers and peft: seconds that base and full do without
        import peft  # noqa: F401

        from tradeoffs.loading import attach, load_model

    if method.load and onto == "trained_base":
        model = base_as_trained(base, method.load)
    else:
        model = load_model(base, None, torch.float32, place=CPU)
    adapted: Any = attach(model, trained)
    if not hasattr(adapted, "merge_and_unload"):
        raise UserError(
            f"methods.{name}: a {method.peft} adapter cannot be merged into the weights, so it has no bf16 or GGUF "
            "form; take it out of run.methods"
        )
    adapted.merge_and_unload().to(SAVED).save_pretrained(folder)


def _saved(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(SAVED) if tensor.is_floating_point() else tensor
