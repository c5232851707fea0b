"""The one exception that ends a stage with a message instead of a traceback, and the near matches in such messages."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: its text says what, where, what was expected and what to do."""


def near(word: object, known: Iterable[object]) -> str:
    """` (did you mean X?)`, or ` (there are: X, Y)` when nothing known is near."""
    names = [str(name) for name in known]
    lowered = {name.casefold(): name for name in names}
    match = difflib.get_close_matches(str(word).casefold(), lowered, n=1)
    return f" (did you mean {lowered[match[0]]}?)" if match else f" (there are: {', '.join(names) or 'none'})"
