"""Tables as colours: models by data sets, variants by subjects."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report import grid
from tradeoffs.report.pictures.style import drawn, label_logarithmic, new_figure, title_of
from tradeoffs.results import ranking
from tradeoffs.results.results import Results

ByCell = dict[str, dict[str, Variant]]  # a variant by data set and model


def bits_per_byte(results: Results) -> Figure | None:
    """Models down, data sets across: the untouched base where there is one, and the best method of each cell."""
    models, datasets = results.run.models, grid.with_bits(results)
    if not grid.is_one(results) or not datasets:
        return None
    best: ByCell = {d: {v.model: v for v in grid.best_of_models(results, d, grid.BITS)} for d in datasets}
    base: ByCell = {d: {m: v for m in models if (v := results.untouched(Pair(m, d)))} for d in datasets}
    shown = {"untouched base": base} if "base" in results.run.methods else {}
    if results.run.methods != ["base"]:
        shown["best method of each"] = best
    figure = new_figure(len(shown) * (1.5 * len(datasets) + 0.4) + 2.4, 0.75 * len(models) + 1.6)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    bits = [results.interval(v, grid.BITS).value for by in shown.values() for d in datasets for v in by[d].values()]
    # Logarithmic: half as many bits look alike wherever they are.
    norm = LogNorm(max(min(bits), 1e-3) / 1.1, max(*bits, 1e-3) * 1.1)
    for axes, (title, by) in zip(panels, shown.items(), strict=True):
        image = _bits(axes, results, by, norm, with_method=by is best)
        if len(models) > 1 and by is best:
            _frame_best(axes, results)
        axes.set_title(f"Bits per byte, {title}")
        axes.set_xticks(range(len(datasets)), datasets)
        axes.set_yticks(range(len(models)), models)
        _no_frame(axes)
    bar = figure.colorbar(image, ax=panels, label="bits per byte (log scale, lower is better)")
    label_logarithmic(bar.ax.yaxis)
    return figure


def _bits(axes: Axes, results: Results, by: ByCell, norm: LogNorm, with_method: bool) -> AxesImage:
    """A cell per model and data set with its number of bits, and with the name of its method where that differs."""
    models, datasets = results.run.models, list(by)
    values = np.array([[results.interval(by[d][m], grid.BITS).value for d in datasets] for m in models])
    image = axes.imshow(values, norm=norm, cmap="cividis_r", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        variant = by[datasets[column]][models[row]]
        dark = sum(image.cmap(norm(value))[:3]) < 1.5
        words = f"{value:.3f}\n{variant.method}" if with_method else f"{value:.3f}"
        axes.text(column, row, words, ha="center", va="center", color="white" if dark else "#222222", fontsize=9)
    return image


def _frame_best(axes: Axes, results: Results) -> None:
    """The best model of each data set in a frame, those that are good enough in a dashed one."""
    for column, dataset in enumerate(grid.with_bits(results)):
        for variant in (good := grid.good_models(results, dataset, grid.BITS)):
            place, style = results.run.models.index(variant.model), "-" if variant is good[0] else "--"
            frame = Rectangle((column - 0.46, place - 0.46), 0.92, 0.92, fill=False, linewidth=2, linestyle=style)
            axes.add_patch(frame).set_edgecolor("#D55E00")


def mmlu_subjects(results: Results) -> Figure | None:
    """Accuracy per subject of each method as trained, then of the formats of the best; of all: plots/subjects.csv."""
    groups = [group for group in results.groups() if results.subjects(results.of(group)[0])]
    if not groups:
        return None
    heights = [len(results.subjects(results.of(group)[0])) + 1 for group in groups]
    shown = [_in_tables(results, group) for group in groups]
    width, height = max(0.42 * max(map(len, shown)) + 2.6, 5), sum(0.24 * rows + 1.9 for rows in heights)
    figure = new_figure(width, height)
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for group, variants, axes in zip(groups, shown, panels, strict=True):
        _subjects(axes, results, variants)
        axes.set_title(title_of("Multiple choice, percent right", group))
    return figure


def _in_tables(results: Results, group: Pair) -> list[Variant]:
    formats = results.of(group, ranking.best_shipped(results, group))
    return list(dict.fromkeys([*results.as_trained(group), *formats]))


def _subjects(axes: Axes, results: Results, variants: list[Variant]) -> None:
    """Variants across, all subjects together and then each of them down."""
    subjects = list(results.subjects(variants[0]))
    columns = [
        [results.interval(v, "mmlu_accuracy").value, *(results.subjects(v)[name][0].value for name in subjects)]
        for v in variants
    ]
    values = np.array(columns).T
    axes.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "in_layout": False}
        axes.text(column, row, f"{100 * value:.0f}", color="white" if value > 0.6 else "#222222", **style)
    axes.axhline(0.5, color="white", linewidth=3)
    for column in range(1, len(variants)):
        if variants[column].method != variants[column - 1].method:
            axes.axvline(column - 0.5, color="white", linewidth=3)
    names = [f"{v.method} {v.format}" for v in variants]
    axes.set_xticks(range(len(variants)), names, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(values)), ["all", *(drawn(name.replace("_", " ")) for name in subjects)])
    _no_frame(axes)


def _no_frame(axes: Axes) -> None:
    """Cells alone: no lines, no edge, no ticks."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
