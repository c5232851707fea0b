"""Formats side by side: the memory of each, and what it costs in quality; memory of trainings by method."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.report.pictures.style import DIRECTION, HOST_COLOUR, colour_of, dot, error_bar, new_figure, title_of
from tradeoffs.results import costs, ranking, tuning, verdicts
from tradeoffs.results.results import Results


class Bar(NamedTuple):
    """A row of the picture of memory: its numbers, and those of the host beside them, in MB."""

    name: str
    values: list[float]
    colour: str
    host: list[float]


def memory(results: Results) -> Figure:
    """Peak memory of each method's training, and what each format needs to answer one prompt at a time: the GPU's where
    there was one, with the host's beside it."""
    groups = results.groups()
    figure = new_figure(10, 0.34 * max(len(results.run.methods), len(results.formats)) * len(groups) + 1.4)
    grid, beside = figure.subplots(len(groups), 2, squeeze=False), False
    for row, group in zip(grid, groups, strict=True):
        trainings = _of_trainings(results, group)
        formats = [bar for name in results.formats if (bar := _of_format(results, group, name)).values]
        for axes, bars in zip(row, (trainings, formats), strict=True):
            _memory_bars(axes, bars)
        on_gpu = [any(bar.host for bar in bars) for bars in (trainings, formats)]
        beside = beside or any(on_gpu)
        row[0].set(title=title_of("Training, by method", group))
        row[0].set(xlabel=f"peak memory of the {'GPU' if on_gpu[0] else 'process'} (MB)")
        row[1].set(title="Inference, by format (range over methods and rounds)")
        row[1].set(xlabel=f"memory of the model{' where it runs' if on_gpu[1] else ''} (MB)")
    if beside:
        line = Line2D([], [], linewidth=4, color=HOST_COLOUR)
        figure.legend([line], ["memory of the host, beside the GPU's"], loc="outside upper right", fontsize=9)
    return figure


def _of_trainings(results: Results, group: Pair) -> list[Bar]:
    """The peak of each method's training, of those that were trained."""
    found = []
    for variant in results.as_trained(group):
        row = results.training[variant.cell]
        if peak := tuning.peak_memory(row):
            host = [row[tuning.HOST_PEAK]] if peak[1] else []
            found.append(Bar(variant.method, [peak[0]], colour_of(results, variant.method), host))
    return found


def _of_format(results: Results, group: Pair, name: str) -> Bar:
    """What a format needs, over all methods of a group; no values where it is not there, or was not measured."""
    mine = [v for v in results.of(group) if v.format == name]
    values, host = ([end for v in mine for end in _needed(results, v, key)] for key in (costs.MEMORY, costs.HOST))
    return Bar(f"{name}, GPU" if host else name, values, "#8aa9bf", host)


def _needed(results: Results, variant: Variant, key: str) -> list[float]:
    """Memory of a model: its value and the ends of its interval over the rounds."""
    found = costs.interval(results, variant, key)
    return [found.low, found.value, found.high] if found else []


def _memory_bars(axes: Axes, rows: list[Bar]) -> None:
    """A bar to the median of each row's values, a line over their range; under it a thin bar for the host's."""
    for place, bar in enumerate(reversed(rows)):
        at, height = (place + 0.12, 0.42) if bar.host else (place, 0.65)
        axes.barh(at, np.median(bar.values), color=bar.colour, height=height)
        axes.plot([min(bar.values), max(bar.values)], [at, at], color="#222222", linewidth=1.2)
        axes.annotate(f" {np.median(bar.values):,.0f}", (max(bar.values), at), va="center", fontsize=8)
        if bar.host:
            axes.barh(place - 0.27, np.median(bar.host), color=HOST_COLOUR, height=0.2)
            small: dict[str, Any] = {"va": "center", "fontsize": 6.5, "color": "#555555"}
            axes.annotate(f" {np.median(bar.host):,.0f}", (np.median(bar.host), place - 0.27), **small)
    axes.set_yticks(range(len(rows)), [bar.name for bar in reversed(rows)])
    axes.margins(x=0.14)
    axes.grid(axis="y", visible=False)


def ladder(results: Results) -> Figure | None:
    """What each format costs in quality against the model as trained, paired on the same items."""
    groups = results.groups()
    if not results.formats[1:]:
        return None
    divergence = metrics.columns("ladder")
    merged = [method for method in results.run.methods if any(results.of(group, method)[1:] for group in groups)]
    measures = [
        (group, name)
        for group in groups
        for name in dict.fromkeys((*divergence, "test_loss", ranking.headline(results, group), "mmlu_accuracy"))
        if any(results.has(v, name) for v in results.of(group) if v.format != TRAINED)
    ]
    figure = new_figure(10, 2.3 * len(measures) + 0.4)
    panels = figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (group, name) in zip(panels, measures, strict=True):
        _rungs(axes, results, group, name, merged)
    figure.legend([dot(colour_of(results, m)) for m in merged], merged, loc="outside right upper", title="method")
    return figure


def _rungs(axes: Axes, results: Results, group: Pair, name: str, merged: list[str]) -> None:
    """One metric by format, the methods side by side; what is no divergence itself as the change from trained."""
    formats = results.formats[1:]
    shifts = np.linspace(-0.33, 0.33, len(merged)) if len(merged) > 1 else [0.0]
    absolute, highest = metrics.metric(name)[1].kind == "ladder", 0.0
    for method, shift in zip(merged, shifts, strict=True):
        trained, *rungs = results.of(group, method)
        found = [results.interval(v, name) if absolute else verdicts.paired(results, v, trained, name) for v in rungs]
        places, values = np.arange(len(rungs)) + shift, [f.value for f in found]
        highest = max(highest, *(f.high for f in found))
        style: dict[str, Any] = {
            "color": colour_of(results, method),
            "markersize": 4.5,
            "capsize": 2,
            "elinewidth": 1.1,
        }
        axes.errorbar(places, values, yerr=np.hstack([error_bar(f) for f in found]), fmt="o", **style)
    label, better = results.label(group.dataset, name), metrics.metric(name)[1].better
    # The model as trained: no change, and the same top token always.
    axes.axhline(float(name == "same_top_token"), color="#333333", linewidth=0.8)
    if name == "kld":  # from a millionth for f16 to a hundredth for 4 bits; below 0 is room for the dots at 0
        axes.set_yscale("symlog", linthresh=1e-5)
        axes.set_ylim(-1e-6, max(2 * highest, 1e-4))
    unit = " (nats)" if name in ("kld", "test_loss") else ""
    axes.set_ylabel(f"{label}{unit}" if absolute else f"change in\n{label}{unit}")
    axes.set_title(title_of(f"{label}, {DIRECTION[better]}", group))
    axes.set_xticks(range(len(formats)), formats)
    axes.tick_params(labelbottom=True)
    for edge in np.arange(len(formats) - 1) + 0.5:
        axes.axvline(edge, color="#cccccc", linewidth=0.6)
    axes.grid(axis="x", visible=False)
