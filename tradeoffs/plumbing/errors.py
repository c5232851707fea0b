"""The one exception that ends a stage with a message instead of a traceback, and the near matches in such messages."""

import difflib
from collections.abc import Iterable

LISTED = 3000  # characters of names that a message holds


class UserError(Exception):
    """Something the user can mend: its text says what, where, what was expected and what to do."""


def near(word: object, known: Iterable[object]) -> str:
    """` (did you mean X?)`, or ` (there are: X, Y)` when nothing known is near; of very many, the first."""
    names = [str(name) for name in known]
    lowered = {name.casefold(): name for name in names}
    match = difflib.get_close_matches(str(word).casefold(), lowered, n=1)
    return f" (did you mean {lowered[match[0]]}?)" if match else f" (there are: {listed(names)})"


def listed(names: Iterable[str]) -> str:
    """Names for a message, of which it is no page full."""
    text = ", ".join(names) or "none"
    return text if len(text) <= LISTED else f"{text[:LISTED]} ... ({text.count(', ') + 1} in all)"
