"""Variants as points: quality against what it costs."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
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
from tradeoffs.results.results import Results

Points = dict[Variant, Point]


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
        metric, label = metrics.metric(name)[1], results.label(group.dataset, name)
        axes.set(xlabel="change of the loss on general text (nats per token, lower is better)")
        axes.set(ylabel=f"test {label} ({DIRECTION[metric.better]})", title=title_of("Forgetting", group))
        axes.margins(0.12)
        names: list[Label] = [(*points[v], v.method, colour_of(results, v.method)) for v in points]
        labels.append((axes, names, [*points.values()]))
    label_last(figure, labels)
    return figure


def _scatter(results: Results, cost: str, label: str, cheaper: str) -> Figure:
    """Left all variants, right a close-up of where the good and cheap ones crowd; the Pareto set numbered in both."""
    groups = results.groups()
    figure = new_figure(13, 4.6 * len(groups))
    grid = figure.subplots(len(groups), 3, squeeze=False, gridspec_kw={"width_ratios": (5, 4, 2.4)})
    labels = []
    for group, (whole, near, side) in zip(groups, grid, strict=True):
        name = ranking.headline(results, group)
        label_of_metric, better = results.label(group.dataset, name), metrics.metric(name)[1].better
        points = {v: (results.cost[v][cost], results.interval(v, name).value) for v in results.of(group)}
        front = decision.frontier(results, group, cost)
        for axes in (whole, near):
            _draw_points(axes, results, points, name)
            _draw_front(axes, [points[v] for v in front])
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: number(value))
            axes.xaxis.set_minor_formatter(lambda value, _: number(value) if leading_digit(value) in (2, 5) else "")
            axes.set(xlabel=label, ylabel=f"test {label_of_metric} ({DIRECTION[better]})")
            axes.margins(0.08)
        whole.set_title(title_of("Quality against " + ("size" if cost == "size_mb" else "speed"), group))
        _zoom(near, _corner(results, group, points, cheaper))
        # Numbers, since names do not fit where the best variants crowd.
        numbered: list[Label] = [(*points[v], str(n), colour_of(results, v.method)) for n, v in enumerate(front, 1)]
        labels += [(whole, numbered, list(points.values())), (near, numbered, list(points.values()))]
        _legends(results, side, [f"{n}  {v.method} {v.format}" for n, v in enumerate(front, 1)])
    label_last(figure, labels)
    return figure


def _draw_points(axes: Axes, results: Results, points: Points, name: str) -> None:
    for variant, (x, y) in points.items():
        colour, marker = colour_of(results, variant.method), marker_of(results, variant.format)
        bars: dict[str, Any] = {"color": colour, "alpha": 0.25, "linewidth": 1, "zorder": 2}
        axes.errorbar(x, y, yerr=error_bar(results.interval(variant, name)), **bars)
        axes.scatter(x, y, color=colour, marker=marker, s=38, linewidth=0, alpha=0.9, zorder=3)


def _draw_front(axes: Axes, front: list[Point]) -> None:
    """The Pareto set: a ring around each of its points, and a dashed line through them."""
    xs, ys = zip(*front, strict=True)
    # A step: between two points of the set, the better one must be paid for.
    axes.step(xs, ys, where="post", color="#222222", linewidth=0.9, linestyle="--", zorder=1)
    axes.scatter(xs, ys, s=110, facecolors="none", edgecolors="#222222", linewidths=1.0, zorder=4)


def _corner(results: Results, group: Pair, points: Points, cheaper: str) -> list[Point]:
    """Points of the variants that are good enough and cost at most twice what the cheapest of them costs."""
    good = [points[v] for v in ranking.good_enough(results, group)]
    costs = [x for x, _ in good]
    return [(x, y) for x, y in good if (x <= 2 * min(costs) if cheaper == "lower" else x >= max(costs) / 2)]


def _zoom(axes: Axes, points: list[Point]) -> None:
    """Limits that hold these points with room around them."""
    xs, ys = np.array(points).T
    room = max(0.7 * float(np.ptp(ys)), 0.02 * float(abs(ys).max()), 1e-3)
    axes.set(xlim=(xs.min() / 1.08, xs.max() * 1.08), ylim=(ys.min() - room, ys.max() + room))
    axes.xaxis.set_minor_formatter(lambda value, _: number(value))
    axes.set_title("Close-up: around the cheapest that are good enough")


def _legends(results: Results, axes: Axes, front: list[str]) -> None:
    """What colours, markers and numbers mean, in a panel of their own."""
    axes.axis("off")
    dots = [dot(colour_of(results, method)) for method in results.run.methods]
    axes.add_artist(axes.legend(dots, results.run.methods, title="method", loc="upper left", bbox_to_anchor=(-0.05, 1)))
    formats = results.formats
    marks = [Line2D([], [], marker=marker_of(results, f), linestyle="", color="#666666") for f in formats]
    marks.append(Line2D([], [], marker="o", linestyle="--", color="#222222", markerfacecolor="none", markersize=9))
    axes.legend(marks, [*formats, "Pareto set"], title="format", loc="upper right", bbox_to_anchor=(1.05, 1))
    axes.text(0, 0, "\n".join(["Pareto set", *front]), transform=axes.transAxes, va="bottom", linespacing=1.35)
