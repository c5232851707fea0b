"""Each preset that comes along runs from beginning to end on stand-ins, and docs/write-ups.md has the tables of it."""

import csv
import re
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import pytest
import write_ups
from sketches import sketched

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import variants

SLOW_FIXTURES = {"made"}  # read by conftest.py
NAMES = sorted(write_ups.TABLES)
MANY_PANELS = {"grid", "mmlu"}  # pictures of many pairs, which tests/test_report.py and tests/test_grid.py have painted
MAY_BE_EMPTY = {"peak_gpu_memory_mb", "answer_gpu_mb", "mmlu_gpu_seconds"}


@pytest.fixture(scope="module", params=NAMES)
def made(request, tmp_path_factory, one_thread):
    """A preset by name, and the folder that it was run in."""
    folder = tmp_path_factory.mktemp(request.param)
    painted = nullcontext() if request.param not in MANY_PANELS else sketched()
    with pytest.MonkeyPatch.context() as patch, painted:
        patch.setenv("TQDM_DISABLE", "1")
        write_ups.run(request.param, folder)
    return request.param, folder


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_numbers(table: str) -> list[str]:
    """Its head, and of each row what it is about."""
    head, rule, *lines = table.splitlines()
    return [head, rule, *(line.split("|")[1] for line in lines)]


def test_every_write_up_has_its_preset_which_is_run_here():
    page = write_ups.PAGE.read_text(encoding="utf-8")
    assert set(NAMES) == set(re.findall(r"\(\.\./experiments/(\w+)\.yaml\)", page))
    assert set(NAMES) <= {path.stem for path in write_ups.FOLDER.glob("*.yaml")}, "a team's own may stand beside them"


def test_it_runs_to_the_report_with_every_variant(made, monkeypatch):
    _, folder = made
    monkeypatch.chdir(folder)
    run = params.load_all().run
    assert {row["variant"] for row in rows(folder, "metrics/summary.csv")} == {str(v) for v in variants(run)}
    assert (folder / "report/report.md").stat().st_size > 1000
    trained = [method for method in run.methods if method != "base"]
    training = files.read_json("metrics/training.json")
    for cell in product(run.models, run.datasets, trained):
        assert training["-".join(cell)]["train_seconds"] > 0


def test_the_page_has_the_tables_of_a_run_column_by_column(made):
    name, folder = made
    page = write_ups.PAGE.read_text(encoding="utf-8")
    shown, now = (re.split(r"\n\n", text) for text in (write_ups.shown(page, name), write_ups.tables(name, folder)))
    assert [without_numbers(table) for table in shown] == [without_numbers(table) for table in now]


def test_every_column_has_a_number_where_there_is_one_to_have(made):
    """But for a GPU's, on a machine without one."""
    name, folder = made
    for table in write_ups.TABLES[name]:
        if isinstance(table, write_ups.Table):
            found = rows(folder, table.source)
            empty = {column.ours for column in table.columns if not any(row.get(column.ours) for row in found)}
            assert empty <= MAY_BE_EMPTY


def test_what_a_gpu_measured_stands_in_place_of_the_processs():
    column = write_ups.Column("Peak Memory", "train_peak_memory_mb", "MB", on_gpu="train_peak_gpu_memory_reserved_mb")
    row = {"train_peak_memory_mb": "987", "train_peak_gpu_memory_reserved_mb": ""}
    assert write_ups._cell(row, column) == "987 MB"
    assert write_ups._cell(row | {"train_peak_gpu_memory_reserved_mb": "20490"}, column) == "20,490 MB"


def test_the_stand_ins_show_what_the_page_says_of_them(made):
    name, folder = made
    found = {row["variant"]: row for row in rows(folder, "metrics/summary.csv")}
    if name == "grid":
        for dataset in write_ups.GRID:
            mine = [row for row in found.values() if (row["dataset"], row["method"]) == (dataset, "base")]
            best = [min(mine, key=lambda row: float(row[key])) for key in ("test_perplexity", "test_bits_per_byte")]
            assert best[0]["model"] != best[1]["model"], "by perplexity another one"
    if name == "gguf_against_bf16":
        base, lora = (found[f"tinyllama_1_1b_chat-alpaca-{method}-bf16"] for method in ("base", "lora"))
        assert float(lora["test_f1"]) > float(base["test_f1"])
        assert float(lora["cosine_to_base"]) < float(base["cosine_to_base"])
    if name == "finance_methods":
        size = {row["method"]: float(row["adapter_mb"]) for row in found.values() if row["adapter_mb"]}
        assert size["adalora"] < size["lora"] / 4, "a target rank of 4 of 32: ranks were given up"
