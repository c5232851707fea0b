"""CSV files hold what they were given, and nothing that a spreadsheet would run."""

import csv
from pathlib import Path

import pytest

from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import tables


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://x","y")',
        "+1+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        " \t=1",
        "\r\n=1",
        "＝1",
        "- a list",
        "\t=1",
        "\tx",
    ],
)
def test_a_text_that_a_spreadsheet_would_run_has_a_quote_before_it(tmp_path, text):
    tables.write_csv(tmp_path / "a.csv", [{"text": text}])
    assert read(tmp_path / "a.csv")[0]["text"] == "'" + text.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a;=cmd|' /C calc'!A0", "a;'=cmd|' /C calc'!A0"),  # where cells are parted by semicolons
        ('a\t"@SUM(A1)', "a\t'\"@SUM(A1)"),
        ("two\n- of a list\n-5", "two\n- of a list\n-5"),
        ("nul\0 \x1b[2J \ud800", r"nul\x00 \x1b[2J \ud800"),
    ],
)
def test_what_other_spreadsheets_would_run_and_what_a_terminal_would_obey_is_written_out(tmp_path, text, written):
    tables.write_csv(tmp_path / "a.csv", [{"text": text}])
    assert read(tmp_path / "a.csv")[0]["text"] == written


def test_a_columns_name_is_no_formula_either(tmp_path):
    tables.write_csv(tmp_path / "a.csv", [{"=1": -0.05}])
    assert (tmp_path / "a.csv").read_text() == "'=1\n-0.05\n"


@pytest.mark.parametrize(
    "value", ["a = b", "it's -5", "-5", "+1.5e-3", "-1,234.5", "", "two\nlines", 'say "x", so', -5, -0.5]
)
def test_every_other_value_is_as_it_was(tmp_path, value):
    tables.write_csv(tmp_path / "a.csv", [{"value": value, "last": "x"}])
    assert read(tmp_path / "a.csv") == [{"value": str(value), "last": "x"}]


def test_no_end_of_a_line_in_a_text_ends_the_row(tmp_path):
    tables.write_csv(tmp_path / "a.csv", [{"text": "one\rtwo\r\nthree"}, {"text": "four"}])
    assert [row["text"] for row in read(tmp_path / "a.csv")] == ["one\ntwo\nthree", "four"]


def test_columns_come_first_and_stand_there_without_any_row(tmp_path):
    tables.write_csv(tmp_path / "a.csv", [], ["x", "y"])
    assert (tmp_path / "a.csv").read_text() == "x,y\n"
    tables.write_csv(tmp_path / "a.csv", [{"z": 1, "y": 2}, {"x": 3}], ["x", "y"])
    assert (tmp_path / "a.csv").read_text() == "x,y,z\n,2,1\n3,,\n"


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", Path("/dev/null")):
        with pytest.raises(UserError, match="is there and is no file"):
            tables.write_csv(path, [{"x": 1}])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        tables.write_csv(tmp_path / "file/a.csv", [{"x": 1}])
