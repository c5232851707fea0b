"""Values that lie over the section `train`, over `tokenize`, and over a method's `config`, and what they come to."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from tradeoffs.common import cells, settings
from tradeoffs.methods import peft_facts
from tradeoffs.params import peft_values
from tradeoffs.params.fields import PositiveFloat
from tradeoffs.params.reading import read, unknown
from tradeoffs.params.schema import Method, ModelMethod, Params, Tokenize, Train
from tradeoffs.plumbing.errors import near

AXES = ("models", "datasets", "methods")


def tokenize_problems(where: str, values: dict[str, Any] | None) -> Iterator[str]:
    """Of a block that lies over the section `tokenize`."""
    yield from over_problems(where, values, get_type_hints(Tokenize, include_extras=True))


def of_models(params: Params, sound: Callable[[str], bool]) -> Iterator[str]:
    """What a model says of methods: of blocks that are sound by themselves, since it stands with what these hold."""
    methods = params.methods or {}
    for model, block in (params.models or {}).items():
        for name, own in ((block and block.methods) or {}).items():
            where = f"models.{model}.methods.{name}"
            method = methods.get(name)
            if not method:
                yield f"{where}: {name!r} has no block under methods{near(name, methods)}"
            elif own and sound(f"methods.{name}") and sound(where):
                yield from _own_checks(where, method, own)


def _own_checks(where: str, method: Method, own: ModelMethod) -> Iterator[str]:
    if not method.trains:
        yield f"{where}: this method trains nothing, so config and train mean nothing here"
        return
    yield from train_problems(f"{where}.train", own.train)
    if own.config and not method.peft:
        yield f"{where}.config: this method has no adapter; leave it out"
    elif own.config:
        whole = replace(method, config=(method.config or {}) | own.config)
        wrong = list(peft_facts.problems(where, whole))
        yield from wrong or peft_values.problems(f"{where}.config", whole)


def train_problems(where: str, values: dict[str, Any] | None) -> Iterator[str]:
    """Of a block that lies over the section `train`."""
    yield from over_problems(where, values, get_type_hints(Train, include_extras=True) | {"lr_factor": PositiveFloat})
    if {"steps", "epochs"} <= {key for key, value in (values or {}).items() if value is not None}:
        yield f"{where}: has both steps and epochs; one of them is how long it takes"


def over_problems(where: str, values: dict[str, Any] | None, hints: Mapping[str, Any]) -> Iterator[str]:
    """Of a block that lies over a section with these fields."""
    problems: list[str] = []
    for key, value in (values or {}).items():
        if key in hints:
            read(hints[key], value, f"{where}.{key}", problems)
        else:
            problems.append(f"{where}.{key}: unknown key{unknown(f'{where}.{key}', hints)}")
    yield from problems


def budget_problems(where: str, budget: Train, name: str = "", method: Method | None = None) -> Iterator[str]:
    """What an optimiser, or AdaLoRA (a method with its `name`), cannot do in the steps of a budget."""
    if budget.warmup_steps > budget.steps:
        yield (
            f"{where}.warmup_steps: {budget.warmup_steps} is more than the {budget.steps} steps of the training, which "
            "would end before its learning rate is reached; lower it, or raise steps"
        )
    if method and method.peft == "ADALORA":
        yield from peft_values.adalora_problems(f"methods.{name}.config", method, budget.steps)


def validation_problems(where: str, budget: Train) -> Iterator[str]:
    """What is decided by the validation loss needs one."""
    if not budget.valid_every:
        for key, value in (("keep", budget.keep), ("patience", budget.patience)):
            if value not in ("last", 0):
                yield (
                    f"{where}.{key}: {value} goes by the validation loss, which nothing measures while valid_every is "
                    "0; say every how many steps it is to be measured"
                )


def of_cells(params: Params, sound: Callable[[str], bool]) -> Iterator[str]:
    """What the run list's cells make of the budget that all share, said of the block on top that brings it about.

    Where it is in epochs, the steps are only known once the data set is.
    """
    for cell in cells.cells(params.run):
        places = [(axis, getattr(cell, axis.removesuffix("s"))) for axis in AXES]
        if not all(name in (getattr(params, axis) or {}) and sound(f"{axis}.{name}") for axis, name in places):
            continue
        budget, last, judge = params.train, "train", "train"
        for where, values in settings.layers(params, cell):
            budget = settings.over(budget, values)
            last = where if {"steps", "warmup_steps"} & set(values) else last
            judge = where if {"valid_every", "keep", "patience"} & set(values) else judge
        method = settings.of_method(params, cell)
        if method.trains:
            yield from validation_problems(judge, budget)
        if method.trains and budget.epochs is None:
            yield from budget_problems(last, budget, cell.method, method)
        further = method.preference and (params.methods[cell.method].preference.train or {})  # type: ignore[union-attr]
        if further:
            budget, where = settings.over(budget, further), f"methods.{cell.method}.preference.train"
            yield from validation_problems(where, budget)
            if budget.epochs is None:
                yield from budget_problems(where, budget)
