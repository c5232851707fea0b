"""Loading a thing of transformers as its evaluation does."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tradeoffs.common import cores
from tradeoffs.formats.names import PRECISIONS
from tradeoffs.measure.work import Work
from tradeoffs.models import checkpoints
from tradeoffs.models.loading import device, load_model, load_trained
from tradeoffs.params import Method
from tradeoffs.transformers_runtime import TransformersRuntime


def import_all(work: Work) -> None:
    """Imports what loading would import on its way, and wakes the device: no part of the time and memory of a model."""
    torch.set_num_threads(min(torch.get_num_threads(), cores.usable()))
    loaded = work.loaded
    if "method" not in loaded or loaded["method"]["load"]:
        import bitsandbytes  # noqa: F401
    if loaded.get("method", {}).get("peft"):
        import peft  # noqa: F401
    folder = Path(loaded["checkpoint"] if "checkpoint" in loaded else loaded["base"])
    checkpoints.require(folder, "config.json")
    with torch.device("meta"):  # the module of its architecture; no memory is taken for the weights
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    torch.zeros(1, device=device())


def load(work: Work) -> TransformersRuntime:
    loaded = work.loaded
    if "checkpoint" in loaded:
        model = load_model(Path(loaded["checkpoint"]), PRECISIONS[loaded["precision"]], torch.bfloat16)
    else:
        dtype = getattr(torch, loaded["dtype"])
        model = load_trained(Path(loaded["base"]), Path(loaded["trained"]), Method(**loaded["method"]), dtype)
    return TransformersRuntime(model, work.batch_tokens, work.pad_id)
