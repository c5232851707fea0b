"""What is measured runs alone; what is not fills the cores, as far as memory and GPU allow."""

import pytest

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro.slots import Needs, Slots

SMALL, LARGE = Needs(memory_mb=100.0), Needs(memory_mb=700.0)
MEASURED, UNKNOWN, ON_GPU = Needs(exclusive=True, memory_mb=100.0), Needs(), Needs(gpu=True, memory_mb=100.0)


@pytest.fixture
def slots():
    return Slots(jobs=3, has_gpu=True, memory_mb=1000.0)


@pytest.mark.parametrize("needs", [SMALL, MEASURED, UNKNOWN, ON_GPU, Needs(memory_mb=1e9)])
def test_anything_can_start_where_nothing_runs(slots, needs):
    assert slots.fits(needs, [])


@pytest.mark.parametrize("alone", [MEASURED, UNKNOWN])
def test_nothing_runs_beside_what_is_measured_or_of_unknown_size(slots, alone):
    assert slots.alone(alone)
    assert not slots.fits(SMALL, [alone])
    assert not slots.fits(alone, [SMALL])


def test_no_more_run_than_there_are_jobs_and_memory(slots):
    assert slots.fits(SMALL, [SMALL, SMALL])
    assert not slots.fits(SMALL, [SMALL, SMALL, SMALL])
    assert slots.fits(LARGE, [SMALL, SMALL])
    assert not slots.fits(LARGE, [LARGE])


def test_one_at_a_time_uses_a_gpu(slots):
    assert not slots.fits(ON_GPU, [ON_GPU])
    assert slots.fits(ON_GPU, [SMALL]) and slots.fits(SMALL, [ON_GPU])
    assert Slots(jobs=3, has_gpu=False, memory_mb=1000.0).fits(ON_GPU, [ON_GPU])


def test_with_one_job_everything_runs_alone():
    assert Slots(jobs=1, has_gpu=False).alone(SMALL)


@pytest.mark.parametrize("meta", [{"exclusiv": True}, {"gpu": 1}, {"exclusive": "yes"}])
def test_what_meta_cannot_mean_is_said(meta):
    with pytest.raises(UserError, match=r"dvc.yaml: stages.merge.meta.\w+: expected exclusive or gpu"):
        Needs.of("merge@demo-demo-lora", meta, None)
