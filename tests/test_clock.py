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


def test_the_table_sums_the_cells_of_a_stage_and_says_how_busy_the_cores_were(log, monkeypatch):
    monkeypatch.setattr(clock.cores, "usable", lambda: 2)
    write(log)
    lines = clock.table(wall=8.0, dvc=1.5).splitlines()
    assert lines[1].split() == ["merge", "2", "2.0s", "4.0s", "6.0s", "12.0s", "300"]
    assert lines[3].split() == ["all", "stages", "3", "2.5s", "4.0s", "6.5s", "13.0s", "300"]
    assert lines[4].split() == ["DVC", "itself", "1.5s"]
    assert lines[5] == "whole run 8 s, with 75% of 2 cores busy"
    assert lines[6] == "start-up is 19% of the time of stages"


def test_the_most_memory_of_a_step_is_that_of_its_last_run(log):
    assert clock.peak_mb("merge@a") is None
    write(log)
    assert (clock.peak_mb("merge@a"), clock.peak_mb("convert@a"), clock.peak_mb("score")) == (300, 50, None)


def write(log):
    log.parent.mkdir()
    rows = [
        {"stage": "merge", "step": "merge@a", "startup": 1.0, "loading": 2.0, "work": 3.0, "cpu": 5.0, "peak_mb": 100},
        {"stage": "merge", "step": "merge@a", "startup": 1.0, "loading": 2.0, "work": 3.0, "cpu": 6.0, "peak_mb": 300},
        {"stage": "convert", "step": "convert@a", "startup": 0.5, "loading": 0, "work": 0.5, "cpu": 1.0, "peak_mb": 50},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_empty_log_says_that_nothing_ran(log):
    assert "nothing ran" in clock.table()
