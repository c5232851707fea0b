"""Models x data sets: the same documents whatever the tokenizer, verdicts across models, and one picture."""

import csv
import re
from itertools import combinations
from pathlib import Path

import fake_results
import numpy as np
import pyarrow as pa
import pytest

from stages import score
from tradeoffs import metrics
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.evaluate import items
from tradeoffs.params import Splits
from tradeoffs.report import formatting, grid
from tradeoffs.report.pictures import heatmaps
from tradeoffs.results import intervals, ranking, verdicts
from tradeoffs.results.results import Results

SLOW_FIXTURES = {"results"}  # read by conftest.py
MODELS = ["demo", "stories260k"]
DATASETS = [fake_results.TEXT, "instructions"]
TOKENS = pa.schema([("id", pa.string()), ("ids", pa.list_(pa.int32()))])


def made(folder: Path, **lists) -> Results:
    lists = {"models": MODELS, "datasets": DATASETS, "methods": ["base", "full", "lora"]} | lists
    return fake_results.finished(folder, items=40, **lists, precisions=[], quants=["q4_0"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def results(folder):
    """Two tokenizers on a text and on questions; tests read it only."""
    return made(folder, painted=True)


@pytest.fixture(scope="module")
def text(folder, results):
    return fake_results.report(folder)


def section(text: str) -> str:
    return text.split("\n## The grid: models and data sets\n")[1].split("\n## ")[0]


def variant(model: str, dataset: str = fake_results.TEXT, method: str = "lora") -> Variant:
    return Variant(model, dataset, method, "trained")


# --- items


@pytest.mark.parametrize("most", [None, 2])
def test_a_limit_counts_documents_of_a_text_and_takes_all_windows_of_each(tmp_path, most):
    rows = [{"id": f"{document}-{number}", "ids": [1, 2]} for document in "abcd" for number in range(3)]
    files.write_table(tmp_path / "test.parquet", rows, TOKENS)
    limits = Splits(test=2, seen=1, general=0)
    chunks = list(items.chunks(tmp_path, limits, ["test"], {"test"}, most=most))
    found = [row for _, _, part in chunks for row in part]
    assert [(row["id"], row["document"]) for row in found] == [(f"{d}-{n}", d) for d in "ab" for n in range(3)]
    assert [number for _, number, _ in chunks] == list(range(len(chunks)))
    asked = [row for _, _, part in items.chunks(tmp_path, limits, ["test"], most=most) for row in part]
    assert [row["id"] for row in asked] == ["a-0", "a-1"], "of questions it counts rows"
    assert asked[0]["document"] is None


def test_a_limit_of_0_evaluates_nothing_and_one_above_the_number_everything(tmp_path):
    files.write_table(tmp_path / "general.parquet", [{"id": "a-0", "ids": [1]}, {"id": "b-0", "ids": [1]}], TOKENS)
    for limit, count in ((0, 0), (1, 1), (9, 2)):
        chunks = items.chunks(tmp_path, Splits(test=1, seen=1, general=limit), ["general"], {"general"})
        assert sum(len(rows) for _, _, rows in chunks) == count


def test_rows_of_one_name_are_added_up_in_order_of_appearance():
    names, sums = metrics.per_item(["b", "a", "b"], np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]))
    assert names == ["b", "a"]
    assert sums.tolist() == [[5.0, 50.0], [2.0, 20.0]]


def test_documents_are_resampled_and_not_their_windows(folder, results):
    """The interval is that of whole documents drawn with replacement, computed here from the file."""
    mine = variant("demo")
    rows = [row for row in files.read_table(folder / f"data/items/{mine}.parquet") if row["split"] == "test"]
    documents = list(dict.fromkeys(row["document"] for row in rows))
    assert len(rows) > len(documents) == 40 == results.count(mine, grid.BITS)
    nats = np.array([sum(r["log_likelihood"] for r in rows if r["document"] == d) for d in documents])
    size = np.array([sum(r["bytes"] for r in rows if r["document"] == d) for d in documents])
    draws = intervals.resamples(40, results._resamples, results._seed)
    assert results.values(mine, grid.BITS) == pytest.approx(-(draws @ nats) / (draws @ size) / np.log(2))


def test_models_that_cut_a_text_into_different_windows_are_paired_on_its_documents(results):
    ours, theirs = variant("demo"), variant("stories260k")
    assert not results.same_tokens(ours, theirs)
    found = results.compare(ours, theirs, grid.BITS)
    values = [results.values(v, grid.BITS) for v in (ours, theirs)]
    assert found.value == pytest.approx(values[0][0] - values[1][0])
    assert found.error < np.hypot(values[0][1:].std(), values[1][1:].std()), "pairing sharpens"


# --- the section


def test_the_best_model_of_each_data_set_comes_first_with_how_far_the_others_are_behind(text, results):
    decision = text.split("\n## ")[0]
    for dataset, names in ((fake_results.TEXT, [grid.BITS]), ("instructions", [grid.BITS, grid.F1])):
        assert grid.measures(results, dataset) == names
        for name in names:
            first, other = grid.best_of_models(results, dataset, name)
            label = formatting.full_label(results, dataset, name)
            (row,) = re.findall(rf"^\| `{dataset}` \| {label} \|(.*)\|$", decision, re.MULTILINE)
            best, behind = (cell.strip() for cell in row.split("|"))
            found = grid.standing(results, dataset, name).verdicts[other]
            assert best == f"`{first.model}` with `{first.method}`: {formatting.quality_of(results, first, name)}"
            assert behind == f"`{other.model}` with `{other.method}`: {formatting.verdict(found, name)}"
    assert grid.best_of_models(results, fake_results.TEXT, grid.BITS)[0].model == "stories260k"


def alike(results: Results, monkeypatch) -> None:
    """All trainings of a method score what the first of the demo model does, but for a thousandth of a bit."""
    for method in results.run.methods:
        first, *further = results.trainings(variant("demo", method=method).cell)
        names, values = results._resampled(first, grid.BITS)
        nearly = values + np.where(np.arange(len(values)) % 2, 1e-3, -1e-3)
        for training in (*further, *results.trainings(variant("stories260k", method=method).cell)):
            monkeypatch.setitem(results._values, (training, grid.BITS), (names, nearly))


def test_a_model_that_is_as_good_as_the_best_has_one_training(results, monkeypatch):
    assert [v.model for v in grid.good_models(results, fake_results.TEXT, grid.BITS)] == ["stories260k"]
    alike(results, monkeypatch)
    assert len(grid.good_models(results, fake_results.TEXT, grid.BITS)) == 1
    (row,) = (row for row in grid.decision(results) if row.startswith(f"| `{fake_results.TEXT}`"))
    assert "], one training |" in row


def test_a_model_that_is_as_good_as_the_best_whatever_the_seed_is_good_enough(tmp_path, monkeypatch):
    lists = {"models": MODELS, "datasets": [fake_results.TEXT], "methods": ["full", "lora"], "seeds": [42, 43, 44]}
    found = fake_results.finished(tmp_path, items=40, stages=[score], **lists, precisions=[], quants=[])
    assert [v.model for v in grid.good_models(found, fake_results.TEXT, grid.BITS)] == ["stories260k"]
    alike(found, monkeypatch)
    assert {v.model for v in grid.good_models(found, fake_results.TEXT, grid.BITS)} == set(MODELS)
    (row,) = (row for row in grid.decision(found) if row.startswith(f"| `{fake_results.TEXT}`"))
    assert "], good enough |" in row


def test_every_cell_has_its_likelihoods_its_training_time_and_its_throughput(text, results):
    part = section(text).split(f"### {fake_results.TEXT} (text)")[1].split("### ")[0]
    head = next(line for line in part.split("\n") if line.startswith("| model | method |"))
    names = [name.strip() for name in head.split("|")[1:-1]]
    every = [Variant(m, fake_results.TEXT, k, "trained") for m in MODELS for k in ("base", "full", "lora")]
    letters = ranking.letters(results, every, grid.BITS)
    for v in every:
        (line,) = re.findall(rf"^\| `{v.model}` \| `{v.method}` \|.*$", part, re.MULTILINE)
        row = dict(zip(names, (cell.strip() for cell in line.split("|")[1:-1]), strict=True))
        bits = results.interval(v, grid.BITS)
        assert row["bits per byte"] == f"{bits.value:.3f} [{bits.low:.3f}, {bits.high:.3f}]"
        assert row["perplexity"] == formatting.quality_of(results, v, "test_perplexity")
        assert row["letters"] == letters[v]
        assert (row["training s"] == row["training tok/s"] == "") == (v.method == "base")
        speed = float(row["decode tok/s"].replace(",", ""))
        assert speed == pytest.approx(results.cost[v]["decode_tokens_per_second"], rel=0.02)
    apart = verdicts.told_apart(results, every, grid.BITS)
    assert apart
    for one, other in combinations(every, 2):
        assert bool(set(letters[one]) & set(letters[other])) == (frozenset((one, other)) not in apart)


def test_the_bytes_that_each_was_measured_on_are_said(text, results):
    part = section(text).split(f"### {fake_results.TEXT} (text)")[1].split("### ")[0]
    scored = {model: results.scored(variant(model)) for model in MODELS}
    assert scored["demo"].items == scored["stories260k"].items == 40
    assert scored["demo"].bytes != scored["stories260k"].bytes
    for model, found in scored.items():
        assert f"| `{model}` | 40 | {found.tokens:,} | {found.bytes_per_token:.2f} | {found.bytes:,} |" in part
    assert "The first token of a window is not scored" in part
    fewer, most = sorted(MODELS, key=lambda model: scored[model].bytes)
    bits = results.interval(grid.best_of_models(results, fake_results.TEXT, grid.BITS)[0], grid.BITS).value
    share = scored[fewer].bytes / scored[most].bytes
    assert fewer == "stories260k"
    assert f"| {bits:.3f} | {share * bits + (1 - share) * 8:.3f} |" in part, "what it left out at 8 bits per byte"
    questions = section(text).split("### instructions (instruction)")[1]
    assert "The first token of a window is not scored" not in questions, "of an answer every byte is"
    assert "perplexities compare too" in questions


def test_the_flat_table_names_the_cell_and_has_its_training_and_throughput(folder, results):
    with (folder / "metrics/summary.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert set(rows) == {str(v) for v in results.variants}
    row = rows["stories260k-stories-lora-trained"]
    assert [row[name] for name in ("model", "dataset", "method", "format")] == [
        "stories260k",
        "stories",
        "lora",
        "trained",
    ]
    for name in ("train_seconds", "train_tokens_per_second", "decode_tokens_per_second", "test_bits_per_byte_low"):
        assert float(row[name]) > 0


def test_nothing_is_said_of_cut_answers_where_nothing_is_answered(folder, results, text):
    with (folder / "metrics/summary.csv").open() as file:
        assert {row["dataset"] for row in csv.DictReader(file) if row["test_cut_share"]} == {"instructions"}
    table = text.split("| model / data set | most tokens |")[1].split("\n\n")[0]
    assert "/ instructions |" in table and f"/ {fake_results.TEXT} |" not in table


@pytest.mark.slow
def test_a_large_grid_shows_each_models_best_and_folds_the_rest_away(tmp_path):
    made(
        tmp_path,
        methods=["base", "full", "lora", "qlora", "adalora", "vblora", "lora_8bit"],
        datasets=[fake_results.TEXT],
    )
    part = section(fake_results.report(tmp_path))
    shown, folded = part.split("<details>")
    assert len(re.findall(r"^\| `(?:demo|stories260k)` \| `", shown, re.MULTILINE)) == 2
    assert len(re.findall(r"^\| `(?:demo|stories260k)` \| `", folded, re.MULTILINE)) == 14


@pytest.mark.slow
def test_one_model_on_several_data_sets_has_cells_and_no_winner(tmp_path):
    found = made(tmp_path, models=["demo"])
    text = fake_results.report(tmp_path)
    assert grid.decision(found) == []
    assert "best model" not in text.split("\n## ")[0]
    assert "What each was measured on" not in text
    assert (tmp_path / "plots/bits_per_byte.png").is_file()


@pytest.mark.slow
def test_one_pair_has_no_grid(tmp_path):
    found = made(tmp_path, models=["demo"], datasets=["instructions"])
    assert not grid.is_one(found)
    assert "The grid" not in fake_results.report(tmp_path)
    assert not (tmp_path / "plots/bits_per_byte.png").exists()


# --- the picture


def test_the_heatmap_holds_the_value_and_the_method_of_every_cell(results):
    figure = heatmaps.bits_per_byte(results)
    base, best = figure.axes[:2]
    written = {note.get_text() for note in base.texts}
    for model in MODELS:
        for dataset in DATASETS:
            assert f"{results.interval(variant(model, dataset, 'base'), grid.BITS).value:.3f}" in written
    for column, dataset in enumerate(DATASETS):
        for found in grid.best_of_models(results, dataset, grid.BITS):
            words = f"{results.interval(found, grid.BITS).value:.3f}\n{found.method}"
            place = (column, MODELS.index(found.model))
            assert any(note.get_text() == words and note.get_position() == place for note in best.texts)


def test_the_best_model_of_a_data_set_is_framed_and_what_is_good_enough_is_dashed(results):
    best = heatmaps.bits_per_byte(results).axes[1]
    frames = {
        (round(patch.get_x() + 0.46), round(patch.get_y() + 0.46)): patch.get_linestyle() for patch in best.patches
    }
    wanted = {}
    for column, dataset in enumerate(DATASETS):
        for n, found in enumerate(grid.good_models(results, dataset, grid.BITS)):
            wanted[column, MODELS.index(found.model)] = "--" if n else "-"
    assert frames == wanted


@pytest.mark.slow
def test_without_a_base_there_is_one_panel(tmp_path):
    found = made(tmp_path, methods=["lora", "full"])
    figure = heatmaps.bits_per_byte(found)
    assert len(figure.axes) == 2, "one heatmap, one colour bar"
