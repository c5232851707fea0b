"""Kinds of values in params.yaml, with the bounds that a number must keep."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from tradeoffs.formats.names import DEVICES, PRECISIONS, QUANTS


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive; `above` excludes the lower one. `why` nothing is above the upper one."""

    low: float
    high: float
    above: bool = False
    why: str = ""

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def asked_of(self, value: float) -> str:
        """What a number that is not in it must be."""
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        if not self.why:
            return f"{low} and at most {self.high:g}"
        return f"at most {self.high:,} ({self.why})" if value > self.low else low


MACHINE, SENSE = "no machine gets that far", "far beyond what makes sense"
Count = Annotated[int, Range(0, 10**9, why=MACHINE)]
Positive = Annotated[int, Range(1, 10**9, why=MACHINE)]
Steps = Annotated[int, Range(1, 10**8, why=MACHINE)]
Examples = Annotated[int, Range(1, 10**6, why=MACHINE)]  # at once
Tokens = Annotated[int, Range(1, 2**24, why=MACHINE)]  # at once: more than any context is long
Size = Annotated[int, Range(1, 2**20, why=MACHINE)]  # of a layer
Seed = Annotated[int, Range(0, 2**32 - 1, why="NumPy takes no larger seed")]
PositiveFloat = Annotated[float, Range(0, 10**6, above=True, why=SENSE)]
NonNegative = Annotated[float, Range(0, 10**6, why=SENSE)]
Ratio = Annotated[float, Range(1, 10**6, why=SENSE)]
Precisions: TypeAlias = list[Literal[tuple(PRECISIONS)]]  # type: ignore[valid-type,misc]
Quants: TypeAlias = list[Literal[tuple(QUANTS)]]  # type: ignore[valid-type,misc]
Devices: TypeAlias = list[Literal[DEVICES]]  # type: ignore[valid-type]
Load = Literal["none", "int8", "nf4", "fp4"]
# Of transformers, those that need nothing but the number of steps and of warm-up steps.
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
Runtime = Literal["llama.cpp", "transformers"]
MergeOnto = Literal["trained_base", "original_base"]
Dtype = Literal["float32", "bfloat16", "float16"]
