"""A run that was killed at a random moment is made whole by starting it again; `benchmarks.kills` kills fifty."""

import pytest

from benchmarks import kills


@pytest.mark.slow
def test_after_kills_at_random_moments_another_run_leaves_what_an_undisturbed_one_leaves(tmp_path):
    found = kills.tried(tmp_path, 5, kills.METHODS[:2])
    assert [(kill.runs, kill.differ, kill.left) for kill in found.kills] == [(1, [], 0)] * 5
    assert len({kill.of for kill in found.kills}) > 1  # the run and steps
    assert not found.damaged
