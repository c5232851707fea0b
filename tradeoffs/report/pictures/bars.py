"""Methods and formats side by side: quality with its intervals, and what each took."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.report.formatting import row_head
from tradeoffs.report.pictures.style import DIRECTION, colour_of, dot, error_bar, new_figure, number, title_of
from tradeoffs.results import costs, ranking
from tradeoffs.results.results import Results


def methods(results: Results) -> Figure | None:
    """Test and seen quality of each method as trained, and what its training took."""
    groups = [group for group in results.groups() if ranking.has_test(results, group)]
    if not groups:
        return None
    quality = [_quality(results, group) for group in groups]
    cost = {
        "train_seconds": "training time (s)",
        "adapter_mb": "adapter size (MB)",
        "trainable_params": "trainable parameters",
        "peak_memory_mb": "peak memory of training (MB)",
    }
    across = max(len(cost), *map(len, quality))
    figure = new_figure(3 * across, (0.32 * len(results.run.methods) + 1.2) * 2 * len(groups))
    grid = figure.subplots(2 * len(groups), across, sharey="row", squeeze=False)
    places = np.arange(len(results.run.methods))[::-1]
    for row, group in enumerate(groups):
        trained = results.as_trained(group)
        for axes, name in zip(grid[2 * row], quality[row], strict=False):
            _test_and_seen(axes, results, trained, places, name)
        for axes, (name, label) in zip(grid[2 * row + 1], cost.items(), strict=False):
            _training_bars(axes, results, trained, places, name)
            axes.set(title=label)
        for axes in (*grid[2 * row, len(quality[row]) :], *grid[2 * row + 1, len(cost) :]):
            axes.set_axis_off()
        for axes in grid[2 * row : 2 * row + 2, 0]:
            axes.set_yticks(places, [v.method for v in trained])
            axes.set_ylabel(row_head(group) if len(groups) > 1 else "method")
    shapes = [dot("#333333", markerfacecolor=face) for face in ("#333333", "white")]
    names = ["test: never trained on", "seen: trained on"]
    figure.legend(shapes, names, loc="outside upper center", ncols=2, fontsize=9)
    return figure


def _quality(results: Results, group: Pair) -> list[str]:
    """Metrics to show of a group, without their splits: of answers, or of likelihood where there are none."""
    if results.has(results.of(group)[0], "test_f1"):
        return metrics.side_by_side()
    likelihood = [name.removeprefix("test_") for name in metrics.columns("likelihood")]
    return list(dict.fromkeys(("loss", "bits_per_byte", *likelihood)))


def _test_and_seen(axes: Axes, results: Results, trained: list[Variant], places: np.ndarray, name: str) -> None:
    """A metric of each variant with its interval: full above for test, hollow below for seen."""
    for split, shift, face in (("test", 0.14, None), ("seen", -0.14, "white")):
        for place, variant in zip(places, trained, strict=True):
            colour, found = colour_of(results, variant.method), results.interval(variant, f"{split}_{name}")
            style: dict[str, Any] = {
                "color": colour,
                "markerfacecolor": face or colour,
                "markersize": 5,
                "capsize": 2,
            }
            axes.errorbar(found.value, place + shift, xerr=error_bar(found), fmt="o", **style)
    metric = metrics.metric(f"test_{name}")[1]
    axes.set(title=f"{metric.label} ({DIRECTION[metric.better]})")


def _training_bars(axes: Axes, results: Results, trained: list[Variant], places: np.ndarray, name: str) -> None:
    """A bar for what the training of each variant took, the number at its end."""
    values = [results.training[v.cell].get(name, 0.0) for v in trained]
    axes.barh(places, values, color=[colour_of(results, v.method) for v in trained], height=0.65)
    for place, value in zip(places, values, strict=True):
        if value:
            axes.annotate(f" {number(value)}", (value, place), va="center", fontsize=8)
    axes.set(xlim=(0, 1.25 * max(*values, 1e-9)))
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.xaxis.set_major_locator(MaxNLocator(4))


def memory(results: Results) -> Figure:
    """Peak memory of each method's training, and what each format needs to answer one prompt at a time, beside the
    process that it is loaded into."""
    groups = results.groups()
    figure = new_figure(10, 0.34 * max(len(results.run.methods), len(results.formats)) * len(groups) + 1.4)
    grid = figure.subplots(len(groups), 2, squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        trained = [v for v in results.as_trained(group) if "peak_memory_mb" in results.training[v.cell]]
        rows = [(v.method, [results.training[v.cell]["peak_memory_mb"]], colour_of(results, v.method)) for v in trained]
        _memory_bars(row[0], rows)
        row[0].set(title=title_of("Training, by method", group), xlabel="peak memory of the process (MB)")
        by_format = {name: [v for v in results.of(group) if v.format == name] for name in results.formats}
        needed = {name: [end for v in mine for end in _needed(results, v)] for name, mine in by_format.items() if mine}
        _memory_bars(row[1], [(name, found, "#8aa9bf") for name, found in needed.items() if found])
        row[1].set(title="Inference, by format (range over methods and rounds)", xlabel="memory of the model (MB)")
    return figure


def _needed(results: Results, variant: Variant) -> list[float]:
    """Memory of a model: its value and the ends of its interval over the rounds."""
    found = costs.interval(results, variant, "model_memory_mb")
    return [found.low, found.value, found.high] if found else []


def _memory_bars(axes: Axes, rows: list[tuple[str, list[float], str]]) -> None:
    """A bar to the median of each row's values, and a line over their range."""
    for place, (_, values, colour) in enumerate(reversed(rows)):
        axes.barh(place, np.median(values), color=colour, height=0.65)
        axes.plot([min(values), max(values)], [place, place], color="#222222", linewidth=1.2)
        axes.annotate(f" {np.median(values):,.0f}", (max(values), place), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
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
        found = [results.interval(v, name) if absolute else results.compare(v, trained, name) for v in rungs]
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
