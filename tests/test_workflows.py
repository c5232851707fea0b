"""The workflows for GitHub and GitLab: well formed, pinned, able to do no harm; their scripts run against servers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fake_commits
import pytest
import quick_yaml
from fake_commits import git
from fake_forge import FakeGitHub, FakeGitLab, Reply, pull, workflow_run

from tradeoffs.comment import posting

REPO = Path(__file__).parents[1]
REVIEW, COMMENT = (REPO / f".github/workflows/{name}.yml" for name in ("review", "comment"))
GITLAB = REPO / ".gitlab-ci.yml"
SLOW_FIXTURES = {"checkout"}  # read by conftest.py
MADE = f"{posting.marker('.', 'origin/main')}\n### Not worse\n\n`a` → `b`\n"


def steps(path):
    [job] = quick_yaml.load(path.read_text())["jobs"].values()
    return job["steps"]


def scripts(path):
    return {step["name"]: step["run"] for step in steps(path) if "run" in step}


@pytest.mark.slow
@pytest.mark.parametrize("path", [REVIEW, COMMENT, GITLAB])
def test_the_platforms_schema_takes_it(path, tmp_path):
    schema = "gitlab-ci" if path == GITLAB else "github-workflows"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(path.read_text().replace("timeout", "time_out").replace("runs-on", "runs_on"))
    assert subprocess.run([*command, broken], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("path", [REVIEW, COMMENT])
def test_actions_are_pinned_by_commit_and_say_their_version(path):
    used = re.findall(r"uses: *(.*)", path.read_text())
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) for one in used)
    every = {one for path in (REVIEW, COMMENT) for one in re.findall(r"uses: *(.*)", path.read_text())}
    assert len({one.split("@")[0] for one in every}) == len(every), "one version of each"


@pytest.mark.parametrize("path", [REVIEW, COMMENT])
def test_no_text_from_outside_is_part_of_a_script(path):
    assert not any("${{" in script for script in scripts(path).values())


def test_who_runs_the_branchs_code_may_write_nothing_and_who_may_write_runs_none_of_it():
    review, comment = (quick_yaml.load(path.read_text()) for path in (REVIEW, COMMENT))
    triggers = [set(found[True]) for found in (review, comment)]  # YAML takes `on` for true
    assert triggers == [{"pull_request", "push"}, {"workflow_run"}]
    assert review["permissions"] == {"contents": "read"}
    assert comment["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    for found in (review, comment):
        [job] = found["jobs"].values()
        assert "permissions" not in job
        [checkout] = [step for step in job["steps"] if "actions/checkout" in step.get("uses", "")]
        assert checkout["with"]["persist-credentials"] is False
        assert "ref" not in checkout["with"]
    secrets = [step for step in steps(COMMENT) if "secrets." in json.dumps(step)]
    assert not secrets


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clone with a `.venv` whose python runs this project's commands, and whose `make` does nothing."""
    fake_commits.begin(monkeypatch, tmp_path / "origin")
    for name in ("dvc.yaml", "params.yaml", "requirements.lock"):
        shutil.copy(REPO / name, name)
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    fake_commits.committed("base")
    git("clone", "-q", str(tmp_path / "origin"), str(tmp_path / "clone"), cwd=tmp_path)
    monkeypatch.chdir(tmp_path / "clone")
    tools = Path(".venv/bin")
    tools.mkdir(parents=True)
    asked = tmp_path / "asked"
    asked.write_text("")
    # Installing is left out; the gate and tradeoffs.committed are other tests', and end here as GATE and COMMITTED say.
    asks = f'echo "$*" >> {asked}'
    ends = f"*tradeoffs.gate*) {asks}; exit ${{GATE:-0}};; *tradeoffs.committed) {asks}; exit ${{COMMITTED:-0}}"
    _tool(tools / "python", f'case "$*" in *pip*) {asks};; {ends};; *) exec {sys.executable} "$@";; esac')
    (tools / "dvc").symlink_to(Path(sys.executable).with_name("dvc"))
    _tool(tools / "make", f'echo "make $*" >> {asked}')
    environment = {"PATH": f"{tools.absolute()}:{os.environ['PATH']}", "PYTHONPATH": str(REPO), "ASKED": str(asked)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("GITLAB_TOKEN", "CI_JOB_TOKEN", "GITHUB_TOKEN", "CI_PROJECT_URL", "CI_COMMIT_SHA"):
        monkeypatch.delenv(name, raising=False)
    return asked


def _tool(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(script, **environment):
    """As the platforms run it: GitHub by `bash -e`, GitLab with pipefail."""
    options = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(options, env=os.environ | environment, capture_output=True, text=True, check=False)


def installed(script):
    """The packages that a script installs."""
    [line] = [line for line in script.splitlines() if "pip install" in line]
    return [word for word in line.partition("requirements.lock")[2].split() if not word.startswith("-")]


def nothing_but(packages, folder):
    """A path for Python on which only its own modules, this project's and these packages can be imported."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {{*sys.stdlib_module_names, "tradeoffs", *{packages!r}}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}, which nothing has installed", name=name)
sys.meta_path.insert(0, Only())
"""
    )
    return f"{folder}:{REPO}"


def test_what_is_missing_is_pulled_where_there_is_a_remote_and_made_where_not(checkout, tmp_path):
    script = scripts(REVIEW)["Get what was measured"]
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert "could be pulled" not in done.stdout, "there is no remote to pull from"
    settings = f"[core]\n    remote = team\n['remote \"team\"']\n    url = {tmp_path / 'remote'}\n"
    Path(".dvc/config.local").write_text(settings)
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace("{}", MISSING))
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert "::warning::not all could be pulled" in done.stdout
    assert scripts(REVIEW)["Measure what is missing"] == "make run"


def test_what_reads_the_remote_has_its_key_and_nothing_else_has():
    """The comment reads what the base measured, which the branch's `dvc pull` does not bring."""
    holding = [step["name"] for step in steps(REVIEW) if "secrets." in json.dumps(step)]
    assert holding == ["Get what was measured", "Comment"]
    assert (
        len(
            {
                json.dumps({k: v for k, v in step["env"].items() if "AWS" in k})
                for step in steps(REVIEW)
                if step.get("name") in holding
            }
        )
        == 1
    )


def test_stale_results_fail_githubs_job_after_the_comment():
    names = [step.get("name") for step in steps(REVIEW)]
    check, last = (
        next(step for step in steps(REVIEW) if step.get("name") == name)
        for name in ("Is what is committed of this code", "What is committed is of this code")
    )
    assert check["run"] == ".venv/bin/python -m tradeoffs.committed"
    assert names.index(check["name"]) < names.index("Measure what is missing") < names.index("Comment")
    assert names[-1] == last["name"]
    assert (check["id"], check["continue-on-error"]) == ("committed", True)
    for needed in ("!cancelled()", "event_name == 'pull_request'", "steps.committed.outcome == 'failure'"):
        assert needed in last["if"], "without a status function it is not run where the gate has failed"
    assert run(last["run"]).returncode == 1


@pytest.mark.parametrize(
    ("gate", "allowed", "ends"),
    [("0", "", 0), ("1", "", 1), ("2", "", 2), ("2", "true", 0), ("1", "true", 1), ("2", "false", 2)],
)
def test_what_is_not_shown_passes_where_that_is_allowed(checkout, gate, allowed, ends):
    [last] = [line for line in gitlabs_job()[0]["script"] if "tradeoffs.gate" in line]
    for script in (scripts(REVIEW)["Gate"], last):
        done = run(script, GATE=gate, REVIEW_ALLOW_NOT_SHOWN=allowed, GITHUB_BASE_REF="main")
        assert done.returncode == ends, done.stderr
        assert ("warning" in done.stdout) == (gate == "2" and ends == 0), "it is said"
        assert run(last, GATE=gate, REVIEW_ALLOW_NOT_SHOWN=allowed, stale="1").returncode == 1


MISSING = "{score: {cmd: x, outs: [{path: data/scores.parquet, md5: 0123456789abcdef0123456789abcdef, size: 1}]}}"


def test_githubs_scripts_from_the_pull_request_of_a_fork_to_its_comment(checkout, tmp_path):
    """Made by the first workflow, carried as its artefact, posted by the second; a second run updates it."""
    summary = tmp_path / "summary.md"
    environment = {"GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(summary), "REVIEW_NUMBER": "12"}
    with FakeGitHub() as forge:
        forge.read_only = True  # what a fork's job gets
        done = run(scripts(REVIEW)["Comment"], **environment, REVIEW_HEAD_SHA=40 * "a")
        assert done.returncode == 0, done.stderr
        made = Path("review/comment.md").read_text()
        assert made.startswith(posting.marker(".", "origin/main"))
        assert summary.read_text() == made
        assert not forge.asked
        shutil.copytree("review", tmp_path / "runner/review")
        forge.read_only = False
        shown = forge.environment(tmp_path, workflow_run()) | {"RUNNER_TEMP": str(tmp_path / "runner")}
        post = scripts(COMMENT)["Post"]
        shown["PYTHONPATH"] = nothing_but(installed(post), tmp_path / "only")
        for _ in range(2):
            done = run(post, **shown)
            assert done.returncode == 0, done.stderr
        [body] = forge.bodies
        assert body.startswith(posting.marker(".", "origin/main"))
        assert "Made by a job of a fork" in body
        assert forge.count("POST") == 1
        assert shown["GITHUB_TOKEN"] not in done.stdout + done.stderr + body


@pytest.mark.parametrize(
    ("number", "said"),
    [("13", "the event is not about it"), ("--post=gitlab", "argument|expected"), ("$(touch gone)", "no whole number")],
)
def test_an_artefact_decides_nothing_about_where_it_is_posted(checkout, tmp_path, number, said):
    folder = tmp_path / "runner/review"
    folder.mkdir(parents=True)
    (folder / "comment.md").write_text(MADE)
    (folder / "number").write_text(number)
    with FakeGitHub() as forge:
        shown = forge.environment(tmp_path, workflow_run()) | {"RUNNER_TEMP": str(tmp_path / "runner")}
        done = run(scripts(COMMENT)["Post"], **shown)
        assert done.returncode != 0
        assert re.search(said, done.stderr), done.stderr
        assert not forge.notes
        assert not Path("gone").exists()


def test_a_pull_request_that_was_pushed_to_meanwhile_is_no_error(checkout, tmp_path):
    folder = tmp_path / "runner/review"
    folder.mkdir(parents=True)
    (folder / "comment.md").write_text(MADE)
    (folder / "number").write_text("12\n")
    with FakeGitHub() as forge:
        forge.pulls = [pull(12, sha=40 * "1")]
        shown = forge.environment(tmp_path, workflow_run()) | {"RUNNER_TEMP": str(folder.parent)}
        done = run(scripts(COMMENT)["Post"], **shown)
        assert done.returncode == 0, done.stderr
        assert "nothing is posted" in done.stdout


@pytest.mark.parametrize(
    ("value", "status", "count"), [({"artifacts": [{"name": "comment"}]}, 0, "1"), ({"artifacts": []}, 0, "0")]
)
def test_a_run_without_an_artefact_is_told_from_one_whose_artefact_cannot_be_had(
    checkout, tmp_path, value, status, count
):
    find, download, post = (step for step in steps(COMMENT) if step.get("id") == "artefact" or "if" in step)
    assert all("continue-on-error" not in step for step in steps(COMMENT))
    assert download["if"] == post["if"] == "steps.artefact.outputs.count != '0'"
    shown = {"RUN": "77", "GITHUB_OUTPUT": str(tmp_path / "output"), "RUNNER_TEMP": str(tmp_path)}
    with FakeGitHub() as forge:
        own, at = forge.answer, f"/repos/{forge.repository}/actions/runs/77/artifacts"
        forge.answer = lambda method, path, query, *rest: (
            Reply(200, value) if (path, query) == (at, {"name": "comment"}) else own(method, path, query, *rest)
        )
        shown |= forge.environment(tmp_path, workflow_run())
        done = run(find["run"], **shown)
        assert done.returncode == 0, done.stderr
        assert Path(shown["GITHUB_OUTPUT"]).read_text() == f"count={count}\n"
        assert ("left no comment" in done.stdout) == (count == "0")
        [(_, _, headers)] = forge.asked
        assert headers["authorization"] == f"Bearer {shown['GITHUB_TOKEN']}"
        forge.failing = [("GET", Reply(403, {"message": "Resource not accessible by integration"}))]
        assert run(find["run"], **shown).returncode != 0, "refused is not the same as none"
        assert shown["GITHUB_TOKEN"] not in done.stdout + done.stderr


CHECKED = "-m tradeoffs.committed"


def gitlabs_job():
    [job] = quick_yaml.load(GITLAB.read_text()).values()
    return job, "\n".join(job["script"])


def test_a_merge_request_of_a_fork_is_held_against_the_project_that_it_is_for(checkout, tmp_path):
    """Its pipeline runs in the fork, whose main is behind."""
    git("clone", "-q", "--bare", ".", str(tmp_path / "upstream.git"))
    git("clone", "-q", str(tmp_path / "upstream.git"), str(tmp_path / "theirs"), cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "news", cwd=tmp_path / "theirs")
    git("push", "-q", "origin", "HEAD:main", cwd=tmp_path / "theirs")
    where = {"CI_MERGE_REQUEST_IID": "12", "CI_PROJECT_ID": "99", "CI_MERGE_REQUEST_PROJECT_ID": "5"}
    where |= {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    done = run(gitlabs_job()[1], **where, CI_MERGE_REQUEST_PROJECT_URL=str(tmp_path / "upstream"))
    assert done.returncode == 0, done.stderr
    assert git("rev-parse", "origin/main") == git("rev-parse", "main", cwd=tmp_path / "upstream.git")
    assert "1 commit of `origin/main` are not merged here" in Path("comment.md").read_text()


def test_gitlabs_main_fills_the_cache_and_no_merge_request_that_of_another(checkout):
    job, script = gitlabs_job()
    [of_dvc] = [one for one in job["cache"] if one["paths"] == [".dvc/cache"]]
    assert of_dvc["key"] == "dvc-$CI_MERGE_REQUEST_IID"
    assert of_dvc["fallback_keys"] == [of_dvc["key"].replace("$CI_MERGE_REQUEST_IID", "")], "that of main"
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert checkout.read_text() == f"make install\n{CHECKED}\nmake run\n"


def test_gitlabs_script_makes_and_posts_the_comment(checkout):
    job, script = gitlabs_job()
    [post] = [line for line in job["script"] if "--post" in line]
    where = {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "CI_MERGE_REQUEST_IID": "12"}
    with FakeGitLab() as forge:
        done = run(script, **where | forge.environment() | {"CI_PROJECT_ID": "5"}, COMMITTED="1")
        assert done.returncode == 1, "stale results fail the job, after the comment"
        assert "error: what is committed is not of this code" in done.stderr
        done = run(post, **where)
        assert done.returncode == 0, done.stderr
        assert "no GITLAB_TOKEN: the comment is among the artefacts" in done.stdout
        done = run(post, **where | forge.environment() | {"CI_PROJECT_ID": "5"})
        assert done.returncode == 0, done.stderr
        [body] = forge.bodies
        assert body.startswith(posting.marker(".", "origin/main"))
        assert forge.environment()["GITLAB_TOKEN"] not in done.stdout + done.stderr + body
        forge.read_only = True
        forge.notes.clear()
        done = run(post, **where | forge.environment() | {"CI_PROJECT_ID": "5"})
        assert done.returncode == 1
        assert "GITLAB_TOKEN may not" in done.stderr
    assert f"make install\n{CHECKED}\nmake run\n" in checkout.read_text()
    assert "-m tradeoffs.gate --base origin/main --junit gate.xml" in checkout.read_text()
