"""What Git calls for a file that both sides of a merge have changed, if `python -m tradeoffs.merge --install` was run.

    python -m tradeoffs.merge.driver BASE OURS THEIRS MARKER_SIZE PATH       as %O %A %B %L %P in Git's configuration

It writes the result to OURS. No conflict is left in a file that is made: of dvc.lock each stage's entry is taken from
the side that has changed it, of the rest ours is as good as theirs, since `python -m tradeoffs.merge` makes it again.
README.md is merged as text, but for the block of results, which is ours. Exit code 1: its text is in conflict.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from tradeoffs.common.texts import harmless
from tradeoffs.merge.made import LOCK, README
from tradeoffs.plumbing import cli
from tradeoffs.readme import BEGIN, END

NAMES = ("ours", "base", "theirs")  # beside the marks of a conflict, in the order of `git merge-file`
MARK = re.compile(rb"^(<{7,}|>{7,})( |$)", re.MULTILINE)
STAGE = re.compile(r"  [^\s?#].*:\s*")  # a key of `stages:`; what stands below it is further in
CONFLICTS = 127  # from this exit code on `git merge-file` says that it has failed


def merged(path: str, base: bytes, ours: bytes, theirs: bytes, mark: int = 7) -> tuple[bytes, bool]:
    """The content of the file, and whether it has conflicts that somebody must resolve."""
    name = PurePosixPath(path).name
    if name == README:
        return _readme(base, ours, theirs, mark)
    if name == LOCK:
        return _lock(base, ours, theirs), False
    return ours, False


def _lock(base: bytes, ours: bytes, theirs: bytes) -> bytes:
    """A merge of three by the entries of the stages; ours of what both have changed.

    DVC compares each entry with the params, code and inputs that are there, so one that fits the other side's is found
    out and its stage run again: none can be wrong in silence.
    """
    a, b = _entries(ours), _entries(theirs)
    if a is None or b is None:  # not as DVC writes it; what the other lacks is made again
        return ours if a is not None or b is None else theirs
    (head, mine), (_, other), before = a, b, (_entries(base) or ("", {}))[1]
    found = {}
    for name in {**mine, **other}:  # the order of ours, then what they have added
        o, x, y = before.get(name), mine.get(name), other.get(name)
        if chosen := (y if x == o else x if y == o else x or y):
            found[name] = chosen
    return (head + "".join(found.values())).encode()


def _entries(lock: bytes) -> tuple[str, dict[str, str]] | None:
    """What stands before the entries of a dvc.lock, and the lines of each; None if it is not as DVC writes it."""
    try:
        head, begin, rest = lock.decode().partition("stages:\n")
    except UnicodeDecodeError:
        return None
    if not begin or not re.fullmatch(r"schema: .*\n", head):
        return None
    found: dict[str, str] = {}
    name = ""
    for line in rest.splitlines(keepends=True):
        if STAGE.fullmatch(line):
            name = line.strip()
            if name in found:
                return None
            found[name] = line
        elif name and (not line.strip() or line.startswith("   ")):
            found[name] += line
        else:
            return None
    return head + begin, found


def _readme(base: bytes, ours: bytes, theirs: bytes, mark: int) -> tuple[bytes, bool]:
    """As text, of three with the block of ours; as they are where one of them has no such block."""
    if mine := block(ours):
        base, theirs = (with_block(mine, text) for text in (base, theirs))
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder, name)) for name in NAMES]
        for path, content in zip(names, (ours, base, theirs), strict=True):
            Path(path).write_bytes(content)
        labels = [word for name in NAMES for word in ("-L", name)]
        command = ["git", "merge-file", "-p", f"--marker-size={mark}", *labels, *names]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode > CONFLICTS:
        raise OSError(done.stderr.decode(errors="replace"))
    return done.stdout, done.returncode > 0


def block(text: bytes) -> bytes:
    """From one marker to the other; nothing where they are not there, once each and in order."""
    begin, end = BEGIN.encode(), END.encode()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        return b""
    return text[text.index(begin) : text.index(end)]


def with_block(mine: bytes, text: bytes) -> bytes:
    """`text` with another block; as it is where it has none."""
    theirs = block(text)
    return text.replace(theirs, mine) if theirs else text


def main(base: Path, ours: Path, theirs: Path, mark: int, path: str) -> None:
    content, conflicts = merged(path, base.read_bytes(), ours.read_bytes(), theirs.read_bytes(), mark)
    ours.write_bytes(content)
    if PurePosixPath(path).name == LOCK:  # the one that is in every such merge; Git itself would say nothing
        print(harmless(f"{path}: made files were merged, now: python -m tradeoffs.merge"), file=sys.stderr)
    if conflicts:
        sys.exit(1)


if __name__ == "__main__":
    options = cli.parser()
    for name in ("base", "ours", "theirs"):
        options.add_argument(name, type=Path, help="a file that Git has written")
    options.add_argument("mark", type=cli.count, help="how long a mark of a conflict is")
    options.add_argument("path", help="of the file in the repository")
    cli.command(main, options)
