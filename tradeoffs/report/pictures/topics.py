"""Multiple choice by topic as grouped bars: models side by side; where they ran, and in 4 bits, as panels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.report.pictures.style import BASE_COLOUR, COLOURS, colour_of, drawn, error_bar, new_figure, number
from tradeoffs.results import ranking
from tradeoffs.results.results import Results

FOUR_BITS = re.compile(r"nf4|fp4|i?q4_.*")  # formats that are in 4 bits
OTHER_BITS = re.compile(r"int8|i?q\d_.*")  # other quantised ones, which plots/mmlu_subjects.png has
ALL = ""  # topics together; no topic has this name
GUESSED = 0.25
WIDTH = 0.78  # of a topic, that its bars take


@dataclass(frozen=True)
class Series:
    """One of the bars of each topic: a model with its method, in each setting that it was asked in."""

    name: str
    colour: str
    variants: Mapping[str, Variant]  # by setting


def topics(results: Results) -> Figure | None:
    """Accuracy by topic, and seconds where they were measured, a panel for each setting; of each data set."""
    asked = {dataset: _series(results, dataset) for dataset in results.run.datasets}
    shown = {dataset: some for dataset, some in asked.items() if some}
    if not shown:
        return None
    rows = [(dataset, what) for dataset, some in shown.items() for what in _whats(results, some)]
    across = max(len(_settings(some)) for some in shown.values())
    heights = [_height(results, shown[dataset], what) for dataset, what in rows]
    figure = new_figure(
        1.6 + max((2.7 if across < 3 else 2.0) * across, 4),
        sum(heights) + 0.4 + 0.2 * max(map(len, shown.values())) / 3,
    )
    grid = figure.subplots(len(rows), across, squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights})
    for (dataset, what), line in zip(rows, grid, strict=True):
        several = f", {drawn(dataset)}" if len(shown) > 1 else ""
        _line(results, line, shown[dataset], what, several)
    named = {one.name: one.colour for some in shown.values() for one in some}
    figure.legend([Patch(color=colour) for colour in named.values()], named, loc="outside upper center", ncols=3)
    return figure


def _series(results: Results, dataset: str) -> list[Series]:
    """Of several models each with its best method by the headline metric; of one the untouched base and its best."""
    pairs = [Pair(model, dataset) for model in results.run.models]
    pairs = [pair for pair in pairs if results.of(pair) and results.subjects(results.of(pair)[0])]
    found = []
    for pair in pairs:
        best = next(v for v in ranking.ranked(results, pair) if v.format == TRAINED)
        if len(results.run.models) > 1:
            colour = COLOURS[results.run.models.index(pair.model) % len(COLOURS)]
            name = pair.model if best.method == "base" else f"{pair.model}, {best.method}"
            found.append(Series(name, colour, _by_setting(results, best)))
            continue
        base = results.untouched(pair)
        if base is not None and base != best:
            found.append(Series("base", BASE_COLOUR, _by_setting(results, base)))
        found.append(Series(best.method, colour_of(results, best.method), _by_setting(results, best)))
    return found


def _by_setting(results: Results, trained: Variant) -> dict[str, Variant]:
    """Of each setting (a GPU or the CPU, unquantised or in 4 bits) a method's first format, in the ladder's order."""
    found: dict[str, Variant] = {}
    for variant in results.of(trained.pair, trained.method):
        where = "CPU" if results.facts[variant]["device"] == "cpu" else "GPU"
        if FOUR_BITS.fullmatch(variant.format):
            found.setdefault(f"{where}, 4 bits", variant)
        elif not OTHER_BITS.fullmatch(variant.format):
            found.setdefault(where, variant)
    return found


def _settings(some: Sequence[Series]) -> list[str]:
    """Unquantised ones first, and each of them on a GPU first."""
    every = {setting for one in some for setting in one.variants}
    return [setting for bits in ("", ", 4 bits") for where in ("GPU", "CPU") if (setting := where + bits) in every]


def _whats(results: Results, some: Sequence[Series]) -> list[str]:
    timed = any(results.subject_seconds[v] for one in some for v in one.variants.values())
    return ["accuracy", "seconds"] if timed else ["accuracy"]


def _height(results: Results, some: Sequence[Series], what: str) -> float:
    count = len(_names(results, some)) + (what == "accuracy")
    return count * (0.1 * len(some) + 0.1) + 0.75


def _names(results: Results, some: Sequence[Series]) -> list[str]:
    """The topics that any of them was asked about."""
    return list(dict.fromkeys(name for one in some for v in one.variants.values() for name in results.subjects(v)))


def _line(results: Results, line: Sequence[Axes], some: Sequence[Series], what: str, dataset: str) -> None:
    """A panel for each setting, accuracy or seconds."""
    topics, settings = _names(results, some), _settings(some)
    names = [ALL, *topics] if what == "accuracy" else topics
    for axes, setting in zip(line, settings, strict=False):
        formats = dict.fromkeys(one.variants[setting].format for one in some if setting in one.variants)
        for place, one in enumerate(some):
            if setting in one.variants:
                shift = WIDTH * ((len(some) - 1) / 2 - place) / len(some)
                _bars(axes, results, one, setting, names, shift, WIDTH / len(some))
        axes.set_title(f"{setting}: {', '.join(formats)}{dataset}")
        axes.set_xlabel("right (guessing: dotted)" if what == "accuracy" else "seconds of the topic's questions")
        if what == "accuracy":
            axes.axvline(GUESSED, color="#555555", linewidth=0.8, linestyle=":")
            axes.set_xlim(0, 1)
        else:
            axes.margins(x=0.22)
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", visible=False)
    for axes in line[len(settings) :]:
        axes.set_axis_off()
    labels = ["all" if name == ALL else drawn(name.replace("_", " ")) for name in names]
    line[0].set_yticks(range(len(names))[::-1], labels)
    line[0].set_ylim(-0.6, len(names) - 0.4)


def _bars(
    axes: Axes, results: Results, one: Series, setting: str, names: Sequence[str], shift: float, height: float
) -> None:
    """The bars of one series: accuracies with their intervals, or seconds with the number at their ends."""
    variant = one.variants[setting]
    asked, took = results.subjects(variant), results.subject_seconds[variant]
    for place, name in zip(range(len(names))[::-1], names, strict=True):
        at = place + shift
        if names[0] == ALL:
            found = results.interval(variant, "mmlu_accuracy") if name == ALL else asked[name][0]
            axes.barh(at, found.value, height=height, color=one.colour)
            axes.errorbar(found.value, at, xerr=error_bar(found), color="#222222", elinewidth=0.7, fmt="none")
        elif name in took:
            seconds = took[name]["wall"]
            axes.barh(at, seconds, height=height, color=one.colour)
            axes.annotate(f" {number(seconds)}", (seconds, at), va="center", fontsize=6.5, in_layout=False)
