"""Fixtures that several test files use, how many threads a test gets, and which tests run when and where."""

import os

# Before any library loads, and for every process that a test starts: two tests run at a time, and threads of one that
# wait for each other would keep the other from its core.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "RAYON_NUM_THREADS": "1"}
os.environ["DVC_NO_ANALYTICS"] = "1"


import fcntl
import gc
from pathlib import Path

import pytest

from benchmarks import assets
from tradeoffs.common import cores

# Files with slow tests, the longest first: none shall be left for one worker when the other has nothing to do.
LONGEST = (
    *("test_write_ups", "test_families", "test_finetune", "test_methods", "test_further"),
    *("test_end_to_end", "test_preference", "test_reward_stage"),
    *("test_merging", "test_review_flow", "test_remotes", "test_grid"),
    *("test_report", "test_aggregate", "test_secrets", "test_hub_models", "test_zoo", "test_explore_browser"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files without slow tests come first, then the longest: a worker takes one file after the other, and makes its
    fixtures once. Slow is also what needs one of the SLOW_FIXTURES of its file; in a file slow tests come last."""
    for item in items:
        if getattr(item.module, "SLOW_FIXTURES", set()).intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    ranks = {item.path.stem: len(LONGEST) for item in items if _slow(item)}
    ranks |= {name: rank for rank, name in enumerate(LONGEST) if name in ranks}
    items.sort(key=lambda item: (ranks.get(item.path.stem, -1), item.path, _slow(item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is marked `cuda` where there is no GPU, or a torch that was not built for one."""
    if item.get_closest_marker("cuda"):
        import torch  # which those tests import anyway

        if not torch.cuda.is_available():
            pytest.skip("there is no GPU here that torch can use")


def _slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def pytest_collection_finish() -> None:
    """What is imported by now stays: without it, each of the collections that trainers ask for takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory: saved states of unfinished runs lie below it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def one_thread():
    """Models this small only make llama.cpp's threads wait for each other, for long if the machine is busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "usable", lambda: 1)
        yield


@pytest.fixture
def sketched():
    """The report's pictures are made and not painted: see tests/sketches.py."""
    from sketches import sketched  # with matplotlib, which most test files do without

    with sketched():
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


@pytest.fixture(scope="module")
def asked(work, tmp_path_factory):
    """The base of `work`, and questions to learn from by reward."""
    from further import make_questions

    return make_questions(tmp_path_factory.mktemp("asked"), work / "base")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests were left out for want of assets, and how to get them."""
    skipped = terminalreporter.stats.get("skipped", [])
    if left_out := sum(assets.COMMAND in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(
            f"{left_out} of the skipped tests need real models, texts or tokenizers, which are not in {assets.FOLDER}: "
            f"`{assets.COMMAND}` gets them, and {assets.VARIABLE} names another folder"
        )


@pytest.fixture(scope="session")
def zoo_models(tmp_path_factory) -> Path:
    """A small random checkpoint per family of models, with its real tokenizer; made once for all workers."""
    from benchmarks import zoo

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of the whole run
    with (folder / "zoo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return zoo.make(folder / "zoo")
