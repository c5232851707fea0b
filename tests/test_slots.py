"""What is measured runs alone; what is not fills the cores, as far as memory and GPUs allow."""

from types import SimpleNamespace

import pytest

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import slots as rules
from tradeoffs.repro.slots import Needs, Slots

SMALL, LARGE = Needs(memory_mb=100.0), Needs(memory_mb=700.0)
MEASURED, UNKNOWN, ON_GPU = Needs(exclusive=True, memory_mb=100.0), Needs(), Needs(gpu=1, memory_mb=100.0)
TRAINS, TRAINS_ON_TWO = (Needs(exclusive=True, gpu=count, memory_mb=100.0) for count in (1, 2))


@pytest.fixture
def slots():
    return Slots(jobs=3, devices=["0"], memory_mb=1000.0)


@pytest.fixture
def several():
    return Slots(jobs=5, devices=["0", "GPU-5a", "7"], memory_mb=1000.0)


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
    assert Slots(jobs=3, memory_mb=1000.0).fits(ON_GPU, [ON_GPU])


def test_as_many_use_gpus_at_a_time_as_there_are(several):
    assert several.fits(ON_GPU, [ON_GPU, ON_GPU, SMALL])
    assert not several.fits(ON_GPU, [ON_GPU, ON_GPU, ON_GPU])
    assert several.fits(SMALL, [ON_GPU, ON_GPU, ON_GPU])
    on_two = Needs(gpu=2, memory_mb=100.0)
    assert several.fits(on_two, [ON_GPU]) and not several.fits(on_two, [on_two])


def test_trainings_run_side_by_side_on_gpus_of_their_own_and_beside_nothing_else(several):
    assert not several.alone(TRAINS) and not several.alone(TRAINS_ON_TWO)
    assert several.fits(TRAINS, [TRAINS, TRAINS]) and several.fits(TRAINS, [TRAINS_ON_TWO])
    assert not several.fits(TRAINS, [TRAINS, TRAINS, TRAINS]) and not several.fits(TRAINS_ON_TWO, [TRAINS_ON_TWO])
    for other in (SMALL, ON_GPU, MEASURED, Needs(exclusive=True, gpu=1)):
        assert not several.fits(TRAINS, [other]) and not several.fits(other, [TRAINS])


@pytest.mark.parametrize("devices", [[], ["0"]])
def test_with_one_gpu_or_none_a_training_runs_alone(devices):
    slots = Slots(jobs=3, devices=devices, memory_mb=1000.0)
    assert slots.alone(TRAINS)
    assert not slots.fits(TRAINS, [TRAINS])


def test_each_step_gets_gpus_that_no_other_has(several):
    assert several.take("a", TRAINS) == {"CUDA_VISIBLE_DEVICES": "0"}
    assert several.take("b", TRAINS_ON_TWO) == {"CUDA_VISIBLE_DEVICES": "GPU-5a,7"}
    several.release("a")
    assert several.take("c", ON_GPU) == {"CUDA_VISIBLE_DEVICES": "0"}
    several.release("b")
    assert several.take("d", ON_GPU) == {"CUDA_VISIBLE_DEVICES": "GPU-5a"}


def test_a_step_that_needs_none_and_a_machine_that_has_none_leave_the_environment_alone(several):
    assert several.take("a", SMALL) == {}
    assert Slots(jobs=3, memory_mb=1000.0).take("a", ON_GPU) == {}


def test_more_gpus_than_there_are_is_said_where_there_are_any(several):
    needs = {"merge@a-b-c": ON_GPU, "finetune@a-b-c-42": Needs(exclusive=True, gpu=4)}
    expected = r"^dvc\.yaml: stages\.finetune\.meta\.gpu: finetune@a-b-c-42 needs 4 GPUs, there are 3 \(0, GPU-5a, 7\)"
    with pytest.raises(UserError, match=expected):
        several.check(needs)
    Slots(jobs=3, memory_mb=1000.0).check(needs)


def test_so_many_like_a_step_run_at_a_time(several, slots):
    assert [several.side_by_side(one) for one in (SMALL, ON_GPU, TRAINS, TRAINS_ON_TWO, MEASURED)] == [5, 3, 3, 1, 1]
    assert [slots.side_by_side(one) for one in (SMALL, ON_GPU, TRAINS, MEASURED)] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("devices", "visible", "expected"),
    [
        ([], None, []),
        ([], "0,1", []),
        (["nvidiactl", "nvidia-uvm", "nvidia-caps"], None, []),
        (["nvidiactl", "nvidia0", "nvidia1", "nvidia10"], None, ["0", "1", "2"]),  # CUDA counts those that are there
        (["nvidia0", "nvidia1"], "", []),
        (["nvidia0", "nvidia1"], "-1", []),
        (["nvidia0", "nvidia1"], "1", ["1"]),
        (["nvidia0", "nvidia1"], "1, 0", ["1", "0"]),
        (["nvidia0", "nvidia1"], "0,2,1", ["0"]),
        (["nvidia0"], "GPU-8932f937,MIG-GPU-1/2/3", ["GPU-8932f937", "MIG-GPU-1/2/3"]),
        (["dxg"], None, ["0"]),
        (["kfd"], None, ["0"]),
        (["kfd"], "0,1,2", ["0", "1", "2"]),
    ],
)
def test_gpus_are_those_that_the_user_lets_cuda_see(tmp_path, monkeypatch, devices, visible, expected):
    for name in devices:
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert rules.gpus(tmp_path) == expected


def test_with_one_job_everything_runs_alone():
    assert Slots(jobs=1).alone(SMALL)


def test_a_step_gets_its_share_of_the_cores_among_those_that_can_run_beside_it():
    slots = Slots(jobs=3, devices=["0"], memory_mb=1000.0, count=12)
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
    assert Needs.of("merge@a-b-c", {"owner": "us", "gpu": True}, 5.0) == Needs(gpu=1, memory_mb=5.0)


def test_meta_may_say_how_many_gpus_and_what_memory_in_place_of_what_it_took_last_time():
    assert Needs.of("merge@a-b-c", {"gpu": 2, "memory_mb": 700}, None) == Needs(gpu=2, memory_mb=700)
    assert Needs.of("merge@a-b-c", {"gpu": False, "memory_mb": 700}, 5.0) == Needs(memory_mb=700)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"exclusiv": True}, "exclusive: true or false"),
        ({"exclusive": "yes"}, "exclusive: true or false"),
        ({"gpus": 2}, "gpu: true, false or how many GPUs"),
        ({"gpu": -1}, "gpu: true, false or how many GPUs"),
        ({"gpu": "all"}, "gpu: true, false or how many GPUs"),
        ({"memory": 700}, "memory_mb: a whole number of MB"),
        ({"memory_mb": 0}, "memory_mb: a whole number of MB"),
        ({"memory_mb": True}, "memory_mb: a whole number of MB"),
        ({"memory_mb": "7 GB"}, "memory_mb: a whole number of MB"),
    ],
)
def test_what_meta_cannot_mean_is_said(meta, expected):
    with pytest.raises(UserError, match=rf"^dvc.yaml: stages.merge.meta.\w+: expected {expected}, got "):
        Needs.of("merge@demo-demo-lora", meta, None)
