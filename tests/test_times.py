"""What `make run` says before it begins: how long the steps took elsewhere, and how fast this machine is beside it."""

import itertools
import json

import pytest

from tradeoffs.repro import calibration, times

HERE, THERE = {"machine": "x", "processor": "Ours", "cores": 2}, {"machine": "x", "processor": "Theirs", "cores": 8}
SECONDS = {
    "prepare@demo": 10.0,
    "finetune@demo-demo-lora-42": 100.0,
    "finetune@demo-demo-full-42": 200.0,
    "aggregate": 20.0,
}
EVERY = list(SECONDS)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A machine that trains half as fast as that of `written`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(times, "hardware", lambda: HERE)
    monkeypatch.setattr(times, "calibrated", lambda: (20.0, "cpu"))
    monkeypatch.setattr(times.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture
def written(here):
    """Times of another machine."""
    return write(THERE)


def write(hardware):
    found = times.Times(hardware, "cpu", 40.0, SECONDS)
    times.PATH.parent.mkdir()
    times.PATH.write_text(json.dumps(found.__dict__))
    return found


def estimate(planned, every=EVERY, share=1.0):
    return times.estimate(planned, every, dict.fromkeys(planned, share))


def keep(took, expected, peaks=()):
    memory = times.Memory()
    memory.seen.update(peaks)
    times.keep(took, memory, expected)


def test_a_step_that_was_not_timed_takes_what_its_like_took_on_the_same_model_and_data(written):
    assert written.of("prepare@demo") == 10.0
    assert written.of("finetune@demo-demo-dora-42") == 150.0
    assert written.of("finetune@smollm-demo-lora-42") is None
    assert written.of("finetune@demo-support-lora-42") is None
    assert written.of("prepare@support") is None
    assert written.of("score") is None


def test_a_slower_machine_takes_longer(written):
    found = estimate(EVERY)
    assert found.seconds == {name: 2 * took for name, took in SECONDS.items()}
    first, second, third = times.announcement(found)
    assert first == "4 of 4 steps to run: prepare, 2 finetune, aggregate."
    assert second == "On this machine (Ours, 2 cores) about 11 min."
    assert "20 steps of a small network per second, 0.5 times as many" in third and "(Theirs, 8 cores: 40)" in third


@pytest.mark.parametrize(("load", "rate"), [(1e6, 20.0), (0.0, 0.72)], ids=["loaded", "slow"])
def test_a_busy_machine_is_taken_for_a_quiet_one_like_that_of_the_times(written, monkeypatch, load, rate):
    monkeypatch.setattr(times.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(times, "calibrated", lambda: (rate, "cpu"))
    found = estimate(EVERY)
    assert found.seconds == SECONDS
    _, second, third = times.announcement(found)
    assert second == "On this machine (Ours, 2 cores) about 6 min."
    assert third.startswith("The machine is busy: the estimate is that of a quiet one, ") and "Theirs" in third
    keep(dict.fromkeys(EVERY, 1.25), found)
    assert (times.read() == written) == (load > 0)  # what is slow beside nothing else may be so always


def test_what_follows_from_a_change_is_said_to_be_the_most_that_it_can_take(written):
    found = estimate(EVERY[1:])
    assert times.announcement(found)[1] == "On this machine (Ours, 2 cores) at most about 11 min."


def test_steps_that_run_side_by_side_take_a_part_of_their_time(written):
    found = estimate(EVERY, share=0.5)
    assert sum(found.seconds.values()) == sum(SECONDS.values())


def test_memory_is_that_of_the_last_run_then_of_its_like_then_unknown(here, monkeypatch):
    write(HERE)
    assert times.Memory().of("aggregate") is None
    keep({"aggregate": 5.0}, estimate(["aggregate"]), {"aggregate": 90.4, "finetune@demo-demo-lora-42": 700.0})
    memory = times.Memory()
    assert memory.of("aggregate") == 90.0
    assert memory.of("finetune@demo-demo-full-42") == 700.0
    assert memory.of("finetune@other-demo-full-42") is None
    monkeypatch.setattr(times.clock, "peak_mb", lambda step: {"aggregate": 95.0}.get(step))
    memory.learn("aggregate")
    memory.learn("score")  # which wrote no time
    assert (memory.of("aggregate"), memory.of("score"), memory.seen) == (95.0, None, {"aggregate": 95.0})
    memory.keep()  # of a run that is broken off, too
    assert times.Memory().of("aggregate") == 95.0


def test_steps_that_were_never_timed_make_it_the_least(written):
    planned = [*EVERY, "finetune@mine-demo-lora-42"]
    found = times.announcement(estimate(planned, planned))
    assert found[1] == "On this machine (Ours, 2 cores) at least 11 min; 1 of them were never timed."


def test_without_any_times_nothing_is_said_of_how_long(here):
    found = times.announcement(estimate(EVERY))
    assert found[1].startswith("How long that takes is not known: metrics/times.json has no times of them")
    assert len(found) == 2


def test_a_gpu_is_not_held_against_the_times_of_a_cpu(written, monkeypatch):
    monkeypatch.setattr(times, "calibrated", lambda: (900.0, "A GPU"))
    found = estimate(EVERY)
    assert found.seconds == {}
    assert "no times of them on A GPU" in times.announcement(found)[1]
    keep({"aggregate": 5.0}, found)
    assert times.read() == written


def test_a_file_with_the_marks_of_a_merge_counts_as_none(written):
    times.PATH.write_text("<<<<<<< HEAD\n" + times.PATH.read_text())
    assert times.read() is None


def test_what_takes_a_moment_is_not_worth_a_calibration(written, monkeypatch):
    monkeypatch.setattr(times, "calibrated", lambda: pytest.fail("calibrated"))
    found = estimate(["aggregate"])
    assert found.rate is None and found.seconds == {"aggregate": 20.0}
    assert len(times.announcement(found)) == 2


def test_steps_that_neither_train_nor_are_measured_are_not_held_against_a_training(monkeypatch):
    monkeypatch.setattr(times, "calibrated", lambda: pytest.fail("calibrated"))
    assert times.estimate(EVERY, EVERY, dict.fromkeys(EVERY, 1.0), computes=False).rate is None


def test_a_whole_run_writes_all_times_anew(written):
    keep(dict.fromkeys(EVERY, 1.25), estimate(EVERY))
    assert times.read() == times.Times(HERE, "cpu", 20.0, dict.fromkeys(sorted(EVERY), 1.2))


def test_a_part_of_a_run_adds_to_the_times_of_the_same_machine_alone(here):
    write(HERE)
    every = [*EVERY[1:], "merge@demo-demo-lora"]
    expected = estimate(["aggregate"], every)
    keep({"aggregate": 5.0, "merge@demo-demo-lora": 7.0}, expected)
    found = times.read()
    assert found.training_steps_per_second == 40.0
    assert found.seconds == {name: SECONDS[name] for name in EVERY[1:3]} | {
        "aggregate": 5.0,
        "merge@demo-demo-lora": 7.0,
    }


def test_a_part_of_a_run_leaves_the_times_of_another_machine(written):
    keep({"aggregate": 5.0}, estimate(["aggregate"]))
    assert times.read() == written


def test_a_whole_run_in_which_something_came_from_the_cache_is_none(written):
    keep(dict.fromkeys(EVERY[1:], 1.0), estimate(EVERY))
    assert times.read() == written


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "5 s"), (43, "45 s"), (92, "2 min"), (3570, "1 h 0 min"), (4000, "1 h 7 min")]
)
def test_seconds_are_said_as_one_says_them(seconds, said):
    assert times.spoken(seconds) == said


def test_the_rate_is_steps_over_the_time_that_they_took(monkeypatch):
    clock = itertools.count(0.0, 0.5)  # a step every half second
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: next(clock))
    assert calibration.rate(2.0) == 4 / 2.5
