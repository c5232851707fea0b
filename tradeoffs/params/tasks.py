"""Names of tasks of lm-evaluation-harness: each becomes a file of each variant, and a column for each of its metrics.

Which metrics a task has only its results tell; that two columns would have one name is then found by `results.tasks`.
"""

import re
from collections.abc import Iterator, Sequence

NAME = re.compile(r"(?=.{1,120}\Z)[A-Za-z0-9_][A-Za-z0-9_.-]*")
SPLITS = ("test", "seen", "general", "train", "valid")  # what names of other columns begin with


def begins(task: str) -> str:
    """What the names of a task's metrics begin with: in metrics/ names hold letters, digits and `_`."""
    return re.sub(r"\W+", "_", task, flags=re.ASCII)


def of_a_task(name: str, tasks: Sequence[str]) -> bool:
    """Whether a name may be that of a metric of one of `evaluate.tasks`, which only its results tell."""
    return any(name.startswith(f"{begins(task)}_") for task in tasks)


def task_checks(tasks: Sequence[str]) -> Iterator[str]:
    """Each name is one of a file on every system, and begins columns of its own."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(tasks):
        if not NAME.fullmatch(name):
            yield (
                f"evaluate.tasks: {name!r} is no name of a task, which holds letters, digits, _, - and . only, at most "
                "120, and begins with none of the last two"
            )
        elif begins(name) in SPLITS:
            yield (
                f"evaluate.tasks: {name!r} is what names of other columns begin with ({name}_loss); give the task "
                "another name"
            )
        else:
            # A file system may tell no upper case from lower; a column no `-` from `_`.
            alike.setdefault(begins(name).lower(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            yield (
                f"evaluate.tasks: {' and '.join(map(repr, names))} would be one file or one column, which do not tell "
                "upper case from lower, or - and . from _; leave out all but one, or give your own task another name"
            )
