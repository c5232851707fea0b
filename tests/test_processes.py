"""A step as a fork is what it is as a command: arguments, environment, output, exit code; and it ends with the run, and
so does what it has started."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import fake_pipeline
import psutil
import pytest

from tradeoffs.repro import processes

TELLS = """
import atexit, json, multiprocessing, os, sys
from pathlib import Path
print(json.dumps({
    "main": sys.modules["__main__"].__spec__.name, "file": __file__, "argv": sys.argv, "folder": os.getcwd(),
    "path": sys.path, "stage": os.environ["DVC_STAGE"], "environment": sorted({*os.environ} - {"_", "SHLVL", "OLDPWD"}),
    "input": sys.stdin.read(), "start": multiprocessing.get_start_method(),
    "code": sorted(name for name in sys.modules if name.split(".")[0] in ("tradeoffs", "stages")),
}), flush=True)
print(multiprocessing.parent_process() is not None, file=sys.stderr, flush=True)
atexit.register(print, "the end")
"""
# As the runner does it; whether by forks, `count` says.
RUNS = """
import os, queue, signal, sys
from pathlib import Path
from tradeoffs.repro import guard, processes
processes.LIBRARIES, processes.WITHOUT_GPU = {libraries}, []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
command, ended = {command!r}, queue.SimpleQueue()
ours = guard.Guard()
forks = processes.Forks([command] * {count}, gpu=False)
environment = os.environ | {{"DVC_STAGE": "merge"}}
running = processes.Running([command], os.getcwd(), environment, {log}, forks, lambda: ended.put(1))
try:
    ended.get()
finally:
    running.stop()
    running.wait({patience})
ours.dismiss()
print(f"code {{running.code}}", file=sys.stderr)
"""
COMMAND = "python -m stages.merge --model demo --method lora"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(fake_pipeline.REPO / "tradeoffs", tmp_path / "tradeoffs")
    (tmp_path / "stages").mkdir()
    return tmp_path


def program(
    folder: Path, step: str, count: int, command: str = COMMAND, libraries=(), log: str = "None", patience: float = 10.0
) -> list[str]:
    """A run with this step, as a fork where `count` is two."""
    (folder / "stages/merge.py").write_text(step)
    return [
        sys.executable,
        "-c",
        RUNS.format(libraries=list(libraries), count=count, log=log, command=command, patience=patience),
    ]


def ran(folder: Path, step: str, count: int, **more: str) -> tuple[str, str]:
    """Its output and errors."""
    environment = fake_pipeline.environment_with()
    command = program(folder, step, count, **more)
    done = subprocess.run(
        command, cwd=folder, env=environment, input="said", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_fork_finds_what_a_command_finds(folder):
    command, fork = ran(folder, TELLS, count=1), ran(folder, TELLS, count=2)
    assert (command[1], fork[1]) == ("False\ncode 0\n", "True\ncode 0\n")
    found, expected = (json.loads(one[0].splitlines()[0]) for one in (fork, command))
    assert found["argv"][1:] == ["--model", "demo", "--method", "lora"] and found["input"] == "said"
    assert found == expected
    assert fork[0].splitlines()[1:] == command[0].splitlines()[1:] == ["the end"]


@pytest.mark.parametrize("count", [1, 2])
def test_what_it_writes_goes_to_its_log_if_it_has_one(folder, count):
    step = "import os, sys\nprint('one')\nprint('two', file=sys.stderr)\nos.system('echo three')"
    assert ran(folder, step, count, log="Path('log')") == ("", "code 0\n")
    assert sorted((folder / "log").read_text().split()) == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("step", "code", "said"),
    [
        ("import sys; sys.exit('error: no such model')", 1, "error: no such model"),
        ("import sys; sys.exit(2)", 2, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        # Who runs the tests in the background of a shell script hands down that it is ignored.
        (
            "import os, signal as s; s.signal(s.SIGINT, s.default_int_handler); os.kill(os.getpid(), s.SIGINT)",
            -2,
            "KeyboardInterrupt",
        ),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_what_fails_says_the_same_with_the_same_exit_code(folder, step, code, said):
    for count in (1, 2):
        out, errors = ran(folder, step, count)
        assert (out, errors.splitlines()[-1]) == ("", f"code {code}")
        assert said in errors


def test_commands_go_on_where_no_process_that_forks_can_start(folder):
    (folder / "broken.py").write_text("import os; os._exit(3)")
    out, errors = ran(folder, TELLS, count=2, libraries=("broken",))
    assert out.endswith("the end\n")
    assert errors.endswith("False\ncode 0\n")


WAITS = "import signal\nprint('here', flush=True)\nsignal.pause()"
# What a step starts, or forks, in a session of its own, as torch's launcher does; it says so, and goes on for ever.
STARTED = "import pathlib, signal\nprint('here', flush=True)\npathlib.Path('here').touch()\nsignal.pause()"
STARTS = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {STARTED!r}], start_new_session=True)\n"
FORKS = f"import os\nif not os.fork():\n    os.setsid()\n{textwrap.indent(STARTED, '    ')}\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    ("step", "count", "command"),
    [
        (WAITS, 1, COMMAND),
        (WAITS, 2, COMMAND),
        (f"{STARTS}import signal\nsignal.pause()", 1, COMMAND),
        (f"{STARTS}import signal\nsignal.pause()", 1, f"true; {COMMAND}"),
        (f"{FORKS}import signal\nsignal.pause()", 2, COMMAND),
    ],
)
def test_a_step_ends_with_the_run(folder, number, step, count, command):
    """It holds the other end of a pipe that this test reads: all have ended when that is closed."""
    environment = fake_pipeline.environment_with()
    run = subprocess.Popen(
        program(folder, step, count, command), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "here\n"
    os.kill(run.pid, number)
    assert run.communicate(timeout=60)[0] == ""
    assert run.returncode == (143 if number == signal.SIGTERM else -9)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("start", [STARTS, FORKS])
def test_what_a_step_that_was_killed_had_started_ends(folder, count, start):
    killed = "import os, time\nwhile not os.path.exists('here'):\n    time.sleep(0.01)\nos.kill(os.getpid(), 9)"
    assert ran(folder, start + killed, count) == ("here\n", "code -9\n")  # which is there when all have ended


def test_what_a_run_that_ends_by_itself_has_left_on_purpose_stays(folder):
    step = "import os, subprocess\nleft = subprocess.Popen(['sleep', '600'], start_new_session=True)\nprint(left.pid)"
    done = subprocess.Popen(
        program(folder, step, 1), cwd=folder, env=fake_pipeline.environment_with(), stdout=subprocess.PIPE, text=True
    )
    left = psutil.Process(int(done.stdout.readline()))
    done.wait()
    assert left.is_running()
    left.kill()
    done.communicate()


def test_what_ends_the_run_by_its_name_does_not_end_its_guard(folder):
    run = subprocess.Popen(
        program(folder, WAITS, 1), cwd=folder, env=fake_pipeline.environment_with(), stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "here\n"
    guards = [one for one in psutil.Process(run.pid).children() if os.getsid(one.pid) == one.pid]
    assert len(guards) == 1
    assert not re.search("tradeoffs.repro", " ".join(guards[0].cmdline()))
    run.kill()
    run.communicate()


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_that_does_not_heed_is_made_to_end(folder, count):
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS.replace(
        "pause()", "pause(), signal.pause()"
    )
    environment = fake_pipeline.environment_with()
    run = subprocess.Popen(
        program(folder, deaf, count, patience=0.1), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "here\n"
    os.kill(run.pid, signal.SIGTERM)
    assert run.communicate(timeout=60)[0] == ""


def test_a_fork_has_the_memory_of_a_command(folder):
    """Of the libraries' files, too, which a fork does not have at first."""
    step = (
        "import torch\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')))"
    )
    command, fork = (int(ran(folder, step, count, libraries=("torch",))[0]) for count in (1, 2))
    assert fork == pytest.approx(command, rel=0.1)


@pytest.mark.parametrize(
    "command",
    [
        "python -m stages.measure",
        "python -m stages.evaluate_cpu --model demo --dataset demo --method lora --quant q8_0",
        "accelerate launch -m stages.merge --model demo",
        "python -m stages.merge --model demo; true",
        "python -m stages.merge --model $HOME",
        "python -m stages.merge --model 'a b'",
        "python -m stages.merge\npython -m stages.merge",
        "python -u -m stages.merge",
        "FOO=1 python -m stages.merge",
    ],
)
def test_any_other_command_is_no_fork(command):
    assert processes.words(command) == []


def test_another_python_is_no_fork(tmp_path):
    (tmp_path / "python").symlink_to(Path(sys.executable).resolve())
    assert processes._is_ours({"PATH": str(Path(sys.executable).parent)})
    assert not processes._is_ours({"PATH": f"{tmp_path}{os.pathsep}{Path(sys.executable).parent}"})
    assert not processes._is_ours({"PATH": str(tmp_path / "none")})


def test_the_libraries_ask_for_no_gpu_when_they_are_imported():
    """After that no fork could use one."""
    asks = f"""
import importlib, sys, torch
def asked(*_): sys.exit("asked for a GPU")
for name in ("is_available", "device_count", "_lazy_init", "init", "current_device"):
    setattr(torch.cuda, name, asked)
for name in {processes.LIBRARIES}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
