"""params.yaml, read strictly: the schema as frozen dataclasses, every problem reported at once, no defaults.

A stage says what it reads, and gets just that:

    @dataclass(frozen=True)
    class Reads:
        train: Train                                    # the section of this name
        method: Annotated[Method, "methods.{method}"]   # the block of this cell's method

    cfg = params.load(Reads, method="lora")

The whole file is checked each time, so a typo anywhere stops the first stage and not the sixth hour.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from tradeoffs.common import settings
from tradeoffs.params.checks import no_block, problems_across
from tradeoffs.params.parsing import parsed, problems_of, shown
from tradeoffs.params.reading import read
from tradeoffs.params.schema import (
    Columns,
    Cost,
    Dataset,
    Decide,
    Evaluate,
    GeneralText,
    GeneratedDataset,
    GeneratedModel,
    Harness,
    HubSplits,
    Launch,
    Limits,
    Merge,
    Method,
    Mmlu,
    MmluSource,
    Model,
    ModelMethod,
    Params,
    Preference,
    Reward,
    Run,
    Splits,
    Tokenize,
    Train,
)
from tradeoffs.plumbing.errors import UserError

__all__ = [
    "PATH",
    "Columns",
    "Cost",
    "Dataset",
    "Decide",
    "Evaluate",
    "GeneralText",
    "GeneratedDataset",
    "GeneratedModel",
    "Harness",
    "HubSplits",
    "Launch",
    "Limits",
    "Merge",
    "Method",
    "Mmlu",
    "MmluSource",
    "Model",
    "ModelMethod",
    "Params",
    "Preference",
    "Reward",
    "Run",
    "Splits",
    "Tokenize",
    "Train",
    "load",
    "load_all",
    "load_settings",
    "paths",
    "sound",
]

PATH = Path("params.yaml")
MOST_LISTED = 100  # of the problems of a file
T = TypeVar("T")


def paths(reads: type) -> dict[str, str]:
    """Where in params.yaml each field of a `Reads` stands: the section of its name, or the place that Annotated names.

    A place is dotted (`evaluate.cost`); `{method}` in it stands for a name that only the call knows. dvc.yaml lists the
    same places for the stage, with `${item.method}`, so that what is read is what DVC watches.
    """
    hints = get_type_hints(reads, include_extras=True)
    return {
        field.name: get_args(hint)[1] if get_origin(hint := hints[field.name]) is Annotated else field.name
        for field in dataclasses.fields(reads)
    }


def load(reads: type[T], **names: str) -> T:
    """What a `Reads` declares, and nothing else; `names` fill its places, as `method="lora"` fills `methods.{method}`.

    Raises UserError with every problem of the file, or if one of the names has no block in its catalogue.
    """
    everything = load_all()
    return reads(**{field: _at(everything, path, names) for field, path in paths(reads).items()})


def load_settings(reads: type[T], *, now: bool = False, **names: str) -> T:
    """The same with what params.yaml says of this `model`, `dataset` and `method` laid over what all share
    (tradeoffs/common/settings.py).

    Raises UserError, too, if the file that such a step depends on holds other settings: DVC would keep what comes of
    these under those. `now`: whatever it holds.
    """
    everything, places = load_all(), paths(reads)
    if method := names.get("method"):
        _at(everything, "methods.{method}", {"method": method})
    held = settings.file(**names)
    if not now and held.is_file() and held in settings.moved(everything):
        raise UserError(
            f"{held}: does not hold what {PATH} says now, which was changed after the stage `settings` had run; run "
            "`dvc repro` or `make run` again, which begins with that"
        )
    found = settings.resolved(everything, **names)
    return reads(**{field: _at(found, path, names) for field, path in places.items()})


def _at(everything: Params, path: str, names: dict[str, str]) -> Any:
    """The value at a dotted place, with `names` in it filled in."""
    value: Any = everything
    for part in path.split("."):
        if part.startswith("{"):
            name, catalogue = names[part.strip("{}")], path.split(".")[0]
            if name not in value:
                raise UserError(f"{PATH}: {no_block(name, catalogue, value)}")
            value = value[name]
        else:
            value = getattr(value, part)
    return value


def load_all(path: Path | None = None, named: object = None) -> Params:
    """The whole file: `path`, or params.yaml. Raises UserError that lists every problem in it; `named` is what that
    calls the file."""
    path = path or PATH
    return sound(parsed(path, named or path), named or path)


def sound(raw: Any, named: object) -> Params:
    """What YAML holds as Params. Raises UserError that lists every problem in it; `named` is what that calls it."""
    found, problems = checked(raw)
    if found is None or problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        listed = [shown(problem) for problem in problems[:MOST_LISTED]]
        rest = [f"... and {len(problems) - MOST_LISTED} more"] if len(problems) > MOST_LISTED else []
        raise UserError("\n  ".join([f"{named}: {count}", *listed, *rest]))
    return found


def checked(raw: Any) -> tuple[Params | None, list[str]]:
    """What YAML holds as Params, and its problems as `where: what is wrong`; without Params there is always one."""
    problems = list(problems_of(raw))
    if problems:  # what comes after it relies on texts and numbers being sound
        return None, problems
    found: Params | None = read(Params, raw, "", problems)
    return found, [*problems, *(problems_across(found, problems) if found else ())]
