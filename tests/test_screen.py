"""What a run says of how long is left, and of what failed."""

import pytest

from tradeoffs.repro.screen import Screen

STEPS = ["prepare@a", "merge@a-b-x", "merge@a-b-y", "merge@a-b-z", "score"]


@pytest.fixture
def said(capsys):
    """What was said since it was last asked: lines, without those of commands and empty ones."""

    def lines() -> list[str]:
        return [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(">")]

    return lines


def run(screen: Screen, name: str, took: float) -> None:
    screen.starts(name, ["true"], None)
    screen.ends(name, took)


def test_what_is_left_follows_the_pace_of_what_was_known(said):
    screen = Screen(STEPS, dict.fromkeys(STEPS, 60.0), dict.fromkeys(STEPS, 1.0))
    for name in STEPS[:2]:
        run(screen, name, 240.0)
    screen.starts("merge@a-b-y", ["true"], None)
    found = said()
    assert found[0] == "[1/5] prepare@a, about 5 min left"
    assert found[2] == "[3/5] merge@a-b-y, about 9 min left"  # three minutes, at (480 + 60) / (120 + 60)


def test_a_step_that_was_never_timed_takes_what_others_of_its_stage_took(said):
    screen = Screen(STEPS, {"prepare@a": 60.0, "score": 60.0}, dict.fromkeys(STEPS, 0.5))
    run(screen, "prepare@a", 120.0)  # half of which counts
    run(screen, "merge@a-b-x", 480.0)
    screen.starts("merge@a-b-y", ["true"], None)
    assert said() == [
        "[1/5] prepare@a, at least 2 min left",
        "[2/5] merge@a-b-x, at least 60 s left",
        "[3/5] merge@a-b-y, about 9 min left",
    ]


def test_what_is_left_out_is_no_longer_waited_for(said, capsys):
    screen = Screen(STEPS, dict.fromkeys(STEPS, 60.0), dict.fromkeys(STEPS, 1.0))
    screen.fails("merge@a-b-x", "failed", {"score"}, [])
    assert capsys.readouterr().err == "ERROR: failed\nleft out, since it depends on that: score\n"
    screen.starts("prepare@a", ["true"], None)
    assert said() == ["[1/5] prepare@a, about 3 min left"]
