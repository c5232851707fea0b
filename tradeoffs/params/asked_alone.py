"""A data set of kind `questions`: multiple choice alone, and prompts, asked of models as they are.

There is nothing in it to train on, so no method that trains can be in a run with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields

from tradeoffs.params.schema import Dataset, Params

ALONE = "questions"
MEANT = ("kind", "licence", "mmlu", "prompts", "notes")  # all else is about examples
WITH_EXAMPLES = ("near_duplicate", "seen", "valid")  # without a default, so every data set that has examples says them


def entry_checks(where: str, dataset: Dataset) -> Iterator[str]:
    """What an entry of this kind has, and has not."""
    if dataset.mmlu is None:
        yield (
            f"{where}.mmlu: missing; kind {ALONE} is multiple choice alone, so say where from: path, a folder of "
            "MMLU's own files, or hub and revision, as cais/mmlu"
        )
    for field in fields(Dataset):
        if field.name not in MEANT and getattr(dataset, field.name) is not None:
            yield f"{where}.{field.name}: means nothing for kind {ALONE}, which has no examples; leave it out"


def missing_checks(where: str, dataset: Dataset) -> Iterator[str]:
    """What an entry of any other kind must have."""
    for name in WITH_EXAMPLES:
        if getattr(dataset, name) is None:
            yield f"{where}.{name}: missing"


def run_checks(params: Params, sound: Callable[[str], bool]) -> Iterator[str]:
    """A method that trains needs examples: one problem for all that such data sets and such methods are together."""
    alone = [
        name
        for name in params.run.datasets
        if (entry := (params.datasets or {}).get(name)) and sound(f"datasets.{name}") and entry.kind == ALONE
    ]
    trained = [name for name in params.run.methods if (method := (params.methods or {}).get(name)) and method.trains]
    if alone and trained:
        yield (
            f"run.methods: {_named(trained)} cannot train on {_named(alone)} of run.datasets: kind {ALONE} has no "
            "examples; leave base alone in run.methods, or take the data set out"
        )


def _named(names: list[str]) -> str:
    return ", ".join(map(repr, names))
