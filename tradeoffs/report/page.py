"""The report for the person who decides: the answer first, then what it rests on. Markdown, and HTML made from it.

A section is a module here, a template of the same name in templates/, and a line in SECTIONS.
"""

import re
from collections.abc import Callable, Sequence

from markdown_it import MarkdownIt

from tradeoffs.report import (
    comparisons,
    data,
    decision,
    forgetting,
    formats,
    grid,
    ladder,
    machine,
    methods,
    prompts,
    reading,
    subjects,
)
from tradeoffs.report.rendering import render
from tradeoffs.results.results import Results

# Each makes the Markdown of its section of the results and the names of the pictures that were drawn, or "".
SECTIONS: tuple[Callable[[Results, Sequence[str]], str], ...] = (
    decision.section,
    grid.section,
    methods.section,
    forgetting.section,
    formats.section,
    ladder.section,
    subjects.section,
    prompts.section,
    comparisons.section,
    data.section,
    reading.section,
    machine.section,
)


def markdown(results: Results, drawn: Sequence[str]) -> str:
    """The whole report; `drawn` are the names of the pictures that there are."""
    texts = [section(results, drawn).strip("\n") for section in SECTIONS]
    # However many blank lines a template leaves around what is not there, one is enough.
    return re.sub("\n{3,}", "\n\n", "\n\n".join(texts)) + "\n"


def summary(results: Results) -> str:
    """The decision alone, for a pull request or a README."""
    return decision.section(results)


def html(text: str, title: str) -> str:
    """The same report as one page; pictures stay files beside it."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    return render("page.html.j2", title=title, body=body)
