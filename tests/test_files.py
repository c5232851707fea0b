"""Outputs are whole or absent, and their numbers finite."""

import hashlib
import json
from pathlib import Path

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


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A workspace with two outputs, and a `dvc` that names its cache; what is stored there is kept by DVC."""
    monkeypatch.chdir(tmp_path)
    files.write_text("bin/dvc", f"#!/bin/sh\necho {tmp_path / 'cache'}\n")
    (tmp_path / "bin/dvc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    files.write_text("models/old/weights", "a")
    files.write_text("models/old/config", "b")
    files.write_text("models/new", "c")

    def store(text):
        digest = hashlib.md5(text.encode()).hexdigest()
        files.write_text(tmp_path / "cache/files/md5" / digest[:2] / digest[2:], text)

    return store


def test_leftovers_go_if_dvc_keeps_all_of_their_files(cache, tmp_path, capsys):
    wanted = [Path("models/new")]
    cache("a")
    files.remove_leftovers(wanted, only_kept_by_dvc=True)
    assert Path("models/old/weights").exists() and "stays" in capsys.readouterr().out
    cache("b")
    files.remove_leftovers(wanted, only_kept_by_dvc=True)
    assert not Path("models/old").exists() and Path("models/new").exists()


def test_without_dvc_nothing_is_removed_that_nobody_is_known_to_keep(cache, tmp_path):
    (tmp_path / "bin/dvc").unlink()
    files.remove_leftovers([Path("models/new")], only_kept_by_dvc=True)
    assert Path("models/old").exists()
    files.remove_leftovers([Path("models/new")])
    assert not Path("models/old").exists()


def test_nothing_is_not_kept_by_dvc(cache):
    Path("models/old/weights").unlink()
    Path("models/old/config").unlink()
    files.remove_leftovers([Path("models/new")], only_kept_by_dvc=True)
    assert Path("models/old").exists()


@pytest.mark.parametrize("only_kept_by_dvc", [True, False])
def test_of_a_link_that_is_left_over_the_link_alone_goes(cache, tmp_path, only_kept_by_dvc):
    cache("a")
    cache("b")
    Path("models/old").rename("mine")
    Path("models/old").symlink_to(tmp_path / "mine")
    files.remove_leftovers([Path("models/new")], only_kept_by_dvc)
    assert not Path("models/old").is_symlink()
    assert sorted(path.name for path in Path("mine").iterdir()) == ["config", "weights"]


def test_what_is_not_named_as_an_output_stays(cache):
    files.write_text("models/43", "d")
    files.remove_leftovers([Path("models/new")], named=str.isdigit)
    assert Path("models/old").exists() and not Path("models/43").exists()
