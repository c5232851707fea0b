"""Several seeds of training: all are trained and scored as trained, and every format is made of the first."""

import csv
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import fake_results
import numpy as np
import pytest
import quick_yaml
import small_run
from tiny_gguf import make_checkpoint

from stages import aggregate, finetune, prepare, reference, score, tokenize
from tradeoffs import metrics, params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell, Training, Variant
from tradeoffs.common.unfinished import Unfinished
from tradeoffs.metrics import embeddings
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import decision, tables, tuning
from tradeoffs.results.results import Results

SLOW_FIXTURES = {"trained", "finished"}  # read by conftest.py
LORA = Cell("tiny", "sums", "lora")


# --- names


def test_a_training_is_read_back_from_its_name():
    training = Cell("m", "d", "lora").training(7)
    assert (str(training), Training.parse("m-d-lora-7")) == ("m-d-lora-7", training)
    assert training.weights == Path("models/trained/m-d-lora/7")
    assert training.facts == Path("data/training/m-d-lora/7.json")


@pytest.mark.parametrize("name", ["m-d-lora", "m-d-lora-x", "m-d-lora-1.5", "m-d-lora-٣"])
def test_what_ends_in_no_seed_is_no_training(name):
    with pytest.raises(UserError, match=f"{name}: "):
        Training.parse(name)


def test_a_further_training_has_a_name_and_items_of_its_own():
    cell = Cell("m", "d", "lora")
    assert cell.further([42]) == []
    (found,) = cell.further([42, 7])
    assert (str(found), found.items) == ("m-d-lora-trained-7", Path("data/seeds/m-d-lora/7.parquet"))
    assert found.training([42, 7]) == cell.training(7)
    assert Variant.parse(str(found)) == found
    assert cell.variant("q4_0").training([42, 7]) == cell.training(42), "formats are made of the first"


@pytest.mark.parametrize("variant", [("m", "d", "trained", "q4_0"), ("m", "trained", "lora", "trained", 7)])
def test_a_name_is_read_back_by_its_parts(variant):
    assert Variant.parse(str(Variant(*variant))) == Variant(*variant)


# --- trained and scored


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which two methods were trained with two seeds and scored as trained."""
    folder = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TQDM_DISABLE", "1")
        tiny = {"path": "models/raw/tiny", "prompt": "own"}
        small_run.set_up({"tiny": tiny}, ["base", "lora"], [], [], small_run.sums(40), seeds=(42, 7))
        make_checkpoint(folder / "models/base/tiny")
        files.write_jsonl("data/general/tiny.jsonl", [{"id": "g", "text": "A bond of 7 pays."}])
        prepare.main("sums")
        tokenize.main("tiny", "sums")
        for method in ("base", "lora"):
            for seed in (42, 7):
                finetune.main("tiny", "sums", method, seed)
            reference.main("tiny", "sums", method)
        yield folder


def test_two_seeds_give_two_models_and_each_says_which_it_is(trained):
    one, other = (LORA.training(seed) for seed in (42, 7))
    weights = "adapter_model.safetensors"
    assert files.sha256(one.weights / weights) != files.sha256(other.weights / weights)
    info = [files.read_json(training.weights / "run_info.json") for training in (one, other)]
    assert [found.pop("seed") for found in info] == [42, 7]
    assert info[0] == info[1], "nothing but the seed differs"
    curves = [files.read_json(training.facts)["curve"] for training in (one, other)]
    assert curves[0][0]["loss"] != curves[1][0]["loss"], "other examples come first"


def test_a_further_seed_is_asked_what_the_first_is_but_for_divergence_and_prompts(trained):
    first = [row for row in files.read_table(LORA.variant("trained").items) if row["split"] != "prompt"]
    (variant,) = LORA.further([42, 7])
    further = files.read_table(variant.items)
    assert [(row["split"], row["item"]) for row in further] == [(row["split"], row["item"]) for row in first]
    assert {row["split"] for row in further} == {"test", "seen", "general", "mmlu"}
    differs = [a["log_likelihood"] != b["log_likelihood"] for a, b in zip(first, further, strict=True) if a["tokens"]]
    assert all(differs)
    asked = {name for row in further for name, value in row.items() if value is not None}
    assert asked == {name for row in first for name, value in row.items() if value is not None} - {
        *("latency_seconds", "ttft_seconds")
    }


def test_what_trains_nothing_is_one_model_whatever_the_seed(trained):
    (variant,) = Cell("tiny", "sums", "base").further([42, 7])
    assert files.read_table(variant.items) == []
    folders = [variant.cell.training(seed).weights for seed in (42, 7)]
    assert files.read_json(folders[0] / "run_info.json") == files.read_json(folders[1] / "run_info.json")


@pytest.fixture
def copy(trained, tmp_path, monkeypatch):
    """The same, to be changed."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "copy"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return tmp_path / "copy"


def with_seeds(*seeds: int) -> None:
    """Changes params.yaml of the working directory."""
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["run"]["seeds"] = list(seeds)
    Path("params.yaml").write_text(quick_yaml.dump(raw))


def test_the_reference_is_the_first_seeds_and_what_left_the_list_is_gone(copy, monkeypatch, capsys):
    def kept():
        return {path.name: files.sha256(path) for path in LORA.reference.iterdir()}

    facts = LORA.variant("trained").facts.read_bytes()
    before = kept()
    with_seeds(42)
    (LORA.training(7).weights.parent / "keep").mkdir()  # of the user's own
    monkeypatch.setattr(files, "_dvc_cache", Path)
    monkeypatch.setattr(files, "_is_kept", lambda path, cache: True)
    reference.main("tiny", "sums", "lora")
    assert kept() == before
    assert LORA.variant("trained").facts.read_bytes() == facts, "other seeds measure nothing anew"
    assert {path.name: files.read_json(path) for path in LORA.seeds.iterdir()} == {"seeds.json": []}
    assert f"removed {LORA.training(7).weights}: not in the run list" in capsys.readouterr().out
    assert {path.name for path in LORA.training(42).weights.parent.iterdir()} == {"42", "keep"}


def untimed(variant: Variant) -> list[dict]:
    """Its items without what the clock said."""
    return [row | {"seconds": None} for row in files.read_table(variant.items)]


def test_an_evaluation_that_is_killed_in_the_last_seed_does_nothing_twice(copy, monkeypatch):
    part, made, last = Unfinished.part, [], None

    def watched(self, name, work, gpu_clock=None):
        def once():
            made.append((self.folder.parent.name, name))
            if made[-1] == last:
                raise KeyboardInterrupt
            return work()

        return part(self, name, once, gpu_clock)

    monkeypatch.setattr(Unfinished, "part", watched)
    expected = [untimed(v) for v in LORA.further([42, 7])]
    reference.main("tiny", "sums", "lora")
    last = made[-1]
    assert last[0] == "tiny-sums-lora-trained-7" and len({name for name, _ in made}) == 2
    with pytest.raises(KeyboardInterrupt):
        reference.main("tiny", "sums", "lora")
    made, stopped = [], last
    last = None
    reference.main("tiny", "sums", "lora")
    assert made == [stopped]
    assert [untimed(v) for v in LORA.further([42, 7])] == expected
    assert not list(Path(".scratch/unfinished").rglob("*.parquet")), "nothing of a finished run is left"


# --- results

SEEDS = [42, 43, 44]
LISTS: dict[str, list] = {"methods": ["base", "lora", "full"], "precisions": [], "quants": ["q4_0"], "seeds": SEEDS}
CELL = Cell("demo", "demo", "lora")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run of three seeds; tests read it only."""
    folder = tmp_path_factory.mktemp("finished")
    fake_results.finished(folder, **LISTS)
    return folder


@pytest.fixture
def results(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return fake_results.read()


def test_trainings_are_the_variant_and_one_with_each_further_seed(results):
    first, *further = results.trainings(CELL)
    assert first == CELL.variant("trained") and [v.seed for v in further] == [43, 44]
    assert results.trainings(Cell("demo", "demo", "base")) == [Variant("demo", "demo", "base", "trained")]
    assert not any(v.seed for v in results.variants), "no rows of tables"


def test_every_training_has_every_metric_and_is_compared_on_the_same_items(results):
    first, *further = results.trainings(CELL)
    names = [name for name in (*metrics.names("quality"), "general_loss") if results.has(first, name)]
    assert {"test_f1", "test_loss", "test_cosine", "cosine_to_base", "mmlu_accuracy"} < set(names)
    for variant in further:
        assert [name for name in names if not results.has(variant, name)] == []
        found = results.compare(variant, first, "test_f1")
        values = [results.interval(v, "test_f1").value for v in (variant, first)]
        assert found.value == pytest.approx(values[0] - values[1])
        assert not results.has(variant, "kld")


def test_between_seeds_is_their_standard_deviation(results):
    values = [results.interval(v, "test_f1").value for v in results.trainings(CELL)]
    assert tuning.between_seeds(results, CELL, "test_f1") == pytest.approx(np.std(values, ddof=1))
    assert tuning.between_seeds(results, Cell("demo", "demo", "base"), "test_f1") is None
    with Path("metrics/summary.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert float(rows["demo-demo-lora-trained"]["test_f1_seed_sd"]) == pytest.approx(np.std(values, ddof=1), rel=1e-5)
    assert rows["demo-demo-lora-q4_0"]["test_f1_seed_sd"] == rows["demo-demo-base-trained"]["test_f1_seed_sd"] == ""
    assert set(files.read_json("metrics/quality.json")) == {str(v) for v in results.variants}


def test_training_numbers_are_means_over_the_seeds(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "copy"))
    for seed, seconds in zip(SEEDS, (10.0, 20.0, 60.0), strict=True):
        path = CELL.training(seed).facts
        files.write_json(path, files.read_json(path) | {"train_seconds": seconds})
    cfg = params.load_all()
    results = Results(cfg.run, cfg.seed, cfg.evaluate.bootstrap, cfg.decide)
    found = tables.training(results)
    losses = [results.interval(v, "general_loss").value for v in results.trainings(CELL)]
    assert found[str(CELL)]["train_seconds"] == 30
    assert found[str(CELL)]["general_loss"] == pytest.approx(np.mean(losses)) != losses[0]
    assert found[str(CELL)]["trainable_params"] == results.training[CELL]["trainable_params"], "a whole number"
    assert results.training[CELL]["train_seconds"] == 10, "the first seed's"
    assert [results.trained(v)["train_seconds"] for v in results.trainings(CELL)] == [10, 20, 60]


def test_the_curves_say_of_which_seed_they_are(finished):
    with (finished / "plots/training.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "lora"]
    assert [row["seed"] for row in rows if row["step"] == "10"] == ["42", "43", "44"]


def test_the_report_has_a_row_for_each_seed_and_one_for_how_far_they_lie_apart(results):
    text = fake_results.report(Path())
    head, _, *rows = text.split("<summary>every seed</summary>\n\n")[1].split("\n\n")[0].splitlines()
    assert head.startswith("| method | seed | test F1 | test exact match | test loss | multiple choice |")
    assert [row.split("|")[1:3] for row in rows if "lora" in row] == [[" `lora` ", f" {s} "] for s in (*SEEDS, "sd")]
    assert [row.split("|")[2] for row in rows if "base" in row] == [" 42 "]
    f1 = [f"{results.interval(v, 'test_f1').value:.3g}" for v in results.trainings(CELL)]
    assert [row.split("|")[3].strip() for row in rows if "lora" in row][:3] == f1


def test_the_first_page_says_what_is_of_one_training_and_one_number_of_what_was_forgotten(results):
    text, summary = Path("report/report.md").read_text(), Path("report/summary.md").read_text()
    ours, base = decision.decide(results, CELL.pair).recommended, results.untouched(CELL.pair)
    trainings = results.trainings(ours.cell)
    before, after = (np.mean([results.interval(v, "general_loss").value for v in some]) for some in ([base], trainings))
    first = results.interval(trainings[0], "general_loss").value
    change = f"| {after - before:+.3f} ["
    assert f"{first - before:+.3f}" != f"{after - before:+.3f}", "so that the two can be told apart here"
    assert f"| general loss as trained, change from the untouched base {change}" in text
    (row,) = re.findall(rf"^\| `{ours.method}` \|.*", text, re.MULTILINE)
    assert change in row
    assert f"general loss as trained {before:.3f} to {after:.3f} (mean of 3 trainings), {change[2:]}" in summary
    assert text.count("of the means over 3 trainings") == 2, "below the decision and above the tables"
    assert "One training" not in Path("report/reading.md").read_text()


@pytest.mark.usefixtures("sketched")
def test_scores_and_trainings_of_what_left_the_lists_are_removed(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "copy"))
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["run"] |= {"seeds": [42, 44], "methods": ["base", "lora"]}
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    # Texts need not be embedded for this.
    monkeypatch.setattr(embeddings, "load_embedder", lambda name: SimpleNamespace(device="cpu"))
    made = lambda embedder, pairs: (np.ones(len(pairs)), {text: np.ones(1) for pair in pairs for text in pair})  # noqa: E731
    monkeypatch.setattr(embeddings, "similarities", made)
    score.main()
    aggregate.main()
    out = capsys.readouterr().out
    for path in ("data/seeds/demo-demo-full", "data/training/demo-demo-full", "data/training/demo-demo-lora/43.json"):
        assert f"removed {path}: not in the run list" in out and not Path(path).exists()
    found = {row["variant"] for row in files.read_table("data/scores.parquet")}
    assert "demo-demo-lora-trained-44" in found and "demo-demo-lora-trained-43" not in found


def test_a_missing_training_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "copy"))
    CELL.further(SEEDS)[1].items.unlink()
    with pytest.raises(UserError, match=r"data/seeds/demo-demo-lora/44\.parquet: missing"):
        score.main()
