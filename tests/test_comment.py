"""What a reviewer is told of a change: what was changed, what moved, what is not shown; and that no text is obeyed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import fake_commits
import fake_gate
import fake_results
import hostile
import pytest
import quick_yaml
from fake_commits import git

from tradeoffs import readme
from tradeoffs.comment import changes, posting, texts
from tradeoffs.comment.__main__ import folder, main
from tradeoffs.comment.rows import alike
from tradeoffs.gate.rows import NOT_SHOWN, PASS, Row
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results.intervals import Interval
from tradeoffs.revisions import WORKSPACE, Revision

SLOW_FIXTURES = {"project"}  # read by conftest.py
OPTIONS = {
    "base": "",
    "head": WORKSPACE,
    "policy": None,
    "name": "",
    "out": None,
    "body": None,
    "post": "",
    "number": None,
}


def a_run(message, recommended="demo-demo-lora-q4_0", items=60, **run):
    fake_commits.fill(items, **run)
    fake_gate.add_code()
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/decision.json").write_text(json.dumps({"demo-demo": {"recommended": recommended}}))
    return fake_gate.commit(message)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Commits `small` (other items), `before`, `same` but for a parameter, and `worse`, where lora learned less."""
    with pytest.MonkeyPatch.context() as patch:
        fake_commits.begin(patch, tmp_path_factory.mktemp("review"))
        a_run("small", items=20)
        git("tag", "small")
        a_run("before")
        git("tag", "before")
        edit(lambda raw: raw["methods"]["lora"]["config"].update(r=4))
        git("commit", "-qam", "same")
        git("tag", "same")
        patch.setitem(fake_results.SKILL, "lora", 0.55)
        a_run("worse")
        edit(lambda raw: raw["methods"]["lora"]["config"].update(r=4))
        git("commit", "-qam", "worse")
        git("tag", "worse")
        yield Path.cwd()


def edit(change):
    raw = quick_yaml.load(Path("params.yaml").read_text())
    change(raw)
    Path("params.yaml").write_text(quick_yaml.dump(raw))


def comment(capsys, **options):
    capsys.readouterr()
    main(**(OPTIONS | options))
    return capsys.readouterr().out


@pytest.fixture
def inside(project, monkeypatch):
    """The project, outside of any job."""
    monkeypatch.chdir(project)
    for name in ("GITHUB_SERVER_URL", "CI_PROJECT_URL", "REVIEW_HEAD_SHA", "CI_COMMIT_SHA", "GITHUB_SHA"):
        monkeypatch.delenv(name, raising=False)
    yield project
    git("checkout", "-qf", "worse")
    git("clean", "-qfd")


def section(text, title):
    return text.split(f"**{title}**")[1].split("\n**")[0]


def test_a_worse_change_is_told_on_the_first_screen(inside, capsys):
    text = comment(capsys, base="before", head="worse")
    first = text.split("<details>")[0].splitlines()
    assert first[0] == posting.marker(".", "before")
    assert re.fullmatch(r"### Worse: test F1 of `lora q4_0` 0\.\d+ → 0\.\d+, -0\.\d+ \[.*\], and \d+ more", first[1])
    assert "- `methods.lora.config.r`: `16` → `4`" in first
    assert any(line.startswith("| `lora q4_0` | 0.") and "**worse**" in line for line in first)
    assert not any("`base" in line for line in first if line.startswith("|")), "what did not move is not in the way"
    assert len(first) < 70


def test_a_change_that_moves_nothing_says_so(inside, capsys):
    text = comment(capsys, base="before", head="before")
    assert "### Not worse: the " in text.splitlines()[1]
    assert "nothing of" in text
    assert "nothing that Git or dvc.lock holds" in text
    assert "the same ones are answered exactly right" in text
    assert "**Not shown**" not in text


def test_flips_are_counted_and_five_of_each_are_shown(inside, capsys):
    lines = section(comment(capsys, base="before", head="worse"), "Answers that flipped").splitlines()
    text = comment(capsys, base="worse", head="before")
    assert "lora q4_0" in lines[0]
    back = re.search(r"(\d+) went from right to wrong, (\d+) from wrong to right", text)
    there = re.search(r"(\d+) went from right to wrong, (\d+) from wrong to right", "\n".join(lines))
    assert there.groups() == back.groups()[::-1]
    assert int(there[1]) > 5
    shown = re.findall(r"^- `Question .*$", text, re.MULTILINE)
    assert len(shown) == 5 + min(5, int(back[1]))
    assert all(len(line) < 300 for line in shown)


def test_what_is_recommended_instead_is_held_against_what_was(inside, capsys):
    Path("metrics/decision.json").write_text(json.dumps({"demo-demo": {"recommended": "demo-demo-base-f16"}}))
    text = comment(capsys, base="worse")
    assert "- `lora q4_0` → `base f16`" in section(text, "Decision")
    assert "of `lora q4_0` before and `base f16` now" in text
    assert "of `base f16` in place of `lora q4_0` 0." in text.splitlines()[1]
    cost = next(line for line in text.splitlines() if line.startswith("| size MB"))
    assert cost == "| size MB | 2.3 | 7.3 |"


def test_a_verdict_of_few_says_that_others_have_lost(inside, capsys):
    """The base is recommended, and has not changed; lora, which nobody recommends, has lost."""
    commits = []
    for tag in ("before", "worse"):
        git("checkout", "-q", tag)
        Path("metrics/decision.json").write_text(json.dumps({"demo-demo": {"recommended": "demo-demo-base-f16"}}))
        commits.append(fake_commits.committed("another decision"))
    first = comment(capsys, base=commits[0], head=commits[1]).splitlines()
    assert first[1].startswith("### Not worse: the ")
    assert "Judged: what is recommended (`base f16`)." in first[3]
    assert "**Not judged, and worse by more than a margin: 3 other variants, below.**" in first[3]


def test_what_moved_in_no_digit_that_is_shown_is_no_row():
    """Arithmetic in another order differs in the last digits, which is not what was changed."""
    row = Row("test_bertscore", "BERTScore", "quality", 0.8, 0.8 + 1e-7, Interval(1e-7, -1e-7, 2e-7, 1e-7), 0.02, PASS)
    assert alike(row)
    for other in (
        {"head": 0.81},
        {"difference": Interval(0, -0.01, 0.01, 0.005)},
        {"moved": "better"},
        {"word": NOT_SHOWN},
    ):
        assert not alike(replace(row, **other)), other


def test_the_folder_is_told_from_the_commit_that_it_is_at(inside, capsys, monkeypatch):
    sha = git("rev-parse", "--short=7", "HEAD")
    assert comment(capsys, base="HEAD").splitlines()[3].startswith(f"The folder as it is, against `HEAD` (`{sha}`). ")
    monkeypatch.setenv("GITHUB_SHA", 40 * "a")
    assert comment(capsys, base="HEAD").splitlines()[3].startswith("The folder as it is, at `aaaaaaa`, against `HEAD`")


def test_what_cannot_be_compared_is_told_too(inside, capsys):
    edit(lambda raw: raw["evaluate"].update(bootstrap="many"))
    text = comment(capsys, base="before")
    assert text.splitlines()[1] == "### Not compared"
    assert "evaluate" in text
    assert "- `evaluate.bootstrap`: `200` → `many`" in text


def test_another_test_set_is_said_and_not_compared(inside, capsys):
    text = comment(capsys, base="small", head="before")
    assert text.splitlines()[1].startswith("### Not shown either way")
    assert "other test items" in section(text, "Not shown")
    assert "not asked the same test questions" in text


@pytest.mark.parametrize("options", [{}, {"base": "a", "body": Path("b")}, {"base": WORKSPACE}, {"base": "nowhere"}])
def test_wrong_options_are_explained(inside, options):
    with pytest.raises(UserError):
        main(**(OPTIONS | options))


def test_code_is_told_by_rooms_and_by_what_it_reruns(tmp_path, monkeypatch):
    fake_commits.begin(monkeypatch, tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        Path(name).write_text((fake_commits.REPO / name).read_text())
    Path("tradeoffs/report").mkdir(parents=True)
    Path("tradeoffs/report/page.py").write_text("")
    before = Revision(fake_commits.committed("before"))
    for name in (
        "tradeoffs/report/page.py",
        "tradeoffs/common/files.py",
        "tradeoffs/pin.py",
        "docs/a.md",
        "metrics/x.csv",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("new\n")
    Path("params.yaml").write_text("other: 1\n")
    Path("ä\nb.txt").write_text("")
    lines = changes.code(before, Revision(WORKSPACE))
    assert "- `tradeoffs/report/` (1 file): reruns `aggregate`, and what follows from them" in lines
    assert "- `tradeoffs/common/` (1 file): reruns every stage" in lines
    assert "- `tradeoffs/pin.py`: reruns nothing" in lines
    assert "- `docs/` (1 file): reruns nothing" in lines
    assert "- made by the run: 1 file of results and `dvc.lock`" in lines
    assert not any("params.yaml" in line for line in lines), "it is told by its keys"
    assert "- `ä b.txt`: reruns nothing" in lines
    fake_commits.committed("after")
    assert changes.code(before, Revision("HEAD")) == lines


def params_of(monkeypatch, tmp_path, old, new):
    fake_commits.begin(monkeypatch, tmp_path)
    Path("params.yaml").write_text(old)
    before = Revision(fake_commits.committed("before"))
    Path("params.yaml").write_text(new)
    return changes.params(before, Revision(WORKSPACE))


def test_of_the_readme_what_people_write_is_told(tmp_path, monkeypatch):
    fake_commits.begin(monkeypatch, tmp_path)
    text = f"Above.\n{readme.BEGIN}\n%s\n{readme.END}\nBelow.\n"
    Path("params.yaml").write_text("seed: 1\n")
    Path("README.md").write_text(text % "old")
    before = Revision(fake_commits.committed("before"))
    Path("README.md").write_text(text % "new")
    assert changes.code(before, Revision(WORKSPACE)) == ["- made by the run: 1 file of results and `dvc.lock`"]
    for other in (text.replace("Below", "Under"), text.replace(readme.END, ""), text.replace(readme.BEGIN, "")):
        Path("README.md").write_text(other % "new")
        assert changes.code(before, Revision(WORKSPACE)) == ["- `README.md`: reruns nothing"], other


def test_parameters_are_told_in_words(tmp_path, monkeypatch):
    old = "run: {methods: [base, lora, full], seeds: [1, 2]}\nlr: 1.0e-4\nfast: true\nold: {a: 1, b: 2}\n"
    new = "run: {methods: [base, dora], seeds: [2, 1]}\nlr: 2e-4\nfast: 1\nnew: {a: 1}\n"
    old, new = f"{old}text: x\nsame: .nan\n", f"{new}text:\nsame: .nan\n"
    assert params_of(monkeypatch, tmp_path, old, new) == [
        "- `run.methods`: added `dora`, removed `lora`, `full`",
        "- `run.seeds`: in another order",
        "- `lr`: `0.0001` → `0.0002`",
        "- `fast`: `true` → `1`",
        "- `old` removed, a block of 2 keys",
        "- `text`: `x` → `null`",
        "- `new` added, a block of 1 key",
    ]


def test_of_very_many_parameters_the_first_are_told(tmp_path, monkeypatch):
    old, new = ("".join(f"key{n}: {value}\n" for n in range(100)) for value in (1, 2))
    lines = params_of(monkeypatch, tmp_path, old, new)
    assert len(lines) == changes.MOST + 1
    assert lines[-1] == "- and 70 further parameters differ"


SPAM = (
    "@octocat and @team/all",
    "#123 GH-1 team/repo#1 !12 ~bug %1 &2 $3 ^alert#4",
    "<!-- --> --> <details><summary>x</summary></details>",
    "a@b.example https://evil.example www.evil.example",
    "/close\n/merge",
    "| a | `b` |\n|---|---|",
    "![x](https://evil.example/p.png) [x](//evil.example)",
    "`` ` @octocat ` #1 ``",
)


@pytest.mark.parametrize("text", [*hostile.EVERY, *SPAM])
def test_no_text_is_obeyed(text):
    """Code on one line: what GitHub and GitLab look for mentions and references in is all text but code."""
    for wrapped in (f"- {texts.shown(text)}: {texts.shown(text, 20)}", f"| a |\n|---|\n| {texts.shown(text)} |"):
        found = hostile.of_markdown(wrapped)
        plain = hostile.of_markdown(wrapped.replace(texts.shown(text), "x").replace(texts.shown(text, 20), "x"))
        assert set(found - plain) <= {"<code []>", "<em []>"}, "*nothing* is in italics"
        assert not hostile.harm(wrapped.replace("\n", ""))
        assert len(wrapped.splitlines()) == (1 if wrapped.startswith("-") else 3)
    assert len(texts.shown(text, 20)) < 250


@pytest.mark.parametrize("text", [*hostile.EVERY, *SPAM])
def test_no_sentence_with_a_name_is_obeyed(text):
    line = texts.said(f"another answer_pattern of {text}")
    found = hostile.of_markdown(f"- {line}")
    assert not set(found - hostile.of_markdown("- x"))
    assert not re.search(r"[@!~%$^](?=\w)|(?<!&)#(?=\w)|GH-\d|&(?!lt;|gt;|amp;|#124;)\w", line)
    assert "\n" not in line


@pytest.mark.slow
def test_hostile_questions_answers_and_names_stay_text(tmp_path, monkeypatch, capsys):
    """Through the whole comment: nobody is mentioned, nothing linked, and no element is there but ours."""
    texts_of = [*SPAM, *hostile.HOSTILE[:-1]]
    rows = fake_results.item_rows

    def hostile_rows(*rest):
        found = rows(*rest)
        for number, row in enumerate(found):
            if row["split"] == "test":
                row["prompt"] = f"{texts_of[number % len(texts_of)]} {number}"
                row["generated"] = row["generated"] if len(row["generated"]) > 35 else texts_of[-number % len(texts_of)]
        return found

    monkeypatch.setattr(fake_results, "item_rows", hostile_rows)
    fake_commits.begin(monkeypatch, tmp_path)
    monkeypatch.setitem(fake_results.SKILL, "lora", 0.8)
    a_run("before")
    monkeypatch.setitem(fake_results.SKILL, "lora", 0.55)
    a_run("worse")
    edit(lambda raw: raw.update({text: text for text in texts_of}))
    Path("@octocat #1 <b>.md").write_text("")
    git("add", "-A")
    git("commit", "-qm", "worse")
    text = comment(capsys, base="HEAD~2", head="HEAD")
    assert "**right → wrong**, 5 of" in text
    assert "octocat" in text
    outside = re.sub(r"`[^`\n]*`|<code>.*?</code>", "", text.split("\n", 1)[1])
    assert not re.search(r"[@#!~]\w|evil|octocat|^/", outside, re.MULTILINE)
    found = hostile.of_markdown(text.split("\n", 1)[1])
    ours = (
        "<p",
        "<h3",
        "<ul",
        "<li",
        "<code",
        "<strong",
        "<em",
        "<table",
        "<t",
        "<details []",
        "<summary []",
        "bare links",
    )
    assert not {kind for kind, n in found.items() if n and not kind.startswith(ours)}
    assert not found["bare links"]
    assert found["<details []>"] == text.count("\n</details>")


def test_a_comment_is_never_longer_than_a_platform_takes(inside, capsys, monkeypatch):
    from tradeoffs.comment import writing

    monkeypatch.setattr(writing, "MOST_FOLDED", 10_000)
    monkeypatch.setattr(writing, "LONGEST", 3_500)
    text = comment(capsys, base="before", head="worse")
    assert len(text) <= 3_500
    assert "Cut here" in text
    assert text.count("<details>") == text.count("</details>")


class TestPictures:
    """Two, at the head of the pull request, and only those that are the ones here."""

    @pytest.fixture
    def plots(self, inside, monkeypatch):
        Path("plots").mkdir()
        for name in ("quality_vs_size", "methods"):
            Path(f"plots/{name}.png").write_bytes(name.encode())
        git("add", "plots")
        git("commit", "-qm", "plots")
        monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.example")
        monkeypatch.setenv("GITHUB_REPOSITORY", "team/repo")
        monkeypatch.setenv("REVIEW_HEAD_SHA", git("rev-parse", "HEAD"))

    def test_are_links_to_the_commit(self, plots, capsys):
        sha = git("rev-parse", "HEAD")
        text = comment(capsys, base="before")
        below = f"https://github.example/team/repo/raw/{sha}/plots/"
        assert f"![quality and size]({below}quality_vs_size.png)\n![methods]({below}methods.png)" in text
        assert posting.defanged(text, "https://github.example/team/repo/raw/").count(below) == 2

    def test_of_another_commit_are_left_out(self, plots, capsys):
        Path("plots/methods.png").write_bytes(b"made anew by the job")
        text = comment(capsys, base="before")
        assert "quality_vs_size.png)" in text
        assert "methods.png" not in text

    def test_of_no_platform_are_left_out(self, inside, capsys):
        assert "![" not in comment(capsys, base="before")

    @pytest.mark.parametrize("server", ["javascript:alert(1)", "https://x)](https://evil.example", ""])
    def test_of_an_address_that_is_none_are_left_out(self, plots, monkeypatch, capsys, server):
        monkeypatch.setenv("GITHUB_SERVER_URL", server)
        assert "![" not in comment(capsys, base="before")


def test_the_comment_for_a_project_in_a_folder_has_a_marker_of_its_own(inside, monkeypatch, capsys):
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    assert folder() == "inner"
