"""Pinning writes commits into the lines of params.yaml that hold a revision, and nothing else."""

import hashlib
from pathlib import Path

import forked
import pytest
import quick_yaml
from fake_hub import FakeHub

from tradeoffs import params
from tradeoffs import pin as pin_module
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
DATASET = """kind: instruction
    splits:
      train: train
    columns:
      instruction: question
      answer: answer
    test_share: 0.1
    seen: 1
    valid: 1
    near_duplicate: 0.9
"""
# What a person may have written: comments at the end of a line, quotes, a block in one line, a key that is not there.
MODELS = """
  mine:
    hub: me/mine
    revision: main         # the newest

    prompt: own            # its own
  quoted:
    hub: me/mine
    revision: "v1"   # a tag
    prompt: own
  inline: {hub: me/mine, revision: main, prompt: own}  # in one line
  pinned:
    hub: me/mine
    revision: %(old)s
    prompt: own
"""
DATASETS = f"""
  questions:
    hub: me/questions
    revision: main
    {DATASET}    mmlu:
      hub: me/exams        # no revision
      subjects:
      - a
  plain:
    hub: me/questions
    revision: main
    {DATASET}    mmlu: {{hub: me/exams, subjects: [a]}}
"""


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "files").mkdir()
    with FakeHub() as hub:

        def publish(repo, text, **more):
            (tmp_path / "files/README.md").write_text(text)
            return hub.publish(repo, tmp_path / "files", **more)

        hub.old = publish("me/mine", "tagged", kind="model", branch="v1")
        hub.model = publish("me/mine", "newest", kind="model")
        hub.dataset = publish("me/questions", "questions")
        hub.exams = publish("me/exams", "exams")
        yield hub


@pytest.fixture
def written(hub, tmp_path, monkeypatch):
    """params.yaml with entries of the hub beside what it has."""
    monkeypatch.chdir(tmp_path)
    text = (REPO / "params.yaml").read_text()
    text = text.replace("\nmodels:\n", f"\nmodels:{MODELS % {'old': hub.old}}", 1)
    text = text.replace("\ndatasets:\n", f"\ndatasets:{DATASETS}", 1)
    Path("params.yaml").write_text(text)
    return text


def pin(hub, *words, **environment):
    command = ["-m", "tradeoffs.pin", *words]
    environment = hub.environment(Path("home"), PYTHONPATH=str(REPO), **environment)
    return forked.python(*command, env=environment, libraries=forked.HUB)


def test_branches_and_tags_become_commits_and_every_other_byte_stays(hub, written):
    names = ("models.mine", "models.quoted", "models.inline", "models.pinned", "datasets.questions", "datasets.plain")
    done = pin(hub, *names)
    assert done.returncode == 0, done.stderr
    exams = f"revision: {hub.exams}"
    expected = (
        written.replace("revision: main         # the newest", f"revision: {hub.model}         # the newest")
        .replace('revision: "v1"   # a tag', f"revision: {hub.old}   # a tag")
        .replace("{hub: me/mine, revision: main, prompt", f"{{hub: me/mine, revision: {hub.model}, prompt")
        .replace("hub: me/questions\n    revision: main\n", f"hub: me/questions\n    revision: {hub.dataset}\n")
        .replace("hub: me/exams        # no revision\n", f"hub: me/exams        # no revision\n      {exams}\n")
        .replace("{hub: me/exams, subjects", f"{{hub: me/exams, {exams}, subjects")
    )
    assert Path("params.yaml").read_text() == expected
    assert f"models.mine.revision: main is now {hub.model} (me/mine)" in done.stdout
    assert f"datasets.questions.mmlu.revision: main is now {hub.exams} (me/exams)" in done.stdout
    assert "models.pinned" not in done.stdout
    again = pin(hub, "models.mine", "datasets.plain")
    assert (again.returncode, again.stdout) == (0, "nothing to pin: 3 of the hub, each a commit that it has\n")
    assert Path("params.yaml").read_text() == expected


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Pins within this process; the commit of a repository is made up of its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pin_module, "_newest", lambda entry: hashlib.sha1(entry.repo.encode()).hexdigest())

    def run(models, *names, datasets=""):
        text = (REPO / "params.yaml").read_text()
        text = text.replace("\nmodels:\n", f"\nmodels:\n{models}", 1)
        text = text.replace("\ndatasets:\n", f"\ndatasets:\n{datasets}", 1)
        Path("params.yaml").write_text(text)
        try:
            pin_module.main(list(names), False)
        except UserError as error:
            assert Path("params.yaml").read_text() == text and not list(tmp_path.glob(".unfinished*"))
            return str(error)
        return text

    return run


ALIASED = f"""  first:
    hub: me/questions
    revision: {"a" * 40}
    {DATASET}    mmlu: &exams
      hub: me/exams
      revision: main
      subjects: [a]
  second:
    hub: me/questions
    revision: {"a" * 40}
    {DATASET}    mmlu: *exams
"""


@pytest.mark.parametrize("line", ["      revision: main\n", "      revision:\n", ""])
def test_a_block_that_entries_share_is_changed_once(own, line):
    before = own("", "datasets.first", "datasets.second", datasets=ALIASED.replace("      revision: main\n", line))
    questions, exams = (hashlib.sha1(repo.encode()).hexdigest() for repo in ("me/questions", "me/exams"))
    pinned = f"      hub: me/exams\n      revision: {exams}\n"
    expected = before.replace("a" * 40, questions).replace(f"      hub: me/exams\n{line}", pinned)
    assert Path("params.yaml").read_text() == expected
    found = params.load_all().datasets
    assert found["first"].mmlu.revision == found["second"].mmlu.revision == exams


def test_a_revision_that_is_merged_from_another_entry_is_refused(own):
    models = (
        "  one: &one\n    hub: me/mine\n    revision: main\n    prompt: own\n  two:\n    <<: *one\n    prompt: plain\n"
    )
    said = own(models, "models.two", "models.one")
    assert said.startswith("params.yaml: models.two: hub comes from another entry by a merge (`<<`), so the commit has")
    assert own(models, "models.one").startswith("params.yaml: models.one cannot be pinned (other entries share their")


@pytest.mark.parametrize("names", [("models.one",), ("models.two",), ("models.one", "models.two")])
def test_nothing_is_written_where_it_would_change_another_entry_too(own, names):
    models = "  one: {hub: me/a, revision: &r main, prompt: own}\n  two: {hub: me/b, revision: *r, prompt: own}\n"
    said = own(models, *names)
    assert said.startswith(f"params.yaml: {', '.join(names)} cannot be pinned (") and "nothing was written; " in said
    assert "\n" not in said


def test_lines_that_end_as_on_windows_still_do(hub, written):
    Path("params.yaml").write_bytes(written.replace("\n", "\r\n").encode())
    assert pin(hub, "models.mine", "datasets.questions").returncode == 0
    after = Path("params.yaml").read_bytes()
    assert after.count(b"\n") == after.count(b"\r\n") == written.count("\n") + 1
    assert quick_yaml.load(after)["datasets"]["questions"]["mmlu"]["revision"] == hub.exams


def test_without_names_it_is_the_run_list_and_with_all_the_catalogue(hub, written):
    done = pin(hub)
    assert (done.returncode, Path("params.yaml").read_text()) == (0, written), done.stderr
    raw = quick_yaml.load(written)
    catalogue = {name: entry for name, entry in raw["models"].items() if "hub" in entry}
    raw["run"]["models"] = ["demo", "mine"]
    raw["models"] = {name: entry for name, entry in raw["models"].items() if entry.get("hub") in (None, "me/mine")}
    raw["datasets"] = {n: entry for n, entry in raw["datasets"].items() if entry.get("hub") in (None, "me/questions")}
    del raw["datasets"]["mmlu"]  # whose questions alone are of the hub, of another one than this
    assert len(catalogue) > len(raw["models"])
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    assert pin(hub).returncode == 0
    found = quick_yaml.load(Path("params.yaml").read_text())
    assert (found["models"]["mine"]["revision"], found["models"]["inline"]["revision"]) == (hub.model, "main")
    assert pin(hub, "--all").returncode == 0
    found = quick_yaml.load(Path("params.yaml").read_text())
    assert {entry["revision"] for entry in found["models"].values() if "hub" in entry} == {hub.model, hub.old}
    assert found["datasets"]["plain"]["mmlu"]["revision"] == hub.exams


def test_a_commit_that_the_hub_no_longer_has_is_reported_and_the_others_are_pinned(hub, written):
    hub.forget("me/mine", hub.old, kind="model")
    done = pin(hub, "models.pinned", "models.mine")
    assert done.returncode == 1
    assert "error: 1 of 2 could not be looked up\n" in done.stderr
    assert f"models.pinned.revision: me/mine has no revision '{hub.old}', or no longer; " in done.stderr
    assert "Traceback" not in done.stderr
    assert f"revision: {hub.model}         # the newest" in Path("params.yaml").read_text()


def test_nothing_is_pinned_by_what_the_disk_remembers(hub, written):
    assert pin(hub, "models.quoted").returncode == 0
    done = pin(hub, "models.mine", HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "HF_HUB_OFFLINE keeps it from being" in done.stderr


def test_a_name_that_is_no_entry_gets_the_near_match(hub, written):
    done = pin(hub, "models.min")
    assert done.returncode == 1 and "no entry 'models.min' (did you mean models.mine?)" in done.stderr
    assert not hub.requests
