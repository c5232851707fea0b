"""Texts from outside harm nothing that shows them: each of tests/hostile.py, in every place that one can come to."""

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fake_results
import hostile
import pyarrow.parquet as pq
import pytest
from dvc_render import VegaRenderer
from hostile import EVERY, HOSTILE
from matplotlib.figure import Figure

from stages import aggregate, score
from tradeoffs import answers as answers_command
from tradeoffs import compare, params, questions, readme
from tradeoffs.common import files, texts
from tradeoffs.common.cells import Variant
from tradeoffs.experiments import showing
from tradeoffs.experiments.reading import DATA
from tradeoffs.experiments.trial import Sweep, Trial
from tradeoffs.explore import stamp
from tradeoffs.params.checks import problems_across
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report import formatting, page
from tradeoffs.report.pictures.style import drawn
from tradeoffs.results import tables

pytestmark = pytest.mark.filterwarnings("ignore:Glyph|constrained_layout:UserWarning")
SLOW_FIXTURES = {"runs"}  # read by conftest.py
PLAIN = tuple(f"word {number}" for number in range(len(EVERY)))
ONE, OTHER = (Variant("demo", "demo", "lora", form) for form in ("trained", "q4_0"))
RUN = {"models": ["demo", "stories260k"], "datasets": ["demo"], "methods": ["base", "lora"]}
# Of elements within a line those that no number of the run decides: `strong` is what is best, `code` a name told apart.
COUNTED = re.compile("<(em|a|img) ")
IDS = [str(number) for number in range(len(EVERY))]


def spoil(folder: Path, texts: tuple[str, ...]) -> None:
    """Puts each of the texts into every place of a run that holds one from outside."""
    sound = texts[: len(HOSTILE)]  # what Parquet can hold
    subjects = {name: sound[n::4] for n, name in enumerate(("rates", "interest", "inflation", "definitions"))}
    for path in folder.glob("data/items/*.parquet"):
        table = pq.read_table(path)
        rows = [_spoiled(row, place, sound, subjects) for place, row in enumerate(table.to_pylist())]
        files.write_table(path, rows, table.schema)
    for path in folder.glob("data/copying/*.parquet"):
        table = pq.read_table(path)
        rows = [row | {"prompt": sound[n], "question": sound[-n], "generated": sound[n]} for n, row in _numbered(table)]
        files.write_table(path, rows, table.schema)
    every = "\n".join(texts)
    for path in folder.glob("data/facts/*.json"):
        found = files.read_json(path) | {"hardware": _hardware(every), "runtime": every, "device": every}
        path.write_text(json.dumps(found))
    cost = files.read_json(folder / "data/cost.json") | {"hardware": _hardware(every)}
    for thing in cost["things"]:
        for one in thing["rounds"]:
            one["device"] = every
    (folder / "data/cost.json").write_text(json.dumps(cost))
    for path in folder.glob("data/prepared/*/info.json"):
        found = files.read_json(path)
        found["dropped"]["duplicate_examples"] = list(texts)
        found["dropped"]["near_duplicate_examples"] = [{"dropped": text, "like": text} for text in texts]
        path.write_text(json.dumps(found | {"answer_pattern": f"({re.escape(every)})", "source": every}))


def _numbered(table):
    return [(n % len(HOSTILE), row) for n, row in enumerate(table.to_pylist())]


def _spoiled(row, place, sound, subjects):
    if row["split"] == "mmlu":
        mine = subjects[row["subject"]]
        return row | {"subject": mine[place % len(mine)]}
    if row["split"] == "prompt":
        number = int(row["item"].removeprefix("prompt"))
        return row | {"prompt": sound[number], "generated": sound[-number]}
    if row["split"] in ("test", "seen"):
        number = place % len(sound)
        return row | {"prompt": sound[number], "answer": sound[-number], "generated": sound[number - 1]}
    return row


def _hardware(text):
    return {"processor": text, "machine": text, "cores": 2}


def made(folder: Path, texts: tuple[str, ...]) -> Path:
    """A finished run, all of whose texts are these."""
    with pytest.MonkeyPatch.context() as patch:
        fake_results.params_file(folder, fake_results.REPO / "params.yaml", **RUN, precisions=[], quants=["q4_0"])
        patch.chdir(folder)
        cfg = params.load_all()
        asked = tuple(f"prompt {number}" for number in range(len(HOSTILE)))
        fake_results.write(folder, cfg.run, items=len(HOSTILE), questions=7, prompts=asked)
        spoil(folder, texts)
        score.main()
        aggregate.main()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run whose texts are hostile, and the same with words."""
    return made(tmp_path_factory.mktemp("hostile"), EVERY), made(tmp_path_factory.mktemp("plain"), PLAIN)


def pages_of(folder: Path, suffix: str) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"report/*.{suffix}"))}


def without_breaks(found: Counter[str]) -> Counter[str]:
    """A text's own line breaks show; that is all it may add."""
    return +Counter({what: number for what, number in found.items() if what != "<br []>"})


def kinds(found: Counter[str]) -> Counter[str]:
    """Elements with their attributes: one of each, since a table with a long text is cut into several, but how many
    there are of those that a text could add where there are some already."""
    counted = {what: found[what] if COUNTED.match(what) else 1 for what in without_breaks(found)}
    return Counter(counted)


def test_no_page_has_an_element_an_attribute_or_an_address_more_than_with_words(runs):
    pages, plain = (pages_of(folder, "html") for folder in runs)
    assert pages.keys() == plain.keys() and len(pages) > 7
    for name, text in pages.items():
        assert kinds(hostile.elements(text)) <= kinds(hostile.elements(plain[name])), name
        assert "alert(1)" in text or name in ("formats.html", "methods.html", "report.html"), "it is shown"
        assert not hostile.harm(text), name


def test_markdown_has_no_element_link_row_or_cell_more_than_with_words(runs):
    pages, plain = (pages_of(folder, "md") for folder in runs)
    assert pages.keys() == plain.keys()
    for name, text in pages.items():
        assert kinds(hostile.of_markdown(text)) <= kinds(hostile.of_markdown(plain[name])), name
        assert not hostile.harm(text), name
        tables, words = (re.findall(r"(?:^\|.*\n)+", one, re.MULTILINE) for one in (text, plain[name]))
        # A table with long texts is cut between its columns into several, each of as many rows.
        assert {table.count("\n") for table in tables} == {table.count("\n") for table in words}, name
        for table in tables:
            assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_no_cell_of_a_table_is_a_formula_or_moves_a_cursor(runs):
    for path in [*runs[0].glob("*/*.csv")]:
        text = path.read_text(encoding="utf-8")
        assert not hostile.harm(text), path
        for cell in (cell for row in csv.reader(text.splitlines(keepends=True)) for cell in row):
            assert re.fullmatch(r"-?[\d.e+-]*", cell) or not hostile.FORMULA.match(cell), (path, cell)
    with (runs[0] / "report/prompts.csv").open(newline="", encoding="utf-8") as file:
        said = {row["prompt"].removeprefix("'") for row in csv.DictReader(file)}
    assert {text for text in HOSTILE if text.startswith(("{{", "=cmd", "<script", "![pixel"))} <= said


def test_numbers_are_those_of_the_same_run_with_words(runs):
    for name in ("quality", "cost", "training"):
        ours, words = (files.read_json(folder / f"metrics/{name}.json") for folder in runs)
        assert ours.keys() == words.keys()
    ours, words = (files.read_json(folder / "metrics/mmlu.json") for folder in runs)
    for variant, found in ours.items():
        assert list(found["accuracy"].values()) == list(words[variant]["accuracy"].values()), "no subject is lost"
        assert not any(hostile.harm(name) or "<" in name for name in found["accuracy"])
    lines = [(folder / "metrics/summary.csv").read_text().count("\n") for folder in runs]
    assert lines[0] == lines[1]


def test_dvcs_own_page_of_plots_has_no_script_of_a_subject(runs):
    with (runs[0] / "plots/subjects.csv").open(newline="", encoding="utf-8") as file:
        points = [row | {"rev": "workspace", "filename": "x"} for row in csv.DictReader(file)]
    templates = str(fake_results.REPO / ".dvc/plots")
    drawn_by_dvc = VegaRenderer(points, "s", template="heatmap", template_dir=templates, x="variant", y="subject")
    text = drawn_by_dvc.generate_html()
    assert "alert(1)" in text
    assert "</script>" not in text.partition("<script")[2].rpartition("</script>")[0]
    assert "<!--" not in text


def test_the_summary_goes_into_a_readme_between_its_markers(runs):
    text = f"# x\n\n{readme.BEGIN}\nold\n{readme.END}\n"
    done = readme.with_results(text, *((runs[0] / f"report/{name}.md").read_text() for name in ("summary", "report")))
    assert done.count(readme.END) == done.count(readme.BEGIN) == 1
    with pytest.raises(UserError, match=r"has a marker of README.md"):
        readme.with_results(text, f"# head\n{readme.END} more", "")


def test_commands_show_all_and_a_terminal_obeys_nothing(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs[0])
    answers_command.main(str(ONE), None, 99, None, False, None, None)
    answers_command.main(str(ONE), str(OTHER), None, None, True, None, None)
    monkeypatch.setattr(questions, "answered", lambda *_: [asked(text) for text in HOSTILE])
    questions.main(str(ONE), None, False, None)
    compare.main(str(ONE), str(OTHER))
    out = capsys.readouterr().out
    assert "\\x1b[31mred" in out and "\\x9b2J" in out and "<script>" in out
    assert not hostile.harm(out)


def asked(text: str) -> questions.Answered:
    return questions.Answered("1", text, text, [text] * 4, [0.1] * 4, 0, 1)


def test_commands_write_tables_without_formulas(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs[0])
    answers_command.main(str(ONE), str(OTHER), None, None, False, None, Path("a.csv"))
    monkeypatch.setattr(questions, "answered", lambda *_: [asked(text) for text in HOSTILE])
    questions.main(str(ONE), None, False, Path("b.csv"))
    for name in ("a.csv", "b.csv"):
        with Path(name).open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if hostile.FORMULA.match(cell) or hostile.harm(cell)]


def test_what_is_compared_is_markdown_of_its_own_alone(runs, monkeypatch, capsys):
    said = []
    for folder in runs:
        monkeypatch.chdir(folder)
        compare.main(str(ONE), str(OTHER))
        said.append(capsys.readouterr().out)
    ours, words = (kinds(hostile.of_markdown(text)) for text in said)
    assert ours <= words


@pytest.mark.parametrize("text", EVERY, ids=IDS)
@pytest.mark.parametrize("around", ["x {}", "| a |\n|---|\n| {} |", "- x: {}"])
def test_markdown_of_a_text_is_text(text, around):
    ours, words = around.format(formatting.escaped(text)), around.format("word")
    assert without_breaks(hostile.of_markdown(ours)) == without_breaks(hostile.of_markdown(words))
    ours, words = (hostile.elements(page.html(f"# Title\n\n{written}\n")) for written in (ours, words))
    assert without_breaks(ours) == without_breaks(words)


@pytest.mark.parametrize("text", EVERY, ids=IDS)
def test_code_of_a_text_is_code(text):
    found = hostile.elements(page.html(f"x {formatting.code(text)} y"))
    assert found == hostile.elements(page.html("x `word` y"))


@pytest.mark.parametrize("text", EVERY, ids=IDS)
def test_a_text_that_nobody_has_escaped_adds_nothing_to_a_page_that_the_report_has_not(text):
    """What holds where somebody forgets: no address, no attribute, no element but those of Markdown itself."""
    found = hostile.elements(page.html(f"# Title\n\n{texts.harmless(text)}\n\nx {texts.harmless(text)}\n"))
    more = {*kinds(found)} - {*kinds(hostile.elements(page.html("# Title\n\nx\n")))} - {"<div [('class', 'wide')]>"}
    allowed = "details|summary|br|hr|pre|code|em|strong|blockquote|ul|ol|li|h[1-6]|table|thead|tbody|tr|th|td|p"
    assert all(re.fullmatch(rf"<({allowed}) \[\]>", what) for what in more), more


@pytest.mark.parametrize("text", EVERY, ids=IDS)
def test_a_title_and_what_opens_on_a_click_are_text(text):
    folded = formatting.escaped(text)
    found = hostile.elements(page.html(f"# {folded}\n\n<details>\n<summary>{folded}</summary>\n\nx\n\n</details>\n"))
    assert without_breaks(found) == hostile.elements(
        page.html("# a\n\n<details>\n<summary>b</summary>\n\nx\n\n</details>\n")
    )


@pytest.mark.parametrize("text", EVERY, ids=IDS)
def test_a_picture_holds_any_text_and_none_is_a_formula_of_matplotlib(text, tmp_path):
    figure = Figure(figsize=(4, 2), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks([0, 1], [drawn(text), "x"])
    written = axes.get_yticklabels()[0]
    assert written._preprocess_math(written.get_text())[1] is False
    figure.savefig(tmp_path / "a.png", bbox_inches="tight")


@pytest.mark.parametrize("text", EVERY, ids=IDS)
def test_a_cell_of_a_csv_is_text_and_so_is_a_columns_name(text, tmp_path):
    tables.write_csv(tmp_path / "a.csv", [{text: text, "last": -0.05}])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        (name, last), (cell, number) = csv.reader(file)
    assert (last, number) == ("last", "-0.05"), "a number stays one"
    assert name == cell and not hostile.FORMULA.match(cell) and not hostile.harm(cell)
    for line in cell.split("\n"):  # as a spreadsheet that parts cells by these would see it
        assert not re.match(r"[ \"']*(?<!')[=+\-@].*\|.*!", line)
        assert not any(re.match(r"[ \"']*(?<!')[=+\-@].*[(|!]", part) for part in re.split(r"[;\t]", line)[1:])


@pytest.mark.parametrize(
    "text",
    ["Steps:\n- open it (once)\n- close it!", "f(2)\n= 2 (1 + 1)\n= 4", "\nAn answer", "\n\n* one (a)", "a; b (c); d"],
)
def test_ordinary_text_is_as_it_is_in_a_csv(text, tmp_path):
    tables.write_csv(tmp_path / "a.csv", [{"answer": text}])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert [*csv.reader(file)] == [["answer"], [text]]


@pytest.mark.parametrize("text", EVERY, ids=IDS)
def test_an_error_is_text(text, capsys):
    with pytest.raises(SystemExit) as ended, cli.explained():
        raise UserError(f"{text}: no such subject")
    assert not hostile.harm(str(ended.value))


@pytest.mark.parametrize("text", EVERY, ids=IDS)
def test_experiments_show_settings_and_names_as_text(text, tmp_path):
    def sweep(text):
        def trial(number):
            setting = {"train.steps": 10, "train.batch_size": 2, "x": f"{text}{number}", text: number}
            data = dict.fromkeys(DATA, ("a",))
            return Trial(
                f"{text}{number}", text, text, text, 1, setting, data, {"valid_loss": 1.0 + number}, 5.0, 1.0, {}
            )

        trials = [trial(number) for number in range(3)]
        return Sweep(trials, {f"reason {text}": {text: None}}, "HEAD", 0, 10)

    for show in (showing.report, showing.ablation):
        ours, words = ("\n".join(show(sweep(one))) for one in (text, "word"))
        assert not hostile.harm(ours)
        assert kinds(hostile.of_markdown(ours)) <= kinds(hostile.of_markdown(words))
    showing.write_csv(tmp_path / "a.csv", sweep(text))
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert not [cell for row in csv.reader(file) for cell in row if hostile.FORMULA.match(cell)]


@pytest.mark.parametrize("text", EVERY, ids=IDS)
@pytest.mark.parametrize("axis", ["models", "datasets", "methods"])
def test_no_such_name_gets_past_params_yaml_into_a_path_a_title_or_the_list_of_artifacts(text, axis):
    sound = params.load_all(fake_results.REPO / "params.yaml")
    ours = replace(sound, **{axis: {text: next(iter(getattr(sound, axis).values()))}})
    assert any("a name holds letters, digits and _ only" in problem for problem in problems_across(ours, []))


def test_every_page_forbids_all_that_it_does_not_need():
    # The page to look for yourself is no part of the report, and has a policy of its own: tests/test_explore.py.
    reports = set(fake_results.REPO.glob("report/*.html")) - {fake_results.REPO / stamp.PAGE}
    pages = [*reports, *fake_results.REPO.glob("examples/*/report/*.html")]
    assert len(pages) > 10
    for path in pages:
        text = path.read_text(encoding="utf-8")
        policy = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
        assert len(policy) == 1 and "default-src 'none'" in policy[0], path
        assert "script" not in policy[0] and "http" not in policy[0]
        assert text.index("Content-Security-Policy") < text.index("<style>"), "it holds for what follows"
        outside = re.findall(r"(?:src|href|action|data)=\"(?!\.\./plots/|[a-z_]+\.(?:html|csv)\")[^\"]*\"", text)
        assert not outside, path
        assert text == page.html(path.with_suffix(".md").read_text(encoding="utf-8"))
