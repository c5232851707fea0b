"""The README shows the results that are committed, and links to files that exist."""

import re
from pathlib import Path

import pytest

from tradeoffs import readme
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
PAGES = [
    *(REPO / name for name in ("README.md", "examples/README.md", "benchmarks/README.md")),
    *sorted((REPO / "docs").glob("*.md")),
]


def test_the_readme_holds_the_current_results():
    text = (REPO / "README.md").read_text()
    summary, front = ((REPO / "report" / name).read_text() for name in ("summary.md", "report.md"))
    assert text == readme.with_results(text, summary, front)


def test_only_what_stands_between_the_markers_changes():
    text = f"# Mine\n{readme.BEGIN}\nold\n{readme.END}\nmore\n"
    found = readme.with_results(text, "## Headline\n\nnew\n", "No picture.\n")
    assert found == f"# Mine\n{readme.BEGIN}\nnew\n{readme.END}\nmore\n"


@pytest.mark.parametrize("name", readme.PICTURES)
def test_the_picture_is_that_of_the_first_page(name):
    text, front = f"{readme.BEGIN}\n{readme.END}\n", f'# One\n\n![Some "of it".](../plots/{name}.png)\n\n*All.*\n'
    found = readme.with_results(text, "## Headline\n\nnew\n", f"{front}\n![Another.](../plots/quality_vs_size.png)\n")
    (picture,) = re.findall(r"^!.*", found, re.MULTILINE)
    assert picture == f"![{readme.PICTURES[name]}](plots/{name}.png)"


@pytest.mark.parametrize("text", ["", readme.BEGIN, f"{readme.END} {readme.BEGIN}", 2 * (readme.BEGIN + readme.END)])
def test_a_readme_without_its_two_markers_is_refused(text):
    with pytest.raises(UserError, match=r"README\.md: needs a line <!-- results:begin -->"):
        readme.with_results(text, "## Headline\n\nnew\n", "")


def test_results_that_are_not_there_yet_are_one_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(readme.BEGIN + readme.END)
    with pytest.raises(UserError, match=r"report/summary\.md: not found in .*; run after `dvc repro`"):
        readme.write()


def test_who_removes_both_markers_wants_no_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not readme.is_wanted()
    for text, wanted in (("# Mine", False), (f"{readme.END}", True), (f"{readme.BEGIN}\n{readme.END}", True)):
        Path("README.md").write_text(text)
        assert readme.is_wanted() == wanted


def test_the_check_tells_a_stale_block_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("report").mkdir()
    Path("report/summary.md").write_text("## Headline\n\nnew\n")
    Path("report/report.md").write_text("No picture.\n")
    Path("README.md").write_text(f"{readme.BEGIN}\nold\n{readme.END}")
    with pytest.raises(UserError, match=r"README\.md: its results are not those of report/summary\.md"):
        readme.write(check=True)
    assert "old" in Path("README.md").read_text()
    readme.write()
    readme.write(check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_option_in_the_docs_exists(page):
    """`dvc exp run -S a.b=...` in the docs names a key of params.yaml."""
    import quick_yaml

    params = quick_yaml.load((REPO / "params.yaml").read_text())
    for key in re.findall(r"-S '?([a-z_.0-9]+)=", page.read_text()):
        block = params
        for part in key.split("."):
            assert part in block, f"{page.name}: {key}"
            block = block[part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_name_in_a_command_has_its_block(page):
    """In params.yaml, or shown on the page, where it tells how to write one."""
    import quick_yaml

    params, text = quick_yaml.load((REPO / "params.yaml").read_text()), page.read_text()
    axes = ("models", "datasets", "methods")
    named = [(axis, name) for axis, names in re.findall(r"run\.(\w+)=\[([^]]*)\]", text) for name in names.split(",")]
    cells = re.findall(r"@([a-z0-9_]+)-([a-z0-9_]+)-([a-z0-9_]+)", text)
    named += [pair for cell in cells for pair in zip(axes, cell, strict=True)]
    shown = set(re.findall(r"^ *([a-z0-9_]+):$", text, re.MULTILINE))
    assert {(axis, name) for axis, name in named if axis in axes and name not in {*params[axis], *shown}} == set()


@pytest.mark.parametrize(
    "page", [*PAGES, REPO / "params.yaml", REPO / "Makefile"], ids=lambda page: str(page.relative_to(REPO))
)
def test_nothing_leads_out_of_the_checkout(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).resolve().is_relative_to(REPO)] == []
    assert "../" not in re.sub(r"\]\([^)]*\)", "", text)
