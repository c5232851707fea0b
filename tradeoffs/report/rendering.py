"""Fills the templates of the report: its sentences stand in templates/, a file per section, and only there.

A section's module makes the tables and values; the template says what they mean. In a template

    {{ table }}                                          a list of lines is written as lines
    {{ variants | counted("variant") }}                  56 variants
    {% filter one_line %} ... {% endfilter %}            a paragraph that stands on several lines here, on one there
    {% call picture("ladder") %} ... {% endcall %}       a picture with what stands below it, if it was drawn
    {% call folded("every step") %} ... {% endcall %}    what opens on a click
"""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from tradeoffs.report.formatting import counted

TEMPLATES = Path(__file__).parent / "templates"

# Of each picture, for those who do not see it: what it shows, and of what.
ALT = {
    "bits_per_byte": "Heatmap, models down and data sets across: bits per byte.",
    "quality_vs_speed": "Scatter plot of all variants: test quality, up, against decode speed, across, logarithmic.",
    "quality_vs_size": "Scatter plot of all variants: test quality, up, against size, across, logarithmic.",
    "methods": "A row for each method: points with intervals, test and seen; bars of what training and answering take.",
    "throughput": "A line for each format: tokens per second, up, against sequences decoded at once, across.",
    "ladder": "A panel for each metric: how far each method, in each format, is from its model as trained.",
    "mmlu_subjects": "Heatmap, subjects down, methods and formats across: percent right in multiple choice.",
    "topics": "Grouped bars, topics down, models side by side: accuracy and seconds, a panel for GPU, CPU and 4 bits.",
    "memory": "Bars: peak memory of training by method, memory of the model by format.",
    "training_curves": "A line for each method: training loss, up, against the step, across.",
    "preference_curves": "A line for each method: loss, reward accuracy and reward margin against the step.",
    "forgetting": "A point for each method: test quality, up, against the change of loss on general text, across.",
    "lengths": "Histogram for each data set: tokens per training example.",
}


def render(template: str, drawn: Sequence[str] = (), **values: object) -> str:
    """A template with its values; `drawn` are the names of the pictures there are.

    Raises jinja2.UndefinedError if the template names a value that it is not given.
    """

    def picture(name: str, caller: Callable[[], str]) -> str:
        """A link relative to report/."""
        if name not in drawn:
            return ""
        return f"\n![{ALT[name]}](../plots/{name}.png)\n\n*{_one_line(caller()).rstrip()}*\n"

    return _ENVIRONMENT.get_template(template).render(values, picture=picture)


def _folded(title: str, caller: Callable[[], str]) -> str:
    return f"<details>\n<summary>{html.escape(title, quote=False)}</summary>\n\n{caller()}\n</details>\n\n"


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
