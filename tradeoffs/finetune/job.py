"""What is asked of a fine-tune, and the model that it is asked of."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from tradeoffs.common import settings
from tradeoffs.common.cells import Cell, Training
from tradeoffs.params import Method, Train

if TYPE_CHECKING:
    import torch  # takes seconds to import, and a stage that trains nothing has a job too


@dataclass(frozen=True)
class Job:
    """A training of the run list with what params.yaml says of it: its method, and its budget, which is `shared` with
    the `train` of the method's block on top."""

    training: Training
    method: Method
    shared: Train

    @property
    def cell(self) -> Cell:
        return self.training.cell

    @property
    def name(self) -> str:
        """Of the block under `methods:`."""
        return self.cell.method

    @property
    def budget(self) -> Train:
        """Of supervised tuning."""
        return settings.over(self.shared, self.method.train or {})

    @property
    def stage_budget(self) -> Train:
        """Of what follows it: the same with the stage's own values (`preference.train`, `reward.train`) on top."""
        return settings.over(self.budget, (self.method.further and self.method.further.train) or {})

    def on(self, rows: int) -> Self:
        """The same job, its steps those that its epochs come to with so many training examples."""
        return replace(self, shared=settings.lasting(self.budget, rows), method=replace(self.method, train=None))


@dataclass(frozen=True)
class Loaded:
    """A model in memory, ready to be tuned: the base with a fresh adapter, or all of its weights.

    At most `batch_tokens` tokens, padding included, go through it at once. Of its `total` parameters, those of
    an adapter among them, `trainable` train.
    """

    model: Any  # transformers', or PEFT's around it
    dtype: "torch.dtype"  # of the arithmetic
    attention: str | None  # None: transformers' choice
    batch_tokens: int
    trainable: int
    total: int

    @property
    def work(self) -> float:
        """Floating-point operations per token: forward through all weights, the gradient back through all of them and
        into those that train."""
        return 2 * self.total + 2 * self.total + 2 * self.trainable
