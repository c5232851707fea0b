"""One pass through a model: how many tokens at once, whether they fit the memory, and where logits are computed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tradeoffs.common.batching import HOST_BATCH, fitting_batch

GPU_SHARE = 0.5  # of the GPU's memory beside the weights, for what goes through at once


def auto_batch(bytes_per_token: float, on: torch.device, weights: float) -> int:
    """How many tokens go through a model at once on the device `on`, of whose memory `weights` bytes are taken."""
    if on.type == "cuda":
        free = torch.cuda.get_device_properties(on).total_memory - weights
        return fitting_batch(bytes_per_token, GPU_SHARE * free)
    return fitting_batch(bytes_per_token, HOST_BATCH)


def fits(work: Callable[[], None]) -> bool:
    """Does the work, unless memory runs out; what it then still held is freed when this returns."""
    try:
        work()
    except RuntimeError as error:
        from accelerate.utils.memory import should_reduce_batch_size

        if not should_reduce_batch_size(error):
            raise
    else:
        return True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def gpu_rise(on: torch.device) -> Callable[[], float | None]:
    """What says, from now on, how far the memory in use on a GPU was at most above what it is now, in 1e6 bytes; None
    on a CPU. The peaks of the process begin anew."""
    if on.type != "cuda":
        return lambda: None
    torch.cuda.reset_peak_memory_stats(on)
    before = torch.cuda.memory_allocated(on)
    return lambda: (torch.cuda.max_memory_allocated(on) - before) / 1e6


@contextmanager
def logits_only_at(model: Any, wanted: Tensor, virtual_tokens: int = 0) -> Iterator[None]:
    """Within the block the model's output layer sees only the positions where `wanted` (batch, length) is true.

    The logits then have shape (true positions, vocabulary). What a model does to its logits afterwards (scaling, soft
    caps) still happens, since the model's own forward goes on with them. Prompt tuning puts so many `virtual_tokens` in
    front of each sequence, and nothing is wanted of them.
    """
    in_front = torch.nn.functional.pad(wanted, (virtual_tokens, 0))
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: (args[0][wanted if args[0].shape[1] == wanted.shape[1] else in_front],)
    )
    try:
        yield
    finally:
        handle.remove()
