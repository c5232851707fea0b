"""What params.yaml notes of a model or a data set stands in the report's tables of them, and moves nothing else."""

from pathlib import Path

import fake_pipeline
import fake_results
import pytest
from sketches import sketched

from stages import aggregate, settings
from tradeoffs.common import cells, files
from tradeoffs.report.formatting import escaped

SLOW_FIXTURES = {"folder"}  # read by conftest.py
READ, SHORT = "it has read *these* | <b>stories</b>", "short & simple"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models on two data sets, one of each with a note."""
    made = tmp_path_factory.mktemp("notes")
    lists = {"models": ["demo", "stories260k"], "datasets": [fake_results.TEXT, "instructions"]}
    fake_results.finished(made, methods=["base", "lora"], **lists, precisions=[], quants=[])

    def note(raw):
        raw["models"]["stories260k"]["notes"] = READ
        raw["datasets"][fake_results.TEXT]["notes"] = SHORT

    before = {name: made.joinpath(name).read_bytes() for name in ("metrics/quality.json", "metrics/summary.csv")}
    fake_pipeline.change(made, note)
    with pytest.MonkeyPatch.context() as patch, sketched():
        patch.chdir(made)
        settings.main()
        aggregate.main()
    assert {name: made.joinpath(name).read_bytes() for name in before} == before
    return made


def tables(folder: Path, page: str, begins: str) -> list[list[str]]:
    """Of each table of a page whose first line begins so its lines."""
    text = (folder / f"report/{page}.md").read_text(encoding="utf-8")
    parts = text.split("\n\n")
    return [part.splitlines() for part in parts if part.startswith(begins)]


def test_of_a_data_set_beside_the_best_model_for_it_and_its_rows(folder):
    for page, begins in (("report", "| data set | by | best model"), ("data", "| data set |")):
        lines = [line for table in tables(folder, page, begins) for line in table]
        assert any(line.endswith("| notes |") for line in lines), page
        noted = [line for line in lines if line.endswith("| short &amp; simple |")]
        assert noted and all(line.startswith(f"| `{fake_results.TEXT}` |") for line in noted)


def test_of_a_model_beside_what_it_was_measured_on(folder):
    for page, begins in (("grid", "| model | documents"), ("data", "| model / data set | train")):
        lines = [line for table in tables(folder, page, begins) for line in table]
        noted = [line for line in lines if line.endswith(f"| {escaped(READ)} |")]
        assert noted and all(line.startswith(("| `stories260k` |", "| stories260k / ")) for line in noted), page


def test_nothing_in_it_is_markdown_or_html(folder):
    html = (folder / "report/grid.html").read_text(encoding="utf-8")
    assert "it has read *these* | &lt;b&gt;stories&lt;/b&gt;" in html


def test_the_steps_settings_do_not_have_it(folder):
    mine = {path: path.read_text() for path in (folder / cells.SETTINGS).rglob("*.json")}
    assert [path.name for path, text in mine.items() if "has read" in text] == ["notes.json"]
    assert files.read_json(folder / cells.NOTES)["models"] == {"stories260k": {"notes": READ}}
