"""A benchmark's result says what was aimed at, a disagreement is an error, and no file names this machine's folders."""

import sys

import pytest

from benchmarks import assets, common
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_a_missed_speed_is_printed_and_no_error(results, capsys):
    common.write("a", 2.0, 3.0, 1.0, at_least={"ratio": 2, "decode_ratio": 0.5, "agreement": 1}, decode_ratio=0.6)
    assert "a: missed: ratio is 1.5, the target at least 2\n" in capsys.readouterr().out
    found = files.read_json(results / "a.json")
    assert found["target"] == {"ratio": 2, "decode_ratio": 0.5, "agreement": 1}


@pytest.mark.parametrize("off_by", [0.02, -0.02])
def test_a_disagreement_is_an_error_once_the_result_is_written(results, off_by):
    with pytest.raises(UserError, match=r"^a: off_by is -?0\.02, the target at most 0\.01; results/a\.json"):
        common.write("a", 1.0, 1.0, {"off_by": off_by}, at_most={"off_by": 0.01})
    assert files.read_json(results / "a.json")["agreement"] == {"off_by": off_by}


def test_what_is_exactly_as_aimed_at_is_not_missed(capsys):
    common.write("a", 1.0, 1.0, 1.0, at_least={"agreement": 1, "ratio": 1})
    assert "missed" not in capsys.readouterr().out


def test_a_command_is_shown_without_the_machines_folders(tmp_path):
    command = [sys.executable, "-m", "benchmarks.zoo", tmp_path / ".scratch/x", assets.FOLDER / "data"]
    assert common.shown(command) == "python -m benchmarks.zoo .scratch/x $TRADEOFFS_ASSETS/data"
