"""A run on three machines without a shared folder: the lock file of `dvc repro`, also when one of them is killed.

    sudo python -m benchmarks.cluster [--quick]

The machines are network namespaces with a mount namespace each: temporary folders, home and project are their own.
Between them there are a bridge, Ray, and an S3 server. Each stage's command is a stand-in that waits a moment and
writes what depends on nothing else, so the lock file of a serial run is the same to the byte. Needs Linux, root, ip
and requirements-cluster.lock.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import common, stand_ins
from benchmarks.common import SCRATCH
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import cluster

FOLDER = SCRATCH / "cluster"
OWN = ("/tmp", "/var/tmp")  # of each machine, its home in it; and FOLDER, but for the first
BRIDGE, NETWORK, PORT = "tradeoffs-br", "10.213.7", 6379
CORES = 2  # that Ray is told of each
KEY, SECRET = "cluster-key", "cluster-secret"
WAITS = "import time\ntime.sleep({seconds})\n"
SLEEP = 3.0  # seconds of each stand-in
METHODS = ["base", "lora", "qlora"]
BEGAN = re.compile(r"^\[\d+/\d+\] (\w+@\S+), on ([\w.-]+)", re.MULTILINE)


class Machine:
    """A network namespace and a mount namespace, in which commands run until `end`."""

    def __init__(self, number: int, own: tuple[str, ...]) -> None:
        self.name, self.address = f"tradeoffs-{number}", f"{NETWORK}.{10 + number}"
        link = f"tr-veth{number}"
        _ip("netns", "add", self.name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", link, "master", BRIDGE, "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            _ip("-n", self.name, *words)
        _ip("-n", self.name, "link", "set", "lo", "up")
        mounts = " && ".join(f"mount -t tmpfs tmpfs {folder}" for folder in own)
        hold = f"hostname {self.name} && {mounts} && mkdir /tmp/home && echo ready && exec sleep infinity"
        command = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts", "sh", "-c", hold]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout
        if self._holder.stdout.readline() != "ready\n":
            raise UserError(f"{self.name}: no namespaces of its own; run as root")

    def start(self, *command: str, cwd: Path | str = "/tmp", **options: Any) -> "subprocess.Popen[str]":
        inside = ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--uts", f"--wd={cwd}", *command]
        return subprocess.Popen(inside, env=environment(), text=True, **options)

    def call(self, *command: str, cwd: Path | str = "/tmp") -> str:
        done = self.start(*command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = done.communicate()
        if done.returncode:
            raise UserError(f"{self.name}: {common.shown(command)}: exit code {done.returncode}\n{said[-3000:]}")
        return said

    def kill(self) -> None:
        """As when its power is cut."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if Path(f"/proc/{process.pid}/ns/net").samefile(f"/var/run/netns/{self.name}"):
                    process.kill()
        self._holder.wait()

    def end(self) -> None:
        self.kill()
        _ip("netns", "delete", self.name)


def main(arguments: Namespace) -> None:
    if os.geteuid() or not shutil.which("ip"):
        raise UserError("needs root and ip (Debian: apt install iproute2), for machines that are namespaces")
    methods = METHODS[:2] if arguments.quick else METHODS
    shutil.rmtree(FOLDER, ignore_errors=True)
    with network(), s3() as remote:
        project = make(methods, remote)
        serial, lock = serially(project)
        whole = on_machines(project, "whole", kill=False)
        killed = on_machines(project, "killed", kill=True)
    shutil.rmtree(FOLDER)
    again = sum(count - 1 for count in killed["began"].values())
    common.write(
        "cluster",
        None,  # no ratio: all machines are one
        None,
        {
            "same_lock": float(whole["lock"] == lock),
            "same_lock_with_one_killed": float(killed["lock"] == lock),
            "begun_again": again,
        },
        quick=arguments.quick,
        at_least={"same_lock": 1, "same_lock_with_one_killed": 1},
        at_most={"begun_again": CORES},
        seconds={"three machines": whole["seconds"], "one of them killed": killed["seconds"], "dvc repro": serial},
        steps=len(whole["began"]),
        steps_by_machine=whole["machines"],
        steps_by_machine_with_one_killed=killed["machines"],
        compared=f"stand-ins of {SLEEP:g} s each, on three machines that Ray is told have {CORES} cores each, all on "
        "the same processor; outputs through S3 (rclone); dvc repro: the same, one after the other; killed: every "
        "process of one machine, in the middle, and it comes not back; begun_again: steps that began twice then",
    )


def make(methods: list[str], remote: Mapping[str, str]) -> Path:
    project = FOLDER / "project"
    project.mkdir(parents=True)
    stand_ins.make(project, methods=methods)
    written = stand_ins.STAND_IN.replace("os.urandom(8).hex()", "str(folder / name)")
    (project / "stand_in.py").write_text(WAITS.format(seconds=SLEEP) + written)
    for words in (
        ["git", "init", "--quiet", "-b", "main"],
        ["dvc", "init", "--quiet"],
        ["dvc", "remote", "add", "-d", "team", remote["url"]],
        ["dvc", "remote", "modify", "team", "endpointurl", remote["endpoint"]],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=team", "-c", "user.email=team@localhost", "commit", "--quiet", "-m", "A project"],
    ):
        call(words, project)
    return project


def serially(project: Path) -> tuple[float, bytes]:
    """Seconds of `dvc repro`, and the lock file that it leaves."""
    folder = clone(project, "serial")
    begun = time.perf_counter()
    call(["dvc", "repro", "--quiet"], folder)
    return time.perf_counter() - begun, (folder / "dvc.lock").read_bytes()


def on_machines(project: Path, name: str, kill: bool) -> dict[str, Any]:
    """A whole run, started on the first of three machines; the last one is killed in its middle if `kill`."""
    folder = clone(project, name)
    with ExitStack() as stack:
        machines = []
        for number in range(3):
            machines.append(Machine(number, OWN if not number else (*OWN, str(FOLDER))))
            stack.callback(machines[-1].end)
        first, *_, last = machines
        for machine in machines:
            where = ["--head", f"--port={PORT}", "--include-dashboard=false"] if machine is first else []
            where = where or [f"--address={first.address}:{PORT}"]
            machine.call("ray", "start", *where, f"--node-ip-address={machine.address}", f"--num-cpus={CORES}")
        begun = time.perf_counter()
        run = first.start(
            *(sys.executable, "-m", cluster.__package__, "--ray", f"{first.address}:{PORT}"),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = ""
        assert run.stdout
        for line in run.stdout:
            said += line
            here = [where for _, where in BEGAN.findall(said)]
            if kill and last.name in here and len(here) > len(METHODS) * 3:
                kill = False
                last.kill()
        took = time.perf_counter() - begun
        if run.wait():
            raise UserError(f"{name}: exit code {run.returncode}\n{said[-3000:]}")
        print(f"{name}: {took:.1f} s", flush=True)
        began = BEGAN.findall(said)
        left = first.call("dvc", "status", cwd=folder)
        if "up to date" not in left:
            raise UserError(f"{name}: afterwards would run again:\n{left}")
    return {
        "seconds": took,
        "lock": (folder / "dvc.lock").read_bytes(),
        "began": Counter(step for step, _ in began),
        "machines": Counter(where for _, where in began),
    }


@contextmanager
def network() -> Iterator[None]:
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield
    finally:
        _ip("link", "delete", BRIDGE)


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """A server that all machines reach; its folder is none of theirs."""
    served = FOLDER.parent / "cluster-s3"
    shutil.rmtree(served, ignore_errors=True)
    (served / "team").mkdir(parents=True)
    rclone = Path(sys.executable).with_name("rclone")
    command = [str(rclone), "serve", "s3", str(served), "--addr", f"{NETWORK}.1:0"]
    given = os.environ | {"RCLONE_CONFIG": "", "RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"'}
    with subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            endpoint = next(line.split("[")[1].split("/]")[0] for line in server.stderr if "Starting s3 server" in line)
            yield {"url": "s3://team/tradeoffs", "endpoint": endpoint}
        finally:
            server.send_signal(signal.SIGTERM)
            shutil.rmtree(served, ignore_errors=True)


def environment() -> dict[str, str]:
    """Of each machine."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": "/tmp/home",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
        "RAY_USAGE_STATS_ENABLED": "0",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def clone(project: Path, name: str) -> Path:
    folder = FOLDER / name
    call(["git", "clone", "--quiet", str(project), str(folder)], FOLDER)
    return folder


def call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{common.shown(command)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    common.run(main)
