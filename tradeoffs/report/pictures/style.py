"""How every picture looks: colour is the method, marker is the format, bars are 95 % intervals.

Where only one method is shown, colour is the format.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tradeoffs.common.cells import Pair
from tradeoffs.common.texts import on_a_line
from tradeoffs.report.formatting import short
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results

# Okabe and Ito's palette without its yellow, then Paul Tol's: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255", "#999933")
BASE_COLOUR = "#555555"
HOST_COLOUR = "#b8b8b8"  # of what stands beside what counts
MARKERS = ("*", "o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "d", "8", "H")
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 130,
    "savefig.dpi": 130,
}
LONGEST = 40  # characters of a text from outside in a picture
DIRECTION = {"higher": "higher is better", "lower": "lower is better", "": "neither is better"}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def stacked(groups: list[Pair], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per group, one below the other; the size in inches is that of a panel."""
    figure = new_figure(width, height * len(groups))
    return figure, list(figure.subplots(len(groups), 1, squeeze=False)[:, 0])


def drawn(text: str) -> str:
    """A text from outside for a picture: as it is, not as a formula of matplotlib, and not so long that it fills it."""
    found = on_a_line(text)
    return (found if len(found) <= LONGEST else f"{found[:LONGEST].rstrip()} ...").replace("$", r"\$")


def title_of(what: str, group: Pair) -> str:
    return f"{what}: {group.model} on {group.dataset}"


def colour_of(results: Results, method: str) -> str:
    if method == "base":
        return BASE_COLOUR
    others = [name for name in results.run.methods if name != "base"]
    return COLOURS[others.index(method) % len(COLOURS)]


def marker_of(results: Results, name: str) -> str:
    """The marker of a format."""
    return MARKERS[results.formats.index(name) % len(MARKERS)]


def dot(colour: str, **style: Any) -> Line2D:
    """A point for a legend."""
    return Line2D([], [], marker="o", linestyle="", color=colour, **style)


def error_bar(interval: Interval) -> np.ndarray:
    """Lengths below and above the value, (2, 1); an interval of a skewed metric may end on either side of the value."""
    return np.clip([[interval.value - interval.low], [interval.high - interval.value]], 0, None)


def number(value: float) -> str:
    """1234567 as 1.23M, 1234 as 1,234, 0.5 as 0.5."""
    return f"{value / 1e6:.3g}M" if abs(value) >= 1e6 else short(value)


def leading_digit(value: float) -> int:
    return int(f"{value:e}"[0])


def label_logarithmic(axis: Axis) -> None:
    """Numbers at 1, 2 and 5 of each power of ten alone, since between them there is no room."""
    for side in (axis.set_major_formatter, axis.set_minor_formatter):
        side(lambda value, _: number(value) if leading_digit(value) in (1, 2, 5) else "")


def legend_beside(axes: Axes, title: str) -> None:
    """What the lines are, to the right of their panel."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title=title)
