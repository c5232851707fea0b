"""How a chat looks in a terminal, and what of it goes through a pipe: answers while they grow, what each of them cost,
where two differ."""

import difflib
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from tradeoffs.chat.messages import Event, Said
from tradeoffs.chat.terminal.conversation import Answer, Side
from tradeoffs.common.texts import harmless

FULL = 0.75  # of the context, from which on it is said how full it is
COMPARED = 2000  # words and marks of an answer up to which two are compared
ALIKE = 0.5  # part of them that two have in common, from which on their differences are shown
PLACES = "AB"
STYLES = {"dim": "2", "bold": "1", "red": "31", "green": "32"}
ENDINGS = {"left": "stopped", "length": "cut at its longest", "time": "cut: it took too long"}
GAP = re.compile(r"(?<=\S) {3,}")  # between the columns of a table, for which there is no room
PART = re.compile(r"\w+|\s+|[^\w\s]")


class Shown(Protocol):
    """Where a chat goes to."""

    interactive: bool

    def note(self, text: str) -> None:
        """What is said about the chat, and is no answer."""

    def rows(self, lines: Sequence[str]) -> None:
        """The same in lines."""

    def transient(self, text: str) -> None:
        """A note that is gone once it is no longer so; where there is a screen."""

    def clear(self) -> None:
        """It is no longer so."""

    def begin(self, side: Side, place: str) -> None:
        """An answer follows; `place` is that of the side among two."""

    def piece(self, event: Event) -> None:
        """More of it."""

    def end(self, side: Side, question: str, answer: Answer) -> None:
        """It is complete."""

    def both(self, answers: Sequence[Answer]) -> None:
        """Two of the same question are."""


class Screen:
    """Text: answers on stdout; notes there too in a terminal, else on stderr, so that a pipe has answers alone."""

    def __init__(self, out: TextIO, notes: TextIO, interactive: bool) -> None:
        self._out, self._notes, self.interactive = out, notes, interactive
        self._colours = interactive and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
        self._indent, self._held, self._empty, self._transient = "", "", True, False

    @classmethod
    def of_this_process(cls) -> "Screen":
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        return cls(sys.stdout, sys.stdout if interactive else sys.stderr, interactive)

    @property
    def width(self) -> int:
        return max(shutil.get_terminal_size().columns, 20) if self.interactive else 100

    def style(self, text: str, *names: str) -> str:
        return f"\x1b[{';'.join(STYLES[name] for name in names)}m{text}\x1b[0m" if self._colours else text

    def note(self, text: str) -> None:
        self.rows([text])

    def rows(self, lines: Sequence[str]) -> None:
        """Lines, each broken where the screen ends, its further lines below its first word."""
        self.clear()
        for line in lines:
            text = harmless(line)
            text = text if len(text) <= self.width else GAP.sub("  ", text)
            inner = " " * (len(text) - len(text.lstrip()) + 2)
            found = textwrap.wrap(text, self.width, subsequent_indent=inner, break_on_hyphens=False) or [""]
            print("\n".join(self.style(part, "dim") for part in found), file=self._notes, flush=True)

    def transient(self, text: str) -> None:
        """A line that the next one takes the place of; where there is a terminal."""
        if self.interactive:
            print(f"\r{self.style(harmless(text)[: self.width - 1], 'dim')}", end="", file=self._notes, flush=True)
            self._transient = True

    def clear(self) -> None:
        if self._transient:
            self._transient = False
            print(f"\r{' ' * (self.width - 1)}\r", end="", file=self._notes, flush=True)

    def prompt(self, text: str) -> str:
        """What a line is asked for with; readline is told what of it takes no room."""
        return f"\x01\x1b[1m\x02{text}\x01\x1b[0m\x02" if self._colours else text

    def begin(self, side: Side, place: str) -> None:
        self.clear()
        self._indent = " " * 3 if place else ""
        self._held, self._empty = "", True
        if place:
            print(f"{self.style(place, 'bold')}  ", end="", file=self._out, flush=True)

    def piece(self, event: Event) -> None:
        if isinstance(event, Said) and event.text:
            text = self._held + event.text
            # Half of a line's end: whether it is one shows in what follows.
            self._held = "\r" if text.endswith("\r") else ""
            self._write(text.removesuffix("\r"))

    def _write(self, text: str) -> None:
        shown = harmless(text)
        if shown:
            self._empty = False
            print(shown.replace("\n", "\n" + self._indent), end="", file=self._out, flush=True)

    def end(self, side: Side, question: str, answer: Answer) -> None:
        self._write(self._held)
        failed = answer.reason == "failed"
        if not (self._empty and failed and not self._indent):
            nothing = self._empty and self._indent and not failed
            print(self.style("(empty)", "dim") if nothing else "", file=self._out, flush=True)
        if failed:
            self.note(f"{self._indent}{side.name}: no answer: {answer.message}")
            return
        if answer.left_out:
            self.note(f"{self._indent}{left_out(answer.left_out)}")
        if self.interactive:
            self.note(f"{self._indent}{' · '.join(costs(side, answer))}")
        elif answer.reason != "stop":
            self.note(f"{self._indent}{ENDINGS[answer.reason]}, after {answer.tokens} tokens")

    def both(self, answers: Sequence[Answer]) -> None:
        texts = [answer.text.strip() for answer in answers if answer.reason != "failed"]
        if len(texts) == 2 and self.interactive:
            self._both(*texts)

    def _both(self, ours: str, theirs: str) -> None:
        parts = [PART.findall(text) for text in (ours, theirs)]
        if ours == theirs:
            self.note("   the same answer")
        elif max(map(len, parts)) > COMPARED or _likeness(*parts) < ALIKE:
            self.note("   the answers differ")
        else:
            said = "".join(self._marked(*parts)).replace("\n", "\n   ")
            print(f"   {self.style('differ:', 'dim')} {said}", file=self._notes, flush=True)

    def _marked(self, ours: list[str], theirs: list[str]) -> list[str]:
        """Both in one text, as `git diff --word-diff` writes it: [-of A alone-]{+of B alone+}."""
        found = []
        for kind, begin, end, other, upto in difflib.SequenceMatcher(None, ours, theirs, False).get_opcodes():
            gone, new = (harmless("".join(part)) for part in (ours[begin:end], theirs[other:upto]))
            if kind == "equal":
                found.append(gone)
                continue
            found += [self.style(f"[-{gone}-]", "red")] if gone else []
            found += [self.style(f"{{+{new}+}}", "green")] if new else []
        return found


def _likeness(ours: list[str], theirs: list[str]) -> float:
    """How many words two texts have in common, of those that they have: from 0 to 1."""
    words = [[part for part in parts if not part.isspace()] for parts in (ours, theirs)]
    return difflib.SequenceMatcher(None, words[0], words[1], autojunk=False).ratio()


class Lines:
    """One JSON object per answer on stdout, notes on stderr."""

    interactive = False

    def note(self, text: str) -> None:
        self.rows([text])

    def rows(self, lines: Sequence[str]) -> None:
        print("\n".join(map(harmless, lines)), file=sys.stderr, flush=True)

    def transient(self, text: str) -> None: ...

    def clear(self) -> None: ...

    def begin(self, side: Side, place: str) -> None: ...

    def piece(self, event: Event) -> None: ...

    def both(self, answers: Sequence[Answer]) -> None: ...

    def end(self, side: Side, question: str, answer: Answer) -> None:
        print(json.dumps(fields(side, question, answer)), flush=True)


def fields(side: Side, question: str, answer: Answer) -> dict[str, Any]:
    """What is known of an answer; times are in seconds since it was asked, memory in 1e6 bytes."""
    found = {"variant": side.name, "question": question, "answer": answer.text, "reason": answer.reason}
    if answer.reason == "failed":
        return found | {"error": answer.message}
    speed = answer.tokens_per_second
    return found | {
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "cached_tokens": answer.cached_tokens,
        "left_out": answer.left_out,
        "seconds_waited": round(answer.seconds_waited, 6),
        "seconds_to_first_token": round(answer.seconds_to_first, 6),
        "seconds": round(answer.seconds, 6),
        "tokens_per_second": round(speed, 3) if speed else None,
        "memory_mb": answer.memory_mb and round(answer.memory_mb, 1),
    }


def costs(side: Side, answer: Answer) -> list[str]:
    """What an answer cost, how it ended, and how full the context is, where that matters."""
    speed, full = answer.tokens_per_second, answer.prompt_tokens + answer.tokens
    found = [
        f"first token {seconds(answer.seconds_to_first)}" if answer.tokens else "",
        f"{speed:,.0f} tokens/s" if speed else "",
        f"{answer.tokens} token{'s' if answer.tokens != 1 else ''}",
        f"{answer.memory_mb:,.0f} MB" if answer.memory_mb else "",
        f"waited {seconds(answer.seconds_waited)}" if answer.seconds_waited > 0.1 else "",
        ENDINGS.get(answer.reason, ""),
        f"context {full} of {side.context} tokens" if side.context and full > FULL * side.context else "",
    ]
    return [item for item in found if item]


def left_out(count: int) -> str:
    """That a conversation does not begin where it began."""
    return f"{count} question{'s' if count != 1 else ''} left out, the oldest, with their answers"


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
