"""How the report writes things: tables, numbers with their intervals, names."""

import html
import math
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.common.texts import harmless
from tradeoffs.results import costs
from tradeoffs.results.decision import Guard
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Judged, Results
from tradeoffs.results.verdicts import Verdict

Lines = list[str]
MANY = 12  # more variants or rows than these are folded away
# What a table has on a laptop's screen (1280 pixels), in characters; of these, beside each column, and for a text.
SCREEN, PADDING, TEXT = 155, 2, 26
SHOWN = 200  # characters of a text in a table
MOST_DECIMALS = {"": 4, "+": 6}  # of a value, of a difference; what needs more is written with an exponent
# What Markdown takes for its own: no `_` within a word; a bare address, which becomes a link on GitHub; and first on a
# line, what begins a heading or a list.
_OWN = re.compile(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|^#|^[-+=](?=[\s=-]|$)", re.IGNORECASE)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: Sequence[str] = (),
    keys: int = 1,
    together: Sequence[int] = (),
) -> Lines:
    """Numbers to the right; the first column, and those whose header is among `texts`, to the left.

    What is wider than a screen is cut into tables below each other, each with the first `keys` columns. Of the others
    so many are not parted, from the left, as `together` says; the rest is, where need be.
    """
    columns = zip(*[header, *rows], strict=True)
    widths = [TEXT if column[0] in texts else max(map(_unbroken, column)) + PADDING for column in columns]
    lines: Lines = []
    for part in _parts(widths, keys, together):
        rules = [
            ":---" if header[0] in texts else "---",
            *(":---" if header[place] in texts else "---:" for place in part[1:]),
        ]
        lines += [""] if lines else []
        lines += [f"| {' | '.join(header[place] for place in part)} |", f"|{'|'.join(rules)}|"]
        lines += [f"| {' | '.join(row[place] for place in part)} |" for row in rows]
    return lines


def with_notes(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str | None],
    texts: Sequence[str] = (),
) -> Lines:
    """A table with what params.yaml notes of what each row is about behind it, where it notes anything."""
    if not any(notes):
        return table(header, rows, texts)
    noted = [[*row, escaped(note or "")] for row, note in zip(rows, notes, strict=True)]
    return table([*header, "notes"], noted, [*texts, "notes"])


def _unbroken(cell: str) -> int:
    """Characters of the longest part of a cell that is not broken at its end: a word, a number, an interval, a name.

    A plus is wider than a digit, and so is what is bold.
    """
    shown = html.unescape(re.sub(r"\\(.)", r"\1", cell)).replace("**", "").replace("<br>", " ")
    longest = max(len(part) + part.count("+") / 2 for part in re.findall(r"`[^`]*`|\[[^]]*\]|[^\s`\[]+", shown) or [""])
    return math.ceil(1.1 * longest if "**" in cell else longest)


def _parts(widths: Sequence[int], keys: int, together: Sequence[int]) -> list[list[int]]:
    """The columns of each table that one is cut into, about as wide as each other; all have the first ones."""
    first = list(range(keys))
    counts = [*together, *[1] * (len(widths) - keys - sum(together))]
    ends = [keys + end for end in accumulate(counts, initial=0)]
    others = [range(begin, end) for begin, end in pairwise(ends)]
    sizes = [sum(widths[place] for place in some) for some in others]
    room, whole = max(SCREEN - sum(widths[:keys]), 1), sum(sizes)
    share = min(room, whole / math.ceil(whole / room) + max(sizes, default=0) / 2) if whole > room else room
    parts, filled = [first.copy()], 0
    for some, size in zip(others, sizes, strict=True):
        if filled and filled + size > share:
            parts, filled = [*parts, first.copy()], 0
        parts[-1] += some
        filled += size
    return parts


def escaped(text: str) -> str:
    """Any text as one cell of a table, or within a line: nothing in it is Markdown or HTML, its line breaks show."""
    lines = harmless(re.sub("\r\n?", "\n", text)).split("\n")
    written = [_OWN.sub(r"\\\g<0>", html.escape(line, quote=False)) for line in lines]
    return "<br>".join(written).removesuffix("<br>").replace("|", "&#124;")


def code(text: str) -> str:
    """Any text as code within a line; not for a table, which a `|` would part there too."""
    found, most = harmless(text).replace("\n", "\\n"), 0
    while "`" * (most + 1) in found:
        most += 1
    return f"{'`' * (most + 1)} {found} {'`' * (most + 1)}" if most else f"`{found}`"


def shortened(text: str) -> str:
    """The beginning of a long text, to stand in a table."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()} ..."


def subject_of(name: str) -> str:
    """A subject of multiple choice, which is a file's name or the hub's."""
    return escaped(shortened(name.replace("_", " ")))


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


def warranted(found: Interval, most: int) -> int:
    """How many decimals an interval has use for, at most `most`; negative: whole tens and so on.

    As many as give its width two digits, as is the custom for an uncertainty: further ones say nothing.
    """
    width = found.high - found.low
    return min(most, 1 - math.floor(math.log10(width))) if width > 0 else most


def decimals_of(found: Interval, most: int) -> int:
    """How many decimals a value of quality has: the `most` of its metric, as all in its column, unless two or more of
    them say nothing. More than are warranted where with fewer an end of the interval would look as if it were 0.
    """
    places = warranted(found, most)
    places = most if most - places < 2 else places
    hidden = [end for end in (abs(found.low), abs(found.high)) if round(end, places) == 0 != round(end, most)]
    return min(most, math.ceil(-math.log10(min(hidden)))) if hidden else places


def _written(found: Interval, most: int, sign: str = "") -> str:
    """`value [low, high]`. More decimals than usual where rounding would hide on which side of 0 an interval lies."""
    ends, places = (abs(found.low), abs(found.high)), decimals_of(found, most)
    shown = min(ends) if found.excludes_0 else max(ends)
    if shown and round(shown, places) == 0:
        needed = math.ceil(-math.log10(shown))
        places = needed if found.excludes_0 or needed <= MOST_DECIMALS[sign] else places
    style = f"{sign}z,.{max(places, 0)}f" if places <= MOST_DECIMALS[sign] else f"{sign}.1e"  # z: no -0.000
    value, low, high = (
        round(number, places) if places < 0 else number for number in (found.value, found.low, found.high)
    )
    return f"{value:{style}} [{low:{style}}, {high:{style}}]"


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
    value, found = results.cost[variant].get(key), costs.interval(results, variant, key)
    if value is None or found is None or found.high == found.low:
        return short(value)
    places = warranted(found, max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0)
    shown = [f"{round(number, places):,.{max(places, 0)}f}" for number in (value, found.low, found.high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if bounds else shown[0]


def guard_label(results: Results, name: str, dataset: str) -> str:
    return full_label(results, dataset, name) + (" as trained" if name.startswith("general_") else "")


def change_label(results: Results, name: str, dataset: str) -> str:
    """A guard's metric, and what its change is a change from."""
    other = "the best" if results.decide.guards[name] == "best" else "the untouched base"
    return f"{guard_label(results, name, dataset)}, change from {other}"


def change(guard: Guard | None) -> str:
    """How a guard's metric has changed and what that amounts to; nothing where it is not known."""
    return "" if guard is None else f"{signed(guard.difference, guard.metric)}, {guard.word}"
