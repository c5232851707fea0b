"""How the report writes things: tables, numbers with their intervals, names."""

import html
import math
import re
from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.results import costs
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Judged, Results
from tradeoffs.results.verdicts import Verdict

Lines = list[str]
MANY = 12  # more variants or rows than these are folded away
MOST_DECIMALS = {"": 4, "+": 6}  # of a value, of a difference; what needs more is written with an exponent


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str] = ()) -> Lines:
    """Numbers to the right; the first column, and those whose header is among `texts`, to the left."""
    rules = ["---", *(":---" if name in texts else "---:" for name in header[1:])]
    return [f"| {' | '.join(header)} |", f"|{'|'.join(rules)}|", *(f"| {' | '.join(row)} |" for row in rows)]


def escaped(text: str) -> str:
    """Any text as one cell of a table: nothing in it is Markdown or HTML, its line breaks show."""
    lines = [re.sub(r"([\\`*_\[\]~$])", r"\\\1", html.escape(line, quote=False)) for line in text.splitlines()]
    return "<br>".join(lines).replace("|", "&#124;")


def bold(text: str, wanted: bool) -> str:
    return f"**{text}**" if wanted else text


def counted(things: Sequence, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def short(value: float | None) -> str:
    """Three significant digits below 1000, whole numbers above."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or isinstance(value, int) else f"{value:.3g}"


def share_of(number: int, count: int) -> str:
    return f"{number} ({number / count:.1%})"


def heading(group: Pair) -> str:
    return f"{group.model} on {group.dataset}"


def row_head(group: Pair) -> str:
    return f"{group.model} / {group.dataset}"


def name_of(variant: Variant) -> str:
    return f"`{variant.method} {variant.format}`"


def full_label(results: Results, dataset: str, name: str) -> str:
    """A metric's label with the split it is taken from, where there are two."""
    split = "" if metrics.metric(name)[1].split else f"{metrics.metric(name)[0]} "
    return split + results.label(dataset, name)


def _decimals(name: str) -> int:
    return metrics.metric(name)[1].decimals


def quality_of(results: Results, variant: Judged, name: str) -> str:
    if not results.has(variant, name):
        return ""
    return interval_of(results.interval(variant, name), name)


def accuracy_of(found: Interval) -> str:
    return _written(found, 3)


def interval_of(found: Interval, name: str) -> str:
    """`value [low, high]` of a quality metric."""
    return _written(found, _decimals(name))


def signed(found: Interval, name: str) -> str:
    return _written(found, _decimals(name), sign="+")


def _written(found: Interval, places: int, sign: str = "") -> str:
    """`value [low, high]`. More decimals than usual where rounding would hide on which side of 0 an interval lies."""
    ends = abs(found.low), abs(found.high)
    shown = min(ends) if found.excludes_0 else max(ends)
    if shown and round(shown, places) == 0:
        needed = math.ceil(-math.log10(shown))
        places = needed if found.excludes_0 or needed <= MOST_DECIMALS[sign] else places
    style = f"{sign}z.{places}f" if places <= MOST_DECIMALS[sign] else f"{sign}.1e"  # z: no -0.000
    return f"{found.value:{style}} [{found.low:{style}}, {found.high:{style}}]"


def difference(found: Interval, name: str) -> str:
    """A difference, and whether it is shown to be one."""
    return signed(found, name) + (", excludes 0" if found.excludes_0 else "")


def verdict(found: Verdict, name: str) -> str:
    """A difference from the best with what it amounts to, and how many test items would decide where it is open."""
    items = f" ({found.items:,} items would decide)" if found.items else ""
    mark = ", excludes 0" if found.difference.excludes_0 else ""
    return f"{signed(found.difference, name)}, {found.word}{items}{mark}"


def cost_of(results: Results, variant: Variant, key: str, bounds: bool = False) -> str:
    """A cost number, with `bounds` and its interval over the rounds; nothing where there is none."""
    found = costs.interval(results, variant, key) if bounds else None
    return short(results.cost[variant].get(key)) + (f" [{short(found.low)}, {short(found.high)}]" if found else "")
