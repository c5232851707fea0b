"""The one exception that ends a stage with a message instead of a traceback."""


class UserError(Exception):
    """Something the user can mend: its text says what, where, what was expected and what to do."""
