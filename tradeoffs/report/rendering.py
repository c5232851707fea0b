"""Fills the templates of the report: its sentences stand in templates/, a file per section, and only there.

A section's module makes the tables and values; the template says what they mean. In a template

    {{ table }}                                          a list of lines is written as lines
    {{ variants | counted("variant") }}                  56 variants
    {% filter one_line %} ... {% endfilter %}            a paragraph that stands on several lines here, on one there
    {% call picture("ladder") %} ... {% endcall %}       a picture with what stands below it, if it was drawn
    {% call folded("every step") %} ... {% endcall %}    what opens on a click
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from tradeoffs.report.formatting import counted

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, drawn: Sequence[str] = (), **values: object) -> str:
    """A template with its values; `drawn` are the names of the pictures there are.

    Raises jinja2.UndefinedError if the template names a value that it is not given.
    """

    def picture(name: str, caller: Callable[[], str]) -> str:
        """A link relative to report/."""
        if name not in drawn:
            return ""
        return f"\n![{name.replace('_', ' ')}](../plots/{name}.png)\n\n*{_one_line(caller()).rstrip()}*\n"

    return _ENVIRONMENT.get_template(template).render(values, picture=picture)


def _folded(title: str, caller: Callable[[], str]) -> str:
    return f"<details>\n<summary>{title}</summary>\n\n{caller()}\n</details>\n\n"


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.split("\n") if line.strip()) + "\n"


def _written(value: Any) -> Any:
    """A list of lines as lines, anything else as it is."""
    return "\n".join(value) if isinstance(value, list) else value


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=select_autoescape(enabled_extensions=["html.j2"], default=False),
    undefined=StrictUndefined,
    finalize=_written,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.globals["folded"] = _folded
_ENVIRONMENT.filters |= {"counted": counted, "one_line": _one_line}
