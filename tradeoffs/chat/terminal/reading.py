"""Lines that are typed, or come through a pipe; one that ends with a backslash goes on in the next."""

import atexit
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tradeoffs.plumbing.errors import UserError

PROMPT, FURTHER = "> ", ". "
REMEMBERED = 1000  # lines in a file of them


def piped(stream: Any) -> Iterator[str]:
    """Those of a file or a pipe; what is no UTF-8 in it comes as halves of pairs, which no text holds."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="surrogateescape")
    parts = list[str]()
    for line in stream:
        parts.append(line.rstrip("\r\n"))
        if not _goes_on(parts):
            yield "\n".join(parts)
            parts = []
    if parts:
        yield "\n".join(parts)


def typed(prompt: Callable[[str], str]) -> Iterator[str]:
    """Those of a terminal, until Ctrl-D, or Ctrl-C where nothing is typed; else that takes back what is."""
    while True:
        parts = list[str]()
        try:
            while not parts or _goes_on(parts):
                parts.append(_line(prompt(FURTHER if parts else PROMPT)))
        except EOFError:
            print()
            return
        except _TakenBackError as error:
            print()
            if not (parts or error.args[0]):
                return
            continue
        yield "\n".join(parts)


class _TakenBackError(Exception):
    """By Ctrl-C; holds what was typed."""


def _line(prompt: str) -> str:
    import readline

    def taken_back(*_: object) -> None:
        raise _TakenBackError(readline.get_line_buffer())  # which is empty once readline has been left

    before = signal.signal(signal.SIGINT, taken_back)
    try:
        return input(prompt)
    finally:
        signal.signal(signal.SIGINT, before)


def edited(words: Callable[[str], Sequence[str]], history: Path | None) -> None:
    """Gives typed lines a history, of this session or of a file too, and Tab: `words` says what a line may go on with.
    What is pasted is one line, however many it has. Raises UserError for a history that cannot be kept."""
    import readline

    def complete(text: str, number: int) -> str | None:
        found = [word for word in words(readline.get_line_buffer()[: readline.get_begidx()]) if word.startswith(text)]
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    with suppress(Exception):  # of an editline that does not know it
        readline.parse_and_bind("set enable-bracketed-paste on")
    if history:
        try:
            if history.exists() and not history.is_file():
                raise UserError(f"--history {history}: expected a file")
            os.close(os.open(history, os.O_RDWR | os.O_CREAT, 0o600))
            if history.stat().st_size:
                readline.read_history_file(history)
        except OSError as error:
            raise UserError(f"--history {history}: {error.strerror}") from error
        readline.set_history_length(REMEMBERED)
        atexit.register(readline.write_history_file, history)


def _goes_on(parts: list[str]) -> bool:
    """Whether the last part ends with a backslash, which is then taken away."""
    if parts and parts[-1].endswith("\\"):
        parts[-1] = parts[-1][:-1]
        return True
    return False
