"""What the loop asks of a runtime: sequences that grow by tokens, several in one step, and begin where others began."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np


class NoRoomError(Exception):
    """The cache has no room for what is fed, although `begin` promised it; nothing of it was taken in."""


class Decoder(Protocol):
    """Sequences of token ids in a cache of keys and values, each in a place of its own."""

    name: str  # of the runtime: "transformers" or "llama.cpp"
    device: str  # "cpu" or the GPU's name
    context: int  # longest sequence, in tokens
    vocabulary: int
    places: int  # most sequences that grow at a time
    step_tokens: int  # of a step, at which it takes no much longer than for one: prompts are read in such pieces

    def begin(self, ids: Sequence[int], length: int) -> tuple[int, int] | None:
        """A place for a sequence that begins with `ids` and grows to at most `length` tokens; how many of the ids are
        in it already, since another one began in the same way (at most all but the last, whose logits are asked for).
        None if there is no room beside those that grow now."""
        ...

    def feed(self, parts: Mapping[int, Sequence[int]], wanted: set[int]) -> dict[int, np.ndarray]:
        """Appends ids to the sequences of these places, all in one step; of each of the `wanted` places the logits
        after its last id, float32 (vocabulary,), which hold until the next call. Raises NoRoomError."""
        ...

    def every(self, place: int, ids: Sequence[int]) -> np.ndarray:
        """Appends ids to one sequence; the logits after each of them, float32 (ids, vocabulary), which hold until the
        next call. Raises NoRoomError."""
        ...

    def end(self, place: int) -> None:
        """The sequence of this place grows no more. It is kept, for others to begin with, until room is needed."""
        ...

    def close(self) -> None:
        """Gives the memory back."""
        ...
