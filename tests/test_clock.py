"""The table of where a run's time went adds up."""

import json
import time

import pytest

from tradeoffs.plumbing import clock


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "LOG", tmp_path / "scratch" / "times.jsonl")
    return clock.LOG


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_every_second_of_a_stage_is_startup_loading_or_work(log):
    before = clock.seconds_since_start()
    with clock.stage("merge"):
        with clock.phase("startup"):
            spin(0.05)
        with clock.loading():
            spin(0.05)
        spin(0.05)
    row = json.loads(log.read_text())
    assert row["stage"] == "merge"
    assert row["startup"] >= before + 0.03
    assert row["loading"] >= 0.05 and row["work"] >= 0.03
    # Clock ticks of 10 ms on either side.
    assert row["startup"] + row["loading"] + row["work"] == pytest.approx(clock.seconds_since_start(), abs=0.05)


def test_a_stage_that_fails_is_not_in_the_table(log):
    with pytest.raises(ValueError), clock.stage("merge"):
        raise ValueError
    assert not log.exists()


def test_the_table_sums_the_cells_of_a_stage_and_names_what_dvc_took(log):
    log.parent.mkdir()
    rows = [
        {"stage": "merge", "startup": 1.0, "loading": 2.0, "work": 3.0, "peak_mb": 100},
        {"stage": "merge", "startup": 1.0, "loading": 2.0, "work": 3.0, "peak_mb": 300},
        {"stage": "convert", "startup": 0.5, "loading": 0.0, "work": 0.5, "peak_mb": 50},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = clock.table(wall=20.0).splitlines()
    assert lines[1].split() == ["merge", "2", "2.0s", "4.0s", "6.0s", "12.0s", "300"]
    assert lines[3].split() == ["all", "stages", "3", "2.5s", "4.0s", "6.5s", "13.0s", "300"]
    assert lines[4].split() == ["DVC", "itself", "7.0s"]
    assert lines[5] == "whole run 20 s; start-up is 12% of it"


def test_an_empty_log_says_that_nothing_ran(log):
    assert "nothing ran" in clock.table()
