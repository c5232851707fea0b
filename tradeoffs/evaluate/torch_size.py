"""How much memory the weights of a model in torch take."""

from collections.abc import Iterator

from torch import Tensor
from transformers import PreTrainedModel


def held_mb(model: PreTrainedModel) -> float:
    """Weights as held in memory, in 1e6 bytes: parameters, buffers, and the scales that bitsandbytes keeps aside."""
    held = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}  # tied weights count once
    for parameter in model.parameters():
        for tensor in _scales(parameter):
            held[tensor.data_ptr()] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values()) / 1e6


def _scales(parameter: Tensor) -> Iterator[Tensor]:
    """What bitsandbytes keeps of a quantised weight beside its codes."""
    scales = getattr(parameter, "SCB", None)  # int8: one per row
    if isinstance(scales, Tensor):
        yield scales
    state = getattr(parameter, "quant_state", None)  # nf4: one per block, themselves quantised
    while state is not None:
        yield from (tensor for tensor in (state.absmax, state.code) if isinstance(tensor, Tensor))
        state = state.state2
