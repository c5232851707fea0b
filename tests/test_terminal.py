"""What came from outside is shown and not obeyed; a terminal gets long output page by page, a pipe all at once."""

import os
import pydoc
import sys
from pathlib import Path

import pytest

from tradeoffs.common import texts
from tradeoffs.plumbing import terminal


@pytest.fixture
def paged(tmp_path, monkeypatch):
    """What a pager is told and given, where standard input and output are a terminal; "" where none is started."""
    shown = tmp_path / "shown"
    monkeypatch.setenv("PAGER", f'{{ echo "LESS=$LESS"; cat; }} > {shown}')
    monkeypatch.setenv("MANPAGER", "cat > /dev/null")  # is for manuals
    monkeypatch.setattr(pydoc, "pager", pydoc.pager)  # which replaces itself by the pager it has found

    def page(lines):
        ours, theirs = os.openpty()
        # Only now: pytest sets its own between a fixture and its test.
        with monkeypatch.context() as patch, os.fdopen(theirs, "w") as out, Path(os.ttyname(theirs)).open() as into:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stdin", into)
            terminal.page(lines)
        os.close(ours)
        return shown.read_text() if shown.exists() else ""

    return page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),  # an escape sequence in one byte
        ("over\rwritten\b\b", "over\\rwritten\\x08\\x08"),
        ("lines\r\nend\tso\n", "lines\nend\tso\n"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("Größe 5\u00a0€, 猫, می\u200cخواهم, 👩\u200d🔬", "Größe 5\u00a0€, 猫, می\u200cخواهم, 👩\u200d🔬"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out_and_all_else_is_as_it_was(text, shown):
    assert texts.harmless(text) == shown


def test_a_pipe_gets_every_line(capsys):
    terminal.page(f"{n}" for n in range(3000))
    assert capsys.readouterr().out.splitlines() == [f"{n}" for n in range(3000)]


def test_a_terminal_gets_a_pager_which_ends_by_itself_on_one_screen(paged, monkeypatch):
    monkeypatch.setenv("LESS", "")
    monkeypatch.delenv("LESS")  # and it is gone again after this test
    assert paged(["one", "Größe"]) == "LESS=FX\none\nGröße\n"


def test_who_has_set_less_keeps_it(paged, monkeypatch):
    monkeypatch.setenv("LESS", "-i")
    assert paged(["one"]) == "LESS=-i\none\n"


def test_nothing_to_show_starts_no_pager(paged):
    assert paged([]) == ""
