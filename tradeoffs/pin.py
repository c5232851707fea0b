"""Writes the commits that branches and tags of the hub stand for today into params.yaml; all else in it stays as it is.

     python -m tradeoffs.pin                            # what the run list names
     python -m tradeoffs.pin models.gpt2 datasets.alpaca
     python -m tradeoffs.pin --all                      # the whole catalogue

A revision that is a commit already is only looked up: one that the hub no longer has is reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.sources import hub


@dataclass(frozen=True)
class Entry:
    """A repository that params.yaml names under the key `where`."""

    where: str
    repo: str
    revision: str | None
    kind: hub.Kind


def main(names: list[str], everything: bool) -> None:
    cfg = params.load_all()
    catalogue = {f"{axis}.{name}": axis for axis in ("models", "datasets") for name in getattr(cfg, axis)}
    for name in names:
        if name not in catalogue:
            raise UserError(f"{params.PATH}: no entry {name!r}{near(name, catalogue)}")
    listed = [f"{axis}.{name}" for axis in ("models", "datasets") for name in getattr(cfg.run, axis)]
    wanted = names or (list(catalogue) if everything else listed)
    entries = [entry for name in dict.fromkeys(wanted) for entry in _entries(cfg, name)]
    moved: dict[str, str] = {}
    problems: list[str] = []
    for entry in entries:
        try:
            if (commit := _newest(entry)) != entry.revision:
                moved[entry.where] = commit
        except UserError as error:
            problems.append(str(error))
    if moved:
        _write(moved)
    for entry in entries:
        if entry.where in moved:
            print(f"{entry.where}.revision: {entry.revision or 'main'} is now {moved[entry.where]} ({entry.repo})")
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} of {len(entries)} could not be looked up", *problems]))
    if not moved:
        print(f"nothing to pin: {len(entries)} of the hub, each a commit that it has")


def _entries(cfg: params.Params, name: str) -> Iterator[Entry]:
    axis, _, key = name.partition(".")
    if axis == "models":
        model = cfg.models[key]
        if model.hub:
            yield Entry(name, model.hub, model.revision, "model")
        return
    dataset = cfg.datasets[key]
    for where, source in ((name, dataset), (f"{name}.mmlu", dataset.mmlu)):
        if source and source.hub:
            yield Entry(where, source.hub, source.revision, "dataset")


def _newest(entry: Entry) -> str:
    """The commit, as the hub says now: not from the disk, as hub.resolve does where the hub does not answer."""
    import huggingface_hub

    with hub.explained(entry.repo, entry.revision, entry.kind, entry.where):
        found = huggingface_hub.HfApi().repo_info(entry.repo, repo_type=entry.kind, revision=entry.revision)
    return str(found.sha)


def _write(commits: dict[str, str]) -> None:
    """Puts the commits into the lines of params.yaml that hold the revisions (`where` -> commit)."""
    with params.PATH.open(encoding="utf-8", newline="") as file:
        text = file.read()
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    assert tree is not None  # params.load_all has read it
    edits: dict[tuple[int, int], str] = {}  # one each, also where entries share a block by an alias
    for where, commit in commits.items():
        block = _block(tree, where)
        values = {key.value: value for key, value in block.value}
        if "revision" in values:
            old = values["revision"]
            edits[old.start_mark.index, old.end_mark.index] = commit if old.value else f" {commit}"
            continue
        # Of mmlu, which may come without, or merged: a key after that of hub.
        if "hub" not in values:
            raise _merged(where, "hub")
        end = values["hub"].end_mark.index
        if block.flow_style:
            edits[end, end] = f", revision: {commit}"
            continue
        column = next(key.start_mark.column for key, _ in block.value if key.value == "hub")
        line_end = text.find("\n", end)
        line_end = len(text) if line_end < 0 else line_end - text[:line_end].endswith("\r")
        edits[line_end, line_end] = f"{_newline(text)}{' ' * column}revision: {commit}"
    after = text
    for (start, end), new in sorted(edits.items(), reverse=True):
        after = after[:start] + new + after[end:]
    with files.new_file(params.PATH) as target:
        with target.open("w", encoding="utf-8", newline="") as file:
            file.write(after)
        _check(text, target, commits)


def _check(before: str, target: Path, commits: dict[str, str]) -> None:
    """Raises UserError unless the new file says what the text before says, but for the commits."""
    expected = yaml.safe_load(before)  # what an alias shares is one object here, so it changes in all of its places
    for where, commit in commits.items():
        block = expected
        for part in where.split("."):
            block = block[part]
        block["revision"] = commit
    problem = "other entries share their lines"
    try:
        params.load_all(target)
        if yaml.safe_load(target.read_text(encoding="utf-8")) == expected:
            return
    except UserError as error:
        problem = str(error).removeprefix(f"{target}: ")
    raise UserError(
        f"{params.PATH}: {', '.join(commits)} cannot be pinned ({problem}), and nothing was written; write hub and "
        "revision of each out, without anchors, aliases and `<<`"
    )


def _block(tree: yaml.Node, where: str) -> yaml.MappingNode:
    for part in where.split("."):
        found = next((value for key, value in tree.value if key.value == part), None)
        if found is None:
            raise _merged(where, part)
        tree = found
    assert isinstance(tree, yaml.MappingNode)
    return tree


def _merged(where: str, key: str) -> UserError:
    return UserError(
        f"{params.PATH}: {where}: {key} comes from another entry by a merge (`<<`), so the commit has no line of its "
        "own, and nothing was written; write hub and revision out"
    )


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("names", nargs="*", metavar="ENTRY", help="models.NAME or datasets.NAME; else the run list's")
    parser.add_argument("--all", action="store_true", dest="everything", help="every entry of the catalogues")
    cli.command(main, parser)
