"""The report says what the numbers say, and every picture and table holds."""

import csv
import re
from pathlib import Path

import fake_results
import pytest
import yaml

from stages import aggregate, score
from tradeoffs import params, plots, report
from tradeoffs.results import Results

REPO = Path(__file__).parents[1]


def run_stages(folder: Path, **lists) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        fake_results.params_file(folder, REPO / "params.yaml", **lists)
        patch.chdir(folder)
        cfg = params.load_all()
        fake_results.write(folder, cfg.run, items=20, questions=5)
        score.main()
        aggregate.main()
        return Results(cfg.run, cfg.seed, cfg.evaluate.bootstrap)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def results(folder):
    """Two models and two data sets, so that every table has more than one group."""
    return run_stages(
        folder,
        models=["demo", "stories260k"],
        datasets=["demo", "instructions"],
        methods=["base", "lora"],
        precisions=["nf4"],
        quants=["f16", "q4_0"],
    )


@pytest.fixture(scope="module")
def text(folder, results):
    return (folder / "report/report.md").read_text()


def test_the_answer_comes_first(text, results):
    best = results.ranked("demo", "demo")[0]
    decision = text.split("\n## ")[0]
    assert f"**demo on demo.** Best test F1: `{best.method} {best.format}`" in decision
    assert decision.count("| demo / demo |") == 1


def test_every_section_is_there(text):
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == [
        "Models side by side",
        "Methods, as trained",
        "Formats",
        "The ladder: where a fine-tune is lost",
        "Multiple choice, by subject",
        "Who beats whom",
        "Data, and what it can show",
        "How to read the numbers",
        "Machine",
    ]


def test_a_difference_is_called_a_tie_exactly_when_its_interval_contains_0(text):
    called = re.findall(r"\[([+-][\d.]+), ([+-][\d.]+)\], (tie|better|worse)", text)
    assert called
    for low, high, word in called:
        if float(low) != 0 != float(high):  # not decided by rounding
            assert (float(low) <= 0 <= float(high)) == (word == "tie")


def test_numbers_in_the_report_are_those_of_the_results(text, results):
    for variant in results.variants:
        found = results.interval(variant, "test_f1")
        assert f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" in text


def test_every_table_has_as_many_cells_in_each_row(text):
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({row.count("|") for row in table.strip().split("\n")}) == 1, table


def test_every_picture_in_the_report_exists(folder, text):
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(links) == len(plots.PICTURES)
    assert all((folder / "report" / link).is_file() for link in links)


def test_the_page_holds_the_same_tables_and_pictures(folder, text):
    page = (folder / "report/report.html").read_text()
    assert page.count("<table>") == len(re.findall(r"^\|---", text, re.MULTILINE))
    assert page.count("<img") == text.count("![")
    assert page.count("<details>") == text.count("<details>")


def test_the_costliest_step_of_a_ladder_is_the_largest_one_that_is_no_tie(results):
    cell = results.of("demo", "demo", "lora")
    steps = {v: results.compare(v, results.made_from(v), "test_loss") for v in cell[1:]}
    worst = max(steps, key=lambda v: steps[v].value)
    assert f"to `{worst.format}`" in report._costliest_step(results, cell)


def test_one_method_in_one_format_is_reported_too(tmp_path):
    run_stages(tmp_path, methods=["lora"], precisions=[], quants=[])
    text = (tmp_path / "report/report.md").read_text()
    assert "1 variant: 1 method of tuning in 1 format" in text
    assert "`lora trained`" in text


def test_the_plots_of_dvc_show_columns_that_are_written(folder, results):
    declared = yaml.safe_load((REPO / "dvc.yaml").read_text())["plots"]
    for entry in declared:
        if isinstance(entry, str):
            assert (folder / entry).is_file(), entry
            continue
        ((_, plot),) = entry.items()
        assert (REPO / ".dvc/plots" / f"{plot['template']}.json").is_file()
        for name, column in plot["y"].items():
            with (folder / name).open() as file:
                assert {column, plot["x"], "method"} <= set(next(csv.reader(file)))
