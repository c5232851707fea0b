"""CSV files hold what they were given, and nothing that a spreadsheet would run."""

import csv
import json
from pathlib import Path

import fake_results
import pytest

from stages import score
from tradeoffs import metrics
from tradeoffs.params.tasks import SPLITS
from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare.mmlu_files import ENDS, TAKEN
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


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """Of metrics/summary.csv, of a run with everything that makes one: two seeds, a GPU's clock, multiple choice."""
    folder, without = tmp_path_factory.mktemp("columns"), fake_results.seconds

    def seconds(variant):
        found = {name: json.loads(text) for name, text in without(variant).items()}
        found["mmlu_seconds"]["gpu"] = 1.0
        return {name: json.dumps(one) for name, one in found.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_results, "seconds", seconds)
        patch.chdir(folder)
        lists = {"methods": ["base", "lora"], "precisions": ["bf16"], "quants": ["q8_0"], "seeds": [42, 43]}
        results = fake_results.finished(folder, stages=[score], **lists)
        return {name for row in tables.summary(results) for name in row}


def test_names_that_no_subject_may_have_are_those_that_the_tables_write(columns):
    """Else a subject's accuracy could stand in the column of another number, or one be refused for nothing."""
    mine = {name.removeprefix("mmlu_") for name in columns if name.startswith("mmlu_")}
    names = (*fake_results.SUBJECTS, *TAKEN)
    written = {(name, end) for name in names for end in ENDS if f"{name}{end}" in mine}
    assert mine == {f"{name}{end}" for name, end in written}
    assert {name for name, _ in written} == set(names)
    assert {end for _, end in written} == set(ENDS)


def test_names_that_no_task_may_have_are_what_names_of_columns_begin_with(columns):
    first = {name.partition("_")[0] for name in columns}
    assert set(SPLITS) <= first
    full = {name for stands in ("quality", "summary") for name in metrics.names(stands)}
    assert {name.partition("_")[0] for name in full - {metric.name for metric in metrics.every()}} <= set(SPLITS)
