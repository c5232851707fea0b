"""`python -m tradeoffs.repro --exp` runs experiments side by side and leaves what `dvc queue start` leaves."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import fake_pipeline
import forked
import pytest
from test_repro import CLOCKED

SLOW_FIXTURES = {"fresh", "swept"}  # read by conftest.py
TRAINED, MERGED = "finetune@demo-demo-lora-42", "merge@demo-demo-lora"
RANKS = {"rank-1": 2, "rank-2": 4, "rank-3": 8}
SWEEP = ("--exp", "-S", f"methods.lora.config.r={','.join(map(str, RANKS.values()))}", "--name", "rank")
# What a training says of itself, for the table of a sweep.
FACTS = """
row = {"trainable_params": 1, "train_seconds": 1.0, "train_tokens_per_second": 1.0, "valid_loss": 1.0}
for out in map(Path, sys.argv[1:]):
    if "data/training" in str(out):
        out.write_text(json.dumps(row))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The project in Git before its first run, with stand-ins for stages, and a change that is not committed."""
    folder = tmp_path_factory.mktemp("experiments") / "fresh"
    folder.mkdir()
    fake_pipeline.make(folder, methods=["base", "lora"], precisions=["bf16"], quants=["q8_0"])
    at_work(folder)
    git(folder, "init", "-q")
    for key, value in {"user.name": "a", "user.email": "a@example.org", "gc.auto": "0"}.items():
        git(folder, "config", key, value)
    fake_pipeline.dvc("init", "-q", cwd=folder)
    fake_pipeline.dvc("config", "core.analytics", "false", cwd=folder)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "fresh")
    fake_pipeline.change(folder, lambda raw: raw.update(seed=7))
    return folder


@pytest.fixture(scope="module")
def swept(fresh, tmp_path_factory):
    """The same after a sweep of the whole pipeline, what that printed, and what the workspace had been before."""
    folder = copy(fresh, tmp_path_factory.mktemp("swept"))
    before = workspace(folder)
    done = run(folder, *SWEEP, "--jobs", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout, before


def at_work(folder: Path, first: str = "") -> None:
    """Lets stand-ins do `first`, then their work."""
    stand_in = CLOCKED.format(stand_in=fake_pipeline.STAND_IN + FACTS)
    (folder / "stand_in.py").write_text(f"import json, os, signal, sys\n{first}\n{stand_in}")


def copy(folder: Path, beside: Path) -> Path:
    return shutil.copytree(folder, beside / "copy", symlinks=True)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = fake_pipeline.environment_with()
    return forked.python("-m", "tradeoffs.repro", *options, cwd=folder, env=environment, libraries=forked.DVC)


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Python in the project."""
    begin = "import os, time\nfrom pathlib import Path\nfrom tradeoffs.repro import experiments, together\n"
    environment = fake_pipeline.environment_with()
    return forked.python("-c", begin + textwrap.dedent(text), cwd=folder, env=environment, libraries=forked.DVC)


def queue(folder: Path, name: str, *options: str) -> None:
    fake_pipeline.dvc("exp", "run", "-q", "--queue", "--name", name, *options, "prepare@demo", cwd=folder)


def alone(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """In a group of its own, which a stage can signal as a terminal does."""
    heeding = "import os, sys, signal as s; s.signal(s.SIGINT, s.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-c", heeding, sys.executable, "-m", "tradeoffs.repro", *options]
    environment = fake_pipeline.environment_with()
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, start_new_session=True)


def workspace(folder: Path) -> dict[str, bytes | None]:
    """All files but Git's, DVC's own and those of a run."""
    own = (".git", ".dvc", ".scratch", "__pycache__")
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    files = {str(name): path.read_bytes() for name, path in found.items() if not set(own) & set(name.parts)}
    return {**files, "git status": git(folder, "status", "--porcelain").encode()}


def shown(folder: Path) -> dict[str, dict]:
    """Of each experiment that DVC shows what it says of it."""
    [commit] = [row for row in json.loads(fake_pipeline.dvc("exp", "show", "--json", cwd=folder)) if row["experiments"]]
    return {one["name"]: one["revs"][0]["data"] for one in commit["experiments"]}


def params(row: dict) -> dict:
    return row["params"]["params.yaml"]["data"]


def status(folder: Path) -> dict[str, str]:
    """Of what DVC's queue knows, by name, how it stands."""
    rows = [line.split() for line in fake_pipeline.dvc("queue", "status", cwd=folder).splitlines()[1:]]
    return {row[1]: row[-1] for row in rows if len(row) > 2 and row[-1] in ("Queued", "Running", "Failed", "Success")}


def times(folder: Path) -> list[dict]:
    """Of the stand-ins; `settings` is real, and tells its own."""
    rows = [json.loads(line) for line in (folder / ".scratch/times.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] != "settings"]


def temporary(folder: Path) -> set[str]:
    """Folders of experiments that are left."""
    found = {path.name for path in (folder / ".dvc/tmp/exps").iterdir() if path.is_dir()}
    return found - {"celery", "run", "cache"}


def test_each_combination_is_an_experiment_and_the_workspace_is_as_it_was(swept):
    folder, said, before = swept
    found = shown(folder)
    assert {name: params(row)["methods"]["lora"]["config"]["r"] for name, row in found.items()} == RANKS
    assert {params(row)["seed"] for row in found.values()} == {7}  # what was not committed
    assert all(row["metrics"]["metrics/headline.json"] for row in found.values())
    assert all(f"{name}: methods.lora.config.r={rank}\n" in said for name, rank in RANKS.items())
    assert all(f"Experiment '{name}' is complete" in said for name in RANKS)
    first, *others = re.findall(r"^Experiment '(.*)' is complete", said, re.MULTILINE)
    gate = f"python -m tradeoffs.gate --base HEAD --head {first}    (likewise {', '.join(others)})"
    assert said.splitlines()[-2:] == [
        "What each setting changes: python -m tradeoffs.experiments --ablation",
        f"Better or worse than HEAD: {gate}",
    ]
    assert workspace(folder) == before
    assert status(folder) == dict.fromkeys(RANKS, "Success")
    assert temporary(folder) == set()


def test_one_that_is_applied_has_nothing_to_run(swept, tmp_path):
    folder = copy(swept[0], tmp_path)
    fake_pipeline.dvc("exp", "apply", "-q", "rank-2", cwd=folder)
    assert "r: 4\n" in (folder / "params.yaml").read_text()
    assert fake_pipeline.repro(folder, "--dry") == set()
    assert "Data and pipelines are up to date." in fake_pipeline.dvc("status", cwd=folder)


def test_what_two_would_do_alike_is_done_once(swept):
    folder, said, _ = swept
    count = Counter(row["step"] for row in times(folder))
    assert count[TRAINED] == count["aggregate"] == 3
    assert count["base@demo"] == count["prepare@demo"] == count["finetune@demo-demo-base-42"] == 1
    assert said.count("/base@demo' is cached") == 2


def test_nor_is_it_begun_twice_where_there_is_room_for_both(swept, tmp_path):
    folder = copy(swept[0], tmp_path)  # where is known what memory a step takes
    changes = ("-S", "seed=1", "-S", "methods.lora.config.r=16,32")
    done = run(folder, "--exp", *changes, "tokenize@demo-demo", "--jobs", "4")
    assert done.returncode == 0, done.stderr
    assert Counter(row["step"] for row in times(folder)) == {"base@demo": 1, "prepare@demo": 1, "tokenize@demo-demo": 1}
    assert len(shown(folder)) == len(RANKS) + 2


def test_of_a_project_that_has_run_only_what_a_change_touches_runs(swept, tmp_path):
    folder = copy(swept[0], tmp_path)
    fake_pipeline.dvc("exp", "apply", "-q", "rank-2", cwd=folder)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "rank 4")
    before = workspace(folder)
    done = run(folder, "--exp", "-S", "methods.lora.config.r=4,16", "--name", "next")
    assert done.returncode == 0, done.stderr
    ran = {row["step"] for row in times(folder)}
    assert TRAINED in ran and "aggregate" in ran and ran.isdisjoint({"base@demo", "finetune@demo-demo-base-42"})
    assert "next-1/" not in done.stdout  # the same again
    found = shown(folder)
    assert {name: params(row)["methods"]["lora"]["config"]["r"] for name, row in found.items()} == {
        "next-1": 4,
        "next-2": 16,
    }
    assert workspace(folder) == before


def test_what_is_measured_runs_beside_nothing_of_another(swept):
    rows = times(swept[0])
    measured = [row for row in rows if row["stage"] in ("base", "finetune", "measure")]
    assert len(measured) == 1 + 4 + 3
    for row in measured:
        assert [other for other in rows if other["began"] < row["end"] and row["began"] < other["end"]] == [row]


def test_the_table_of_a_sweep_has_them(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    done = run(folder, *SWEEP, TRAINED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nBeside each other: python -m tradeoffs.experiments\n")  # without numbers
    table = fake_pipeline.call(sys.executable, "-m", "tradeoffs.experiments", cwd=folder)
    assert table.returncode == 0, table.stderr
    assert all(name in table.stdout for name in RANKS)


def test_one_that_fails_is_said_and_the_others_go_on(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    at_work(folder, "if os.environ['DVC_EXP_NAME'] == 'rank-2' and 'models/merged' in str(sys.argv): sys.exit('no')")
    done = run(folder, *SWEEP, MERGED, "reference@demo-demo-lora")
    assert done.returncode == 1
    assert f"ERROR: failed to reproduce 'rank-2/{MERGED}': failed to run: " in done.stderr
    assert "ERROR: experiment 'rank-2' failed: " in done.stderr
    assert status(folder) == {"rank-1": "Success", "rank-2": "Failed", "rank-3": "Success"}
    assert "'rank-2/merge@" in fake_pipeline.dvc("queue", "logs", "rank-2", cwd=folder)
    assert temporary(folder) == set()
    fake_pipeline.dvc("queue", "remove", "--failed", cwd=folder)
    assert set(status(folder)) == {"rank-1", "rank-3"}


def test_what_two_would_do_alike_and_fails_is_not_tried_again(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    tried = f"{str(folder / 'tried')!r}"
    at_work(folder, f"if 'models/base' in str(sys.argv):\n    open({tried}, 'a').write('x')\n    sys.exit('no')")
    done = run(folder, "--exp", "-S", "methods.lora.config.r=2,4", "--name", "rank", "base@demo")
    assert done.returncode == 1
    assert "failed to reproduce 'rank-2/base@demo': the same has failed as rank-1/base@demo\n" in done.stderr
    assert status(folder) == {"rank-1": "Failed", "rank-2": "Failed"}
    assert (folder / "tried").read_text() == "x"
    assert (folder / ".scratch/logs/rank-1/base@demo.log").read_text() == "no\n"  # though it ran alone


def test_of_those_with_one_name_the_first_that_ends_well_is_kept_and_no_other_begins(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    seen = f"{str(folder / 'seen')!r}"
    first = (
        f"with open({seen}, 'a+') as seen:\n    print(os.environ['TRADEOFFS_RUN'][:32], file=seen)\n    seen.seek(0)\n"
    )
    at_work(folder, f"{first}    if len(seen.readlines()) == 1: sys.exit('no')")
    for seed in (1, 2, 3):
        queue(folder, "one", "-S", f"seed={seed}")
    done = run(folder, "--exp")
    assert done.returncode == 1
    assert "experiment 'one' failed: one is there already: dvc exp remove one, " in done.stderr
    lines = fake_pipeline.dvc("queue", "status", cwd=folder).splitlines()
    assert Counter(line.split()[-1] for line in lines if " one " in line) == {"Failed": 2, "Success": 1}
    [kept] = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps/*/*/one").split()
    assert "\nseed: 2\n" in git(folder, "show", f"{kept}:params.yaml")
    [guarded, again] = (folder / "seen").read_text().split()
    assert guarded == again  # what ends with a run that is killed has one mark in all batches


def test_what_was_queued_is_run(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    at_work(folder, "assert not os.system('cd $DVC_ROOT && dvc queue status > seen && dvc exp show -q > seen.exp')")
    queue(folder, "one", "-S", "seed=1")
    queue(folder, "forced", "-f")
    queue(folder, "eager", "-k")
    module = folder / "tradeoffs/repro/together.py"
    one_at_a_time = module.read_text().replace("MOST = 16", "MOST = 1")
    assert one_at_a_time != module.read_text()
    module.write_text(one_at_a_time)
    done = run(folder, "--exp")
    assert done.returncode == 1
    assert "experiment 'forced' failed: queued with force, which `dvc queue start` alone can do" in done.stderr
    assert "experiment 'eager' failed: queued with on_error, which " in done.stderr
    assert re.search(r"one .*Running", (folder / "seen").read_text())
    assert status(folder) == {"one": "Success", "forced": "Failed", "eager": "Failed"}
    assert params(shown(folder)["one"])["seed"] == 1
    assert run(folder, "--exp").stdout.startswith("Nothing is queued")


@pytest.mark.parametrize("end", ["SIGINT", "SIGKILL"])
def test_what_is_not_complete_when_it_ends_goes_on_later(fresh, tmp_path, end):
    folder = copy(fresh, tmp_path)
    before = workspace(folder)["params.yaml"]
    # A file of the project itself: the folder of an experiment goes with it.
    once = f"{str(folder / 'ended')!r}"
    at_work(
        folder,
        f"if 'models/merged' in str(sys.argv) and not os.path.exists({once}):\n"
        f"    open({once}, 'w')\n    os.killpg(os.getpgrp(), signal.{end})\n    signal.pause()",
    )
    done = alone(folder, "--exp", "-S", "train.steps=20,30", "--name", "steps", MERGED)
    assert done.returncode == (252 if end == "SIGINT" else -9), done.stderr
    if end == "SIGINT":
        assert status(folder) == {"steps-1": "Queued", "steps-2": "Queued"}
        assert temporary(folder) == set()
    again = run(folder, "--exp")
    assert again.returncode == 0, again.stderr
    assert "/base@demo' is cached" in again.stdout
    assert status(folder) == {"steps-1": "Success", "steps-2": "Success"}
    assert {name: params(row)["train"]["steps"] for name, row in shown(folder).items()} == {
        "steps-1": 20,
        "steps-2": 30,
    }
    assert temporary(folder) == set() and workspace(folder)["params.yaml"] == before


def test_what_goes_back_on_the_queue_waits_for_another_command_of_dvc(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    queue(folder, "one")
    # Waiting ends what it waits for: a lock that this process is said to hold.
    lock = {"write": {"refs/exps/celery/stash": {"pid": os.getpid(), "cmd": "another"}}, "read": {}}
    done = script(
        folder,
        f"""
        with experiments.project():
            [one] = experiments.taken(None, 16)
            one.open(set())
            lock = Path(".dvc/tmp/exps/rwlock")
            lock.write_text('{json.dumps(lock)}')
            time.sleep = lambda _: lock.unlink()
            one.put_back()
        """,
    )
    assert done.returncode == 0, done.stderr
    assert status(folder) == {"one": "Queued"} and temporary(folder) == set()


def test_one_that_cannot_begin_keeps_no_other_from_running(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    pipeline = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(pipeline.replace("exclusive: true", "exclusive: perhaps"))
    fake_pipeline.dvc("exp", "run", "-q", "--queue", "--name", "bad", "base@demo", cwd=folder)
    (folder / "dvc.yaml").write_text(pipeline)
    queue(folder, "good")
    done = run(folder, "--exp")
    assert done.returncode == 1
    assert "ERROR: experiment 'bad' failed: dvc.yaml: stages.base.meta.exclusive: expected " in done.stderr
    assert status(folder) == {"bad": "Failed", "good": "Success"} and temporary(folder) == set()


@pytest.mark.parametrize(
    ("error", "then"), [("SCMError('no')", "Failed"), ("OSError(errno.ENOSPC, 'No space left on device')", "Queued")]
)
def test_what_fails_as_its_folder_is_made_leaves_no_folder_and_a_full_disk_is_not_its_fault(
    fresh, tmp_path, error, then
):
    folder = copy(fresh, tmp_path)
    queue(folder, "one")
    done = script(
        folder,
        f"""
        import errno
        from dvc.repo.experiments import utils
        from scmrepo.exceptions import SCMError
        def push(*_):
            raise {error}
        utils.push_refspec = push
        together.run([], None, [], None, 1, False)
        """,
    )
    assert done.returncode == int(then == "Queued"), done.stderr
    assert status(folder) == {"one": then} and temporary(folder) == set()


def test_one_that_is_complete_while_git_is_locked_goes_back_and_ends_the_run(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    queue(folder, "one")
    done = script(
        folder,
        """
        from dvc.lock import LockError
        def commit(_):
            raise LockError("refs/exps is busy")
        experiments.Experiment.commit = commit
        assert together.run([], None, [], None, 1, False)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "could not be kept: refs/exps is busy" in done.stdout
    assert status(folder) == {"one": "Queued"} and temporary(folder) == set()


@pytest.mark.parametrize(
    "until",
    [
        "experiments.ExecutorInfo = end; take()",
        "one = take(); one.open(set()); experiments.get_exp_rwlock = end; one.put_back()",
    ],
    ids=["taken", "goes back"],
)
def test_a_kill_while_it_is_taken_or_goes_back_does_not_lose_it(fresh, tmp_path, until):
    folder = copy(fresh, tmp_path)
    queue(folder, "one")
    begin = "take = lambda: experiments.taken(None, 16)[0]\nend = lambda *_, **__: os._exit(9)\n"
    assert script(folder, f"{begin}with experiments.project(): {until}").returncode == 9
    assert status(folder) == {"one": "Running"}
    assert script(folder, f"{begin}with experiments.project(): take().put_back()").returncode == 0
    assert status(folder) == {"one": "Queued"} and temporary(folder) == set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["-S", "train.stepz=2"],
            "-S train.stepz: params.yaml has no such key (did you mean train.steps?); a new one ",
        ),
        (["-S", "~sed"], "-S sed: params.yaml has no such key (did you mean seed?)"),
        (["-S", "train.steps="], "steps"),
        (["-S", "train.steps"], "-S train.steps"),
        (["-S", "train.steps=20", "finetun"], "finetun: dvc.yaml has no such stage or step (did you mean finetune?)"),
        (["-S", "train.steps=20", "--name", "a/b"], "a/b"),
        (["--name", "a"], "add one"),
        (["prepare@demo"], "add one"),
        (["-S", "train.steps=20", "--dry"], "`python -m tradeoffs.repro --dry`"),
    ],
)
def test_what_cannot_be_run_is_one_error_and_nothing_is_queued(fresh, tmp_path, options, said):
    folder = copy(fresh, tmp_path)
    before = workspace(folder)
    done = run(folder, "--exp", *options)
    assert done.returncode == 1 and said in done.stderr
    assert "Traceback" not in done.stderr
    assert workspace(folder) == before
    assert status(folder) == {}


def test_a_value_that_cannot_be_is_found_before_anything_is_queued(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    before = git(folder, "reflog")  # DVC leaves the branch for each that it queues
    done = run(folder, "--exp", "-S", "train.steps=20,30,-1")
    assert done.returncode == 1 and "train.steps: must be" in done.stderr
    assert git(folder, "reflog") == before


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM"])
def test_told_to_stop_while_it_queues_it_queues_none_and_the_workspace_is_as_it_was(fresh, tmp_path, end):
    folder = copy(fresh, tmp_path)
    before = workspace(folder)
    done = script(
        folder,
        f"""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background hands down another
        from dvc.repo.experiments.queue.base import BaseStashQueue
        from tradeoffs.repro import __main__
        ordinary = BaseStashQueue._pack_args
        def second(self, *words, **more):
            ordinary(self, *words, **more)
            if more["run_env"]["DVC_EXP_NAME"] == "steps-2":
                os.kill(os.getpid(), signal.{end})
        BaseStashQueue._pack_args = second
        __main__.main(["prepare@demo"], "1", False, False, None, True, ["train.steps=20,30,40"], "steps")
        """,
    )
    assert done.returncode == 252, done.stderr
    assert workspace(folder) == before and git(folder, "stash", "list") == ""
    assert status(folder) == {}


def test_changes_are_of_experiments(fresh, tmp_path):
    done = run(copy(fresh, tmp_path), "-S", "train.steps=20")
    assert done.returncode == 1 and "add --exp" in done.stderr


def test_without_git_there_are_no_experiments(fresh, tmp_path):
    folder = copy(fresh, tmp_path)
    shutil.rmtree(folder / ".git")
    fake_pipeline.dvc("config", "core.no_scm", "true", cwd=folder)
    done = run(folder, "--exp", "-S", "train.steps=20")
    assert done.returncode == 1 and "DVC keeps experiments in Git" in done.stderr
