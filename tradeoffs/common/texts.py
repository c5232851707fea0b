"""Texts from outside, names and answers among them, written so that nothing obeys them; each kind of output adds what
it obeys itself: report/formatting.py for Markdown, report/page.py for HTML, results/tables.py for CSV and JSON."""

import re

# Control characters but tab and line break, other ends of a line, what turns the direction in which what follows is
# written, and halves of a pair, which no file in UTF-8 can hold.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """A text in which what a terminal would obey, colours and titles among it, is written out: `\\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def on_a_line(text: str) -> str:
    """The same on one line: what stands on further ones follows after a space."""
    return " ".join(harmless(text).split())
