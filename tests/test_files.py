"""Outputs are whole or absent, and their numbers finite."""

import json

import pyarrow as pa
import pytest

from tradeoffs.common import files


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    with pytest.raises(KeyError), files.new_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]


def test_a_new_folder_replaces_the_old_one(tmp_path):
    for name in ("first", "second"):
        with files.new_folder(tmp_path / "out") as folder:
            (folder / name).write_text("x")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "out.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyError), files.new_file(path) as target:
        target.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_six_significant_digits(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": [1 / 3, 1234567.89, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [0.333333, 1234570.0, 2]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(tmp_path, value):
    with pytest.raises(ValueError, match="not a finite number"):
        files.write_json(tmp_path / "a.json", {"x": {"y": value}})
    assert list(tmp_path.iterdir()) == []


def test_a_table_comes_back_with_nulls_for_what_was_not_said(tmp_path):
    schema = pa.schema([("a", pa.int32()), ("b", pa.string())])
    files.write_table(tmp_path / "t.parquet", [{"a": 1}, {"b": "x"}], schema)
    assert files.read_table(tmp_path / "t.parquet") == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_run_info_is_the_same_twice():
    assert files.run_info(seed=1) == files.run_info(seed=1)
    assert files.run_info(seed=1)["versions"]["transformers"]
