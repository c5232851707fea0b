"""Lines: how a training went, speed by batch size, how long examples are."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tradeoffs.common.cells import Pair
from tradeoffs.report.pictures.style import (
    COLOURS,
    colour_of,
    error_bar,
    label_logarithmic,
    legend_beside,
    marker_of,
    new_figure,
    number,
    stacked,
    title_of,
)
from tradeoffs.results import costs, ranking
from tradeoffs.results.costs import BATCH
from tradeoffs.results.results import Results


def training_curves(results: Results) -> Figure | None:
    groups = _with_curve(results, "curve")
    if not groups:
        return None
    figure, panels = stacked(groups, width=7, height=3.4)
    for group, axes in zip(groups, panels, strict=True):
        _draw_curves(axes, results, group, "curve", "loss")
        axes.set_yscale("log")
        label_logarithmic(axes.yaxis)
        axes.set(xlabel="optimiser step", ylabel="training loss (nats per token)", title=title_of("Training", group))
        legend_beside(axes, "method")
    return figure


def preference_curves(results: Results) -> Figure | None:
    """Learning from pairs: loss, reward accuracy and reward margin by step."""
    groups = _with_curve(results, "preference_curve")
    if not groups:
        return None
    measured = {"loss": "loss", "reward_accuracy": "reward accuracy", "reward_margin": "reward margin (nats)"}
    figure = new_figure(12, 3.2 * len(groups))
    for group, row in zip(groups, figure.subplots(len(groups), len(measured), squeeze=False), strict=True):
        for axes, (name, label) in zip(row, measured.items(), strict=True):
            _draw_curves(axes, results, group, "preference_curve", name)
            axes.set(xlabel="optimiser step", ylabel=label)
        row[0].set_title(title_of("Preferences", group))
        legend_beside(row[-1], "method")
    return figure


def throughput(results: Results) -> Figure | None:
    """Decode speed of all sequences together by how many there are: the formats of each group's best method.

    Bars: intervals over the rounds.
    """
    if not results.batch_sizes:
        return None
    figure, panels = stacked(results.groups(), width=7, height=3.4)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(results.formats)))
    keys = {1: "decode_tokens_per_second"} | {size: f"{BATCH}{size}" for size in results.batch_sizes}
    for group, axes in zip(results.groups(), panels, strict=True):
        best = ranking.best_shipped(results, group)
        for variant, colour in zip(results.of(group, best), colours, strict=False):
            found = {size: costs.interval(results, variant, key) for size, key in keys.items()}
            speeds = {size: bounds for size, bounds in found.items() if bounds}
            if not speeds:  # it does not run on the device that is decided for
                continue
            style: dict[str, Any] = {"marker": marker_of(results, variant.format), "color": colour, "capsize": 2}
            bars = np.hstack([error_bar(bounds) for bounds in speeds.values()])
            values = [bounds.value for bounds in speeds.values()]
            axes.errorbar(list(speeds), values, yerr=bars, label=variant.format, **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(list(keys), [str(size) for size in keys])
        label_logarithmic(axes.yaxis)
        axes.set(xlabel="sequences decoded at the same time", ylabel="tokens/s, all together")
        axes.set_title(title_of(f"Throughput of {best}", group))
        legend_beside(axes, "format")
    return figure


def lengths(results: Results) -> Figure | None:
    """Tokens per training example, by tokenizer: one panel per data set that has any."""
    datasets = [name for name in results.run.datasets if "train" in results.lengths[Pair(results.run.models[0], name)]]
    if not datasets:
        return None
    figure = new_figure(7, 2.6 * len(datasets))
    for axes, dataset in zip(figure.subplots(len(datasets), 1, squeeze=False)[:, 0], datasets, strict=True):
        for index, model in enumerate(results.run.models):
            found = results.lengths[Pair(model, dataset)]["train"]
            share = np.array(found["counts"]) / max(sum(found["counts"]), 1)
            # Each thinner than the ones before: lines that lie on each other all show.
            width = np.linspace(2.6, 1.2, len(results.run.models))[index]
            colour = COLOURS[index % len(COLOURS)]
            axes.stairs(100 * share, found["edges"], color=colour, linewidth=width, label=model)
            axes.axvline(found["median"], color=colour, linewidth=0.9, linestyle=":")
        axes.set_xscale("symlog", base=2, linthresh=8, linscale=0.5)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.set(xlabel="tokens (dotted: the median)", ylabel="share of the examples (%)", title=f"Lengths: {dataset}")
        legend_beside(axes, "tokenizer of")
    return figure


def _with_curve(results: Results, key: str) -> list[Pair]:
    """The groups that have a training curve of this name."""
    return [g for g in results.groups() if any(key in results.training[v.cell] for v in results.of(g))]


def _draw_curves(axes: Axes, results: Results, group: Pair, key: str, name: str) -> None:
    """A line per method that has the curve `key`: what its points hold as `name`."""
    # Each thinner than the ones before: curves that lie on each other all show.
    for method, width in zip(results.run.methods, np.linspace(4.5, 1.2, len(results.run.methods)), strict=True):
        curve = results.training[group.cell(method)].get(key, [])
        if curve:
            points = [point["step"] for point in curve], [point[name] for point in curve]
            axes.plot(*points, color=colour_of(results, method), label=method, linewidth=width)
        held_out = {point["step"]: point[f"valid_{name}"] for point in curve if f"valid_{name}" in point}
        if held_out:
            axes.plot(
                *zip(*held_out.items(), strict=True), color=colour_of(results, method), linewidth=1.2, linestyle="--"
            )
            kept = results.training[group.cell(method)][f"{key.removesuffix('curve')}kept_step"]
            if kept in held_out:
                axes.plot(kept, held_out[kept], "o", color=colour_of(results, method), markersize=9, fillstyle="none")
