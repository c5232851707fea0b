"""Loading a thing of transformers as its evaluation does."""

import logging
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tradeoffs.common import cores
from tradeoffs.formats.names import CUDA, PRECISIONS
from tradeoffs.measure.work import Work
from tradeoffs.models import checkpoints
from tradeoffs.models.loading import device, load_model, load_trained
from tradeoffs.params import Method
from tradeoffs.plumbing.errors import UserError
from tradeoffs.transformers_runtime import TransformersRuntime

# A process that measures imports no stage, whose package says the same: at import bitsandbytes asks for an optional
# kernel from the hub, and warns that there is none.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def import_all(work: Work) -> None:
    """Imports what loading would import, and uses the device once: no part of the time and memory of a model.

    Raises UserError if the work is of a GPU and there is none.
    """
    if work.on == CUDA and device().type != CUDA:  # it was there when the stage began
        raise UserError("torch finds no CUDA GPU any more; look at nvidia-smi, and run again")
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
    own = getattr(torch, PRECISIONS[loaded["precision"]].dtype if "precision" in loaded else loaded["dtype"])
    _first_use(*({own} - {torch.float32, torch.bfloat16}))


@torch.inference_mode()
def _first_use(*dtypes: torch.dtype) -> None:
    """On a GPU the context, on a CPU the code of the libraries, which is read in when it is first run."""
    if device().type == "cuda":
        torch.zeros(1, device=device())
        return
    for dtype in (torch.float32, torch.bfloat16, *dtypes):
        some = torch.ones(1, 2, 64, 64, dtype=dtype)
        some = torch.nn.functional.linear(some, some[0, 0])
        torch.nn.functional.scaled_dot_product_attention(some, some, some)
        torch.nn.functional.silu(some).float().softmax(-1).pow(2).mean(-1)


def load(work: Work) -> TransformersRuntime:
    loaded = work.loaded
    if "checkpoint" in loaded:
        how = PRECISIONS[loaded["precision"]]
        model = load_model(Path(loaded["checkpoint"]), how.load, getattr(torch, how.dtype))
    else:
        dtype = getattr(torch, loaded["dtype"])
        model = load_trained(Path(loaded["base"]), Path(loaded["trained"]), Method(**loaded["method"]), dtype)
    return TransformersRuntime(model, work.batch_tokens, work.pad_id)
