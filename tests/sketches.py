"""Reports whose pictures are made and not painted, for tests that hold nothing of how a picture looks.

Four fifths of the time of a report goes to matplotlib, which lays out and paints every axis. What the project itself
does for a picture is done all the same, but for the search of places for labels: a picture that cannot be made fails,
the report shows those that there are, and each is a file. How they look when they are painted: tests/test_pictures.py,
and every run that is not made up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from tradeoffs.report.pictures import scatter


@contextmanager
def sketched() -> Iterator[None]:
    """Every picture that is written in here is one white dot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda _, target, **__: Image.new("L", (1, 1), 255).save(Path(target), "png"))
        patch.setattr(scatter, "label_last", lambda *_: None)
        yield
