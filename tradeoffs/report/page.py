"""The report for the person who decides: a front page with the answer, and pages that hold what it rests on.

Markdown, and HTML made from it. A section is a module here, a template of the same name in templates/, and stands on a
page of PAGES.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tradeoffs.common import files
from tradeoffs.report import (
    answers,
    choices,
    comparisons,
    data,
    decision,
    devices,
    forgetting,
    formats,
    front,
    grid,
    ladder,
    machine,
    methods,
    prompts,
    reading,
    subjects,
    tasks,
)
from tradeoffs.report.rendering import render
from tradeoffs.results.results import Results

# Makes the Markdown of a section of the results and the names of the pictures that were drawn, or "".
Section = Callable[[Results, Sequence[str]], str]
FRONT = "report"  # the first page: report/report.md, report/report.html


@dataclass(frozen=True)
class Page:
    title: str
    about: str  # what it has, for the front page
    sections: tuple[Section, ...]


# By the names of their files in report/, in the order in which they are named.
PAGES = {
    "answers": Page("Answers", "what was asked, expected and generated", (answers.section, prompts.section)),
    "grid": Page("Models and data sets", "every model on every data set", (grid.section,)),
    "methods": Page(
        "Methods",
        "quality of each method, what it took and what it forgot, and who beats whom",
        (methods.section, forgetting.section, comparisons.section),
    ),
    "formats": Page(
        "Formats",
        "quality and cost of each format, what costs as little, and at which step a fine-tune is lost",
        (formats.section, devices.section, choices.section, ladder.section),
    ),
    "multiple_choice": Page("Multiple choice", "by subject", (subjects.section,)),
    "tasks": Page("Tasks", "tasks of lm-evaluation-harness", (tasks.section,)),
    "data": Page("Data", "what it consists of, what was dropped, and how small a difference it shows", (data.section,)),
    "reading": Page(
        "Numbers", "what each number means, and the machine they are from", (reading.section, machine.section)
    ),
}

# Addresses that the report has: its pages, its table of prompts, its pictures. And what begins HTML that it has not.
OWN_LINK = re.compile(rf"(?:{'|'.join((FRONT, *PAGES))})\.md|prompts\.csv|\.\./plots/\w+\.png")
OTHER_HTML = re.compile(r"<(?!/?(?:details|summary|br)>)")


def pages(results: Results, drawn: Sequence[str]) -> dict[str, str]:
    """The Markdown of every page that has something to say, by its name, the front page first.

    `drawn` are the names of the pictures that there are.
    """
    found = {}
    for name, page in PAGES.items():
        texts = [section(results, drawn).strip("\n") for section in page.sections]
        if any(texts):
            found[name] = "\n\n".join(text for text in texts if text)
    about = {name: PAGES[name] for name in found}
    first = f"{decision.section(results)}\n\n{front.section(results, drawn)}\n\n{render('pages.md.j2', pages=about)}"
    headed = {name: f"# {page.title}\n\n{_ways(name, about)}\n\n{found[name]}" for name, page in about.items()}
    return {name: tidy(text) for name, text in ({FRONT: first} | headed).items()}


def _ways(here: str, about: Mapping[str, Page]) -> str:
    """A line of links to all other pages."""
    others = [f"**{page.title}**" if name == here else f"[{page.title}]({name}.md)" for name, page in about.items()]
    return " · ".join([f"[The decision]({FRONT}.md)", *others])


def tidy(text: str) -> str:
    """However many blank lines a template leaves around what is not there, one is enough."""
    return re.sub("\n{3,}", "\n\n", text.strip("\n")) + "\n"


def summary(results: Results) -> str:
    """The decision alone, for a pull request or a README."""
    return tidy(decision.section(results))


def write(texts: Mapping[str, str], folder: Path) -> None:
    """Every page as Markdown and as HTML; those that an earlier report had and this one has not are removed."""
    for name in (FRONT, *PAGES):
        for suffix in ("md", "html"):
            path = folder / f"{name}.{suffix}"
            if name in texts:
                files.write_text(path, texts[name] if suffix == "md" else html(texts[name]))
            else:
                path.unlink(missing_ok=True)


class _Own(MarkdownIt):
    """Markdown as the report has it: whatever a text that was not escaped says, no other HTML and no other address
    than the report's own gets into a page."""

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": True})
        self.enable("table")
        for kind in ("html_block", "html_inline"):
            self.add_render_rule(kind, _own_html)

    def validateLink(self, url: str) -> bool:  # noqa: N802 (the library's name)
        return OWN_LINK.fullmatch(url) is not None


def _own_html(_: Any, tokens: Sequence[Token], place: int, *others: Any) -> str:
    return OTHER_HTML.sub("&lt;", tokens[place].content)


def html(text: str) -> str:
    """A page as HTML; pictures stay files beside it, and links to other pages lead to their HTML."""
    body = _Own().render(text)
    body = re.sub(rf'href="({"|".join((FRONT, *PAGES))})\.md"', r'href="\1.html"', body)
    body = re.sub(
        r"<table>.*?</table>", lambda found: f'<div class="wide">{_unbroken(found[0])}</div>', body, flags=re.S
    )
    return render("page.html.j2", title=text.split("\n", 1)[0].lstrip("# "), body=body)


def _unbroken(table: str) -> str:
    """Where a table gets narrow, its cells are broken before an interval, never within one."""
    return re.sub(r"\[([-+\d.,e]+), ([-+\d.,e]+)\]", r'<span class="interval">[\1, \2]</span>', table)
