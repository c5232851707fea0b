"""What differs between two commits, in words: parameters, data, code and what that reruns."""

import json
import math
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from tradeoffs import readme
from tradeoffs.comment.texts import shown
from tradeoffs.merge.made import README, is_made
from tradeoffs.params import reading
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report.formatting import Lines
from tradeoffs.results.results import Results
from tradeoffs.revisions import Revision

MOST = 30  # lines of each kind
MOST_ADDED = 8  # names of a list
COUNTED = {"read": "read", "train": "training", "valid": "validation", "test": "test", "seen": "seen"}
COUNTED["mmlu_test"] = "multiple-choice"


def params(before: Revision, after: Revision) -> Lines:
    """A line for each key of params.yaml that differs."""
    found = list(_differences(before.params, after.params, ""))
    return _most([f"- {line}" for line in found], "further parameters differ")


def _differences(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{key}.{name}" if key else str(name)
            if name not in new:
                yield f"{shown(inner)} removed{_value(old[name], ', was ')}"
            elif name not in old:
                yield f"{shown(inner)} added{_value(new[name], ': ')}"
            else:
                yield from _differences(old[name], new[name], inner)
    elif isinstance(old, list) and isinstance(new, list):
        if not _same(old, new):
            yield f"{shown(key)}: {_lists(old, new)}"
    elif not _same(old, new):
        yield f"{shown(key)}: {shown(_written(old))} → {shown(_written(new))}"


def _lists(old: list, new: list) -> str:
    """Added and removed entries, however often each stands there."""
    left, added = [_written(one) for one in old], list[str]()
    for one in map(_written, new):
        if one in left:
            left.remove(one)
        else:
            added.append(one)
    said = [f"{word} {_some(entries)}" for word, entries in (("added", added), ("removed", left)) if entries]
    return ", ".join(said) or "in another order"


def _some(entries: Sequence[str]) -> str:
    more = len(entries) - MOST_ADDED
    return ", ".join(map(shown, entries[:MOST_ADDED])) + (f" and {more} more" if more > 0 else "")


def _value(value: Any, before: str) -> str:
    """A block by the number of its keys, anything else as it is."""
    if isinstance(value, dict):
        return f", a block of {len(value)} key{'s' * (len(value) != 1)}"
    return f"{before}{shown(_written(value))}"


def _same(old: Any, new: Any) -> bool:
    """Unlike ==, which takes true for 1, and nan for another one than itself."""
    return _written(old) == _written(new)


def _written(value: Any) -> str:
    """As YAML has it on one line. What JSON does not know, dates, as Python writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def data(before: Results, after: Results) -> Lines:
    """A line for each data set whose rows differ, as `prepare` counted them."""
    found = []
    for name in dict.fromkeys([*before.prepared, *after.prepared]):
        old, new = before.prepared.get(name), after.prepared.get(name)
        if old is None or new is None:
            counts = (new or old or {}).get("counts", {})
            rows = ", ".join(f"{counts[key]:,} {word}" for key, word in COUNTED.items() if counts.get(key))
            found.append(f"- data set {shown(name)} {'added' if old is None else 'dropped'}: {rows} rows")
        elif said := _rows(old.get("counts", {}), new.get("counts", {})):
            found.append(f"- data set {shown(name)}: {said}")
        elif old != new:
            found.append(f"- data set {shown(name)}: as many rows, but its source or what was dropped of it differs")
    return found


def _rows(old: Mapping[str, int], new: Mapping[str, int]) -> str:
    return ", ".join(
        f"{old.get(key, 0):,} → {new.get(key, 0):,} {word} rows ({new.get(key, 0) - old.get(key, 0):+,})"
        for key, word in COUNTED.items()
        if old.get(key, 0) != new.get(key, 0)
    )


def code(before: Revision, after: Revision) -> Lines:
    """A line for each room (folder) with files that differ, and which stages that reruns; what a run makes together."""
    files = changed_files(before, after)
    stages = _stages(after)
    rooms: dict[str, list[str]] = {}
    made = [file for file in files if is_made(file) or (file == README and _text(before) == _text(after))]
    for file in files:
        if file not in made and file != "params.yaml":
            rooms.setdefault(_room(file), []).append(file)
    found = []
    for room, some in rooms.items():
        count = "" if some == [room] else f" ({len(some)} file{'s' * (len(some) != 1)})"
        reruns = [name for name, deps in stages.items() if any(_covers(dep, file) for dep in deps for file in some)]
        found.append(f"- {shown(room)}{count}: {_reruns(room, reruns, stages)}")
    found = _most(found, "further places")
    if made:
        found.append(f"- made by the run: {len(made)} file{'s' * (len(made) != 1)} of results and `dvc.lock`")
    return found


def _text(revision: Revision) -> str:
    """README.md without the block of results, which a run writes."""
    text = revision.text(README) or ""
    above, _, rest = text.partition(readme.BEGIN)
    _, end, below = rest.partition(readme.END)
    return above + below if end else text


def _reruns(room: str, names: Sequence[str], stages: Mapping[str, Any]) -> str:
    if room == "dvc.yaml":
        return "what the stages are"
    if not names:
        return "reruns nothing"
    every = len(names) == len(stages)
    return "reruns every stage" if every else f"reruns {', '.join(map(shown, names))}, and what follows from them"


def _room(file: str) -> str:
    """The folder of tradeoffs/ that a file lies in, elsewhere the top one; a file that stands there alone itself."""
    parts = file.split("/")
    depth = 2 if parts[0] == "tradeoffs" else 1
    return "/".join(parts[:depth]) + ("/" if len(parts) > depth else "")


def _stages(revision: Revision) -> dict[str, list[str]]:
    """The deps of each stage that are no template; none of a dvc.yaml that cannot be read, which dvc says itself."""
    try:
        found = yaml.load(revision.text("dvc.yaml") or "", reading.Loader)
        stages = found["stages"]
        return {
            str(name): [dep for dep in (spec.get("deps") or []) if isinstance(dep, str) and "${" not in dep]
            for name, spec in stages.items()
        }
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep.rstrip('/')}/")


def made_anew(before: Revision, after: Revision) -> Lines:
    """Which cells' outputs differ, by dvc.lock: how many of each stage. Empty where all are the same."""
    counts: dict[str, list[int]] = {}
    old, new = before.lock, after.lock
    for name, entry in new.items():
        stage = counts.setdefault(name.split("@")[0], [0, 0])
        stage[1] += 1
        stage[0] += name not in old or _hashes(old[name]) != _hashes(entry)
    some = [f"{shown(stage)} {n} of {of}" if of > 1 else shown(stage) for stage, (n, of) in counts.items() if n]
    return [f"- outputs that differ: {', '.join(some)}"] if some else []


def _hashes(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {out["path"]: out.get("md5") for out in entry.get("outs", ())}


def behind(before: Revision, after: Revision) -> int:
    """How many commits the base has that the other lacks: what these changed seems to be undone by this one."""
    assert before.sha, "the workspace is no base"
    return len(_lines("rev-list", f"{after.sha or 'HEAD'}..{before.sha}"))


def changed_files(before: Revision, after: Revision) -> list[str]:
    """Files below this folder that differ, as Git has them; of the WORKSPACE also what is not added yet."""
    ends = [before.sha or "HEAD", *([after.sha] if after.sha else [])]
    found = _lines("diff", "--name-only", "--relative", "--no-renames", "-z", *ends, "--", end="\0")
    if after.sha is None:
        found += _lines("ls-files", "--others", "--exclude-standard", "-z", end="\0")
    return sorted(set(found))


def _lines(*words: str, end: str = "\n") -> list[str]:
    done = subprocess.run(["git", *words], capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"git {words[0]}: {done.stderr.decode('utf-8', 'replace').strip()}")
    return [line for line in done.stdout.decode("utf-8", "surrogateescape").split(end) if line]


def _most(lines: Lines, more: str) -> Lines:
    return lines if len(lines) <= MOST else [*lines[:MOST], f"- and {len(lines) - MOST} {more}"]
