"""The pictures of the report, by matplotlib: colour is the method, marker is the format, bars are 95 % intervals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tradeoffs import files, metrics
from tradeoffs.intervals import Interval
from tradeoffs.results import Results
from tradeoffs.variants import TRAINED, Variant

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
# Offsets of a label from its point, in points, nearest first.
LABEL_PLACES = [(dx, dy) for far in range(14, 120, 8) for dx in (0, -far, far) for dy in (far, -far, 0) if dx or dy]
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
    groups = [g for g in results.groups() if any("curve" in results.training[v.cell] for v in results.of(*g))]
    if not groups:
        return None
    figure, panels = _panels(groups, width=7, height=3.4)
    for group, axes in zip(groups, panels, strict=True):
        for method in results.run.methods:
            curve = results.training["-".join((*group, method))].get("curve", [])
            if curve:
                points = [point["step"] for point in curve], [point["loss"] for point in curve]
                axes.plot(*points, color=_colour(results, method), label=method, linewidth=1.6)
        axes.set(xlabel="optimiser step", ylabel="training loss (nats per token)", title=_title("Training", *group))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title="method")
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
        trained = [v for v in results.of(*group) if v.format == TRAINED]
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
    """Peak memory of the process: each method's training, each format's inference."""
    groups = results.groups()
    figure = _figure(10, 0.34 * max(len(results.run.methods), len(_formats(results))) * len(groups) + 1.4)
    grid = figure.subplots(len(groups), 2, squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        every = results.of(*group)
        trained = [v for v in every if v.format == TRAINED and "peak_memory_mb" in results.training[v.cell]]
        rows = [(v.method, [results.training[v.cell]["peak_memory_mb"]], _colour(results, v.method)) for v in trained]
        _memory_bars(row[0], rows)
        row[0].set(title=_title("Training, by method", *group), xlabel="peak memory of the process (MB)")
        by_format = {name: [v for v in every if v.format == name] for name in _formats(results)}
        peaks = {name: [results.cost[v]["peak_memory_mb"] for v in mine] for name, mine in by_format.items()}
        _memory_bars(row[1], [(name, found, "#8aa9bf") for name, found in peaks.items()])
        row[1].set(title="Inference, by format (range over methods)", xlabel="peak memory of the process (MB)")
    return figure


def mmlu_subjects(results: Results) -> Figure | None:
    """Accuracy per subject: methods as trained, and the formats of the best method."""
    groups = [group for group in results.groups() if results.subjects(results.of(*group)[0])]
    if not groups:
        return None
    subjects = [list(results.subjects(results.of(*group)[0])) for group in groups]
    columns = len(results.run.methods) + len(_formats(results))
    figure = _figure(0.62 * columns + 2.6, sum(0.3 * len(names) + 1.5 for names in subjects))
    shares = [len(results.run.methods), len(_formats(results))]
    heights = [len(names) + 3 for names in subjects]
    options = {"width_ratios": shares, "height_ratios": heights}
    grid = figure.subplots(len(groups), 2, squeeze=False, sharey="row", gridspec_kw=options)
    for row, group, names in zip(grid, groups, subjects, strict=True):
        best = results.ranked(*group)[0].method
        trained = [v for v in results.of(*group) if v.format == TRAINED]
        _heatmap(row[0], results, trained, [v.method for v in trained], names)
        row[0].set_title(_title("Multiple choice, as trained", *group))
        formats = results.of(*group, best)
        _heatmap(row[1], results, formats, [v.format for v in formats], names)
        row[1].set_title(f"formats of {best}")
    return figure


def ladder(results: Results) -> Figure | None:
    """What each format costs in quality against the model as trained, paired on the same items."""
    groups = results.groups()
    formats = _formats(results)[1:]
    if not formats:
        return None
    measures = [
        (group, name)
        for group in groups
        for name in dict.fromkeys(("kld", "test_loss", results.headline(*group), "mmlu_accuracy"))
        if results.has(results.of(*group)[-1], name)
    ]
    figure = _figure(10, 2.3 * len(measures) + 0.4)
    grid = figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    shifts = np.linspace(-0.33, 0.33, len(results.run.methods)) if len(results.run.methods) > 1 else [0.0]
    for axes, (group, name) in zip(grid, measures, strict=True):
        highest = 0.0
        for method, shift in zip(results.run.methods, shifts, strict=True):
            trained, *rungs = results.of(*group, method)
            found = [results.interval(v, name) if name == "kld" else results.compare(v, trained, name) for v in rungs]
            places, values = np.arange(len(rungs)) + shift, [f.value for f in found]
            highest = max(highest, *(f.high for f in found))
            style = {"color": _colour(results, method), "markersize": 4.5, "capsize": 2, "elinewidth": 1.1}
            axes.errorbar(places, values, yerr=np.hstack([_bars(f) for f in found]), fmt="o", **style)
        metric = metrics.metric(name)[1]
        axes.axhline(0, color="#333333", linewidth=0.8)
        if name == "kld":  # from a millionth for f16 to a hundredth for 4 bits
            axes.set_yscale("symlog", linthresh=1e-5)
            axes.set_ylim(0, max(2 * highest, 1e-4))
        unit = " (nats)" if name in ("kld", "test_loss") else ""
        axes.set_ylabel(f"{metric.label}{unit}" if name == "kld" else f"change in\n{metric.label}{unit}")
        axes.set_title(_title(f"{metric.label}, {DIRECTION[metric.better]}", *group))
        axes.set_xticks(range(len(formats)), formats)
        axes.tick_params(labelbottom=True)
        for edge in np.arange(len(formats) - 1) + 0.5:
            axes.axvline(edge, color="#cccccc", linewidth=0.6)
        axes.grid(axis="x", visible=False)
    handles = [Line2D([], [], marker="o", linestyle="", color=_colour(results, m)) for m in results.run.methods]
    figure.legend(handles, results.run.methods, loc="outside right upper", title="method")
    return figure


PICTURES: dict[str, Callable[[Results], Figure | None]] = {
    "quality_vs_speed": quality_vs_speed,
    "quality_vs_size": quality_vs_size,
    "methods": methods,
    "ladder": ladder,
    "mmlu_subjects": mmlu_subjects,
    "memory": memory,
    "training_curves": training_curves,
}


def _scatter(results: Results, cost: str, label: str, cheaper: str) -> Figure:
    groups = results.groups()
    figure, panels = _panels(groups, width=8, height=4.6)
    labels, others = [], []
    for group, axes in zip(groups, panels, strict=True):
        name, points = results.headline(*group), []
        for variant in results.of(*group):
            found, x = results.interval(variant, name), results.cost[variant][cost]
            colour, marker = _colour(results, variant.method), _marker(results, variant.format)
            axes.errorbar(x, found.value, yerr=_bars(found), color=colour, alpha=0.25, linewidth=1, zorder=2)
            axes.scatter(x, found.value, color=colour, marker=marker, s=38, linewidth=0, alpha=0.9, zorder=3)
            points.append((x, found.value))
        front = results.pareto(*group, cost, cheaper)
        xs = [results.cost[v][cost] for v in front]
        ys = [results.interval(v, name).value for v in front]
        # A step: between two points of the set, the better one must be paid for.
        axes.step(xs, ys, where="post", color="#222222", linewidth=0.9, linestyle="--", zorder=1)
        axes.scatter(xs, ys, s=110, facecolors="none", edgecolors="#222222", linewidths=1.0, zorder=4)
        metric = metrics.metric(name)[1]
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.xaxis.set_minor_formatter(lambda value, _: _short(value) if _leading(value) in (2, 5) else "")
        axes.set(xlabel=label, ylabel=f"test {metric.label} ({DIRECTION[metric.better]})")
        axes.set_title(_title("Quality against " + ("size" if cost == "size_mb" else "speed"), *group))
        axes.margins(0.08)
        _legends(results, axes)
        # Numbers, since names do not fit where the best variants crowd.
        labels.append([(x, y, str(number)) for number, (x, y) in enumerate(zip(xs, ys, strict=True), 1)])
        names = [f"{number}  {v.method} {v.format}" for number, v in enumerate(front, 1)]
        axes.text(1.03, 0, "\n".join(["Pareto set", *names]), transform=axes.transAxes, va="bottom", linespacing=1.35)
        others.append(points)
    # Last, and with the layout fixed: where a label fits depends on everything else.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, wanted, points in zip(panels, labels, others, strict=True):
        _label_points(figure, axes, wanted, points)
    return figure


def _legends(results: Results, axes: Axes) -> None:
    dots = [Line2D([], [], marker="o", linestyle="", color=_colour(results, m)) for m in results.run.methods]
    first = axes.legend(dots, results.run.methods, title="method", loc="upper left", bbox_to_anchor=(1.01, 1.03))
    axes.add_artist(first)
    formats = _formats(results)
    marks = [Line2D([], [], marker=_marker(results, f), linestyle="", color="#666666") for f in formats]
    marks.append(Line2D([], [], marker="o", linestyle="--", color="#222222", markerfacecolor="none", markersize=9))
    axes.legend(marks, [*formats, "Pareto set"], title="format", loc="upper left", bbox_to_anchor=(1.21, 1.03))


def _label_points(
    figure: Figure, axes: Axes, labels: list[tuple[float, float, str]], points: list[tuple[float, float]]
) -> None:
    """Writes each label at the first place around it where it covers no point and no other label and stays inside."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in axes.transData.transform(points)]
    thin_line: dict[str, Any] = {"arrowstyle": "-", "color": "#777777", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5}
    for x, y, text in labels:
        for dx, dy in LABEL_PLACES:
            options: dict[str, Any] = {
                "ha": "center" if dx == 0 else "left" if dx > 0 else "right",
                "va": "center",
                "fontsize": 8,
            }
            options |= {"textcoords": "offset points", "arrowprops": thin_line, "zorder": 5}
            note = axes.annotate(text, (x, y), (dx, dy), **options)
            note.update_positions(renderer)
            box = Text.get_window_extent(note, renderer)  # of the words, without the thin line
            if inside.contains(*box.min) and inside.contains(*box.max) and not any(box.overlaps(b) for b in taken):
                taken.append(box.padded(3))
                break
            note.remove()


def _memory_bars(axes: Axes, rows: list[tuple[str, list[float], str]]) -> None:
    """A bar to the median of each row's values, and a line over their range."""
    for place, (_, values, colour) in enumerate(reversed(rows)):
        axes.barh(place, np.median(values), color=colour, height=0.65)
        axes.plot([min(values), max(values)], [place, place], color="#222222", linewidth=1.2)
        axes.annotate(f" {np.median(values):,.0f}", (max(values), place), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.margins(x=0.14)
    axes.grid(axis="y", visible=False)


def _heatmap(axes: Axes, results: Results, variants: list[Variant], labels: list[str], subjects: list[str]) -> None:
    values = np.array([[results.subjects(v)[name][0] for v in variants] for name in subjects])
    axes.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if value > 0.6 else "#222222",
        )
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(subjects)), [name.replace("_", " ") for name in subjects])
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


def _formats(results: Results) -> list[str]:
    return list(dict.fromkeys(variant.format for variant in results.variants))


def _colour(results: Results, method: str) -> str:
    if method == "base":
        return BASE_COLOUR
    others = [name for name in results.run.methods if name != "base"]
    return COLOURS[others.index(method) % len(COLOURS)]


def _marker(results: Results, name: str) -> str:
    return MARKERS[_formats(results).index(name) % len(MARKERS)]


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
