"""The README shows the results that are committed, and links to files that exist."""

import re
from pathlib import Path

import pytest

from tradeoffs import readme

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", REPO / "examples/README.md", *sorted((REPO / "docs").glob("*.md"))]


def test_the_readme_holds_the_current_results():
    text = (REPO / "README.md").read_text()
    assert text == readme.with_results(text, (REPO / "report/summary.md").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_option_in_the_docs_exists(page):
    """`dvc exp run -S a.b=...` in the docs names a key of params.yaml."""
    import yaml

    params = yaml.safe_load((REPO / "params.yaml").read_text())
    for key in re.findall(r"-S '?([a-z_.0-9]+)=", page.read_text()):
        block = params
        for part in key.split("."):
            assert part in block, f"{page.name}: {key}"
            block = block[part]
