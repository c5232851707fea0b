"""What is recorded of a machine: cores, memory, GPUs and their driver; and which two are the same."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tradeoffs.common import files, machine

REPO = Path(__file__).parents[1]

OLD = {"machine": "x86_64", "processor": "Abacus", "cores": 2}
NEW = OLD | {"memory_gb": 31}
GPU = NEW | {"gpus": [{"name": "NVIDIA H200", "memory_gb": 150.8, "count": 1}], "driver": "550.127.08"}


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi first on the path, which says what it is given and ends with a code."""

    def put(says: str, code: int = 0) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {code}\n")
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv(machine.PASSED_ON, raising=False)
        machine.gpus.cache_clear()

    yield put
    machine.gpus.cache_clear()


def test_gpus_are_listed_by_their_kinds_with_memory_and_driver(smi):
    lines = ["NVIDIA H200, 143771, 550.127.08"] * 2 + ["NVIDIA GeForce RTX 3090, 24576, 550.127.08"]
    smi("\n".join(lines))
    found = machine.hardware()
    assert found["gpus"] == [
        {"name": "NVIDIA H200", "memory_gb": 150.8, "count": 2},
        {"name": "NVIDIA GeForce RTX 3090", "memory_gb": 25.8, "count": 1},
    ]
    assert found["driver"] == "550.127.08"
    assert files.run_info()["hardware"] == found


def test_which_gpu_a_step_was_given_is_no_matter_of_the_machine(smi, monkeypatch):
    """Else the same step would leave other facts in another slot."""
    smi("NVIDIA H200, 143771, 550.127.08\nNVIDIA H200, 143771, 550.127.08")
    before = machine.hardware()
    machine.gpus.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert machine.hardware() == before


def test_a_gpu_that_shares_the_machines_memory_has_none_of_its_own(smi):
    smi("NVIDIA GB10, [N/A], 580.95.05")
    assert machine.hardware()["gpus"] == [{"name": "NVIDIA GB10", "count": 1}]


@pytest.mark.parametrize(
    ("says", "code"),
    [("No devices were found", 6), ("Failed to initialize NVML: Driver/library version mismatch", 18), ("", 0)],
)
def test_an_nvidia_smi_that_finds_none_is_no_gpu(smi, says, code):
    smi(says, code)
    assert not {"gpus", "driver"} & set(machine.hardware())


def test_without_nvidia_smi_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(machine.PASSED_ON, raising=False)
    machine.gpus.cache_clear()
    assert "gpus" not in machine.hardware()
    machine.gpus.cache_clear()


def test_a_driver_that_hangs_is_said_and_holds_nothing_up(smi, tmp_path, monkeypatch, capsys):
    """And whoever is started afterwards does not wait for it again."""
    smi("NVIDIA H200, 143771, 550.127.08")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(machine, "PATIENCE", 0.05)
    monkeypatch.setenv(machine.PASSED_ON, "")  # or what is passed on would outlast this test
    machine.pass_on()
    assert "note: nvidia-smi has not answered for 0.05 s" in capsys.readouterr().out
    assert "gpus" not in machine.hardware()
    assert capsys.readouterr().out == ""


def test_the_steps_of_a_run_are_told_what_nvidia_smi_said(smi, tmp_path, monkeypatch):
    smi("NVIDIA H200, 143771, 550.127.08")
    monkeypatch.setenv(machine.PASSED_ON, "")
    machine.pass_on()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 1\n")
    code = "import json; from tradeoffs.common import machine; print(json.dumps(machine.hardware()))"
    told = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["gpus"] == [{"name": "NVIDIA H200", "memory_gb": 150.8, "count": 1}]
    for other in ('["elsewhere", "NVIDIA H200, 143771, 550.127.08"]', "[1, 2", '["one"]', "3"):
        monkeypatch.setenv(machine.PASSED_ON, other)
        machine.gpus.cache_clear()
        assert "gpus" not in machine.hardware(), "of another machine, or no such thing: it is asked here"


def test_memory_is_what_the_control_group_lets_have_in_whole_gigabytes(tmp_path):
    files.write_text(tmp_path / "proc/self/cgroup", "0::/job\n")
    group = tmp_path / "sys/fs/cgroup/job"
    whole = machine.memory_gb(tmp_path)
    assert whole >= 1
    files.write_text(group / "memory.max", "max\n")
    assert machine.memory_gb(tmp_path) == whole
    files.write_text(group / "memory.max", f"{int(1.4e9)}\n")
    assert machine.memory_gb(tmp_path) == 1


def test_threads_stand_where_they_decide(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine.used()["threads"] == 1 and "threads" not in machine.hardware()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (OLD, OLD, True),
        (OLD, GPU, True),  # an older version did not ask
        (NEW, GPU, False),  # this one did, and there was none
        (GPU, GPU | {"driver": "570.1"}, True),
        (GPU, GPU | {"gpus": [{"name": "NVIDIA H100", "memory_gb": 85.0, "count": 1}]}, False),
        (NEW, NEW | {"memory_gb": 62}, False),
        (NEW, NEW | {"memory_gb": 32}, True),  # 31.49 and 31.51 GB, in whole ones
        (NEW, NEW | {"memory_gb": 29}, False),
        (NEW | {"memory_gb": 512}, NEW | {"memory_gb": 500}, True),
        (NEW | {"memory_gb": 512}, NEW | {"memory_gb": 480}, False),
        (GPU, GPU | {"gpus": [GPU["gpus"][0] | {"memory_gb": 150.1}]}, True),  # another driver keeps more of it
        (GPU, GPU | {"gpus": [GPU["gpus"][0] | {"memory_gb": 75.0}]}, False),
        (GPU | {"gpus": [{"memory_gb": 11.8}]}, GPU | {"gpus": [{"memory_gb": 12.7}]}, False),
        (GPU | {"gpus": [{"memory_gb": 11.8}]}, GPU | {"gpus": [{"memory_gb": 11.5}]}, True),
        (GPU, GPU | {"gpus": [GPU["gpus"][0] | {"count": 2}]}, False),
        (GPU, GPU | {"gpus": GPU["gpus"] * 2}, False),
        (GPU, GPU | {"gpus": [{"name": "NVIDIA H200", "count": 1}]}, False),
        (OLD, OLD | {"processor": "Other"}, False),
        (NEW | {"threads": 2}, NEW | {"threads": 1}, False),
        (NEW | {"threads": 2}, NEW, True),
        ({}, {}, True),
        ({}, OLD, False),
    ],
)
def test_two_are_the_same_as_far_as_both_say(one, other, expected):
    assert machine.same(one, other) == machine.same(other, one) == expected
