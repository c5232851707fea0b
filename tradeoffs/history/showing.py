"""A history as a Markdown table, a CSV and a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from tradeoffs import metrics
from tradeoffs.common import files
from tradeoffs.gate.rows import BETTER, WORSE
from tradeoffs.history.points import Asked, Point
from tradeoffs.report.formatting import Lines, escaped, interval_of, short, shortened, signed, table
from tradeoffs.report.pictures.style import COLOURS, DIRECTION, STYLE, dot, drawn, error_bar, new_figure
from tradeoffs.results import costs
from tradeoffs.results.intervals import Interval
from tradeoffs.results.tables import write_csv

MOST_REASONS = 5  # that are written below the table
WIDEST = 16.0  # inches of the picture


def markdown(asked: Asked, points: Sequence[Point]) -> Lines:
    """The table, newest first, and what has to be known to read it."""
    named = any(point.variant != points[-1].variant for point in points)
    lines = [f"**{title(asked, points)}**, {DIRECTION[_better(asked.metric)]}", ""]
    lines += _explained(asked)
    header = ["", "date", *(["variant"] if named else []), "value", "change", "", "commit"]
    rows = [
        [
            escaped(point.entry.name),
            point.entry.date,
            *([f"`{point.variant}`" if point.variant else ""] if named else []),
            _value(asked, point.value),
            "" if point.difference is None else signed(point.difference, asked.metric),
            escaped(said(asked, point, points)),
            escaped(shortened(point.entry.subject)),
        ]
        for point in points[::-1]
    ]
    lines += table(header, rows, texts=("date", "variant", "", "commit"), together=(len(header) - 1,))
    return lines + list(_reasons(points))


def title(asked: Asked, points: Sequence[Point]) -> str:
    variants = list(dict.fromkeys(point.variant for point in points if point.variant))
    of = str(asked.variant) if asked.variant else "what is recommended" + (f" of {asked.pair}" if asked.pair else "")
    return f"`{asked.metric}` of {of}" + (f" ({variants[0]})" if not asked.variant and len(variants) == 1 else "")


def _explained(asked: Asked) -> Lines:
    if asked.is_cost:
        return ["`value [low, high]`: 95 % interval over rounds. A speed also differs from hour to hour.", ""]
    return [
        "`value [low, high]`: 95 % interval over items. A change is from the commit before, an experiment's from the",
        "last commit, on the same test items; the intervals of all changes hold together. The luck of a training is in",
        "none of them: what was trained anew can differ by more than its items tell.",
        "",
    ]


def said(asked: Asked, point: Point, points: Sequence[Point]) -> str:
    """What a point's change amounts to, or why there is none."""
    if point.results is None:
        return "value as committed; items not to be had" if point.value else "not to be had"
    if point.against is None:
        return "the first" if point.entry == points[0].entry else "no commit before it whose items are to be had"
    held = _before(point, points)
    found = f"break: {point.broken}" if point.broken else _moved(asked, point, held)
    if point.trained:
        found += ", trained anew"
    return found if _adjacent(point, points) else f"{found} (against {point.against.name})"


def _moved(asked: Asked, point: Point, held: Point) -> str:
    assert point.value and held.value
    if asked.is_cost:
        if point.value.value == held.value.value:
            return "the same"
        return {BETTER: "better", WORSE: "worse"}.get(point.cost or "", "not told apart")
    assert point.difference
    value = point.difference.value
    if not value and not point.difference.error:
        return "the same"
    if not point.difference.excludes_0:
        return "within noise"
    better = _better(asked.metric)
    word = "higher" if value > 0 else "lower"
    word = word if not better else "better" if word == better else "worse"
    return f"{word}, beyond noise"


def _before(point: Point, points: Sequence[Point]) -> Point:
    return next(other for other in points if other.entry == point.against)


def _adjacent(point: Point, points: Sequence[Point]) -> bool:
    """Whether what a point is held against is the one before it, of an experiment the last commit."""
    if point.entry.experiment:
        return True
    place = points.index(point)
    return points[place - 1].entry == point.against


def _reasons(points: Sequence[Point]) -> Iterator[str]:
    """Why items are not to be had, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for point in points[::-1]:
        if point.why:
            why = point.why.replace(str(point.revision), "the commit")
            by_reason.setdefault(why, []).append(point.entry.name)
    if by_reason:
        yield ""
    for why, names in list(by_reason.items())[:MOST_REASONS]:
        yield f"- {escaped(', '.join(names))}: {escaped(why)}"
    if len(by_reason) > MOST_REASONS:
        yield f"- and {len(by_reason) - MOST_REASONS} more reasons, see --csv"


def _better(metric: str) -> str:
    cost = costs.bare(metric)
    return costs.CHEAPER.get(cost, "") if cost in costs.COST else metrics.metric(metric)[1].better


def _value(asked: Asked, found: Interval | None) -> str:
    if found is None:
        return ""
    if not asked.is_cost:
        return interval_of(found, asked.metric)
    if found.low == found.high:
        return short(found.value)
    return f"{short(found.value)} [{short(found.low)}, {short(found.high)}]"


def rows(asked: Asked, points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row per commit and experiment, oldest first."""
    found = []
    for point in points:
        row: dict[str, Any] = {"commit": point.entry.sha, "experiment": point.entry.experiment}
        row |= {"date": point.entry.date, "subject": point.entry.subject}
        row |= {"variant": str(point.variant or ""), "metric": asked.metric}
        if point.value:
            row |= {"value": point.value.value, "low": point.value.low, "high": point.value.high}
        if point.against:
            row["against"] = point.against.sha
        if point.difference:
            change = point.difference
            row |= {"difference": change.value, "difference_low": change.low, "difference_high": change.high}
            row["beyond_noise"] = int(change.excludes_0)
        found.append(row | {"said": said(asked, point, points), "why": point.why})
    return found


COLUMNS = [
    *("commit", "experiment", "date", "subject", "variant", "metric", "value", "low", "high", "against"),
    *("difference", "difference_low", "difference_high", "beyond_noise", "said", "why"),
]


def csv(path: Path, asked: Asked, points: Sequence[Point]) -> None:
    write_csv(path, rows(asked, points), COLUMNS)


def png(path: Path, asked: Asked, points: Sequence[Point]) -> None:
    """Filled: items are to be had; hollow: the committed value. A line joins what was compared on the same items."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = _figure(asked, points)
        with files.new_file(path) as target:
            figure.savefig(target, format="png", metadata={"Software": None}, bbox_inches="tight")


def _figure(asked: Asked, points: Sequence[Point]) -> Figure:
    figure = new_figure(min(WIDEST, 2.5 + 0.45 * len(points)), 3.6)
    axes = figure.subplots()
    places = {point.entry: place for place, point in enumerate(points)}
    for place, point in enumerate(points):
        if point.value is None:
            continue
        colour = COLOURS[1] if point.entry.experiment else COLOURS[0]
        face = colour if point.results else "white"
        axes.errorbar(
            place, point.value.value, error_bar(point.value), fmt="o", color=colour, markerfacecolor=face, capsize=2
        )
        if point.against and not point.broken:
            held = _before(point, points)
            assert held.value
            apart = _moved(asked, point, held) not in ("within noise", "not told apart", "the same")
            ends = [places[held.entry], place], [held.value.value, point.value.value]
            axes.plot(*ends, color=colour, linewidth=2 if apart else 0.8, linestyle="-" if apart else ":")
        if point.broken:
            axes.axvline(place - 0.5, color="#999999", linewidth=0.8, linestyle="--")
    labels = [drawn(f"{point.entry.name} {point.entry.date[5:]}") for point in points]
    axes.set_xticks(range(len(points)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel(f"{asked.metric} ({DIRECTION[_better(asked.metric)]})")
    kinds = [
        dot(COLOURS[0], label="its items are to be had"),
        dot(COLOURS[0], label="as committed", markerfacecolor="white"),
    ]
    kinds += [dot(COLOURS[1], label="experiment")] if any(point.entry.experiment for point in points) else []
    axes.legend(handles=kinds, loc="best")
    axes.set_title(drawn(title(asked, points).replace("`", "")))
    return figure
