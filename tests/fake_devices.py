"""What the stage measure would leave of a run on a machine with a GPU, made up from what it would of a CPU alone."""

from collections.abc import Sequence
from typing import Any

from tradeoffs.common.cells import Variant
from tradeoffs.formats.names import QUANTS

GPU = "NVIDIA H100 80GB"
FASTER = 25.0  # than the CPU, whatever the format
WITHOUT = "llama.cpp was installed here without support for a GPU"
GGUF_ON_GPU = False  # whether llama.cpp was built for it


def on_each(cost: dict[str, Any], devices: Sequence[str]) -> dict[str, Any]:
    """data/cost.json with each thing on each device that can run it; as it is where there is `auto` alone."""
    if list(devices) == ["auto"]:
        return cost
    things = [
        one | {"on": device, "rounds": [_on(device, found) for found in one["rounds"]]}
        for device in devices
        for one in cost["things"]
        if device == "cpu" or GGUF_ON_GPU or Variant.parse(one["members"][0]).format not in QUANTS
    ]
    left_out = {} if GGUF_ON_GPU or "cuda" not in devices else {"cuda": WITHOUT}
    return cost | {"things": things, "left_out": left_out}


def _on(device: str, found: dict[str, Any]) -> dict[str, Any]:
    if device == "cpu":
        return found
    faster = {name: value * FASTER for name, value in found.items() if name.endswith("per_second")}
    sooner = {name: [one / FASTER for one in found[name]] for name in ("prompts_ttft_seconds",) if name in found}
    sweep = {size: speed * FASTER for size, speed in found["batch_sweep"].items()}
    memory = {"peak_gpu_memory_mb": 0.5 * found["model_memory_mb"], "model_memory_mb": 7.0}
    memory |= {"peak_gpu_memory_reserved_mb": 0.6 * found["model_memory_mb"]}
    return found | faster | sooner | memory | {"batch_sweep": sweep, "device": GPU}
