"""The pictures of the report, by matplotlib: colour is the method, marker is the format, bars are 95 % intervals.

Where only one method is shown, colour is the format.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Cell, Variant
from tradeoffs.report import grid
from tradeoffs.results import metrics
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import BATCH, Results

Label = tuple[float, float, str, str]  # x and y of a point, the words and the colour of its label

# Okabe and Ito's palette without its yellow, then Paul Tol's: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255", "#999933")
BASE_COLOUR = "#555555"
MARKERS = ("*", "o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "d", "8", "H")
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 130,
    "savefig.dpi": 130,
}
# Offsets of a label from its point, in points, nearest first; straight up, down and aside are the error bars.
LABEL_PLACES = [(dx, dy) for far in range(14, 120, 8) for dx in (far, -far, 0) for dy in (far, -far, 0) if dx or dy]
NEIGHBOUR = 120  # pixels: labels of points that are nearer than this could be taken for each other's
DIRECTION = {"higher": "higher is better", "lower": "lower is better"}


def draw_all(results: Results, folder: Path) -> list[str]:
    """Writes every picture there is data for and returns their names, in the order of PICTURES.

    The same numbers give the same bytes: no date, no version of the library in the file.
    """
    drawn = []
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        for name, draw in PICTURES.items():
            figure = draw(results)
            if figure is not None:
                with files.new_file(folder / f"{name}.png") as target:
                    figure.savefig(target, metadata={"Software": None}, bbox_inches="tight")
                drawn.append(name)
    return drawn


def quality_vs_size(results: Results) -> Figure:
    return _scatter(results, "size_mb", "size of the weights (MB, log scale)", "lower")


def quality_vs_speed(results: Results) -> Figure:
    return _scatter(results, "decode_tokens_per_second", "decode speed (tokens/s, batch 1, log scale)", "higher")


def training_curves(results: Results) -> Figure | None:
    groups = _with_curve(results, "curve")
    if not groups:
        return None
    figure, panels = _panels(groups, width=7, height=3.4)
    for group, axes in zip(groups, panels, strict=True):
        _draw_curves(axes, results, group, "curve", "loss")
        axes.set_yscale("log")
        for side in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            side(lambda value, _: _short(value) if _leading(value) in (1, 2, 5) else "")
        axes.set(xlabel="optimiser step", ylabel="training loss (nats per token)", title=_title("Training", *group))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title="method")
    return figure


def preference_curves(results: Results) -> Figure | None:
    """Learning from pairs: loss, reward accuracy and reward margin by step."""
    groups = _with_curve(results, "preference_curve")
    if not groups:
        return None
    measured = {"loss": "loss", "reward_accuracy": "reward accuracy", "reward_margin": "reward margin (nats)"}
    figure = _figure(12, 3.2 * len(groups))
    for group, row in zip(groups, figure.subplots(len(groups), len(measured), squeeze=False), strict=True):
        for axes, (name, label) in zip(row, measured.items(), strict=True):
            _draw_curves(axes, results, group, "preference_curve", name)
            axes.set(xlabel="optimiser step", ylabel=label)
        row[0].set_title(_title("Preferences", *group))
        row[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), title="method")
    return figure


def forgetting(results: Results) -> Figure | None:
    """Quality on the task against the change of the loss on general text, each method as trained."""
    changes = {v: results.forgotten(v) for v in results.variants if v.format == TRAINED}
    groups = [g for g in results.groups() if any(changes[v] for v in results.as_trained(*g))]
    if not groups:
        return None
    figure, panels = _panels(groups, width=8, height=4)
    labels = []
    for group, axes in zip(groups, panels, strict=True):
        name, points = results.headline(*group), {}
        for variant in results.as_trained(*group):
            quality, change = results.interval(variant, name), changes[variant]
            x, y = points[variant] = (change.value if change else 0.0, quality.value)
            style: dict[str, Any] = {"color": _colour(results, variant.method), "capsize": 2, "markersize": 5}
            axes.errorbar(x, y, yerr=_bars(quality), xerr=_bars(change) if change else None, fmt="o", **style)
        axes.axvline(0, color="#333333", linewidth=0.8)
        metric, label = metrics.metric(name)[1], results.label(group[1], name)
        axes.set(xlabel="change of the loss on general text (nats per token, lower is better)")
        axes.set(ylabel=f"test {label} ({DIRECTION[metric.better]})", title=_title("Forgetting", *group))
        axes.margins(0.12)
        labels.append((axes, [(*points[v], v.method, _colour(results, v.method)) for v in points], [*points.values()]))
    _label_last(figure, labels)
    return figure


def methods(results: Results) -> Figure:
    """Test and seen quality of each method as trained, and what its training took."""
    groups = results.groups()
    cost = {
        "train_seconds": "training time (s)",
        "adapter_mb": "adapter size (MB)",
        "trainable_params": "trainable parameters",
        "peak_memory_mb": "peak memory of training (MB)",
    }
    figure = _figure(12, (0.32 * len(results.run.methods) + 1.2) * 2 * len(groups))
    grid = figure.subplots(2 * len(groups), 4, sharey="row", squeeze=False)
    places = np.arange(len(results.run.methods))[::-1]
    for row, group in enumerate(groups):
        trained = results.as_trained(*group)
        colours = [_colour(results, v.method) for v in trained]
        quality = ("f1", "bertscore", "cosine", "loss")
        if not results.has(trained[0], "test_f1"):
            quality = ("loss", "bits_per_byte", "perplexity", "token_accuracy")
        for axes, name in zip(grid[2 * row], quality, strict=True):
            for split, shift, face in (("test", 0.14, None), ("seen", -0.14, "white")):
                for place, variant, colour in zip(places, trained, colours, strict=True):
                    found = results.interval(variant, f"{split}_{name}")
                    style = {"color": colour, "markerfacecolor": face or colour, "markersize": 5, "capsize": 2}
                    axes.errorbar(found.value, place + shift, xerr=_bars(found), fmt="o", **style)
            metric = metrics.METRICS[name]
            axes.set(title=f"{metric.label} ({DIRECTION[metric.better]})")
        for axes, (name, label) in zip(grid[2 * row + 1], cost.items(), strict=True):
            values = [results.training[v.cell].get(name, 0.0) for v in trained]
            axes.barh(places, values, color=colours, height=0.65)
            for place, value in zip(places, values, strict=True):
                if value:
                    axes.annotate(f" {_short(value)}", (value, place), va="center", fontsize=8)
            axes.set(title=label, xlim=(0, 1.25 * max(*values, 1e-9)))
            axes.xaxis.set_major_formatter(lambda value, _: _short(value))
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        for axes in grid[2 * row : 2 * row + 2, 0]:
            axes.set_yticks(places, [v.method for v in trained])
            axes.set_ylabel(" / ".join(group) if len(groups) > 1 else "method")
    shapes = [
        Line2D([], [], marker="o", linestyle="", color="#333333", markerfacecolor=f) for f in ("#333333", "white")
    ]
    names = ["test: never trained on", "seen: trained on"]
    figure.legend(shapes, names, loc="outside upper center", ncols=2, fontsize=9)
    return figure


def memory(results: Results) -> Figure:
    """Peak memory of the process: each method's training, each format's answering of one prompt at a time."""
    groups = results.groups()
    figure = _figure(10, 0.34 * max(len(results.run.methods), len(results.formats)) * len(groups) + 1.4)
    grid = figure.subplots(len(groups), 2, squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        trained = [v for v in results.as_trained(*group) if "peak_memory_mb" in results.training[v.cell]]
        rows = [(v.method, [results.training[v.cell]["peak_memory_mb"]], _colour(results, v.method)) for v in trained]
        _memory_bars(row[0], rows)
        row[0].set(title=_title("Training, by method", *group), xlabel="peak memory of the process (MB)")
        by_format = {name: [v for v in results.of(*group) if v.format == name] for name in results.formats}
        peaks = {name: [results.cost[v]["peak_memory_mb"] for v in mine] for name, mine in by_format.items() if mine}
        _memory_bars(row[1], [(name, found, "#8aa9bf") for name, found in peaks.items()])
        row[1].set(title="Inference, by format (range over methods)", xlabel="peak memory of the process (MB)")
    return figure


def throughput(results: Results) -> Figure | None:
    """Decode speed of all sequences together by how many there are: the formats of each group's best method."""
    if not results.batch_sizes:
        return None
    figure, panels = _panels(results.groups(), width=7, height=3.4)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(results.formats)))
    keys = {1: "decode_tokens_per_second"} | {size: f"{BATCH}{size}" for size in results.batch_sizes}
    for group, axes in zip(results.groups(), panels, strict=True):
        best = results.best_shipped(*group)
        for variant, colour in zip(results.of(*group, best), colours, strict=False):
            speeds = {size: results.cost[variant][key] for size, key in keys.items() if key in results.cost[variant]}
            marker = _marker(results, variant.format)
            axes.plot(list(speeds), list(speeds.values()), marker=marker, color=colour, label=variant.format)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(list(keys), [str(size) for size in keys])
        for side in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            side(lambda value, _: _short(value) if _leading(value) in (1, 2, 5) else "")
        axes.set(xlabel="sequences decoded at the same time", ylabel="tokens/s, all together")
        axes.set_title(_title(f"Throughput of {best}", *group))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title="format")
    return figure


def mmlu_subjects(results: Results) -> Figure | None:
    """Accuracy per subject of every variant."""
    groups = [group for group in results.groups() if results.subjects(results.of(*group)[0])]
    if not groups:
        return None
    heights = [len(results.subjects(results.of(*group)[0])) + 1 for group in groups]
    widest = max(len(results.of(*group)) for group in groups)
    figure = _figure(max(0.25 * widest + 2.6, 5), sum(0.24 * rows + 1.9 for rows in heights))
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for group, axes in zip(groups, panels, strict=True):
        _heatmap(axes, results, results.of(*group))
        axes.set_title(_title("Multiple choice, percent right", *group))
    return figure


def bits_per_byte(results: Results) -> Figure | None:
    """Models down, data sets across: the untouched base where there is one, and the best method of each cell."""
    if not grid.is_one(results):
        return None
    models, datasets = results.run.models, results.run.datasets
    best = {d: {v.model: v for v in grid.best_of_models(results, d, grid.BITS)} for d in datasets}
    base = {d: {m: v for m in models if (v := results.untouched(m, d))} for d in datasets}
    shown = {"untouched base": base} if "base" in results.run.methods else {}
    if results.run.methods != ["base"]:
        shown["best method of each"] = best
    figure = _figure(len(shown) * (1.5 * len(datasets) + 0.4) + 2.4, 0.75 * len(models) + 1.6)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    bits = {v: results.interval(v, grid.BITS).value for by in shown.values() for d in datasets for v in by[d].values()}
    # Logarithmic: half as many bits look alike wherever they are.
    norm = matplotlib.colors.LogNorm(max(min(bits.values()), 1e-3) / 1.1, max(*bits.values(), 1e-3) * 1.1)
    for axes, (title, by) in zip(panels, shown.items(), strict=True):
        values = np.array([[bits[by[d][m]] for d in datasets] for m in models])
        image = axes.imshow(values, norm=norm, cmap="cividis_r", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            variant = by[datasets[column]][models[row]]
            dark = sum(image.cmap(norm(value))[:3]) < 1.5
            words = f"{value:.3f}" if by is not best else f"{value:.3f}\n{variant.method}"
            axes.text(column, row, words, ha="center", va="center", color="white" if dark else "#222222", fontsize=9)
        if len(models) > 1 and by is best:
            _frame_best(axes, results)
        axes.set_title(f"Bits per byte, {title}")
        axes.set_xticks(range(len(datasets)), datasets)
        axes.set_yticks(range(len(models)), models)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=panels, label="bits per byte (log scale, lower is better)")
    for side in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
        side(lambda value, _: _short(value) if _leading(value) in (1, 2, 5) else "")
    return figure


def _frame_best(axes: Axes, results: Results) -> None:
    """The best model of each data set in a frame, those tied with it in a dashed one."""
    for column, dataset in enumerate(results.run.datasets):
        for variant in (tied := grid.tied_models(results, dataset, grid.BITS)):
            place, style = results.run.models.index(variant.model), "-" if variant is tied[0] else "--"
            frame = Rectangle((column - 0.46, place - 0.46), 0.92, 0.92, fill=False, linewidth=2, linestyle=style)
            axes.add_patch(frame).set_edgecolor("#D55E00")


def lengths(results: Results) -> Figure:
    """Tokens per training example, by tokenizer: one panel per data set."""
    datasets = results.run.datasets
    figure = _figure(7, 2.6 * len(datasets))
    for axes, dataset in zip(figure.subplots(len(datasets), 1, squeeze=False)[:, 0], datasets, strict=True):
        for index, model in enumerate(results.run.models):
            found = results.lengths[model, dataset]["train"]
            share = np.array(found["counts"]) / max(sum(found["counts"]), 1)
            # Each thinner than the ones before: lines that lie on each other all show.
            width = np.linspace(2.6, 1.2, len(results.run.models))[index]
            colour = COLOURS[index % len(COLOURS)]
            axes.stairs(100 * share, found["edges"], color=colour, linewidth=width, label=model)
            axes.axvline(found["median"], color=colour, linewidth=0.9, linestyle=":")
        axes.set_xscale("symlog", base=2, linthresh=8, linscale=0.5)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.set(xlabel="tokens (dotted: the median)", ylabel="share of the examples (%)", title=f"Lengths: {dataset}")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title="tokenizer of")
    return figure


def ladder(results: Results) -> Figure | None:
    """What each format costs in quality against the model as trained, paired on the same items."""
    groups = results.groups()
    formats = results.formats[1:]
    if not formats:
        return None
    merged = [method for method in results.run.methods if any(results.of(*group, method)[1:] for group in groups)]
    measures = [
        (group, name)
        for group in groups
        for name in dict.fromkeys(("kld", "same_top_token", "test_loss", results.headline(*group), "mmlu_accuracy"))
        if any(results.has(v, name) for v in results.of(*group) if v.format != TRAINED)
    ]
    figure = _figure(10, 2.3 * len(measures) + 0.4)
    grid = figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    shifts = np.linspace(-0.33, 0.33, len(merged)) if len(merged) > 1 else [0.0]
    for axes, (group, name) in zip(grid, measures, strict=True):
        absolute, highest = name in ("kld", "same_top_token"), 0.0
        for method, shift in zip(merged, shifts, strict=True):
            trained, *rungs = results.of(*group, method)
            found = [results.interval(v, name) if absolute else results.compare(v, trained, name) for v in rungs]
            places, values = np.arange(len(rungs)) + shift, [f.value for f in found]
            highest = max(highest, *(f.high for f in found))
            style = {"color": _colour(results, method), "markersize": 4.5, "capsize": 2, "elinewidth": 1.1}
            axes.errorbar(places, values, yerr=np.hstack([_bars(f) for f in found]), fmt="o", **style)
        label, better = results.label(group[1], name), metrics.metric(name)[1].better
        # The model as trained: no change, and the same top token always.
        axes.axhline(float(name == "same_top_token"), color="#333333", linewidth=0.8)
        if name == "kld":  # from a millionth for f16 to a hundredth for 4 bits; below 0 is room for the dots at 0
            axes.set_yscale("symlog", linthresh=1e-5)
            axes.set_ylim(-1e-6, max(2 * highest, 1e-4))
        unit = " (nats)" if name in ("kld", "test_loss") else ""
        axes.set_ylabel(f"{label}{unit}" if absolute else f"change in\n{label}{unit}")
        axes.set_title(_title(f"{label}, {DIRECTION[better]}", *group))
        axes.set_xticks(range(len(formats)), formats)
        axes.tick_params(labelbottom=True)
        for edge in np.arange(len(formats) - 1) + 0.5:
            axes.axvline(edge, color="#cccccc", linewidth=0.6)
        axes.grid(axis="x", visible=False)
    handles = [Line2D([], [], marker="o", linestyle="", color=_colour(results, m)) for m in merged]
    figure.legend(handles, merged, loc="outside right upper", title="method")
    return figure


PICTURES: dict[str, Callable[[Results], Figure | None]] = {
    "bits_per_byte": bits_per_byte,
    "quality_vs_speed": quality_vs_speed,
    "quality_vs_size": quality_vs_size,
    "methods": methods,
    "throughput": throughput,
    "ladder": ladder,
    "mmlu_subjects": mmlu_subjects,
    "memory": memory,
    "training_curves": training_curves,
    "preference_curves": preference_curves,
    "forgetting": forgetting,
    "lengths": lengths,
}


def _scatter(results: Results, cost: str, label: str, cheaper: str) -> Figure:
    """Left all variants, right a close-up of where the good and cheap ones crowd; the Pareto set numbered in both."""
    groups = results.groups()
    figure = _figure(13, 4.6 * len(groups))
    grid = figure.subplots(len(groups), 3, squeeze=False, gridspec_kw={"width_ratios": (5, 4, 2.4)})
    labels = []
    for group, (whole, near, side) in zip(groups, grid, strict=True):
        name = results.headline(*group)
        label_of_metric, better = results.label(group[1], name), metrics.metric(name)[1].better
        points = {v: (results.cost[v][cost], results.interval(v, name).value) for v in results.of(*group)}
        front = results.pareto(*group, cost, cheaper)
        for axes in (whole, near):
            for variant, (x, y) in points.items():
                colour, marker = _colour(results, variant.method), _marker(results, variant.format)
                bars = {"color": colour, "alpha": 0.25, "linewidth": 1, "zorder": 2}
                axes.errorbar(x, y, yerr=_bars(results.interval(variant, name)), **bars)
                axes.scatter(x, y, color=colour, marker=marker, s=38, linewidth=0, alpha=0.9, zorder=3)
            xs, ys = zip(*(points[v] for v in front), strict=True)
            # A step: between two points of the set, the better one must be paid for.
            axes.step(xs, ys, where="post", color="#222222", linewidth=0.9, linestyle="--", zorder=1)
            axes.scatter(xs, ys, s=110, facecolors="none", edgecolors="#222222", linewidths=1.0, zorder=4)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: _short(value))
            axes.xaxis.set_minor_formatter(lambda value, _: _short(value) if _leading(value) in (2, 5) else "")
            axes.set(xlabel=label, ylabel=f"test {label_of_metric} ({DIRECTION[better]})")
            axes.margins(0.08)
        whole.set_title(_title("Quality against " + ("size" if cost == "size_mb" else "speed"), *group))
        close = _corner(results, group, points, cheaper)
        _zoom(near, close)
        # Numbers, since names do not fit where the best variants crowd.
        numbered = [(*points[v], str(number), _colour(results, v.method)) for number, v in enumerate(front, 1)]
        labels += [(whole, numbered, list(points.values())), (near, numbered, list(points.values()))]
        _legends(results, side, [f"{number}  {v.method} {v.format}" for number, v in enumerate(front, 1)])
    _label_last(figure, labels)
    return figure


def _label_last(figure: Figure, labels: list[tuple[Axes, list[Label], list]]) -> None:
    """Labels points when all else is drawn and the layout is fixed, since where a label fits depends on both."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, wanted, taken in labels:
        _label_points(figure, axes, wanted, taken)


def _with_curve(results: Results, key: str) -> list[tuple[str, str]]:
    """The groups that have a training curve of this name."""
    return [g for g in results.groups() if any(key in results.training[v.cell] for v in results.of(*g))]


def _draw_curves(axes: Axes, results: Results, group: tuple[str, str], key: str, name: str) -> None:
    """A line per method that has the curve `key`: what its points hold as `name`."""
    # Each thinner than the ones before: curves that lie on each other all show.
    for method, width in zip(results.run.methods, np.linspace(4.5, 1.2, len(results.run.methods)), strict=True):
        curve = results.training[Cell(*group, method)].get(key, [])
        if curve:
            points = [point["step"] for point in curve], [point[name] for point in curve]
            axes.plot(*points, color=_colour(results, method), label=method, linewidth=width)


def _corner(
    results: Results, group: tuple[str, str], points: dict[Variant, tuple[float, float]], cheaper: str
) -> list[tuple[float, float]]:
    """Points of the variants that are tied with the best and cost at most twice what the cheapest of them costs."""
    tied = [points[v] for v in results.tied_with_best(*group)]
    costs = [x for x, _ in tied]
    return [(x, y) for x, y in tied if (x <= 2 * min(costs) if cheaper == "lower" else x >= max(costs) / 2)]


def _zoom(axes: Axes, points: list[tuple[float, float]]) -> None:
    """Limits that hold these points with room around them."""
    xs, ys = np.array(points).T
    room = max(0.7 * float(np.ptp(ys)), 0.02 * float(abs(ys).max()), 1e-3)
    axes.set(xlim=(xs.min() / 1.08, xs.max() * 1.08), ylim=(ys.min() - room, ys.max() + room))
    axes.xaxis.set_minor_formatter(lambda value, _: _short(value))
    axes.set_title("Close-up: around the cheapest that are tied with the best")


def _legends(results: Results, axes: Axes, front: list[str]) -> None:
    """What colours, markers and numbers mean, in a panel of their own."""
    axes.axis("off")
    dots = [Line2D([], [], marker="o", linestyle="", color=_colour(results, m)) for m in results.run.methods]
    axes.add_artist(axes.legend(dots, results.run.methods, title="method", loc="upper left", bbox_to_anchor=(-0.05, 1)))
    formats = results.formats
    marks = [Line2D([], [], marker=_marker(results, f), linestyle="", color="#666666") for f in formats]
    marks.append(Line2D([], [], marker="o", linestyle="--", color="#222222", markerfacecolor="none", markersize=9))
    axes.legend(marks, [*formats, "Pareto set"], title="format", loc="upper right", bbox_to_anchor=(1.05, 1))
    axes.text(0, 0, "\n".join(["Pareto set", *front]), transform=axes.transAxes, va="bottom", linespacing=1.35)


def _label_points(figure: Figure, axes: Axes, labels: list[Label], points: list[tuple[float, float]]) -> None:
    """Writes each label at the first place around its point where it can be read as that point's alone.

    There it stays inside, covers no point and no label, its line (of the point's colour) crosses no other line, and it
    lies on its own point's side of every labelled neighbour. Where no place has all of this, the last two are given up.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in axes.transData.transform(points)]
    places = [axes.transData.transform((x, y)) for x, y, _, _ in labels]
    lines: list[tuple[np.ndarray, np.ndarray]] = []
    for own, (x, y, text, colour) in zip(places, labels, strict=True):
        near = [own - other for other in places if 0 < np.hypot(*(own - other)) < NEIGHBOUR]
        for (dx, dy), strict in [(place, strict) for strict in (True, False) for place in LABEL_PLACES]:
            end = own + np.array([dx, dy]) * figure.dpi / 72
            crossed = any(_cross(own, end, *line) for line in lines)
            if strict and (crossed or any((end - own) @ away < 0 for away in near)):
                continue
            options: dict[str, Any] = {
                "ha": "center" if dx == 0 else "left" if dx > 0 else "right",
                "va": "center",
                "fontsize": 8,
            }
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
            options |= {"textcoords": "offset points", "arrowprops": line, "zorder": 5}
            note = axes.annotate(text, (x, y), (dx, dy), **options)
            note.update_positions(renderer)
            box = Text.get_window_extent(note, renderer)  # of the words, without the line
            if inside.contains(*box.min) and inside.contains(*box.max) and not any(box.overlaps(b) for b in taken):
                taken.append(box.padded(3))
                lines.append((own, end))
                break
            note.remove()


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether the segments ab and cd cross, each (2,)."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _memory_bars(axes: Axes, rows: list[tuple[str, list[float], str]]) -> None:
    """A bar to the median of each row's values, and a line over their range."""
    for place, (_, values, colour) in enumerate(reversed(rows)):
        axes.barh(place, np.median(values), color=colour, height=0.65)
        axes.plot([min(values), max(values)], [place, place], color="#222222", linewidth=1.2)
        axes.annotate(f" {np.median(values):,.0f}", (max(values), place), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.margins(x=0.14)
    axes.grid(axis="y", visible=False)


def _heatmap(axes: Axes, results: Results, variants: list[Variant]) -> None:
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
    axes.set_yticks(range(len(values)), ["all", *(name.replace("_", " ") for name in subjects)])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _panels(groups: list[tuple[str, str]], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """One panel per group, one below the other."""
    figure = _figure(width, height * len(groups))
    return figure, list(figure.subplots(len(groups), 1, squeeze=False)[:, 0])


def _title(what: str, model: str, dataset: str) -> str:
    return f"{what}: {model} on {dataset}"


def _colour(results: Results, method: str) -> str:
    if method == "base":
        return BASE_COLOUR
    others = [name for name in results.run.methods if name != "base"]
    return COLOURS[others.index(method) % len(COLOURS)]


def _marker(results: Results, name: str) -> str:
    return MARKERS[results.formats.index(name) % len(MARKERS)]


def _bars(interval: Interval) -> np.ndarray:
    """Lengths of the error bar; a percentile interval of a skewed metric may end on either side of the value."""
    return np.clip([[interval.value - interval.low], [interval.high - interval.value]], 0, None)


def _short(value: float) -> str:
    """1234567 as 1.23M, 1234 as 1,234, 0.5 as 0.5."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _leading(value: float) -> int:
    return int(f"{value:e}"[0])
