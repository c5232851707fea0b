"""Fixtures that several test files use."""

import os

import pytest

from benchmarks import assets


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory: saved states of unfinished runs lie below it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def one_thread():
    """Models this small only make llama.cpp's threads wait for each other, for long if the machine is busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a random base, the same with tied embeddings, and tokens to train on."""
    from tiny import make_base, make_tokens  # with torch and transformers, which most test files do without

    folder = tmp_path_factory.mktemp("work")
    make_base(folder / "base")
    make_base(folder / "tied", tied=True)
    make_tokens(folder / "tokens")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests were left out for want of assets, and how to get them."""
    skipped = terminalreporter.stats.get("skipped", [])
    if left_out := sum(assets.COMMAND in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(
            f"{left_out} of the skipped tests need real models, texts or tokenizers, which are not in {assets.FOLDER}: "
            f"`{assets.COMMAND}` gets them, and {assets.VARIABLE} names another folder"
        )
