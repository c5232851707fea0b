"""What is printed of texts that came from outside: they are shown, not obeyed, and paged where they are long."""

import os
import pydoc
import re
import sys
from collections.abc import Iterable

# Control characters but tab and line break, and those that turn the direction in which what follows is written.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """A text in which what a terminal would obey, colours and titles among it, is written out: `\\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def page(lines: Iterable[str]) -> None:
    """Prints lines; on a terminal by $PAGER, else by `less` where they do not fit on the screen, as git does."""
    text = "".join(f"{line}\n" for line in lines)
    if text and sys.stdout.isatty():
        os.environ.setdefault("LESS", "FX")  # it ends by itself where all fits, and what was read stays on the screen
        os.environ.pop("MANPAGER", None)  # for pydoc the first choice, but what is shown here is no manual
        pydoc.pager(text)
    else:
        print(text, end="")
