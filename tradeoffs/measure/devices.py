"""Which things are measured on which devices: each on every one that is asked for and that its runtime can use."""

from collections.abc import Sequence
from dataclasses import replace

from tradeoffs.formats.names import CPU, CUDA, QUANTS
from tradeoffs.llama_cpp import gpus
from tradeoffs.measure.things import Thing
from tradeoffs.plumbing.errors import UserError

ADD_CPU = f"add {CPU} to run.devices, or take {CUDA} out of it"


def on_each(some: Sequence[Thing], devices: Sequence[str], gpu: str | None) -> tuple[list[Thing], dict[str, str]]:
    """`some` things on each of the `devices` (DEVICES), device by device, and why a runtime is left out of one of them,
    by the device.

    `gpu`: the name of the CUDA GPU that torch finds. Raises UserError if a device is not there, or if a GGUF could be
    measured on none of them.
    """
    if CUDA in devices and gpu is None:
        raise UserError(f"run.devices: {CUDA}: torch finds no CUDA GPU here; take it out, or run where there is one")
    ggufs = [thing for thing in some if thing.is_gguf]
    lacking = gpus.lacking() if CUDA in devices and ggufs else ""
    if lacking and list(devices) == [CUDA]:
        named = ", ".join(sorted({variant.format for thing in ggufs for variant in thing.members}, key=[*QUANTS].index))
        raise UserError(f"run.devices: [{CUDA}]: {lacking}; so {named} of run.quants cannot be measured: {ADD_CPU}")
    left_out = {CUDA: lacking} if lacking else {}
    found = [replace(one, on=on) for on in devices for one in some if not (on in left_out and one.is_gguf)]
    return found, left_out
