"""What another commit measured is read from its dvc.lock and DVC's cache or remote; nothing is checked out."""

import json
import shutil
from pathlib import Path

import fake_commits
import numpy as np
import pytest
import quick_yaml
from dvc.repo import Repo
from fake_commits import committed, git

from tradeoffs import params
from tradeoffs.common.cells import SCORES, Variant
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results.results import Results
from tradeoffs.revisions import WORKSPACE, Revision

LORA = Variant("demo", "demo", "lora", "q4_0")
INFO = Path("data/prepared/demo/info.json")
BIG = Path("data/prepared/demo/train.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project in a folder below that of Git, with one commit of a finished run of two seeds; tests get copies."""
    folder = tmp_path_factory.mktemp("team")
    with pytest.MonkeyPatch.context() as patch:
        fake_commits.begin(patch, folder, "project")
        fake_commits.fill(seeds=[42, 43])
        BIG.write_text("a gigabyte\n")
        fake_commits.commit("A run")
    return folder


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it, which is the working directory; nothing of its data lies in the folder."""
    for name, value in fake_commits.ALONE.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(finished, tmp_path / "team", symlinks=True)
    monkeypatch.chdir(tmp_path / "team/project")
    shutil.rmtree("data")
    return tmp_path / "team/project"


def read(name: str = "HEAD", *only: Variant) -> Results:
    return Revision(name).results(200, params.load_all().decide, only)


def refused(name: str = "HEAD") -> str:
    """The message that nothing comes with; nothing but links into the cache, and nothing elsewhere, was made."""
    with pytest.raises(UserError) as error:
        read(name)
    cache = Path(".dvc").resolve()
    assert all(cache in path.resolve().parents for path in Path(".scratch").rglob("*") if path.is_symlink())
    assert not Path("data").exists()
    return str(error.value)


def locked(change) -> None:
    """Commits a dvc.lock in which `change` has edited the entry of the one stage."""
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    change(lock["stages"]["score"])
    Path("dvc.lock").write_text(quick_yaml.dump(lock))
    committed("Another dvc.lock")


def of(entry: dict, path: object) -> dict:
    return next(out for out in entry["outs"] if out["path"] == str(path))


def cached(oid: str) -> Path:
    return Path(".dvc/cache/files/md5", oid[:2], oid[2:])


def share(folder: Path) -> None:
    """What was run is pushed to a remote in `folder`, and the cache is gone."""
    with Repo() as repo, repo.config.edit() as config:
        config["remote"] = {"team": {"url": str(folder)}}
        config["core"]["remote"] = "team"
    with Repo() as repo:
        repo.push()
    shutil.rmtree(".dvc/cache")
    shutil.rmtree(".dvc/tmp", ignore_errors=True)


def test_results_of_a_commit_are_those_of_the_folder_that_it_was_made_in(finished, project):
    there = read()
    lengths = there.lengths
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished / "project")
        here = read(WORKSPACE)
        assert lengths == here.lengths
    assert there.variants == here.variants
    for name in ("test_f1", "mmlu_accuracy"):
        assert np.array_equal(there.values(LORA, name), here.values(LORA, name))
    assert there.cost == here.cost
    assert [str(v) for v in there.trainings(LORA.cell)] == [f"{LORA.cell}-trained", f"{LORA.cell}-trained-43"]
    assert there.floor(LORA.pair)
    assert not Path("data").exists()


def test_only_some_variants_need_only_their_files(project):
    found = read("HEAD", LORA)
    assert found.variants == [LORA]
    linked = {path.name for path in found.root.glob("data/items/*")}
    assert linked == {f"{LORA}.parquet"}


def test_a_commit_has_any_name_that_git_takes(project):
    sha = git("rev-parse", "HEAD")
    git("tag", "-a", "v1", "-m", "one")
    for name in (sha, sha[:8], "main", "v1", "HEAD~0"):
        assert Revision(name).sha == sha
    assert str(Revision("v1")) == f"v1 ({sha[:7]})" and str(Revision(sha[:9])) == sha[:7]


def test_an_experiment_has_the_name_that_dvc_shows(project):
    sha = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{sha[:2]}/{sha[2:]}/brisk-lore", sha)
    assert Revision("brisk-lore").sha == sha
    other = git("commit-tree", "HEAD^{tree}", "-m", "another")
    git("update-ref", f"refs/exps/{other[:2]}/{other[2:]}/brisk-lore", other)
    with pytest.raises(UserError, match="brisk-lore: 2 experiments have it"):
        Revision("brisk-lore")
    for name in ("brisk-lor?", "brisk*", "nothing"):
        with pytest.raises(UserError, match="no such commit"):
            Revision(name)


@pytest.mark.parametrize("name", ["origin/main", "HEAD~1", "--all", "", "HEAD:dvc.lock", "0" * 40])
def test_what_is_no_commit_is_said(project, name):
    with pytest.raises(UserError, match="no such commit, branch, tag or experiment; git fetch"):
        Revision(name)


def test_what_the_cache_lacks_comes_from_the_remote_and_nothing_more(project, tmp_path):
    share(tmp_path / "remote")
    assert read().has(LORA, "test_f1")
    entry = Revision("HEAD").lock["score"]
    listing = cached(of(entry, INFO.parent)["md5"])
    hashes = {one["relpath"]: one["md5"] for one in json.loads(listing.read_text())}
    assert cached(hashes[INFO.name]).is_file()
    assert not cached(hashes[BIG.name]).exists()


def test_a_pull_after_a_read_brings_the_rest(project, tmp_path):
    share(tmp_path / "remote")
    read()
    with Repo() as repo:
        repo.pull()
    assert BIG.read_text() == "a gigabyte\n"


def test_what_was_not_pushed_is_said_with_who_can_help(project):
    shutil.rmtree(".dvc/cache")
    assert "in a remote (the project has none: dvc remote add -d)" in refused()


def test_what_one_file_lacks_is_named(project, tmp_path):
    oid = of(Revision("HEAD").lock["score"], LORA.items)["md5"]
    share(tmp_path / "remote")
    (tmp_path / "remote/files/md5" / oid[:2] / oid[2:]).unlink()
    said = refused()
    assert "1 of the " in said
    assert f"nor in the remote team ({LORA.items}); whoever ran it: dvc push" in said


def test_a_remote_that_cannot_be_reached_is_one_message(project, tmp_path):
    share(tmp_path / "remote")
    with Repo() as repo, repo.config.edit() as config:
        config["remote"]["team"]["url"] = "http://127.0.0.1:9/tradeoffs"
    assert refused().startswith("the remote team cannot be read: ")


def test_a_cache_elsewhere_and_one_behind_a_link(project, tmp_path):
    shutil.move(".dvc/cache", tmp_path / "shared")
    Path(".dvc/cache").symlink_to(tmp_path / "shared")
    assert read().has(LORA, "test_f1")
    Path(".dvc/cache").unlink()
    with Repo() as repo, repo.config.edit() as config:
        config["cache"] = {"dir": str(tmp_path / "shared")}
    found = read()  # the links that were there led into the other folder
    assert found.has(LORA, "test_f1")
    assert (found.root / LORA.items).readlink().is_relative_to(tmp_path / "shared")


def test_a_lock_without_an_entry_names_what_it_lacks(project):
    locked(lambda entry: entry["outs"].remove(of(entry, LORA.items)))
    assert f"does not hold {LORA.items}, though its params.yaml asks for it" in refused()


def test_a_run_list_that_was_never_run_is_said(project):
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["run"]["methods"].append("full")
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    committed("Asked, not run")
    said = refused()
    assert "data/items/demo-demo-full-trained.parquet" in said and " more, though its params.yaml" in said


@pytest.mark.parametrize("oid", ["../../../params.yaml", "..", "", None, "A" * 32, f"{'0' * 32}.dir/../x"])
def test_a_hash_that_leads_elsewhere_is_none(project, oid):
    locked(lambda entry: of(entry, LORA.items).update(md5=oid))
    assert "does not hold" in refused()


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret", "data/items/../../../secret"])
def test_an_output_elsewhere_is_never_linked(project, path):
    (project.parent / "secret").write_text("secret")
    locked(lambda entry: entry["outs"].append({**of(entry, SCORES), "path": path}))
    root = read().root
    assert {path.relative_to(root).parts[0] for path in root.rglob("*")} == {"data"}
    assert len(list(Path(".scratch/revisions").iterdir())) == 1


@pytest.mark.parametrize("name", ["../../../../../out.parquet", "/tmp/out.parquet", "43.parquet/../../../x"])
def test_a_folder_that_holds_what_lies_elsewhere_is_refused(project, name):
    def change(entry: dict) -> None:
        listing = json.dumps([{"relpath": name, "md5": of(entry, SCORES)["md5"]}])
        oid = "ab" * 16
        cached(oid).parent.mkdir(exist_ok=True)
        Path(f"{cached(oid)}.dir").write_text(listing)
        of(entry, LORA.cell.seeds)["md5"] = f"{oid}.dir"

    locked(change)
    assert f"{LORA.cell.seeds} holds {name!r}, which lies elsewhere" in refused()


@pytest.mark.parametrize("name", ["../../../../etc", "a/b", "", "a-b"])
def test_names_that_are_paths_are_refused(project, name):
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["run"]["datasets"] = [name]
    ours = params.load_all().decide
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    committed("A name")
    with pytest.raises(UserError, match=r"params\.yaml of HEAD \(\w{7}\): '.*' is no name; name a commit"):
        Revision("HEAD").results(200, ours)
    assert not Path(".scratch").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< ours\nstages: {}\n=======\nstages:\n>>>>>>> theirs\n", "not valid YAML"),
        ("stages: [1]\n", "no block of stages"),
        ("stages: {made: 1}\n", "no block of stages"),
        ("- 1\n", "no block of keys"),
        ("stages: {made: {outs: [1, {path: 2}]}}\n", "does not hold"),
        ("", "no block of keys"),
    ],
)
def test_a_lock_that_is_none_is_said(project, text, said):
    Path("dvc.lock").write_text(text)
    committed("A broken lock")
    assert said in refused()


def test_what_is_no_text_is_said(project):
    Path("dvc.lock").write_bytes(b"stages: \xff\n")
    committed("Bytes")
    assert "dvc.lock of HEAD" in refused() and "not UTF-8" in refused()


def test_a_commit_of_another_project_is_said(project):
    git("rm", "-q", "dvc.lock")
    committed("None")
    assert "has no dvc.lock; name a commit of this project that was run" in refused()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw["run"].pop("seeds"), "run.seeds"),
        (lambda raw: raw.pop("run"), "run"),
        (lambda raw: raw.pop("seed"), "no whole number for seed"),
    ],
)
def test_params_of_an_older_form_are_said(project, change, said):
    ours = params.load_all().decide
    raw = quick_yaml.load(Path("params.yaml").read_text())
    change(raw)
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    committed("Older")
    with pytest.raises(UserError, match=r"^params\.yaml of HEAD .*name a commit of today's form") as error:
        Revision("HEAD").results(200, ours)
    assert said in str(error.value)


def test_items_of_an_older_form_are_said(project):
    oid = "cd" * 16
    cached(oid).parent.mkdir(exist_ok=True)
    cached(oid).write_text("{}")
    locked(lambda entry: of(entry, LORA.facts).update(md5=oid))
    assert "what it measured is not of today's form (KeyError: 'shapes')" in refused()


def test_outside_of_git_or_dvc_is_one_message(tmp_path, monkeypatch, project):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(UserError, match="not a git repository"):
        Revision("HEAD")
    git("init", "-q")
    shutil.copy(project / "params.yaml", empty)
    shutil.copy(project / "dvc.lock", empty)
    committed("Without DVC")
    with pytest.raises(UserError, match="no DVC project; run from the folder that holds dvc"):
        read()


def test_text_is_that_of_the_commit_and_none_where_it_has_none(project):
    Path("params.yaml").write_text("seed: 1\n")
    assert Revision(WORKSPACE).text("params.yaml") == "seed: 1\n"
    assert Revision("HEAD").text("params.yaml") != "seed: 1\n"
    assert Revision(WORKSPACE).text("nothing") is Revision("HEAD").text("nothing") is None
