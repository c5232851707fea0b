"""What one process is told to measure, as JSON: which files it loads, and the token ids that go through the model.

No more is imported here than the process of a GGUF needs, whose memory is measured.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tradeoffs.evaluate.runtime import Target
from tradeoffs.formats.names import AUTO


@dataclass(frozen=True)
class Settings:
    """How much is measured: `evaluate.cost` of params.yaml, without what the rounds alone need."""

    prefill_tokens: int
    decode_tokens: int
    batch_sizes: list[int]
    repetitions: int


@dataclass(frozen=True)
class Work:
    """One thing in one round.

    loaded: the files and how they are read: `gguf`; `checkpoint` and `precision`; or `base`, `trained`, `method` and
    `dtype`. sample: ids that prefill and decode go by. prompts: those whose first token is timed; none of a text.
    scored: ids of each sequence, and where they are scored. items: how many items those are (a window is a part of a
    document). on: one of DEVICES.
    """

    loaded: dict[str, Any]
    batch_tokens: int | Literal["auto"]
    pad_id: int
    sample: list[int]
    prompts: list[list[int]]
    scored: list[tuple[list[int], list[bool]]]
    items: float
    settings: Settings
    on: str = AUTO

    def targets(self) -> list[Target]:
        return [Target(np.asarray(ids, np.int32), np.asarray(at, bool)) for ids, at in self.scored]

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "Work":
        found = json.loads(text)
        return cls(**{**found, "settings": Settings(**found["settings"])})
