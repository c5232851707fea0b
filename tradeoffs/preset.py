"""Applies a preset: a file that changes a part of params.yaml for one question. experiments/ has some.

    python -m tradeoffs.preset                                    which there are
    python -m tradeoffs.preset experiments/finance_methods.yaml   what it changes, value by value; touches nothing
    python -m tradeoffs.preset experiments/finance_methods.yaml --write     writes that into params.yaml

A preset has the form of params.yaml and holds what is to be another value there: blocks are merged key by key, all else
takes the place of what was there, and null empties what may be left out, and takes out an entry of guards, margins or
functions. It is read as strictly as params.yaml. It can
be run as an experiment, which leaves params.yaml as it is: python -m tradeoffs.repro --exp --preset FILE
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from copy import deepcopy
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.params.parsing import parsed, plain, problems_of, shown
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError, near

FOLDER = Path("experiments")
RUN = "python -m tradeoffs.repro --exp --preset {file}"
NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
KEY = re.compile("[A-Za-z0-9_-]+")
WORDS = ("null", "true", "false", "nan", "inf")  # of Hydra's grammar
WRITE = "python -m tradeoffs.preset {file} --write"
Values = dict[str, Any]


class Preset(NamedTuple):
    """`values` of `file`, and params.yaml `before` and `after` them, as plain values."""

    file: Path
    values: Values
    before: Values
    after: Values


def main(file: Path | None, write: bool) -> None:
    if file is None:
        print("\n".join(_listed()))
        return
    preset = read(file)
    if not (lines := changed(preset)):
        print(f"{file}: params.yaml has all of these values already")
        return
    print("\n".join([f"{file} changes of {params.PATH}:", *(f"  {line}" for line in lines)]))
    if write:
        _write(preset)
        print(
            f"Written; `git diff {params.PATH}` shows it, `git restore {params.PATH}` takes it back. Run it: make run"
        )
        return
    print(f"As an experiment, {params.PATH} stays as it is:  {RUN.format(file=file)}")
    print(f"To go on from it:  {WRITE.format(file=file)}")


def read(file: Path) -> Preset:
    """Raises UserError with every problem of params.yaml, else with every problem that the preset makes of it."""
    params.load_all()
    before = parsed(params.PATH)
    if not file.is_file():
        known = [str(path) for path in _all()]
        raise UserError(f"{file}: no such preset{near(file, known)}")
    values = parsed(file)
    if not isinstance(values, dict) or not values:
        raise UserError(
            f"{file}: must hold blocks of {params.PATH} (run, train, ...), with what is to be another value"
        )
    if problems := list(problems_of(values)):
        raise UserError("\n  ".join([f"{file}: not sound", *map(shown, problems)]))
    after = merged(before, values)
    params.sound(after, f"{params.PATH} with {file}")
    return Preset(file, values, before, after)


def merged(values: Values, over: Mapping[str, Any]) -> Values:
    """`values` with those of `over` in their place, blocks key by key."""
    found = dict(values)
    for key, value in over.items():
        mine = found.get(key)
        both = isinstance(mine, dict) and isinstance(value, dict)
        found[key] = merged(mine, value) if both else value  # type: ignore[arg-type]
    return found


def changed(preset: Preset) -> list[str]:
    """A line for each value that is another one after it."""
    before, after = dict(_flat(preset.before)), dict(_flat(preset.after))
    keys = [key for key in {**before, **after} if before.get(key, ...) != after.get(key, ...)]
    return [shown(f"{key}: {_text(before, key)} -> {_text(after, key)}") for key in keys]


def overrides(preset: Preset) -> list[str]:
    """The preset as DVC has it behind -S, which adds what is not there yet: a value each.

    Raises UserError where DVC would read another value than the preset has.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
    from hydra.errors import HydraException

    given = [f"++{key}={_grammar(value)}" for key, value in _pieces(preset.values)]
    try:
        [[mine]] = [found.values() for found in get_hydra_sweeps({str(params.PATH): given})]
        with TemporaryDirectory() as folder:
            copy = Path(shutil.copy(params.PATH, folder))
            apply_overrides(copy, mine)
            known = parsed(copy, params.PATH)
    except (DvcException, HydraException, ValueError) as error:
        why = str(error.__cause__ or error).partition("\n")[0]
        raise UserError(f"{preset.file}: DVC cannot take it: {why}") from error
    theirs, ours = dict(_flat(known)), dict(_flat(preset.after))
    if wrong := [key for key in {**theirs, **ours} if theirs.get(key, ...) != ours.get(key, ...)]:
        said = [f"{key}: {_text(ours, key)} would be {_text(theirs, key)}" for key in wrong]
        raise UserError("\n  ".join([f"{preset.file}: DVC reads another value", *map(shown, said)]))
    return list(mine)


def _write(preset: Preset) -> None:
    from tradeoffs.merge import tree

    if tree.uncommitted([str(params.PATH)]):
        raise UserError(
            f"{params.PATH}: has changes that are not committed, which nothing would bring back; commit them (or "
            f"`git restore {params.PATH}`), then write the preset. As an experiment it goes on top of them: "
            + RUN.format(file=preset.file)
        )
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class AsWritten(RoundTripRepresenter):
        """Leaves `null` where others leave nothing."""

    AsWritten.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml, text = YAML(), StringIO()
    yaml.Representer = AsWritten
    yaml.preserve_quotes, yaml.width = True, 2**16  # or long lines would be broken anew
    lines = yaml.load(params.PATH.read_text(encoding="utf-8"))
    _put(lines, preset.values)
    yaml.dump(lines, text)
    if plain(text.getvalue().encode(), params.PATH) != preset.after:  # a block that other entries share by an alias
        raise UserError(f"{preset.file}: cannot be written into {params.PATH}: write out its anchors and aliases")
    files.write_text(params.PATH, text.getvalue())


def _put(lines: Any, values: Mapping[str, Any]) -> None:
    """`merged`, in what ruamel.yaml read: what stays the same keeps its lines, and a list the comment behind it."""
    from ruamel.yaml.comments import CommentedSeq

    for key, value in values.items():
        mine: Any = lines.get(key, ...)
        if isinstance(mine, dict) and isinstance(value, dict):
            _put(mine, value)
        elif mine != value:
            lines[key] = deepcopy(value)  # lists that the preset shares by an alias are two there
            if isinstance(mine, CommentedSeq) and value and (behind := mine.ca.items.get(len(mine) - 1)):
                lines[key] = new = CommentedSeq(deepcopy(value))
                new.ca.items[len(value) - 1] = behind


def _listed() -> Iterator[str]:
    """Each preset of the folder with the comment that it begins with."""
    found = _all()
    for file in found:
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        yield f"{file}\n    {shown(first.lstrip('# '))}" if first.startswith("#") else str(file)
    yield f"Run one as an experiment: {RUN.format(file=found[0])}" if found else f"{FOLDER}: no presets here"


def _all() -> list[Path]:
    return sorted(FOLDER.glob("*.yaml"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value by its dotted place; lists and empty blocks are values."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _pieces(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`_flat`, but a block with a key that is none of Hydra's (rewards/own.py) is a value: it is merged, too."""
    for key, value in values.items():
        if isinstance(value, dict) and value and all(KEY.fullmatch(str(name)) for name in value):
            yield from _pieces(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(values: Mapping[str, Any], key: str) -> str:
    return _grammar(values[key]) if key in values else "(not there)"


def _grammar(value: Any) -> str:
    """A value as Hydra's grammar, and so -S, has it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_grammar(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_grammar, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _quoted(value)
    return repr(value)


def _quoted(text: str) -> str:
    """A name stands as it is. In quotes, a quote and the backslashes before one are what is to be escaped."""
    if NAME.fullmatch(text) and text.lower() not in WORDS:
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a preset; without one, the list of them")
    parser.add_argument("--write", action="store_true", help="write it into params.yaml, which must be committed")
    cli.command(main, parser)
