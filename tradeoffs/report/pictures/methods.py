"""Methods as trained, side by side: how good each is, what its training took, and what it takes to answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import row_head
from tradeoffs.report.pictures.style import (
    DIRECTION,
    HOST_COLOUR,
    colour_of,
    dot,
    error_bar,
    new_figure,
    number,
)
from tradeoffs.results import costs, ranking, tuning
from tradeoffs.results.results import Results

# Of what its training took and of what answering takes: names in data/training and COST, and what a panel is called.
TRAINING = {"train_seconds": "training time (s)", "adapter_mb": "adapter size (MB)"}
TRAINING |= {"trainable_params": "trainable parameters"}
SPEED, SIZE, MEAN = "decode_tokens_per_second", "size_mb", "latency_mean_seconds"
SPREAD = ("latency_p50_seconds", "latency_p95_seconds")  # of answers, beside their mean


@dataclass(frozen=True)
class Panel:
    """A number of each method, (methods,); None where it has none. `host`: of the host's memory beside the GPU's.
    `marks`: further numbers of each, which are drawn as points on its bar.
    """

    title: str
    values: list[float | None]
    host: list[float | None] = field(default_factory=list)
    marks: list[list[float]] = field(default_factory=list)


def methods(results: Results) -> Figure | None:
    """Test and seen quality of each method as trained, what its training took, and what answering takes."""
    groups = [group for group in results.groups() if ranking.has_test(results, group)]
    if not groups:
        return None
    rows = [(group, _quality(results, group), _took(results, group), _takes(results, group)) for group in groups]
    across = max(max(len(quality), len(took), len(takes)) for _, quality, took, takes in rows)
    figure = new_figure(2.5 * across, (0.3 * len(results.run.methods) + 1) * 3 * len(groups) + 0.5)
    grid = figure.subplots(3 * len(groups), across, sharey="row", squeeze=False)
    places = np.arange(len(results.run.methods))[::-1]
    for row, (group, quality, took, takes) in enumerate(rows):
        trained, mine = results.as_trained(group), grid[3 * row : 3 * row + 3]
        for axes, name in zip(mine[0], quality, strict=False):
            _test_and_seen(axes, results, trained, places, name)
        for panels, line in zip((took, takes), mine[1:], strict=True):
            for axes, panel in zip(line, panels, strict=False):
                _bars(axes, panel, [colour_of(results, v.method) for v in trained], places)
        for line, count in zip(mine, (len(quality), len(took), len(takes)), strict=True):
            for axes in line[count:]:
                axes.set_axis_off()
            line[0].set_yticks(places, [v.method for v in trained])
            line[0].set_ylim(-0.6, len(places) - 0.4)
            line[0].set_ylabel(row_head(group) if len(groups) > 1 else "method")
    _legend(figure, [panel for _, _, took, takes in rows for panel in (*took, *takes)])
    return figure


def _legend(figure: Figure, panels: Sequence[Panel]) -> None:
    """What the marks are, above; those of marks that no panel has are left out."""
    shapes: list[Line2D] = [dot("#333333", markerfacecolor=face) for face in ("#333333", "white")]
    names = ["test: never trained on", "seen: trained on"]
    if any(panel.marks for panel in panels):
        shapes.append(Line2D([], [], marker="|", linestyle="", markersize=9, markeredgewidth=1.6, color="#222222"))
        names.append("median and 95th percentile of answers")
    if any(panel.host for panel in panels):
        shapes.append(Line2D([], [], linewidth=4, color=HOST_COLOUR))
        names.append("memory of the host, beside the GPU's")
    figure.legend(shapes, names, loc="outside upper center", ncols=2, fontsize=9)


def _took(results: Results, group: Pair) -> list[Panel]:
    """What training took, as data/training has it."""
    rows = [results.training[v.cell] for v in results.as_trained(group)]
    panels = [Panel(title, [row.get(name) for row in rows]) for name, title in TRAINING.items()]
    peaks = [tuning.peak_memory(row) for row in rows]
    on_gpu = any(peak and peak[1] for peak in peaks)
    title = f"training {'GPU ' if on_gpu else ''}memory (MB)"
    host = [row.get(tuning.HOST_PEAK) for row in rows] if on_gpu else []
    return [*panels, Panel(title, [peak and peak[0] for peak in peaks], host)]


def _takes(results: Results, group: Pair) -> list[Panel]:
    """What answering takes, one prompt at a time; the time of an answer where any is given."""
    mine = [results.cost[v] for v in results.as_trained(group)]
    panels = []
    if any(MEAN in cost for cost in mine):
        marks = [[cost[name] for name in SPREAD if name in cost] for cost in mine]
        panels.append(Panel("mean time of an answer (s)", [cost.get(MEAN) for cost in mine], marks=marks))
    on_gpu = any(costs.HOST in cost for cost in mine)
    title = f"model {'GPU ' if on_gpu else ''}memory (MB)"
    host = [cost.get(costs.HOST) for cost in mine] if on_gpu else []
    panels.append(Panel(title, [cost.get(costs.MEMORY) for cost in mine], host))
    panels.append(Panel("decode speed (tokens/s)", [cost.get(SPEED) for cost in mine]))
    return [*panels, Panel("size of the weights (MB)", [cost.get(SIZE) for cost in mine])]


def _quality(results: Results, group: Pair) -> list[str]:
    """Metrics to show of a group, without their splits: of answers, or of likelihood where there are none."""
    if results.has(results.of(group)[0], "test_f1"):
        return metrics.side_by_side()
    likelihood = [name.removeprefix("test_") for name in metrics.columns("likelihood")]
    names = dict.fromkeys(("loss", "bits_per_byte", *likelihood))
    return [name for name in names if any(results.has(v, f"test_{name}") for v in results.as_trained(group))]


def _test_and_seen(axes: Axes, results: Results, trained: list[Variant], places: np.ndarray, name: str) -> None:
    """A metric of each variant with its interval: full above for test, hollow below for seen."""
    for split, shift, face in (("test", 0.14, None), ("seen", -0.14, "white")):
        for place, variant in zip(places, trained, strict=True):
            if not results.has(variant, f"{split}_{name}"):
                continue
            colour, found = colour_of(results, variant.method), results.interval(variant, f"{split}_{name}")
            style: dict[str, Any] = {
                "color": colour,
                "markerfacecolor": face or colour,
                "markersize": 5,
                "capsize": 2,
            }
            axes.errorbar(found.value, place + shift, xerr=error_bar(found), fmt="o", **style)
    metric = metrics.metric(f"test_{name}")[1]
    axes.set_title(metric.label)
    axes.set_xlabel(DIRECTION[metric.better], fontsize=8)


def _bars(axes: Axes, panel: Panel, colours: list[str], places: np.ndarray) -> None:
    """A bar for each method, the number at its end; under it a thin one for the host's memory, where there is one."""
    height, shift = (0.42, 0.14) if panel.host else (0.65, 0.0)
    ends = []
    for row, (place, value, colour) in enumerate(zip(places, panel.values, colours, strict=True)):
        marks = panel.marks[row] if panel.marks else []
        ends.append(max([value or 0.0, *marks]))
        if value:
            axes.barh(place + shift, value, color=colour, height=height)
            apart = "  " if marks else " "  # a mark stands where the text begins
            axes.annotate(f"{apart}{number(value)}", (ends[-1], place + shift), va="center", fontsize=8)
        axes.plot(marks, [place] * len(marks), "|", color="#222222", markersize=9, markeredgewidth=1.6)
        if panel.host and (host := panel.host[row]):
            ends.append(host)
            axes.barh(place - 0.27, host, color=HOST_COLOUR, height=0.2)
            axes.annotate(f" {number(host)}", (host, place - 0.27), va="center", fontsize=6.5, color="#555555")
    axes.set(xlim=(0, 1.36 * max(*ends, 1e-9)), title=panel.title)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.grid(axis="y", visible=False)
