"""Whether a page is of the results that are here: it bears a hash of what it was made of."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path("report/explore.html")
FOLDER = Path(__file__).parent
LOCK = Path("dvc.lock")
BEGINNING = 2000  # bytes, in which the stamp stands
_STAMP = re.compile(r'<meta name="made-of" content="([0-9a-f]{64})">')
# Parsing the whole file takes longer than all else that a run with nothing to do does.
_ENTRY = re.compile(r"^  aggregate:\n(?:    .*\n)+", re.MULTILINE)


def present(pairs: Sequence[str] = ()) -> str:
    """Of dvc.lock's entry of `aggregate`, which has a hash of all that results are made of, and of the page's own code;
    another one where the page has only these `pairs`.
    """
    entry = _ENTRY.search(LOCK.read_text(encoding="utf-8")) if LOCK.is_file() else None
    found = hashlib.sha256("\n".join([entry[0] if entry else "", *pairs]).encode())
    for path in sorted(path for path in FOLDER.rglob("*.*") if path.suffix in (".py", ".js", ".css", ".html")):
        found.update(path.read_bytes())
    return found.hexdigest()


def of(page: Path = PAGE) -> str | None:
    """The stamp of a page; None where there is no page, or none that bears one."""
    if not page.is_file():
        return None
    with page.open("rb") as file:
        found = _STAMP.search(file.read(BEGINNING).decode("utf-8", "replace"))
    return found[1] if found else None
