"""Names of points in a picture, each where it can be read as that point's alone."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

Label = tuple[float, float, str, str]  # x and y of a point, the words and the colour of its label
Point = tuple[float, float]

# Offsets of a label from its point, in points, nearest first; straight up, down and aside are the error bars.
PLACES = [(dx, dy) for far in range(14, 120, 8) for dx in (far, -far, 0) for dy in (far, -far, 0) if dx or dy]
NEIGHBOUR = 120  # pixels: labels of points that are nearer than this could be taken for each other's


def label_last(figure: Figure, labels: list[tuple[Axes, list[Label], list[Point]]]) -> None:
    """Labels points when all else is drawn and the layout is fixed, since where a label fits depends on both.

    Per panel: the labels, and the points (of all, labelled or not) that they must not cover.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, wanted, taken in labels:
        _label_points(figure, axes, wanted, taken)


def _label_points(figure: Figure, axes: Axes, labels: list[Label], points: list[Point]) -> None:
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
        for (dx, dy), strict in [(place, strict) for strict in (True, False) for place in PLACES]:
            end = own + np.array([dx, dy]) * figure.dpi / 72
            crossed = any(cross(own, end, *line) for line in lines)
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


def cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether the segments ab and cd cross, each (2,)."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
