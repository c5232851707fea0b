"""Weights in the order in which oneDNN multiplies them, for a CPU.

What torch takes for float32 otherwise arranges them anew at every product. Of few tokens at a time, as in generation,
that is most of the time; of many it is a tenth.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tradeoffs.common import machine

# The part of the machine's memory that a second copy of the weights may take: not of what is free right now, so that
# the same machine gives the same numbers to the last digit.
SHARE = 0.25


def reorder(model: Any) -> int:
    """Linear layers in float32 multiply by a copy of their weights in that order; how many do.

    None where torch was built without oneDNN, or where the machine has too little memory. The weights themselves stay
    as they are: an adapter may look at them.
    """
    layers = [
        layer for layer in model.modules() if type(layer) in (nn.Linear, Conv1D) and layer.weight.dtype == torch.float32
    ]
    size = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    if not torch.backends.mkldnn.is_available() or size > SHARE * 1e9 * (machine.memory_gb() or 0):
        return 0
    for layer in layers:
        weight = layer.weight.detach()
        weight = weight.t().contiguous() if type(layer) is Conv1D else weight  # GPT-2's has inputs before outputs
        layer.forward = partial(_multiplied, torch.ops.mkldnn._reorder_linear_weight(weight, None), layer.bias)
    return len(layers)


def _multiplied(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found
