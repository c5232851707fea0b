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

import yaml

from tradeoffs.params.checks import no_block, problems_across
from tradeoffs.params.reading import Loader, read
from tradeoffs.params.schema import (
    Columns,
    Cost,
    Dataset,
    Evaluate,
    GeneralText,
    GeneratedDataset,
    GeneratedModel,
    HubSplits,
    Launch,
    Merge,
    Method,
    Mmlu,
    MmluSource,
    Model,
    Params,
    Preference,
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
    "Evaluate",
    "GeneralText",
    "GeneratedDataset",
    "GeneratedModel",
    "HubSplits",
    "Launch",
    "Merge",
    "Method",
    "Mmlu",
    "MmluSource",
    "Model",
    "Params",
    "Preference",
    "Run",
    "Splits",
    "Tokenize",
    "Train",
    "load",
    "load_all",
    "paths",
]

PATH = Path("params.yaml")
T = TypeVar("T")


def paths(reads: type) -> dict[str, str]:
    """Where in params.yaml each field of a stage's `Reads` stands: its name, or what `Annotated` says."""
    hints = get_type_hints(reads, include_extras=True)
    return {
        field.name: get_args(hint)[1] if get_origin(hint := hints[field.name]) is Annotated else field.name
        for field in dataclasses.fields(reads)
    }


def load(reads: type[T], **names: str) -> T:
    """What a stage says it reads; `names` fill the places of names, as `method="lora"` that of `methods.{method}`.

    Raises UserError with every problem of the file, or if one of the names has no block in its catalogue.
    """
    everything = load_all()
    return reads(**{field: _at(everything, path, names) for field, path in paths(reads).items()})


def _at(everything: Params, path: str, names: dict[str, str]) -> Any:
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


def load_all(path: Path | None = None) -> Params:
    """The whole file. Raises UserError that lists every problem in it."""
    path = path or PATH
    if not path.is_file():
        raise UserError(f"{path}: not found in {Path.cwd()}; run from the folder that holds dvc.yaml")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}:" if mark else ""
        raise UserError(f"{path}:{place} not valid YAML: {getattr(error, 'problem', error)}") from error
    problems: list[str] = []
    params = read(Params, raw, "", problems)
    problems += problems_across(params, problems) if params else []
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise UserError("\n  ".join([f"{path}: {count}", *problems]))
    return params
