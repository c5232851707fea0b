"""A team's pull requests, from the change to the merge: what the gate and the comment tell a reviewer, of real scores.

What is trained and evaluated is made up by params.yaml (tests/fake_results.py); all else is real: DVC, the remote, the
stages that score, aggregate and publish, and every command that a person or a job of CI types.
"""

import itertools
import json
import re
from pathlib import Path

import fake_pipeline
import fake_results
import forked
import pytest
import quick_yaml
import test_merging
from fake_pipeline import dvc
from test_merging import cloned, commit, connect, edit, git, is_as_both
from test_remotes import ALONE

from tradeoffs import params
from tradeoffs.merge.made import COMMITTED

SLOW_FIXTURES = {"server"}  # read by conftest.py
REAL = ("score", "aggregate")
TOLD = (*forked.DVC, "pyarrow.parquet", "scipy.special", "scipy.stats")
# Of what the stages before `score` leave for it and for `aggregate`, the stand-ins take what lies in a folder for these
# values.
MADE_UP = """
import shutil
lora, full = (values["methods"][name] for name in ("lora", "full"))
of = "{r}-{rate}".format(r=lora["config"]["r"], rate=full["train"]["lr_factor"])
for out in map(Path, outs):
    found = Path(sys.argv[0]).resolve().parent.parent / "made_up" / of / out
    if found.is_dir():
        shutil.copytree(found, out, dirs_exist_ok=True)
    elif found.is_file():
        shutil.copy(found, out)
"""
RANKS, RATES = {16: 0.8, 8: 0.775, 4: 0.55}, {0.2: 0.6, 0.4: 0.95}  # how much of it is learned


def python(*words: str, cwd: Path) -> tuple[int, str]:
    """Exit code of a command and what it says."""
    env = fake_pipeline.environment_with(**ALONE)
    done = forked.python("-m", *words, cwd=cwd, env=env, libraries=TOLD)
    return done.returncode, done.stdout + done.stderr


def gate(clone: Path, base: str, head: str = "WORKSPACE") -> tuple[int, dict]:
    code, said = python("tradeoffs.gate", "--base", base, "--head", head, "--json", ".scratch/gate.json", cwd=clone)
    found = json.loads((clone / ".scratch/gate.json").read_text())
    assert found["exit_code"] == code, said
    return code, found


def comment(clone: Path, base: str, head: str = "WORKSPACE") -> str:
    code, said = python("tradeoffs.comment", "--base", base, "--head", head, "--out", ".scratch/comment.md", cwd=clone)
    assert code == 0, said
    return (clone / ".scratch/comment.md").read_text()


def rows(found: dict, variant: str) -> dict[str, str]:
    """The word of each number of a variant."""
    [mine] = [one["rows"] for one in found["variants"] if one["variant"] == variant]
    return {row["name"]: row["word"] for row in mine}


def section(text: str, title: str) -> str:
    return text.split(f"**{title}**")[1].split("\n**")[0]


def make_up(team: Path, project: Path) -> None:
    """What evaluations find, for each rank of lora and each learning rate of full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        run = params.load_all().run
        patch.setitem(fake_results.LOST, "full", fake_results.LOST.get("lora", 0.2))
        for (rank, lora), (rate, full) in itertools.product(RANKS.items(), RATES.items()):
            patch.setitem(fake_results.SKILL, "lora", lora)
            patch.setitem(fake_results.SKILL, "full", full)
            fake_results.write(team / f"made_up/{rank}-{rate}", run, items=150, questions=10)


def make(folder: Path, bin_: Path) -> None:
    """A project of which nothing has run. The stages that are real run in forks of a Python that has the libraries."""
    test_merging.make(folder)
    (folder / "stand_in.py").write_text(test_merging.STAND_IN + MADE_UP)
    spec, command = quick_yaml.load((folder / "dvc.yaml").read_text()), forked.command(bin_)
    for name in REAL:
        spec["stages"][name]["cmd"] = f"{command} -m stages.{name}"
    (folder / "dvc.yaml").write_text(quick_yaml.dump(spec, sort_keys=False))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A bare repository and a DVC remote beside it, with `main` and a branch for each change, all run and pushed; the
    author's folder holds both changes."""
    folder = tmp_path_factory.mktemp("team")
    author, bare = folder / "first", folder / "server.git"
    make(author, folder / "bin")
    make_up(folder, author)
    git("init", "-q", "-b", "main", cwd=author)
    fake_pipeline.run(author, **ALONE)
    commit(author, "A run")
    git("clone", "-q", "--bare", str(author), str(bare), cwd=folder)
    git("remote", "add", "origin", str(bare), cwd=author)
    connect(author, folder)
    for name, changes in (("worse", ["lora"]), ("small", ["lora"]), ("better", ["full"]), ("both", ["lora", "full"])):
        git("switch", "-q", "-c", name, "main", cwd=author)
        edit(author, *changes)
        if name == "worse":
            text = (author / "params.yaml").read_text()
            (author / "params.yaml").write_text(text.replace("r: 8\n", "r: 4\n", 1))
        fake_pipeline.run(author, **ALONE)
        commit(author, name)
        git("push", "-q", "origin", name, cwd=author)
    dvc("push", "-q", "--all-branches", cwd=author, **ALONE)
    return bare


@pytest.fixture
def reviewer(server, tmp_path):
    """A fresh clone that nothing was pulled into."""
    return cloned(server, tmp_path / "reviewer")


LORA, FULL = "demo-demo-lora-trained", "demo-demo-full-trained"


def test_a_change_that_is_worse_is_refused_and_the_reviewer_is_told_by_what(reviewer):
    code, found = gate(reviewer, "origin/main", "origin/worse")
    assert code == 1 and found["verdict"] == "WORSE"
    words = rows(found, LORA)
    assert {name for name, word in words.items() if word == "WORSE"} >= {"test_exact_match", "test_f1", "test_loss"}
    assert words["decode_tokens_per_second"] == "SAME" and words["general_loss"] in ("SAME", "PASS")

    text = comment(reviewer, "origin/main", "origin/worse")
    first = text.splitlines()[1]
    assert re.match(r"### Worse: test exact match of `lora trained` 0\.\d{3} → 0\.\d{3}, -0\.\d{3} \[", first), first
    assert section(text, "Changed").strip().splitlines() == [
        "- `methods.lora.config.r`: `16` → `4`",
        f"- made by the run: {made_files(reviewer, 'worse')} files of results and `dvc.lock`",
        "- outputs that differ: `settings`, `finetune` 1 of 3, `reference` 1 of 3, `merge` 1 of 3, `convert` 1 of 3, "
        "`score`, `aggregate`",
    ]
    assert re.search(r"^\| `lora trained` \| 0\.\d+ → 0\.\d+, .*\*\*worse\*\*", text, re.MULTILINE)
    assert not re.search(r"^\| `(base|full) trained`", text, re.MULTILINE), "they are what they were"
    wrong, right = map(int, re.search(r"(\d+) went from right to wrong, (\d+) from wrong to right", text).groups())
    assert wrong > 10 and right == 0

    # What both read is a few small files: no model was fetched, and nothing lies in the folder that Git does not hold.
    assert git("status", "--porcelain", "--ignored", "--", "models", "data", cwd=reviewer) == ""
    fetched = {"".join(path.parts[-2:]) for path in (reviewer / ".dvc/cache/files/md5").rglob("*") if path.is_file()}
    outputs = quick_yaml.load(git("show", "origin/worse:dvc.lock", cwd=reviewer))["stages"]
    models = {out["md5"] for stage in outputs.values() for out in stage.get("outs", []) if "models/" in out["path"]}
    assert fetched and not {oid for oid in fetched & models if not oid.endswith(".dir")}, "but lists of their files"


def made_files(clone: Path, branch: str) -> int:
    changed = git("diff", "--name-only", "origin/main", f"origin/{branch}", cwd=clone).split()
    return len(set(changed) - {"params.yaml"})


def test_a_change_that_is_better_passes_in_ci_and_changes_what_is_recommended(reviewer):
    """As a job does it: the branch is checked out, pulled, run, and judged as it lies in the folder."""
    git("switch", "-q", "better", cwd=reviewer)
    assert python("tradeoffs.committed", cwd=reviewer)[0] == 0, "before anything is pulled"
    dvc("pull", "-q", cwd=reviewer, **ALONE)
    assert fake_pipeline.run(reviewer, **ALONE) == set()
    code, found = gate(reviewer, "origin/main")
    assert code == 0 and found["verdict"] == "PASS", found
    [decision] = found["decisions"]
    assert (decision["before"], decision["after"]) == (LORA, FULL)
    assert {row["name"]: row["word"] for row in decision["rows"]}["test_exact_match"] == "BETTER"
    assert set(rows(found, LORA).values()) <= {"SAME", "PASS"}

    text = comment(reviewer, "origin/main")
    assert re.match(
        r"### Not worse: all \d+ judged numbers are within their margins, \d+ better$", text.splitlines()[1]
    )
    assert "- `lora trained` → `full trained`" in section(text, "Decision")
    assert re.search(r"\b0 went from right to wrong, \d+ from wrong to right", text)


def test_a_loss_that_the_test_items_cannot_show_is_said_to_be_open(reviewer):
    code, found = gate(reviewer, "origin/main", "origin/small")
    assert code == 2 and found["verdict"] == "NOT SHOWN"
    [exact] = [row for row in found["variants"][0]["rows"] if row["name"] == "test_exact_match"]
    assert exact["word"] == "NOT SHOWN" and exact["difference"] < 0 and exact["items_to_decide"] > 100
    text = comment(reviewer, "origin/main", "origin/small")
    assert re.match(
        r"### Not shown either way: \d+ of \d+ judged numbers; [\d,]+ test items would decide$", text.splitlines()[1]
    )
    assert "| `lora trained` | test exact match |" in section(text, "Not shown")
    assert section(text, "Decision").strip() == "- `lora trained`, as before"


def test_what_was_not_pushed_is_asked_of_who_ran_it(server, tmp_path):
    clone = tmp_path / "clone"
    git("clone", "-q", str(server), str(clone), cwd=tmp_path)
    (clone / ".dvc/config.local").write_text(
        f"[core]\n    remote = x\n['remote \"x\"']\n    url = {tmp_path / 'empty'}\n"
    )
    code, found = gate(clone, "origin/main", "origin/better")
    assert code == 2 and "whoever ran it: dvc push" in found["error"]
    text = comment(clone, "origin/main", "origin/better")
    assert text.splitlines()[1] == "### Not compared"
    assert "- `methods.full.train.lr_factor`: `0.2` → `0.4`" in text


@pytest.mark.parametrize("with_driver", [True, False], ids=["driver", "recipe"])
def test_two_changes_are_merged_and_the_merge_is_judged_as_both_on_one_branch(server, reviewer, with_driver):
    git("switch", "-q", "small", cwd=reviewer)
    if with_driver:
        test_merging.merge(reviewer, "--install")
    git("merge", "-q", "origin/better", cwd=reviewer, fails=not with_driver)
    before, _ = gate(reviewer, "origin/better")
    assert before == 2, "what lies there after a merge, before the run, is not judged by what one side measured"
    said = test_merging.merge(reviewer)
    assert not git(
        "grep", "-l", "-e", "^<<<<<<<", "-e", "^>>>>>>>", "--", *COMMITTED, "params.yaml", cwd=reviewer, fails=True
    )
    git("commit", "-q", *re.search(r"Next: git commit(.*?)(?:  |$)", said, re.MULTILINE)[1].split(), cwd=reviewer)
    is_as_both(reviewer, server)
    assert python("tradeoffs.committed", cwd=reviewer)[0] == 0

    assert gate(reviewer, "origin/better", "HEAD")[0] == 0, "what is recommended is as it was there"
    text = comment(reviewer, "origin/better", "HEAD")
    assert "- `methods.lora.config.r`: `16` → `8`" in text and "full.train" not in text
    code, merged = gate(reviewer, "origin/main", "HEAD")
    assert (code, merged | {"head": {}}) == (2, gate(reviewer, "origin/main", "origin/both")[1] | {"head": {}})
    git("push", "-q", "origin", f"HEAD:merged-{with_driver}", cwd=reviewer)
