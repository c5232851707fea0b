"""The pictures of the report, by matplotlib: a function each, and their list. A new one is a line in PICTURES."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tradeoffs.common import files
from tradeoffs.report.pictures import bars, curves, heatmaps, methods, scatter, topics
from tradeoffs.report.pictures.style import STYLE
from tradeoffs.results.results import Results

# None where there is no data for one.
PICTURES: dict[str, Callable[[Results], Figure | None]] = {
    "bits_per_byte": heatmaps.bits_per_byte,
    "quality_vs_speed": scatter.quality_vs_speed,
    "quality_vs_size": scatter.quality_vs_size,
    "methods": methods.methods,
    "throughput": curves.throughput,
    "ladder": bars.ladder,
    "mmlu_subjects": heatmaps.mmlu_subjects,
    "topics": topics.topics,
    "memory": bars.memory,
    "training_curves": curves.training_curves,
    "preference_curves": curves.preference_curves,
    "forgetting": scatter.forgetting,
    "lengths": curves.lengths,
}


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
