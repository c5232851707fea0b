"""What is measured runs alone; what is not fills the cores, as far as memory and GPU allow."""

from types import SimpleNamespace

import pytest

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import slots as rules
from tradeoffs.repro.slots import Needs, Slots

SMALL, LARGE = Needs(memory_mb=100.0), Needs(memory_mb=700.0)
MEASURED, UNKNOWN, ON_GPU = Needs(exclusive=True, memory_mb=100.0), Needs(), Needs(gpu=True, memory_mb=100.0)


@pytest.fixture
def slots():
    return Slots(jobs=3, gpu=True, memory_mb=1000.0)


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
    assert Slots(jobs=3, gpu=False, memory_mb=1000.0).fits(ON_GPU, [ON_GPU])


def test_with_one_job_everything_runs_alone():
    assert Slots(jobs=1, gpu=False).alone(SMALL)


def test_a_step_gets_its_share_of_the_cores_among_those_that_can_run_beside_it(slots, monkeypatch):
    monkeypatch.setattr(rules.cores, "usable", lambda: 12)
    assert slots.threads(SMALL, [], []) == 12
    assert slots.threads(SMALL, [SMALL], [LARGE, SMALL]) == 4
    assert slots.threads(ON_GPU, [], [ON_GPU] * 9) == 12
    assert slots.threads(LARGE, [], [LARGE] * 9) == 12
    assert slots.threads(SMALL, [], [UNKNOWN, SMALL, SMALL, SMALL]) == 4


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8000.0),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": "max\n"}, 8000.0),
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/memory.max": "3000000000\n",
                "sys/fs/cgroup/job/memory.current": "1000000000\n",
                "sys/fs/cgroup/job/memory.stat": "anon 1\ninactive_file 500000000\n",
            },
            2500.0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/job\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "3000000000\n",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "4000000000\n",
                "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 0\n",
            },
            0.0,
        ),
    ],
)
def test_free_memory_is_that_of_the_container(tmp_path, monkeypatch, files, free):
    monkeypatch.setattr(rules.psutil, "virtual_memory", lambda: SimpleNamespace(available=8e9))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert rules.free_mb(tmp_path) == free


def test_what_else_stands_in_meta_is_the_users_own():
    assert Needs.of("merge@a-b-c", {"owner": "us", "gpu": True}, 5.0) == Needs(gpu=True, memory_mb=5.0)


@pytest.mark.parametrize("meta", [{"exclusiv": True}, {"gpu": 1}, {"exclusive": "yes"}])
def test_what_meta_cannot_mean_is_said(meta):
    with pytest.raises(UserError, match=r"dvc.yaml: stages.merge.meta.\w+: expected exclusive or gpu"):
        Needs.of("merge@demo-demo-lora", meta, None)
