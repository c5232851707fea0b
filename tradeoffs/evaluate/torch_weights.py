"""What a model in torch holds: how much memory its weights take, and a digest of its shapes."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from tradeoffs.common import files


def held_mb(model: PreTrainedModel) -> float:
    """The weights as they are shipped and held, in 1e6 bytes; tied ones count once.

    Parameters, the buffers that are saved with them (not those that are computed again, such as the angles of rotary
    positions), and the scales that bitsandbytes keeps aside.
    """
    held: dict[int, Tensor] = {}
    for _, tensor in _weights(model):
        for part in (tensor, *_scales(tensor)):
            held[part.data_ptr()] = part
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values()) / 1e6


def shapes(model: PreTrainedModel, runtime: str, device: str) -> str:
    """See `Runtime.shapes`: the classes of all modules, and name, shape and type of all that they hold.

    An adapter that is not merged is modules and weights more; of two with other ranks, other shapes.
    """
    config: Any = model.config.get_text_config()
    names = ("num_attention_heads", "num_key_value_heads", "max_position_embeddings")
    unseen = [getattr(config, name, None) for name in names]  # in no shape of a weight
    modules = [f"{name}: {type(module).__qualname__}" for name, module in model.named_modules()]
    weights = []
    for name, tensor in _weights(model):
        parts = [f"{tuple(part.shape)} {part.dtype}" for part in (tensor, *_scales(tensor))]
        state = getattr(tensor, "quant_state", None)
        weights.append(f"{name}: {parts} {getattr(state, 'quant_type', None)} {getattr(state, 'dtype', None)}")
    return files.content_id(runtime, device, str(model.dtype), f"{unseen}", *sorted(modules), *sorted(weights))


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers with their names; a tied one has one name."""
    yield from model.named_parameters()
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}", buffer


def _scales(parameter: Tensor) -> Iterator[Tensor]:
    """What bitsandbytes keeps of a quantised weight beside its codes."""
    scales = getattr(parameter, "SCB", None)  # int8: one per row
    if isinstance(scales, Tensor):
        yield scales
    state = getattr(parameter, "quant_state", None)  # nf4: one per block, themselves quantised
    while state is not None:
        yield from (tensor for tensor in (state.absmax, state.code) if isinstance(tensor, Tensor))
        state = state.state2
