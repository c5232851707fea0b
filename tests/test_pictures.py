"""Names beside points: each can be read as its own point's."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from tradeoffs.report.pictures import labels


def test_labels_of_points_that_nearly_coincide_lie_each_on_its_own_side():
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    points = [(0.50, 0.500, "one", "#000000"), (0.50, 0.512, "two", "#111111"), (0.1, 0.1, "far", "#222222")]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels.label_last(figure, [(axes, points, [(x, y) for x, y, _, _ in points])])
    notes = {note.get_text(): note for note in axes.texts}
    assert notes["one"].xyann[1] <= 0 <= notes["two"].xyann[1], "the upper point's label is not below the lower one's"
    assert notes["one"].arrow_patch.get_edgecolor() != notes["two"].arrow_patch.get_edgecolor()


@pytest.mark.parametrize(
    ("ends", "crosses"),
    [(((0, 0), (2, 2), (0, 2), (2, 0)), True), (((0, 0), (2, 2), (0, 1), (0, 2)), False)],
)
def test_lines_that_cross_are_seen(ends, crosses):
    assert labels.cross(*(np.array(end) for end in ends)) is crosses
