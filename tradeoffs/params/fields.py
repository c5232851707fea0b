"""Kinds of values in params.yaml, with the bounds that a number must keep."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from tradeoffs.formats.names import PRECISIONS, QUANTS


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive; `above` excludes the lower one."""

    low: float
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == float("inf") else f"{low} and at most {self.high:g}"


Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
PositiveFloat = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Precisions: TypeAlias = list[Literal[tuple(PRECISIONS)]]  # type: ignore[valid-type,misc]
Quants: TypeAlias = list[Literal[tuple(QUANTS)]]  # type: ignore[valid-type,misc]
Load = Literal["none", "int8", "nf4", "fp4"]
# Of transformers, those that need nothing but the number of steps and of warm-up steps.
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
MergeOnto = Literal["trained_base", "original_base"]
Dtype = Literal["float32", "bfloat16", "float16"]
