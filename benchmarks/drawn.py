"""Results of made-up scores: what verdicts do with answers whose true quality is known."""

from collections.abc import Mapping

import numpy as np

from tradeoffs.common.cells import Cell, Variant
from tradeoffs.params import Decide, Limits
from tradeoffs.results.results import Results

F1, EXACT = "test_f1", "test_exact_match"


class Drawn(Results):
    """A metric of answers for some variants, by an array of their items' scores (items,) each.

    `further` are those of a cell's further seeds. `draws` holds resamples that were made before, which one seed makes
    again; results of many repetitions share it.
    """

    def __init__(
        self,
        scores: Mapping[Variant, np.ndarray],
        name: str = F1,
        margin: float = 0.02,
        resamples: int = 1000,
        further: Mapping[Cell, Mapping[Variant, np.ndarray]] | None = None,
        draws: dict[int, np.ndarray] | None = None,
    ):
        self.decide = Decide("auto", "size_mb", {name.removeprefix("test_"): margin}, {}, Limits())
        self._further = {v.cell: list((further or {}).get(v.cell, ())) for v in scores}
        every = {**scores, **{v: values for found in (further or {}).values() for v, values in found.items()}}
        self.columns = {
            variant: {
                "split": np.full(len(values), "test"),
                "item": np.array([f"test{index}" for index in range(len(values))]),
                name.removeprefix("test_"): np.asarray(values, np.float64),
                "items": np.ones(len(values)),
            }
            for variant, values in every.items()
        }
        self.variants = list(scores)
        self.cost = {variant: {"size_mb": 1.0} for variant in scores}
        self.training = {v.cell: {} if v.method == "base" else {"train_seconds": 1} for v in every}
        self._seed, self._resamples, self._draws = 0, resamples, {} if draws is None else draws
        self._sums, self._values, self._subjects = {}, {}, {}
