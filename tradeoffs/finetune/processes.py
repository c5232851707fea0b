"""Which of several processes this is, by what their launcher (accelerate launch, torchrun) says in the environment."""

import os


def rank() -> int:
    """0 for the first one, which alone writes results."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The same among those of this machine, where each has a GPU of its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def count() -> int:
    """How many share the batch of a step."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharded() -> bool:
    """Whether each holds a part of the weights only (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
