"""How the report writes a number: rounding hides no verdict."""

import pytest

from tradeoffs.report import formatting
from tradeoffs.results.intervals import Interval


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.01, 0.03, "+0.020 [+0.010, +0.030]"),
        (0.00004, 0.0012, "+0.00062 [+0.00004, +0.00120]"),
        (-0.0012, -0.00004, "-0.00062 [-0.00120, -0.00004]"),
        (-0.0001, 0.0003, "+0.0001 [-0.0001, +0.0003]"),
        (-0.0001, 0.03, "+0.015 [+0.000, +0.030]"),
        (1e-8, 3e-8, "+2.0e-08 [+1.0e-08, +3.0e-08]"),
        (-1e-8, 3e-8, "+0.000 [+0.000, +0.000]"),
        (0.0, 0.0, "+0.000 [+0.000, +0.000]"),
    ],
)
def test_rounding_never_hides_that_an_interval_excludes_0(low, high, text):
    assert formatting.signed(Interval((low + high) / 2, low, high, 0.0), "test_f1") == text


def test_a_metric_without_a_better_end_has_no_winner():
    assert formatting.verdict(Interval(0.2, 0.1, 0.3, 0.05), "cosine_to_base").endswith("differs")
    assert formatting.verdict(Interval(0.2, -0.1, 0.3, 0.1), "cosine_to_base").endswith("tie")
