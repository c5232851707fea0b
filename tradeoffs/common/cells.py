"""What is compared, and where it lies: names and paths of every model, data set, pair, cell and variant.

A pair is `<model>-<dataset>`, a cell (one fine-tune) `<model>-<dataset>-<method>`, a training of it
`<model>-<dataset>-<method>-<seed>`, a variant `<model>-<dataset>-<method>-<format>`. A format is `trained` (the model
as it left training), a precision (transformers, bitsandbytes) or a quant (llama.cpp); all are of the first seed. Names
of params.yaml hold no `-`, so each can be read back from its own name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from tradeoffs.plumbing.errors import UserError

if TYPE_CHECKING:
    from tradeoffs.params import Run

TRAINED = "trained"
ITEMS, SEEDS, SCORES, COST = (Path("data", n) for n in ("items", "seeds", "scores.parquet", "cost.json"))
SETTINGS = Path("metrics/settings")
NOTES = SETTINGS / "notes.json"
TASKS = Path("data/tasks")


def base(model: str) -> Path:
    """The starting checkpoint of a model."""
    return Path("models/base", model)


def general(model: str) -> Path:
    """Text of the kind that a model learned from, by which forgetting is measured."""
    return Path("data/general", f"{model}.jsonl")


def settings(axis: str, name: object) -> Path:
    """What params.yaml comes to for one of its models, datasets, pairs or cells (the `axis`): a part of such a file."""
    return SETTINGS / axis / f"{name}.json"


def prepared(dataset: str) -> Path:
    """A data set, cleaned and split."""
    return Path("data/prepared", dataset)


@dataclass(frozen=True)
class Copied:
    """What answering by copying comes to: of each test question of a data set, the answer of the most similar training
    question. It is scored as a variant is, on the same items, and is of no model."""

    dataset: str
    model: ClassVar[str] = ""

    @property
    def items(self) -> Path:
        """What was asked and what was copied, a row per test question; none where nothing is answered."""
        return Path("data/copying", f"{self.dataset}.parquet")

    def __str__(self) -> str:
        return f"{self.dataset}-copying"


@dataclass(frozen=True)
class Pair:
    model: str
    dataset: str

    def cell(self, method: str) -> "Cell":
        return Cell(self.model, self.dataset, method)

    @property
    def tokens(self) -> Path:
        """Token ids and masks, a folder."""
        return Path("data/tokens", str(self))

    @property
    def lengths(self) -> Path:
        """How long the examples of each split are, in this model's tokens."""
        return Path("data/lengths", f"{self}.json")

    def __str__(self) -> str:
        return f"{self.model}-{self.dataset}"


@dataclass(frozen=True)
class Cell:
    model: str
    dataset: str
    method: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """The cell of this name. Raises UserError if it is none."""
        return cls(*_parts(name, 3, "MODEL-DATASET-METHOD"))

    @property
    def pair(self) -> Pair:
        return Pair(self.model, self.dataset)

    def variant(self, format: str) -> "Variant":
        return Variant(self.model, self.dataset, self.method, format)

    @property
    def base(self) -> Path:
        return base(self.model)

    @property
    def tokens(self) -> Path:
        return self.pair.tokens

    @property
    def seeds(self) -> Path:
        """What its trainings but the first were asked and said; a folder."""
        return SEEDS / str(self)

    def training(self, seed: int) -> "Training":
        return Training(self, seed)

    def further(self, seeds: Sequence[int]) -> list["Variant"]:
        """As trained with each of the `seeds` but the first, of which all other variants are."""
        return [Variant(self.model, self.dataset, self.method, TRAINED, seed) for seed in seeds[1:]]

    @property
    def reference(self) -> Path:
        """What every other format is held against; a folder."""
        return Path("data/reference", str(self))

    @property
    def merged(self) -> Path:
        """One self-contained checkpoint; a folder."""
        return Path("models/merged", str(self))

    @property
    def converted(self) -> Path:
        """The GGUF as the converter wrote it; beside it, with the suffix .json, what is known of it."""
        return Path("models/converted", f"{self}.gguf")

    def __str__(self) -> str:
        return f"{self.model}-{self.dataset}-{self.method}"


@dataclass(frozen=True)
class Training:
    """One training of a cell; its seed decides fresh weights, the order of the examples and dropout."""

    cell: Cell
    seed: int

    @classmethod
    def parse(cls, name: str) -> Self:
        """The training of this name. Raises UserError if it is none."""
        *cell, seed = _parts(name, 4, "MODEL-DATASET-METHOD-SEED")
        return cls(Cell(*cell), _seed(seed, name))

    @property
    def weights(self) -> Path:
        """Adapter or full weights, as they left training; a folder."""
        return Path("models/trained", str(self.cell), str(self.seed))

    @property
    def facts(self) -> Path:
        """What training took and how it went."""
        return Path("data/training", str(self.cell), f"{self.seed}.json")

    def __str__(self) -> str:
        return f"{self.cell}-{self.seed}"


@dataclass(frozen=True)
class Variant:
    """A form of a fine-tune. All are of the first seed; one with a `seed` is a further training, and `trained`."""

    model: str
    dataset: str
    method: str
    format: str
    seed: int | None = None

    @classmethod
    def parse(cls, name: str) -> Self:
        """The variant, or the further training, of this name. Raises UserError if it is none."""
        if name.count("-") == 4 and name.split("-")[3] == TRAINED:
            model, dataset, method, form, seed = _parts(name, 5, "MODEL-DATASET-METHOD-trained-SEED")
            return cls(model, dataset, method, form, _seed(seed, name))
        model, dataset, method, form = _parts(name, 4, "MODEL-DATASET-METHOD-FORMAT")
        return cls(model, dataset, method, form)

    @property
    def cell(self) -> Cell:
        """The fine-tune this is a form of."""
        return Cell(self.model, self.dataset, self.method)

    def training(self, seeds: Sequence[int]) -> Training:
        """The training that gave its weights, of those with `seeds`."""
        return self.cell.training(seeds[0] if self.seed is None else self.seed)

    @property
    def pair(self) -> Pair:
        return Pair(self.model, self.dataset)

    @property
    def gguf(self) -> Path:
        """The file of a quant; beside it, with the suffix .json, what is known of it."""
        return Path("models/gguf", f"{self}.gguf")

    @property
    def items(self) -> Path:
        """What it was asked and said, a row per item."""
        return ITEMS / f"{self}.parquet" if self.seed is None else self.cell.seeds / f"{self.seed}.parquet"

    def tasks(self, seeds: Sequence[int]) -> Path:
        """What it said to the tasks of `evaluate.tasks`, a file for each; a folder. As trained, of its own seed."""
        name = f"{self.cell}-{TRAINED}-{self.training(seeds).seed}" if self.format == TRAINED else str(self)
        return TASKS / name

    @property
    def facts(self) -> Path:
        """What is known of it beside its items: what runs it, its size and shapes; or why there is none."""
        return Path("data/facts", f"{self}.json")

    def __str__(self) -> str:
        name = f"{self.cell}-{self.format}"
        return name if self.seed is None else f"{name}-{self.seed}"


def _parts(name: str, count: int, form: str) -> list[str]:
    parts = name.split("-")
    if len(parts) != count or not all(parts):
        raise UserError(f"{name}: not of the form {form}")
    return parts


def _seed(digits: str, name: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise UserError(f"{name}: {digits} is no seed, which is a whole number")
    return int(digits)


def pairs(run: "Run") -> list[Pair]:
    """Every model with every data set, in the order of the run list."""
    return [Pair(model, dataset) for model in run.models for dataset in run.datasets]


def cells(run: "Run") -> Iterator[Cell]:
    """Every cell that a run list asks for, in its order."""
    for pair in pairs(run):
        for method in run.methods:
            yield pair.cell(method)


def variants(run: "Run") -> list[Variant]:
    """Every variant a run list asks for: per cell `trained`, then precisions, then quants, the order of the ladder."""
    return [cell.variant(form) for cell in cells(run) for form in (TRAINED, *run.precisions, *run.quants)]
