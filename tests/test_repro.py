"""`python -m tradeoffs.repro` leaves what `dvc repro` leaves, says where it is, and loses nothing when stopped."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import fake_pipeline
import forked
import psutil
import pytest

from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import dvc_gaps

SLOW_FIXTURES = {"fresh", "finished"}  # read by conftest.py
STEP = re.compile(r"^\[(\d+)/(\d+)\] (Stage '|)([a-z_]+(?:@[\w-]+)?)(.*)$", re.MULTILINE)
MADE = ("data", "models", "metrics", "plots", "report")
# What a stage's own clock writes, so that something is known of its memory, and when it ran.
CLOCKED = """
import json, os, time
begun = time.time()
{stand_in}
step = os.environ["DVC_STAGE"]
row = {{"stage": step.split("@")[0], "step": step, "began": begun, "end": time.time()}}
row |= dict.fromkeys(("startup", "loading", "work", "cpu"), 0.1) | {{"peak_mb": 50.0}}
os.makedirs(".scratch", exist_ok=True)
with open(".scratch/times.jsonl", "a") as log:
    log.write(json.dumps(row) + "\\n")
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The project before its first run, with stand-ins for stages and for the calibration."""
    folder = tmp_path_factory.mktemp("run") / "fresh"
    folder.mkdir()
    fake_pipeline.make(folder, methods=["base", "lora"], precisions=["bf16"], quants=["q8_0"])
    go_on(folder)
    runner = folder / "tradeoffs/repro/runner.py"
    every_minute = runner.read_text()
    runner.write_text(every_minute.replace("MOST_UNWRITTEN = 60.0", "MOST_UNWRITTEN = 1e9"))  # on a busy machine, too
    assert runner.read_text() != every_minute
    fake_pipeline.dvc("init", "--no-scm", "-q", cwd=folder)
    fake_pipeline.dvc("config", "core.analytics", "false", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def finished(fresh, tmp_path_factory):
    """The same after a whole run, and what that printed."""
    folder = copy(fresh, tmp_path_factory.mktemp("finished"))
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def copy(folder: Path, beside: Path) -> Path:
    return shutil.copytree(folder, beside / "copy", symlinks=True)


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = fake_pipeline.environment_with()
    return forked.python("-m", "tradeoffs.repro", *options, cwd=folder, env=environment, libraries=forked.DVC)


def alone(folder: Path) -> subprocess.CompletedProcess[str]:
    """In a new interpreter and a group of its own, so that a stage can signal all of it, as a terminal does."""
    # Who runs the tests in the background of a shell script would hand down that Ctrl-C is ignored.
    heeding = "import os, sys, signal as s; s.signal(s.SIGINT, s.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-c", heeding, sys.executable, "-m", "tradeoffs.repro"]
    environment = fake_pipeline.environment_with()
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, start_new_session=True)


def steps(said: str) -> list[tuple[int, int, str]]:
    """What is said of steps: number, of how many, and which."""
    return [(int(number), int(of), name) for number, of, _, name, _ in STEP.findall(said)]


def ran(said: str) -> list[str]:
    return [name for _, _, cached, name, _ in STEP.findall(said) if not cached]


def stop_at_merge(folder: Path, how: str) -> None:
    """Lets the stand-in of `merge` do `how` in place of its work."""
    stand_in = folder / "stand_in.py"
    before = "import os, signal, sys\nif any('models/merged' in word for word in sys.argv):\n"
    stand_in.write_text(f"{before}    {how}\n{CLOCKED.format(stand_in=fake_pipeline.STAND_IN)}")


def go_on(folder: Path) -> None:
    (folder / "stand_in.py").write_text(CLOCKED.format(stand_in=fake_pipeline.STAND_IN))


def changed(folder: Path, name: str) -> None:
    """What depends on this code has to run again."""
    with (folder / "tradeoffs" / name).open("a") as file:
        file.write("# a comment\n")


def locked(folder: Path) -> set[str]:
    """Steps that dvc.lock knows."""
    return set(re.findall(r"^  ([a-z_]+(?:@[\w-]+)?):$", (folder / "dvc.lock").read_text(), re.MULTILINE))


def test_every_step_says_which_of_how_many_it_is(finished):
    folder, said = finished
    found = steps(said)
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    assert {of for _, of, _ in found} == {len(found)}
    assert {name for _, _, name in found} == locked(folder)
    assert said.splitlines()[0].startswith(
        f"{len(found)} of {len(found)} steps to run: settings, prepare, base, tokenize, 2 fine"
    )


def test_the_lock_file_is_that_of_dvc_repro(fresh, finished, tmp_path):
    folder = finished[0]
    other = copy(fresh, tmp_path)
    for name in MADE:
        shutil.copytree(folder / name, other / "kept" / name, ignore=shutil.ignore_patterns("times.json"))
    assert fake_pipeline.repro(other) == locked(folder)
    assert (other / "dvc.lock").read_bytes() == (folder / "dvc.lock").read_bytes()
    assert fake_pipeline.repro(folder) == set()


def test_nothing_to_run_is_said_and_nothing_else(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    done = run(folder)
    count = len(locked(folder))
    assert (done.returncode, done.stdout) == (0, f"Nothing to run: all {count} steps are up to date.\n")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("finetun", "(did you mean finetune?)"),
        ("finetune@demo-demo-lor-42", "(did you mean finetune@demo-demo-lora-42?)"),
        ("finetune@x", "(there are: finetune@demo-demo-base-42, finetune@demo-demo-lora-42)"),
    ],
)
def test_a_step_that_is_not_there_is_said_with_its_near_match(finished, target, said):
    done = run(finished[0], target)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {target}: dvc.yaml has no such stage or step {said}\n" in done.stderr


def test_the_times_of_a_whole_run_are_kept_and_the_next_is_estimated_by_them(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    kept = json.loads((folder / "metrics/times.json").read_text())
    assert set(kept["seconds"]) == locked(folder)
    assert kept["training_steps_per_second"] == 40.0
    kept["seconds"] = dict.fromkeys(kept["seconds"], 60.0)
    (folder / "metrics/times.json").write_text(json.dumps(kept))
    fake_pipeline.change(folder, lambda raw: raw["methods"]["lora"]["config"].update(r=3))
    said = run(folder, "--jobs", "1").stdout
    found = steps(said)
    assert 0 < len(found) < len(locked(folder))
    assert f" at most about {len(found)} min" in said.splitlines()[1]
    assert f"[{len(found)}/{len(found)}] publish, about " in said
    seconds = json.loads((folder / "metrics/times.json").read_text())["seconds"]
    assert seconds["prepare@demo"] == 60.0 and seconds["finetune@demo-demo-lora-42"] < 60.0


def test_only_what_may_run_is_spoken_of(finished, tmp_path):
    """A stage that makes the same thing again ends there: what might have followed says so, the rest nothing."""
    folder = copy(finished[0], tmp_path)
    for name in MADE:
        shutil.copytree(folder / name, folder / "kept" / name)
    changed(folder, "finetune/trainer.py")
    said = run(folder).stdout
    assert {name.partition("@")[0] for name in ran(said)} == {"finetune"}
    unchanged = {name for _, _, name in steps(said)} - set(ran(said))
    assert {"reference@demo-demo-lora", "score", "aggregate"} <= unchanged
    assert "prepare@demo" not in said


def test_a_step_that_fails_ends_it_and_what_had_run_is_in_the_lock_file(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    stop_at_merge(folder, "sys.exit(3)")
    done = run(folder)
    assert done.returncode == 1
    assert re.search(r"ERROR: failed to reproduce 'merge@\S+': failed to run: .*, exited with 3\n", done.stderr)
    before = locked(folder)
    assert before and not any(name.startswith("merge") for name in before)
    assert not (folder / "metrics/times.json").exists()
    go_on(folder)
    assert not before & {name for _, _, name in steps(run(folder).stdout)}


def test_what_does_not_depend_on_what_failed_goes_on_if_asked_to(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    stand_in = (folder / "stand_in.py").read_text()
    (folder / "stand_in.py").write_text(
        f"import sys\nif any('models/merged/demo-demo-lora' in word for word in sys.argv):\n"
        f"    print('cannot')\n    sys.exit(3)\n{stand_in}"
    )
    done = run(folder, "--keep-going")
    assert done.returncode == 1
    assert (
        "'merge@demo-demo-lora'" in done.stderr
        and "left out, since it depends on that: 1 aggregate, 1 convert, 1 evaluate_cpu, " in done.stderr
    )
    found = locked(folder)
    assert {"evaluate_cpu@demo-demo-base-q8_0", "reference@demo-demo-lora"} <= found
    assert found.isdisjoint({"merge@demo-demo-lora", "convert@demo-demo-lora", "measure", "score", "aggregate"})
    (folder / "stand_in.py").write_text(stand_in)
    assert not found & {name for _, _, name in steps(run(folder).stdout)}


def test_of_a_step_beside_others_that_fails_the_log_is_named_and_its_end_shown(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "merging.py")
    stop_at_merge(folder, "sys.exit('\\n'.join(str(line) for line in range(1000)))")
    done = run(folder, "--jobs", "2")
    assert done.returncode == 1
    assert re.search(r"\n  998\n  999\nall that it wrote: \.scratch/logs/merge@demo-demo-\w+\.log\n", done.stderr)
    assert "\n  2\n" not in done.stderr


def test_ctrl_c_ends_it_and_what_had_run_is_in_the_lock_file(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    stop_at_merge(folder, "os.killpg(os.getpgrp(), signal.SIGINT); signal.pause()")
    done = alone(folder)
    assert done.returncode == 252 and "interrupted by the user" in done.stderr
    assert "finetune@demo-demo-base-42" in locked(folder)
    go_on(folder)
    assert fake_pipeline.repro(folder).isdisjoint(ran(done.stdout)[:-1])


def test_what_had_run_before_a_power_cut_is_not_run_again(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    stop_at_merge(folder, "os.killpg(os.getpgrp(), signal.SIGKILL)")
    done = alone(folder)
    assert done.returncode == -9 and not (folder / "dvc.lock").exists()
    go_on(folder)
    again = run(folder)
    assert again.returncode == 0, again.stderr
    # What settings writes is in Git, and in no cache.
    assert set(ran(again.stdout)).isdisjoint(set(ran(done.stdout)[:-1]) - {"settings"})
    assert "[1/" in again.stdout and "Stage 'prepare@demo' is cached" in again.stdout
    assert locked(folder) == {name for _, _, name in steps(again.stdout)}


def test_sigterm_ends_it_and_what_had_run_is_in_the_lock_file(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    stop_at_merge(folder, "os.kill(os.getpgrp(), signal.SIGTERM); signal.pause()")
    done = alone(folder)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "finetune@demo-demo-base-42" in locked(folder)


def test_after_a_power_cut_no_more_than_a_minute_of_work_is_not_in_the_lock_file(fresh, tmp_path):
    """Whatever dvc.lock and the cache held before."""
    folder = copy(fresh, tmp_path)
    runner = folder / "tradeoffs/repro/runner.py"
    at_once = runner.read_text().replace("MOST_UNWRITTEN = 1e9", "MOST_UNWRITTEN = 0.0")
    runner.write_text(at_once.replace("WRITING = 0.05", "WRITING = 1e9"))
    stop_at_merge(folder, "os.killpg(os.getpgrp(), signal.SIGKILL)")
    done = alone(folder)
    assert done.returncode == -9
    assert locked(folder) == set(ran(done.stdout)[:-1])


def test_a_typo_in_params_is_said_before_anything_else(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    fake_pipeline.change(folder, lambda raw: raw["run"].update(methodz=raw["run"].pop("methods")))
    done = run(folder)
    assert done.returncode == 1 and done.stdout == ""
    assert "run.methodz: unknown key (did you mean methods?)" in done.stderr


WAIT_FOR_A_LOOK = """
import time
end = time.monotonic() + 60
while not os.path.exists("looked"):
    assert time.monotonic() < end, "nobody looked"
"""

# Each of two merges waits for the other, and says which GPUs it may use.
TOGETHER = """
import os, sys, time
from pathlib import Path
if any("models/merged" in word for word in sys.argv):
    Path(sys.argv[1].replace("/", "_") + ".here").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    end = time.monotonic() + 60
    while len(list(Path().glob("*.here"))) < 2:
        assert time.monotonic() < end, "alone"
"""


def test_what_is_not_measured_runs_side_by_side(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "merging.py")
    (folder / "stand_in.py").write_text(TOGETHER + (folder / "stand_in.py").read_text())
    done = run(folder, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert fake_pipeline.repro(folder) == set()


def with_gpus(folder: Path, count: int) -> None:
    """Lets the runner find so many."""
    slots = folder / "tradeoffs/repro/slots.py"
    slots.write_text(slots.read_text().replace('Path("/dev")', f"Path({str(folder / 'dev')!r})"))
    (folder / "dev").mkdir()
    for number in range(count):
        (folder / f"dev/nvidia{number}").touch()


def test_trainings_run_side_by_side_each_on_a_gpu_of_its_own(finished, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = copy(finished[0], tmp_path)
    with_gpus(folder, 2)
    changed(folder, "finetune/trainer.py")
    (folder / "stand_in.py").write_text(
        TOGETHER.replace("models/merged", "models/trained") + (folder / "stand_in.py").read_text()
    )
    done = run(folder, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert sorted(path.read_text() for path in folder.glob("*.here")) == ["0", "1"]


def test_a_training_on_more_gpus_than_there_are_is_refused(finished, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = copy(finished[0], tmp_path)
    with_gpus(folder, 2)
    changed(folder, "finetune/trainer.py")
    fake_pipeline.change(folder, lambda raw: raw["launch"].update(gpus=4))
    done = run(folder)
    assert done.returncode == 1
    assert "finetune@demo-demo-base-42 needs 4 GPUs, there are 2 (0, 1); ask for fewer (launch.gpus" in done.stderr


def test_what_is_measured_runs_beside_nothing(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "common/cores.py")  # everything
    assert run(folder, "--jobs", "4").returncode == 0
    rows = [json.loads(line) for line in (folder / ".scratch/times.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["stage"] != "settings"]  # which is real, and tells its own times
    assert {row["step"] for row in rows} == locked(folder) - {"settings"}
    measured = [row for row in rows if row["stage"] in ("base", "finetune", "measure")]
    assert len(measured) == 4
    for row in measured:
        beside = [other for other in rows if other["began"] < row["end"] and row["began"] < other["end"]]
        assert beside == [row]


def test_what_is_changed_while_a_step_reads_it_is_named_and_the_step_is_not_kept(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "merging.py")
    stop_at_merge(folder, "open('tradeoffs/merging.py', 'a').write('# another\\n')")
    before = (folder / "dvc.lock").read_bytes()
    done = run(folder)
    assert done.returncode == 1
    assert re.search(r"ERROR: failed to reproduce 'merge@\S+': tradeoffs/merging.py changed while it ran", done.stderr)
    assert not list(folder.glob("models/merged/*"))
    assert (folder / "dvc.lock").read_bytes() == before
    go_on(folder)
    assert "merge@demo-demo-base" in ran(run(folder).stdout)  # nor is it in DVC's cache


def test_a_target_is_run_with_what_it_depends_on(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    done = run(folder, "merge@demo-demo-lora")
    assert done.returncode == 0, done.stderr
    before = {"prepare@demo", "settings", "base@demo", "tokenize@demo-demo"}
    assert locked(folder) == {*before, "finetune@demo-demo-lora-42", "merge@demo-demo-lora"}


def test_a_dry_run_says_what_would_run_and_runs_nothing(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    done = run(folder, "--dry")
    assert done.returncode == 0 and "\nfinetune@demo-demo-lora-42\n" in done.stdout
    assert not (folder / "dvc.lock").exists()


@pytest.mark.parametrize("jobs", ["0", "-1", "two", ""])
def test_so_many_jobs_are_refused(fresh, tmp_path, jobs):
    done = run(copy(fresh, tmp_path), f"--jobs={jobs}")
    assert done.returncode == 1 and "expected auto, or a number from 1" in done.stderr


def test_a_second_run_at_once_is_refused(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "merging.py")
    stop_at_merge(folder, "import subprocess; sys.exit(subprocess.call([sys.executable, '-m', 'tradeoffs.repro']))")
    done = run(folder)
    assert done.returncode == 1
    assert re.search(r"^ *error: another run is at work in \S+ \(process \d+\)", done.stderr, re.MULTILINE)


def test_other_commands_of_dvc_can_work_meanwhile_and_what_they_lock_stays(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "merging.py")
    (folder / "note").write_text("a note")
    with (folder / "dvc.yaml").open("a") as file:
        file.write("  note:\n    cmd: 'true'\n    deps: [note]\n")
    stop_at_merge(folder, "if 'demo-base' in sys.argv[1]: assert not os.system('dvc repro -q note')")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "note" in locked(folder)


def test_a_step_that_leaves_an_output_out_fails_alone(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    stop_at_merge(folder, "sys.exit(0)")
    done = run(folder, "--keep-going")
    assert done.returncode == 1
    assert len(re.findall(r"ERROR: failed to reproduce 'merge@\S+': output .* does not exist", done.stderr)) == 2
    assert "reference@demo-demo-lora" in locked(folder)


def test_on_a_terminal_a_table_shows_what_runs_and_an_error_stays(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "merging.py")
    how = f"print('the last line', flush=True)\n{WAIT_FOR_A_LOOK}sys.exit(3)"
    stop_at_merge(folder, textwrap.indent(how, "    ").strip())
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tradeoffs.repro", "--jobs", "2"]
    environment = fake_pipeline.environment_with(TERM="xterm", COLUMNS="120")
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 4096):
                shown += part
                if b"the last line" in shown:
                    (folder / "looked").touch()
    assert process.returncode == 1
    assert b"Checking cache" not in shown  # nor any other of DVC's progress bars
    last = shown.decode().rsplit("ERROR: failed to reproduce 'merge@", 1)[1]
    assert "all that it wrote: .scratch/logs/merge@" in last
    assert "\x1b[1A" not in last.split("all that it wrote")[0]  # nothing goes up over it


def test_what_dvc_add_made_and_nobody_has_is_said(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    (folder / "data/raw/support.csv").write_text("question,answer\n")
    fake_pipeline.dvc("add", "-q", "data/raw/support.csv", cwd=folder)
    (folder / "data/raw/support.csv").unlink()
    shutil.rmtree(folder / ".dvc/cache")
    done = run(folder)
    assert done.returncode == 1
    assert "ERROR: failed to reproduce 'data/raw/support.csv.dvc': missing data 'source'" in done.stderr


def test_steps_of_another_pipeline_are_locked_in_its_own_file(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    make = "stages:\n  prepare:\n    cmd: python -c \"open('mine.jsonl', 'w')\"\n    outs: [mine.jsonl]\n"
    (folder / "data/raw/dvc.yaml").write_text(make)
    done = run(folder, "tokenize@demo-demo")
    assert done.returncode == 0, done.stderr
    assert "prepare" in (folder / "data/raw/dvc.lock").read_text()
    assert locked(folder) == {"prepare@demo", "settings", "base@demo", "tokenize@demo-demo"}
    assert fake_pipeline.repro(folder, "tokenize@demo-demo") == set()


def test_what_a_killed_process_of_the_same_number_was_reading_stops_nobody(fresh, tmp_path):
    """In a container all runs have the same number."""
    folder = copy(fresh, tmp_path)
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    program = (
        "import json, os, runpy, sys; who = {'pid': os.getpid(), 'cmd': 'killed'}; path = os.path.abspath('data/raw')\n"
        "json.dump({'read': {path: [who]}, 'write': {path: who}}, open('.dvc/tmp/rwlock', 'w'))\n"
        "sys.argv = ['repro', 'prepare@demo']; runpy.run_module('tradeoffs.repro', run_name='__main__', alter_sys=True)"
    )
    environment = fake_pipeline.environment_with()
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert locked(folder) == {"settings", "prepare@demo"}


def test_in_a_folder_the_file_that_was_changed_is_named(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    changed(folder, "merging.py")
    stop_at_merge(folder, "open('tradeoffs/models/loading.py', 'a').write('# another\\n')")
    assert "': tradeoffs/models/loading.py changed while it ran" in run(folder, "--jobs", "1").stderr


def test_a_step_may_remove_what_the_run_list_no_longer_names(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    fake_pipeline.change(folder, lambda raw: raw["run"].update(methods=["base"]))
    stand_in = (folder / "stand_in.py").read_text()
    prune = "import pathlib\nfor path in pathlib.Path('data/facts').glob('*lora*'):\n    path.unlink()\n"
    (folder / "stand_in.py").write_text(prune + stand_in)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert fake_pipeline.repro(folder) == set()


# What a step starts in a session of its own, as torch's launcher does: it appends to a file for ever.
APPENDS = "import os, time\nwhile True:\n    print(os.getpid(), file=open('left', 'a'))\n    time.sleep(0.01)"
LEAVES = f"""
import subprocess, time
none = subprocess.DEVNULL
subprocess.Popen([sys.executable, "-c", {APPENDS!r}], start_new_session=True, stdout=none, stderr=none)
while not os.path.exists("left") or not open("left").read().endswith("\\n"):
    time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("killed", "code"),
    [("os.kill(os.getpgrp(), signal.SIGKILL); signal.pause()", -9), ("os.kill(os.getpid(), signal.SIGKILL)", 1)],
)
def test_after_a_kill_of_the_run_or_of_a_step_nothing_is_left(fresh, tmp_path, killed, code):
    folder = copy(fresh, tmp_path)
    stop_at_merge(folder, textwrap.indent(LEAVES + killed, "    ").strip())
    assert alone(folder).returncode == code
    left = int((folder / "left").read_text().split()[0])
    end = time.monotonic() + 60
    while code < 0 and is_alive(left):  # the guard is at it; after a step it was ended before the run was
        assert time.monotonic() < end, "nobody ended it"
        time.sleep(0.01)
    assert not is_alive(left)
    go_on(folder)
    assert run(folder).returncode == 0


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_what_a_killed_run_has_left_is_waited_for_and_a_run_that_is_alive_is_not(tmp_path, monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    held = (tmp_path / "tradeoffs-repro").open("a+")  # as by its guard
    held.write(f"{ended.pid}\n")
    held.flush()
    fcntl.flock(held, fcntl.LOCK_EX)
    monkeypatch.setattr(dvc_gaps.time, "sleep", lambda _: held.close())
    with dvc_gaps.alone(tmp_path):
        assert held.closed
        with (
            pytest.raises(UserError, match=f"another run is at work .*process {os.getpid()}"),
            dvc_gaps.alone(tmp_path),
        ):
            pass


def test_a_file_of_dvcs_locks_that_a_kill_cut_short_stops_nobody(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    (folder / ".dvc/tmp/rwlock").write_text('{"read": {"da')
    assert run(folder, "prepare@demo").returncode == 0
    assert locked(folder) == {"settings", "prepare@demo"}


def test_a_lock_file_that_a_kill_left_cut_or_empty_is_filled_by_the_run_cache(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    before = (folder / "dvc.lock").read_bytes()
    for cut in (before[: len(before) // 2], b""):
        (folder / "dvc.lock").write_bytes(cut)
        done = run(folder)
        assert done.returncode == 0, done.stderr
        assert "no commit here has it, so the run begins without, and DVC's run cache gives" in done.stderr
        # Whose outputs are Git's, not of DVC's cache.
        assert set(ran(done.stdout)) <= {"settings", "aggregate", "publish"}
        assert locked(folder) == locked(finished[0])


def test_what_does_not_fit_into_the_cache_fails_the_step_and_is_made_again(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    full = """
import errno, runpy, sys
from dvc_data.hashfile.db import HashFileDB
def add(self, paths, fs, oids, *given, on_error=None, **more):
    for oid in oids:
        on_error(oid, OSError(errno.ENOSPC, "No space left on device"))
HashFileDB.add = add
from dvc_data.hashfile.db.local import LocalHashFileDB
LocalHashFileDB.add = add
sys.argv = ["repro", "prepare@demo"]
runpy.run_module("tradeoffs.repro", run_name="__main__", alter_sys=True)
"""
    environment = fake_pipeline.environment_with()
    done = forked.python("-c", full, cwd=folder, env=environment, libraries=forked.DVC)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "'prepare@demo': " in done.stderr and "could not be put into DVC's cache (" in done.stderr
    assert locked(folder) == {"settings"}
    assert ran(run(folder, "prepare@demo").stdout) == ["prepare@demo"]


def test_a_step_that_begins_again_is_not_taken_for_what_it_was_before(finished, tmp_path):
    folder = copy(finished[0], tmp_path)
    fake_pipeline.change(folder, lambda raw: raw.update(seed=raw["seed"] + 1))  # its command stays the same
    twice = """
from tradeoffs.repro import pipeline
with pipeline.opened(["prepare"]) as steps:
    found = [steps.begin("prepare@demo").name]
    steps.release("prepare@demo")
    found.append(steps.begin("prepare@demo").name)
    print(*found)
"""
    environment = fake_pipeline.environment_with()
    done = forked.python("-c", twice, cwd=folder, env=environment, libraries=forked.DVC)
    assert done.stdout.split() == ["RUN", "RUN"], done.stdout + done.stderr
