"""How many cores may be used: those of the affinity, at most what the control groups pay for."""

import os
import subprocess
import sys

import pytest
from fake_pipeline import REPO

from tradeoffs.common import cores, files


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def group(root, cgroup, **limits):
    """A machine at `root` with this /proc/self/cgroup, and files below /sys/fs/cgroup by their paths."""
    files.write_text(root / "proc/self/cgroup", cgroup)
    for path, text in limits.items():
        files.write_text(root / "sys/fs/cgroup" / path, text)
    return root


def test_without_control_groups_all_cores_of_the_affinity_count(tmp_path, eight, monkeypatch):
    assert cores.usable(tmp_path) == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert cores.usable(tmp_path) == 16


@pytest.mark.parametrize(("limit", "count"), [("max 100000", 8), ("300000 100000", 3), ("150000 100000", 1)])
def test_a_quota_of_version_2_bounds_them(tmp_path, eight, limit, count):
    assert cores.usable(group(tmp_path, "0::/mine\n", **{"mine/cpu.max": limit})) == count


def test_less_than_a_core_is_one(tmp_path, eight):
    assert cores.usable(group(tmp_path, "0::/mine\n", **{"mine/cpu.max": "50000 100000"})) == 1


def test_the_quota_of_a_group_above_holds_too(tmp_path, eight):
    limits = {"above/mine/cpu.max": "max 100000", "above/cpu.max": "200000 100000"}
    assert cores.usable(group(tmp_path, "0::/above/mine\n", **limits)) == 2


def test_in_a_container_whose_path_is_the_hosts_the_mount_itself_counts(tmp_path, eight):
    assert cores.usable(group(tmp_path, "0::/docker/abc\n", **{"cpu.max": "400000 100000"})) == 4


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("250000", 2)])
def test_a_quota_of_version_1_bounds_them(tmp_path, eight, quota, count):
    limits = {"cpu/mine/cpu.cfs_quota_us": quota, "cpu/mine/cpu.cfs_period_us": "100000"}
    assert cores.usable(group(tmp_path, "5:memory:/other\n4:cpu,cpuacct:/mine\n", **limits)) == count


def test_more_quota_than_cores_is_no_more_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert cores.usable(group(tmp_path, "0::/mine\n", **{"mine/cpu.max": "800000 100000"})) == 1


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "300"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_politely_unless_the_user_says_how(monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    cores.wait_politely()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    cores.wait_as_libraries_do()
    assert {name: os.environ.get(name) for name in given} == given
    assert given or "GOMP_SPINCOUNT" not in os.environ


def test_every_stage_waits_politely_before_openmp_is_loaded():
    told = "import os, sys, stages; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP"))}
    done = subprocess.run([sys.executable, "-c", told], cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["300", "False"], done.stderr
