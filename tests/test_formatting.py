"""How the report writes a number: rounding hides no verdict."""

from types import SimpleNamespace

import pytest

from tradeoffs.common.cells import Variant
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
        (0.1, 0.25, "+0.175 [+0.100, +0.250]"),
        (-0.4, 1.8, "+0.7 [-0.4, +1.8]"),
        (-0.04, 1.8, "+0.88 [-0.04, +1.80]"),
        (-1.8, 0.04, "-0.88 [-1.80, +0.04]"),
        (3.0, 450.0, "+226 [+3, +450]"),
    ],
)
def test_rounding_never_hides_that_an_interval_excludes_0(low, high, text):
    assert formatting.signed(Interval((low + high) / 2, low, high, 0.0), "test_f1") == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a_b x86_64", "a_b x86_64"),
        ("_a_ *b* [c](d) `e` ~f~ $g$ \\", r"\_a\_ \*b\* \[c\](d) \`e\` \~f\~ \$g\$ \\"),
        ("<b> & | c\r\nd\n", "&lt;b&gt; &amp; &#124; c<br>d"),
        ("https://x.y www.x.y", r"https\://x.y www\.x.y"),
        ("\x1b[31m\0", r"\\x1b\[31m\\x00"),
        ("# a\n- b\n-5 c", r"\# a<br>\- b<br>-5 c"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "Intel(R) Xeon(R) CPU @ 2.20GHz"),
    ],
)
def test_any_text_is_written_so_that_markdown_shows_it(text, written):
    assert formatting.escaped(text) == written


@pytest.mark.parametrize(("text", "written"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("a``\n`b", "``` a``\\n`b ```")])
def test_any_text_is_written_as_code(text, written):
    assert formatting.code(text) == written


def test_that_a_difference_is_shown_to_be_one_is_a_mark_beside_the_verdict():
    shown = formatting.difference(Interval(0.2, 0.1, 0.3, 0.05), "cosine_to_base")
    assert shown == "+0.200 [+0.100, +0.300], excludes 0"
    assert formatting.difference(Interval(0.2, -0.1, 0.3, 0.1), "cosine_to_base") == "+0.200 [-0.100, +0.300]"
    small, open_ = Interval(-0.01, -0.015, -0.005, 0.002), Interval(-0.01, -0.03, 0.01, 0.01)
    assert formatting.verdict(Verdict(GOOD, small), "test_f1") == "-0.010 [-0.015, -0.005], good enough, excludes 0"
    written = formatting.verdict(Verdict(UNDECIDED, open_, items=1300), "test_f1")
    assert written == "-0.010 [-0.030, +0.010], undecided (1,300 items would decide)"


@pytest.mark.parametrize(
    ("low", "value", "high", "text"),
    [
        (635.15, 792.56, 973.26, "790 [640, 970]"),
        (34687.88, 38274.98, 41855.04, "38,300 [34,700, 41,900]"),
        (1.55, 1.59, 1.63, "1.59 [1.55, 1.63]"),
        (6.454, 6.675, 6.881, "6.67 [6.45, 6.88]"),
    ],
)
def test_digits_that_a_wide_interval_makes_meaningless_are_left_out(low, value, high, text):
    assert formatting.interval_of(Interval(value, low, high, 0.0), "test_perplexity") == text


def test_a_metric_has_no_more_decimals_than_it_says():
    assert formatting.interval_of(Interval(0.98765, 0.98761, 0.98769, 0.0), "test_f1") == "0.988 [0.988, 0.988]"


@pytest.mark.parametrize(
    ("low", "value", "high", "text"),
    [(0.39, 0.42, 0.45, "0.420 [0.390, 0.450]"), (0.31, 0.42, 0.53, "0.420 [0.310, 0.530]")],
)
def test_values_of_one_metric_stand_below_each_other(low, value, high, text):
    assert formatting.interval_of(Interval(value, low, high, 0.0), "test_f1") == text


VARIANT = Variant("demo", "demo", "lora", "q4_0")


@pytest.mark.parametrize(
    ("value", "low", "high", "alone", "with_bounds"),
    [
        (6867.4, 6688.2, 6984.1, "6,870", "6,870 [6,690, 6,980]"),
        (513.2, 402.8, 631.9, "510", "510 [400, 630]"),
        (62.04, 59.87, 64.21, "62.0", "62.0 [59.9, 64.2]"),
        (0.0323, 0.0301, 0.0352, "0.0323", "0.0323 [0.0301, 0.0352]"),
        (14.43, 14.43, 14.43, "14.4", "14.4"),
        (5.774, None, None, "5.77", "5.77"),
        (None, None, None, "", ""),
    ],
)
def test_a_cost_has_three_digits_or_what_its_interval_warrants(value, low, high, alone, with_bounds):
    numbers = {} if value is None else {"load_seconds": value}
    bounds = {} if low is None else {"load_seconds": Interval(value, low, high, 0.0)}
    results = SimpleNamespace(cost={VARIANT: numbers}, costs=SimpleNamespace(intervals={VARIANT: bounds}))
    assert formatting.cost_of(results, VARIANT, "load_seconds") == alone
    assert formatting.cost_of(results, VARIANT, "load_seconds", bounds=True) == with_bounds
