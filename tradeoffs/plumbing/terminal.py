"""What is printed of texts that came from outside: they are shown, not obeyed, and paged where they are long."""

import os
import pydoc
import sys
from collections.abc import Iterable


def page(lines: Iterable[str]) -> None:
    """Prints lines; on a terminal by $PAGER, else by `less` where they do not fit on the screen, as git does."""
    text = "".join(f"{line}\n" for line in lines)
    if text and sys.stdout.isatty():
        os.environ.setdefault("LESS", "FX")  # it ends by itself where all fits, and what was read stays on the screen
        os.environ.pop("MANPAGER", None)  # for pydoc the first choice, but what is shown here is no manual
        pydoc.pager(text)
    else:
        print(text, end="")
