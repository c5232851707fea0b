"""How the report writes a number: rounding hides no verdict."""

import pytest

from tradeoffs.report import formatting
from tradeoffs.results.intervals import Interval
from tradeoffs.results.verdicts import GOOD, UNDECIDED, Verdict


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


def test_that_a_difference_is_shown_to_be_one_is_a_mark_beside_the_verdict():
    assert (
        formatting.difference(Interval(0.2, 0.1, 0.3, 0.05), "cosine_to_base") == "+0.200 [+0.100, +0.300], excludes 0"
    )
    assert formatting.difference(Interval(0.2, -0.1, 0.3, 0.1), "cosine_to_base") == "+0.200 [-0.100, +0.300]"
    small, open_ = Interval(-0.01, -0.015, -0.005, 0.002), Interval(-0.01, -0.03, 0.01, 0.01)
    assert formatting.verdict(Verdict(GOOD, small), "test_f1") == "-0.010 [-0.015, -0.005], good enough, excludes 0"
    written = formatting.verdict(Verdict(UNDECIDED, open_, items=1300), "test_f1")
    assert written == "-0.010 [-0.030, +0.010], undecided (1,300 items would decide)"
