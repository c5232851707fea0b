"""Variants as points: quality against what it costs."""

import math
from collections.abc import Collection
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.report.formatting import full_label
from tradeoffs.report.pictures.labels import Label, Point, label_last
from tradeoffs.report.pictures.style import (
    DIRECTION,
    colour_of,
    dot,
    error_bar,
    leading_digit,
    marker_of,
    new_figure,
    number,
    stacked,
    title_of,
)
from tradeoffs.results import decision, ranking, tuning
from tradeoffs.results.decision import Decision
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results

Points = dict[Variant, Point]
APART = 0.03  # of the axis: how far the variants of one cost lie apart at most
REACH = 0.45  # ... and of the way to the next cost
FLOOR = "#777777"


def quality_vs_size(results: Results) -> Figure:
    return _scatter(results, "size_mb", "size of the weights (MB, log scale)", "lower")


def quality_vs_speed(results: Results) -> Figure:
    return _scatter(results, "decode_tokens_per_second", "decode speed (tokens/s, batch 1, log scale)", "higher")


def forgetting(results: Results) -> Figure | None:
    """Quality on the task against the change of the loss on general text, each method as trained."""
    changes = {v: tuning.forgotten(results, v) for v in results.variants if v.format == TRAINED}
    groups = [g for g in results.groups() if any(changes[v] for v in results.as_trained(g))]
    if not groups:
        return None
    figure, panels = stacked(groups, width=8, height=4)
    labels = []
    for group, axes in zip(groups, panels, strict=True):
        name = ranking.headline(results, group)
        points: Points = {}
        for variant in results.as_trained(group):
            quality, change = results.interval(variant, name), changes[variant]
            x, y = points[variant] = (change.value if change else 0.0, quality.value)
            style: dict[str, Any] = {"color": colour_of(results, variant.method), "capsize": 2, "markersize": 5}
            axes.errorbar(x, y, yerr=error_bar(quality), xerr=error_bar(change) if change else None, fmt="o", **style)
        axes.axvline(0, color="#333333", linewidth=0.8)
        metric, label = metrics.metric(name)[1], full_label(results, group.dataset, name)
        axes.set(xlabel="change of the loss on general text (nats per token, lower is better)")
        axes.set(ylabel=f"{label} ({DIRECTION[metric.better]})", title=title_of("Forgetting", group))
        axes.margins(0.12)
        names: list[Label] = [(*points[v], v.method, colour_of(results, v.method)) for v in points]
        labels.append((axes, names, [*points.values()]))
    label_last(figure, labels)
    return figure


def _scatter(results: Results, cost: str, label: str, cheaper: str) -> Figure:
    """Left all variants, right a close-up of where the good and cheap ones crowd; the Pareto set numbered in both."""
    groups = results.groups()
    figure = new_figure(10.5, 4.3 * len(groups) + 0.9)
    grid = figure.subplots(len(groups), 2, squeeze=False, gridspec_kw={"width_ratios": (5, 4)})
    labels, decisions = [], [decision.decide(results, group) for group in groups]
    fronts = [one.pareto[cost] for one in decisions]
    for group, one, front, (whole, near) in zip(groups, decisions, fronts, grid, strict=True):
        name = ranking.headline(results, group)
        label_of_metric, better = full_label(results, group.dataset, name), metrics.metric(name)[1].better
        found = {v: results.interval(v, name) for v in results.of(group) if cost in results.cost[v]}
        costs = {v: results.cost[v][cost] for v in found}
        points = {v: (x, found[v].value) for v, x in _apart(costs, front).items()}
        limits, close = _close_up(points, found, costs, _corner(one, costs, cheaper))
        for axes, drawn in ((whole, points), (near, close)):
            _draw_points(axes, results, drawn, found)
            _draw_front(axes, [points[v] for v in front])
            _draw_floor(axes, results, group, name)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: number(value))
            axes.xaxis.set_minor_formatter(lambda value, _: number(value) if leading_digit(value) in (2, 5) else "")
            axes.set(xlabel=label, ylabel=f"{label_of_metric} ({DIRECTION[better]})")
            axes.margins(0.08)
        whole.set_title(title_of("Quality against " + ("size" if cost == "size_mb" else "speed"), group))
        whole.set_xlabel(f"{label}\n{_named(front, recommended=cost == results.decide.cost)}")
        near.set(title="Close-up: around the cheapest that can be chosen", **limits)
        near.xaxis.set_minor_formatter(lambda value, _: number(value))
        # Numbers, since names do not fit where the best variants crowd.
        numbered: list[Label] = [(*points[v], str(n), colour_of(results, v.method)) for n, v in enumerate(front, 1)]
        labels += [(whole, numbered, list(points.values())), (near, numbered, list(close.values()))]
    _legends(results, figure, dashed=any(len(front) > 1 for front in fronts))
    label_last(figure, labels)
    return figure


def _apart(costs: dict[Variant, float], ringed: Collection[Variant]) -> dict[Variant, float]:
    """Where each variant is drawn: at its cost; those of exactly one cost side by side, a ringed one in its place.

    On either side they take less than half of the way to the next cost, so the order by cost stays.
    """
    levels = sorted(set(costs.values()))
    most, drawn = APART * max(math.log(levels[-1] / levels[0]), 0.1), dict[Variant, float]()
    for place, level in enumerate(levels):
        alike = [v for v, cost in costs.items() if cost == level]
        before: float = next((n for n, v in enumerate(alike) if v in ringed), (len(alike) - 1) / 2)
        after, step = len(alike) - 1 - before, most / max(len(alike) - 1, 1)
        down = REACH * math.log(level / levels[place - 1]) / max(before, 1) if place else step
        up = REACH * math.log(levels[place + 1] / level) / max(after, 1) if level != levels[-1] else step
        for n, v in enumerate(alike):
            drawn[v] = level * math.exp(min(step, down if n < before else up) * (n - before))
    return {v: drawn[v] for v in costs}


def _named(front: list[Variant], recommended: bool) -> str:
    """What the numbers at the Pareto set mean; its first is what is recommended where this cost decides."""
    if not front:
        return "Nothing keeps the limits"
    names = [f"{n} {v.method} {v.format}" for n, v in enumerate(front, 1)]
    names[0] += " (recommended)" if recommended else ""
    lines = [", ".join(names[start : start + 3]) for start in range(0, len(names), 3)]
    return "Pareto set: " + ",\n".join(lines)


def _draw_points(axes: Axes, results: Results, points: Points, found: dict[Variant, Interval]) -> None:
    for variant, (x, y) in points.items():
        colour, marker = colour_of(results, variant.method), marker_of(results, variant.format)
        axes.errorbar(x, y, yerr=error_bar(found[variant]), color=colour, alpha=0.35, linewidth=1, zorder=2)
        axes.scatter(x, y, color=colour, marker=marker, s=38, linewidth=0, alpha=0.9, zorder=3)


def _draw_floor(axes: Axes, results: Results, group: Pair, name: str) -> None:
    """A line where copying is, which a variant has to beat; none where nothing was copied."""
    floor = results.floor(group)
    if floor is not None and results.has(floor, name):
        axes.axhline(results.interval(floor, name).value, color=FLOOR, linewidth=1, linestyle=":", zorder=1)


def _draw_front(axes: Axes, front: list[Point]) -> None:
    """The Pareto set: a ring around each of its points, and a dashed line through them. Nothing where it is empty."""
    if not front:
        return
    xs, ys = zip(*front, strict=True)
    # A step: between two points of the set, the better one must be paid for.
    axes.step(xs, ys, where="post", color="#222222", linewidth=0.9, linestyle="--", zorder=1)
    axes.scatter(xs, ys, s=110, facecolors="none", edgecolors="#222222", linewidths=1.0, zorder=4)


def _corner(found: Decision, costs: dict[Variant, float], cheaper: str) -> list[Variant]:
    """Of the best found and all that are good enough those that cost at most twice what the cheapest of them costs."""
    good = [v for v in found.standing.eligible or [found.shown] if v in costs] or [*costs]
    lowest, highest = min(costs[v] for v in good), max(costs[v] for v in good)
    return [v for v in good if (costs[v] <= 2 * lowest if cheaper == "lower" else costs[v] >= highest / 2)]


def _close_up(
    points: Points, found: dict[Variant, Interval], costs: dict[Variant, float], corner: list[Variant]
) -> tuple[dict[str, tuple[float, float]], Points]:
    """Limits around some variants, and all points within them.

    They hold the whole interval of every such point: a close-up must not make a difference look certain.
    """
    shared = {costs[v] for v in corner}
    xs = [x for v, (x, _) in points.items() if costs[v] in shared]
    beyond = [x for v, (x, _) in points.items() if costs[v] not in shared]  # at most half of the way to what is dearer
    left = max(min(xs) / 1.08, *(math.sqrt(x * min(xs)) for x in [0.0, *beyond] if x < min(xs)))
    right = min(max(xs) * 1.08, *(math.sqrt(x * max(xs)) for x in [math.inf, *beyond] if x > max(xs)))
    inside, more = list[Variant](), corner
    while len(more) > len(inside):
        inside = more
        low = min(end for v in inside for end in (found[v].low, found[v].value))
        high = max(end for v in inside for end in (found[v].high, found[v].value))
        room = max(0.15 * (high - low), 1e-3)
        low, high = low - room, high + room
        more = [v for v, (x, y) in points.items() if left <= x <= right and low <= y <= high]
    return {"xlim": (left, right), "ylim": (low, high)}, {v: points[v] for v in inside}


def _legends(results: Results, figure: Figure, dashed: bool) -> None:
    """What colours and markers mean, below."""
    dots = [dot(colour_of(results, method)) for method in results.run.methods]
    figure.legend(dots, results.run.methods, title="method", loc="outside lower left", ncols=4)
    formats = results.formats
    marks = [Line2D([], [], marker=marker_of(results, f), linestyle="", color="#666666") for f in formats]
    line: dict[str, Any] = {"linestyle": "--" if dashed else "", "color": "#222222"}
    marks.append(Line2D([], [], marker="o", markerfacecolor="none", markersize=9, **line))
    names = [*formats, "Pareto set"]
    if any(results.floor(group) for group in results.groups()):
        marks.append(Line2D([], [], linestyle=":", color=FLOOR))
        names.append("copying")
    figure.legend(marks, names, title="format", loc="outside lower right", ncols=5)
