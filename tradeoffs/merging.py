"""One self-contained bfloat16 checkpoint out of a base and what was trained on it."""

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from tradeoffs.common import files
from tradeoffs.methods import peft_facts
from tradeoffs.models import checkpoints
from tradeoffs.params import Method
from tradeoffs.params.fields import MergeOnto
from tradeoffs.plumbing import clock
from tradeoffs.plumbing.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAVED = torch.bfloat16  # what a merged checkpoint holds
CPU = torch.device("cpu")  # float32 weights may not fit where the quantised ones do


def merge(
    base: Path,
    trained: Path,
    name: str,
    method: Method,
    onto: MergeOnto,
    folder: Path,
    saved: torch.dtype = SAVED,
) -> str | None:
    """Writes weights and config of `methods.{name}`, merged, as `saved` to `folder`; all arithmetic is float32.

    Returns None, or why there is nothing that can be merged into the weights; then nothing is written.
    """
    if method.peft:
        return _merge_adapter(base, trained, name, method, onto, folder, saved)
    # Nothing to add up: the files are rewritten name by name, so no model class is needed.
    copy_weights(trained if method.full else base, folder, saved)
    return None


def copy_weights(source: Path, folder: Path, saved: torch.dtype = SAVED) -> None:
    """Copies a checkpoint's weights and config with every floating-point tensor as `saved`; names and shards stay."""
    for path in checkpoints.weight_files(source):
        tensors = {
            key: value.to(saved) if value.is_floating_point() else value for key, value in load_file(path).items()
        }
        save_file(tensors, folder / path.name, metadata={"format": "pt"})
    index = source / checkpoints.INDEX
    if index.is_file():
        shutil.copyfile(index, folder / index.name)
    config = files.read_json(source / "config.json")
    config.pop("torch_dtype", None)  # what dtype was called before transformers 5
    config["dtype"] = str(saved).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def base_as_trained(base: Path, method: Method) -> "PreTrainedModel":
    """The base in plain float32 layers that hold just the weights that its quantised layers compute with.

    nf4, fp4: code book value times block scale, whose own quantisation is undone too, if it has one. int8: value times
    row scale / 127.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers.pytorch_utils import Conv1D

    from tradeoffs.models.loading import load_model

    plain = load_model(base, None, torch.float32, place=CPU)
    quantised = load_model(base, method.load, torch.float32, double_quant=bool(method.double_quant))
    for name, layer in quantised.named_modules():
        weight: Any = getattr(layer, "weight", None)
        if isinstance(layer, Linear4bit):
            values = dequantize_4bit(weight.data, weight.quant_state)
        elif isinstance(layer, Linear8bitLt):
            values = weight.data.float() * weight.SCB[:, None] / 127
        else:
            continue
        target = plain.get_submodule(name)
        if isinstance(target, Conv1D):  # GPT-2's linear layers hold their weights the other way round
            values = values.T
        target.weight = torch.nn.Parameter(values.float().to(CPU).contiguous())
    return plain


def _merge_adapter(
    base: Path, trained: Path, name: str, method: Method, onto: MergeOnto, folder: Path, saved: torch.dtype
) -> str | None:
    if reason := peft_facts.unmergeable(method):
        return reason
    with clock.phase("startup"):  # transformers and peft: seconds that base and full do without
        import peft  # noqa: F401

        from tradeoffs.models.loading import attach, load_model

    if method.load and onto == "trained_base":
        model = base_as_trained(base, method)
    else:
        model = load_model(base, None, torch.float32, place=CPU)
    adapted: Any = attach(model, trained)
    if not hasattr(adapted, "merge_and_unload"):
        return f"PEFT has no merge for {method.peft}"
    try:
        merged = _merged(adapted, name, method)
    except NotImplementedError as error:  # how a layer of PEFT says that it has none
        return f"PEFT has no merge for {method.peft}: {error}"
    merged.to(saved).save_pretrained(folder)
    return None


def _merged(adapted: Any, name: str, method: Method) -> Any:
    """The plain model with the adapter in its weights. Where only one of tied embeddings was tuned, they part."""
    model = adapted.get_base_model()
    tied = model.config.get_text_config().tie_word_embeddings
    if tied:
        head, embedding = (
            layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
            for layer in (model.get_output_embeddings(), model.get_input_embeddings())
        )
        if head.weight is embedding.weight:  # else what is added to the one would be added to the other too
            head.weight = torch.nn.Parameter(head.weight.detach().clone())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        warnings.filterwarnings("ignore", message="Model with `tie_word_embeddings=True`")
        try:
            merged = adapted.merge_and_unload()
        except ValueError as error:
            raise UserError(f"methods.{name}: PEFT cannot merge this {method.peft} adapter: {error}") from error
    if tied:
        head, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
        same = torch.equal(head.weight, embedding.weight)
        if same:
            head.weight = embedding.weight
        merged.config.get_text_config().tie_word_embeddings = same
    return merged
