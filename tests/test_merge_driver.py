"""What Git's driver and `python -m tradeoffs.merge` take of two versions of a file; nothing runs here."""

import shutil
from pathlib import Path

import pytest
import quick_yaml
from alone import ALONE, git

from tradeoffs import readme
from tradeoffs.merge import __main__ as merge
from tradeoffs.merge import conflicts, driver
from tradeoffs.merge.made import INPUTS, LOCK, is_made
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
SECTION = f"{merge.SECTION}.driver"
LOCKED = "schema: '2.0'\nstages:\n"


def entry(name: str, value: object) -> str:
    return f"  {name}:\n    cmd: python {value}\n    outs:\n    - path: {name}\n"


def lock(**entries: object) -> bytes:
    return (LOCKED + "".join(entry(name, value) for name, value in entries.items())).encode()


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}),  # each by one
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),  # by both
        ({"a": 1}, {"a": 1, "b": 1}, {"a": 1, "c": 1}, {"a": 1, "b": 1, "c": 1}),  # added
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}, {"a": 1, "b": 1}, {"a": 1}),  # removed
        ({"a": 1, "b": 1}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2}),  # removed and changed
    ],
)
def test_each_entry_of_the_lock_is_of_who_changed_it(base, ours, theirs, expected):
    assert driver.merged(LOCK, lock(**base), lock(**ours), lock(**theirs)) == (lock(**expected), False)


def test_the_real_lock_is_read_entry_by_entry():
    text = (REPO / LOCK).read_bytes()
    head, found = driver._entries(text)
    assert (head + "".join(found.values())).encode() == text
    assert {name.rstrip(":") for name in found} == set(quick_yaml.load(text.decode())["stages"])
    assert driver.merged(LOCK, b"", text, text) == (text, False)


@pytest.mark.parametrize(
    "broken", [b"", b"<<<<<<< ours\n", b"\xff", LOCKED.encode() + b"a: 1\n", lock(a=1) + lock(a=1)]
)
def test_a_lock_that_is_none_gives_way_to_the_other(broken):
    assert driver.merged(LOCK, lock(a=1), broken, lock(a=2)) == (lock(a=2), False)
    assert driver.merged(LOCK, lock(a=1), lock(a=2), broken) == (lock(a=2), False)


def page(block: str, below: str = "Below.", above: str = "Above.") -> bytes:
    return f"{above}\n\n{readme.BEGIN}\n{block}\n{readme.END}\n\n{below}\n".encode()


def test_the_text_of_the_readme_is_merged_and_its_block_is_ours():
    assert driver.merged("README.md", page("1"), page("2"), page("3", "More.")) == (page("2", "More."), False)
    content, conflicts = driver.merged("README.md", page("1"), page("2", "x"), page("3", "y"))
    assert conflicts and b"<<<<<<< ours\nx\n=======\ny\n>>>>>>> theirs" in content
    assert b"3" not in content


def test_a_picture_is_that_of_one_side_to_the_byte():
    assert driver.merged("plots/a.png", b"\x89PNG\0", b"\x89PNG\1", b"\x89PNG\2") == (b"\x89PNG\1", False)


def test_what_is_written_by_people_is_not_taken_for_made():
    assert [
        path for path in ("params.yaml", "README.md", "stages/score.py", "reports/x", "models/raw/x") if is_made(path)
    ] == []
    assert all(is_made(path) for path in ("dvc.lock", "models/dvc.yaml", "metrics/cost.json", "plots/a/b.png"))


def test_every_output_that_git_holds_is_known_and_has_the_driver():
    """And nothing else has it."""
    stages = quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"].values()
    kept = [
        out for stage in stages for kind in ("outs", "metrics") for out in stage.get(kind, []) if isinstance(out, dict)
    ]
    paths = [path for out in kept for path, options in out.items() if options.get("cache") is False]
    assert len(paths) > 5 and all(is_made(path) for path in paths)
    files = git("ls-files", cwd=REPO).splitlines()
    found = git("check-attr", "merge", "--", *files, cwd=REPO).splitlines()
    driven = {line.split(": ")[0] for line in found if line.endswith(": tradeoffs")}
    assert driven == {path for path in files if is_made(path)} | {"README.md"}


def test_every_input_of_a_stage_that_none_makes_is_known():
    stages = quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"].values()
    made = [
        path for stage in stages for out in stage.get("outs", []) for path in ([out] if isinstance(out, str) else out)
    ]
    folders = {"/".join(path.split("/")[:2]) for path in made}
    known = quick_yaml.load((REPO / "params.yaml").read_text())["evaluate"]["harness"]["folder"]
    for dep in {dep.replace("${evaluate.harness.folder}", known) for stage in stages for dep in stage.get("deps", [])}:
        assert any(dep == one or dep.startswith(f"{one}/") for one in (*INPUTS, *folders)), dep


# --- in a small repository


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder of a project, the working directory; it lies below the top of its repository."""
    return begun(tmp_path, monkeypatch)


def begun(top: Path, patch: pytest.MonkeyPatch, below: str = "") -> Path:
    for name, value in ALONE.items():
        patch.setenv(name, value)
    folder = top / below
    (folder / "metrics").mkdir(parents=True)
    shutil.copy(REPO / ".gitattributes", folder)
    for name, content in (("README.md", page("0")), (LOCK, lock(a=1)), ("params.yaml", b"a: 1\n")):
        (folder / name).write_bytes(content)
    (folder / "metrics/cost.json").write_text("1")
    git("init", "-q", "-b", "main", cwd=top)
    patch.chdir(folder)
    commit("first")
    return folder


def commit(message: str) -> None:
    git("add", "-A")
    git("commit", "-q", "-m", message)


def fork(ours: bytes, theirs: bytes) -> None:
    """On `theirs` and on `main` other READMEs."""
    git("switch", "-q", "-c", "theirs")
    Path("README.md").write_bytes(theirs)
    commit("theirs")
    git("switch", "-q", "main")
    Path("README.md").write_bytes(ours)
    commit("ours")


def test_the_text_of_both_sides_stays_where_the_driver_could_not_start(project):
    """Git takes that for a conflict, and leaves ours without a mark."""
    git("config", SECTION, "/nowhere/python -m tradeoffs.merge.driver %O %A %B %L %P")
    fork(page("1", above="Ours."), page("2", below="Theirs."))
    git("merge", "theirs", fails=True)
    assert Path("README.md").read_bytes() == page("1", above="Ours.")
    assert conflicts.resolve() == conflicts.Resolved(["README.md"])
    assert Path("README.md").read_bytes() == page("1", "Theirs.", "Ours.")
    assert git("diff", "--name-only") == ""


def test_where_it_could_not_start_and_texts_are_in_conflict_there_are_marks_to_resolve(project):
    git("config", SECTION, "/nowhere/python -m tradeoffs.merge.driver %O %A %B %L %P")
    fork(page("1", "Ours."), page("2", "Theirs."))
    git("merge", "theirs", fails=True)
    for _ in range(2):
        assert conflicts.resolve() == conflicts.Resolved([], ["README.md"])
        assert b"Ours.\n=======\nTheirs." in Path("README.md").read_bytes()
    Path("README.md").write_bytes(page("1", "Both."))
    assert conflicts.resolve() == conflicts.Resolved(["README.md"])
    assert Path("README.md").read_bytes() == page("1", "Both.")


def test_an_edit_stays_while_the_block_alone_is_in_conflict(project):
    fork(page("1"), page("2"))
    git("merge", "theirs", fails=True)
    text = Path("README.md").read_text()
    assert "<<<<<<<" in text
    Path("README.md").write_text(text.replace("Above.", "Edited."))
    assert conflicts.resolve() == conflicts.Resolved(["README.md"])
    assert Path("README.md").read_bytes() == page("1", above="Edited.")


def test_a_conflict_that_leads_out_of_the_block_is_left_as_it_is(project):
    fork(page("1", "Ours."), page("2", "Theirs."))
    git("merge", "theirs", fails=True)
    text = Path("README.md").read_bytes()
    assert text.count(readme.END.encode()) == 2, "Git makes one of two that are close"
    assert conflicts.resolve() == conflicts.Resolved([], ["README.md"])
    assert Path("README.md").read_bytes() == text


@pytest.mark.parametrize("below", ["", "tools/my 'own' 100%"])
def test_the_driver_starts_wherever_the_project_lies_in_its_repository(tmp_path, monkeypatch, below):
    folder = begun(tmp_path, monkeypatch, below)
    shutil.copytree(REPO / "tradeoffs", folder / "tradeoffs", ignore=shutil.ignore_patterns("__pycache__"))
    Path(".gitignore").write_text("__pycache__/\n")
    commit("code")
    merge.install()
    fork(page("1", above="Ours."), page("2", below="Theirs."))
    git("merge", "-q", "theirs")
    assert Path("README.md").read_bytes() == page("1", "Theirs.", "Ours.")


def test_results_are_staged_and_nothing_of_somebodys_own(project):
    Path("metrics/cost.json").write_text("2")
    Path("metrics/mine.json").write_text("{}")
    Path("report").mkdir()
    Path("report/new.md").write_text("new")
    merge.stage()
    assert git("diff", "--cached", "--name-only").split() == ["metrics/cost.json", "report/new.md"]


def test_a_commit_is_amended_only_where_it_is_a_merge_that_nobody_has(project):
    def following() -> str:
        Path("metrics/cost.json").write_text("2")
        said = merge.stage()
        git("reset", "-q", "--hard")
        return said

    assert merge.stage() == "" and following().startswith("git commit -m ")
    fork(page("0", above="Ours."), page("0", below="Theirs."))
    git("merge", "-q", "--no-commit", "theirs")
    assert merge.stage() == "git commit --no-edit"
    git("commit", "-q", "--no-edit")
    assert following() == "git commit --amend --no-edit"
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    assert following().startswith("git commit -m ")


def test_nothing_runs_while_the_commit_would_be_of_other_inputs(project):
    merge.require_inputs()
    for path in ("params.yaml", "data/raw/new.jsonl"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("a: 2\n")
        with pytest.raises(UserError, match=f"not committed: {path}, and no merge is under way"):
            merge.require_inputs()
        git("add", path)
        with pytest.raises(UserError, match="not committed"):
            merge.require_inputs()
        git("commit", "-q", "-m", "mine")
    fork(page("0", above="Ours."), page("0", below="Theirs."))
    git("merge", "-q", "--no-commit", "theirs")
    Path("params.yaml").write_text("a: 3\n")
    with pytest.raises(UserError, match="not staged: params"):
        merge.require_inputs()
    git("add", "params.yaml")
    merge.require_inputs()
