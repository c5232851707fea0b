"""Names of what is compared: a variant is `<model>-<dataset>-<method>-<format>`.

Its format is `trained` (the model as it left training), a precision (transformers, bitsandbytes) or a quant
(llama.cpp).
"""

from collections.abc import Iterator
from dataclasses import dataclass

TRAINED = "trained"


@dataclass(frozen=True)
class Variant:
    model: str
    dataset: str
    method: str
    format: str

    @property
    def cell(self) -> str:
        """The fine-tune this is a form of: `<model>-<dataset>-<method>`."""
        return f"{self.model}-{self.dataset}-{self.method}"

    def __str__(self) -> str:
        return f"{self.cell}-{self.format}"


def cells(run) -> Iterator[tuple[str, str, str]]:
    """Every (model, dataset, method) that a run list asks for, in its order."""
    for model in run.models:
        for dataset in run.datasets:
            for method in run.methods:
                yield model, dataset, method


def variants(run) -> list[Variant]:
    """Every variant a run list asks for: per cell `trained`, then precisions, then quants, the order of the ladder."""
    return [Variant(*cell, fmt) for cell in cells(run) for fmt in (TRAINED, *run.precisions, *run.quants)]
