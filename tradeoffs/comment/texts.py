"""How a comment writes what is from outside: names, values, prompts and answers, as code on one line."""

from tradeoffs.comment.inert import inert
from tradeoffs.common.texts import on_a_line
from tradeoffs.report.formatting import escaped

LINE = 100  # characters of a text


def shown(text: str, most: int = LINE) -> str:
    """The beginning of any text as code within a line or a cell: nobody is mentioned, nothing linked or obeyed.

    GitHub and GitLab look for mentions and references in all text but code.
    """
    line = on_a_line(text)
    line = line if len(line) <= most else f"{line[:most].rstrip()}…"
    if not line:
        return "*nothing*"
    # A backtick would end the code, a pipe the cell. An address with an @ is a link to Markdown, also in an element.
    if not set("`|") & set(line):
        return f"`{line}`"
    return f"<code>{escaped(line)}</code>".replace("@", "@\u200b")


def said(text: str, most: int = 500) -> str:
    """A sentence of ours that holds names from outside, as text on one line that is nothing else to any platform."""
    line = on_a_line(text)
    line = line if len(line) <= most else f"{line[:most].rstrip()}…"
    return escaped(inert(line))  # what platforms look for is found in what is shown, escaped or not


def folded(title: str, lines: list[str]) -> list[str]:
    """A block that opens on a click; `title` is text of ours. Markdown in it needs the empty lines."""
    last = [""] if lines and lines[-1] else []
    return ["<details>", f"<summary>{title}</summary>", "", *lines, *last, "</details>", ""]
