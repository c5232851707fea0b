"""A data set of kind `questions`: multiple choice alone, tasks, and prompts, asked of models as they are.

There is nothing in it to train on, so no method that trains can be in a run with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields

from tradeoffs.params.schema import Dataset, Params
from tradeoffs.params.tasks import begins, of_a_task

ALONE = "questions"
MEANT = ("kind", "licence", "mmlu", "prompts", "notes")  # all else is about examples
WITH_EXAMPLES = ("near_duplicate", "seen", "valid")  # without a default, so every data set that has examples says them


def entry_checks(where: str, dataset: Dataset) -> Iterator[str]:
    """What an entry of this kind has, and has not."""
    for field in fields(Dataset):
        if field.name not in MEANT and getattr(dataset, field.name) is not None:
            yield f"{where}.{field.name}: means nothing for kind {ALONE}, which has no examples; leave it out"


def missing_checks(where: str, dataset: Dataset) -> Iterator[str]:
    """What an entry of any other kind must have."""
    for name in WITH_EXAMPLES:
        if getattr(dataset, name) is None:
            yield f"{where}.{name}: missing"


def run_checks(params: Params, sound: Callable[[str], bool]) -> Iterator[str]:
    """A method that trains needs examples: one problem for all that such data sets and such methods are together. And
    something has to be asked, and to decide."""
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
    without = [name for name in alone if (params.datasets or {})[name].mmlu is None]
    if without and params.evaluate and sound("evaluate"):
        yield from _task_checks(params, without, sound)


def _task_checks(params: Params, without: list[str], sound: Callable[[str], bool]) -> Iterator[str]:
    """Data sets `without` multiple choice: tasks are all that is asked on them, and one of these has to decide."""
    tasks = params.evaluate.tasks
    for name in without if not tasks else ():
        yield (
            f"datasets.{name}.mmlu: missing; kind {ALONE} is multiple choice alone, so say where from: path, a folder "
            "of MMLU's own files, or hub and revision, as cais/mmlu; or name tasks in evaluate.tasks"
        )
    if tasks and params.decide and sound("decide") and not of_a_task(params.decide.metric, tasks):
        yield (
            f"decide.metric: {params.decide.metric} is not measured on {_named(without)}, where nothing but "
            f"evaluate.tasks is asked; name a metric of one, as {begins(tasks[0])}_acc, and its margin"
        )


def _named(names: list[str]) -> str:
    return ", ".join(map(repr, names))
