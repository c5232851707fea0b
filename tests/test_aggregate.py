"""score and aggregate on a finished run without models: the contract of the metrics files, joins, ranks, leftovers."""

import csv
import json
import math
import shutil
from pathlib import Path

import fake_results
import numpy as np
import pyarrow.parquet as pq
import pytest
import sacrebleu

from stages import aggregate, score
from tradeoffs import compare, metrics, params
from tradeoffs.common import files
from tradeoffs.common.cells import Cell, Copied, Pair, Variant
from tradeoffs.metrics import answers, registry
from tradeoffs.metrics.registry import Metric
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report import formats, methods
from tradeoffs.report.pictures import methods as pictures
from tradeoffs.results import prompted, ranking
from tradeoffs.results.results import Results

REPO = Path(__file__).parents[1]
LISTS = {"methods": ["base", "lora"], "precisions": ["bf16"], "quants": ["f16", "q4_0"]}
OUTPUTS = ("metrics", "plots", "report")
PAIR = Pair("demo", "demo")


def prepare(folder: Path, monkeypatch, kind: str = "instruction", **lists) -> params.Run:
    fake_results.params_file(folder, REPO / "params.yaml", **(LISTS | lists))
    monkeypatch.chdir(folder)
    run = params.load_all().run
    fake_results.write(folder, run, items=25, questions=10, kind=kind)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which both stages have run; tests read it only."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, patch)
        score.main()
        aggregate.main()
    return folder


MIXED = ["base", "lora", "prompt_tuning", "lora_dpo"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A finished run with a method that exists as trained only, and one that learnt from pairs; tests read it only."""
    folder = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, patch, methods=MIXED)
        score.main()
        aggregate.main()
    return folder


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """The same, to be changed."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def results(finished, monkeypatch):
    monkeypatch.chdir(finished)
    cfg = params.load_all()
    return Results(cfg.run, cfg.seed, cfg.evaluate.bootstrap, cfg.decide)


def load(folder: Path, name: str) -> dict:
    return json.loads((folder / f"metrics/{name}.json").read_text())


def cost_file(folder: Path) -> dict:
    return files.read_json(folder / "data/cost.json")


def rows(folder: Path, name: str) -> list[dict]:
    with (folder / f"metrics/{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_quality_holds_the_names_of_the_contract_and_of_metrics_registered_since(finished):
    of_a_split = (
        "loss",
        "perplexity",
        "token_accuracy",
        "bits_per_byte",
        "f1",
        "bleu",
        "rouge_l",
        "bertscore",
        "cosine",
    )
    names = {f"{split}_{name}" for split in ("test", "seen") for name in of_a_split} | {
        "cosine_to_base",
        "mmlu_accuracy",
    }
    # What other tools read is there, and what is there beside it is a metric that was registered since.
    registered = set(metrics.names("quality"))
    assert names | {"kld", "same_top_token"} <= registered
    # ... and no answer here is JSON.
    json = {f"{split}_{name}" for split in ("test", "seen") for name in ("fields", "valid_json")}
    names = registered - {"kld", "same_top_token"} - json
    quality = load(finished, "quality")
    assert set(quality) == {f"demo-demo-{m}-{f}" for m in ("base", "lora") for f in ("trained", "bf16", "f16", "q4_0")}
    assert set(quality["demo-demo-lora-trained"]) == names
    assert set(quality["demo-demo-lora-q4_0"]) == names | {"kld", "same_top_token"}


def test_training_leaves_out_what_the_base_does_not_have(finished):
    training = load(finished, "training")
    assert set(training) == {"demo-demo-base", "demo-demo-lora"}
    assert set(training["demo-demo-base"]) == {"total_params", "general_loss"}
    assert "curve" not in training["demo-demo-lora"]


def test_a_method_that_cannot_be_merged_has_numbers_as_trained_and_no_others(mixed):
    cell = "demo-demo-prompt_tuning"
    for name in ("quality", "cost", "mmlu"):
        assert [variant for variant in load(mixed, name) if variant.startswith(cell)] == [f"{cell}-trained"], name
    assert [row["variant"] for row in rows(mixed, "summary") if cell in row["variant"]] == [f"{cell}-trained"]
    assert not any(row["method"] == "prompt_tuning" for row in rows(mixed, "ladder"))
    assert load(mixed, "training")[cell]["trainable_params"] > 0
    scored = {row["variant"] for row in files.read_table(mixed / "data/scores.parquet")}
    assert scored == {*load(mixed, "quality"), "demo-copying"}


def test_the_loss_on_general_text_is_that_of_the_items_and_its_change_is_paired_with_the_base(mixed):
    def loss(method):
        items = files.read_table(mixed / f"data/items/demo-demo-{method}-trained.parquet")
        general = [row for row in items if row["split"] == "general"]
        return -sum(row["log_likelihood"] for row in general) / sum(row["tokens"] for row in general)

    training = load(mixed, "training")
    for method in MIXED:
        assert training[f"demo-demo-{method}"]["general_loss"] == pytest.approx(loss(method), rel=1e-5)
    assert training["demo-demo-lora"]["general_loss_change"] == pytest.approx(loss("lora") - loss("base"), abs=1e-5)
    assert "general_loss_change" not in training["demo-demo-base"]
    summary = {row["variant"]: row for row in rows(mixed, "summary")}
    found = summary["demo-demo-lora-trained"]
    assert float(found["general_loss_change_low"]) > 0
    assert summary["demo-demo-lora-q4_0"]["general_loss"] == ""
    assert "general_loss" not in load(mixed, "quality")["demo-demo-lora-trained"]


def test_what_pairs_taught_stands_in_the_training_numbers_with_its_interval_in_the_summary(mixed):
    margins = files.read_json(mixed / "data/training/demo-demo-lora_dpo/42.json")["reward_margins"]
    found = load(mixed, "training")["demo-demo-lora_dpo"]
    assert found["reward_accuracy"] == pytest.approx(np.mean([margin > 0 for margin in margins]))
    assert found["reward_margin"] == pytest.approx(np.mean(margins), rel=1e-5)
    assert found["preference_pairs"] == len(margins)
    (row,) = (row for row in rows(mixed, "summary") if row["variant"] == "demo-demo-lora_dpo-trained")
    for name in ("reward_accuracy", "reward_margin"):
        assert float(row[f"{name}_low"]) < found[name] < float(row[f"{name}_high"])
    assert not {"reward_accuracy", "preference_pairs"} & set(load(mixed, "training")["demo-demo-lora"])


def test_every_point_of_a_curve_is_a_row_of_the_file_of_its_stage_of_training(finished, mixed):
    made = files.read_json(mixed / "data/training/demo-demo-lora_dpo/42.json")
    found = {}
    for name in ("training", "preference"):
        with (mixed / f"plots/{name}.csv").open() as file:
            found[name] = list(csv.DictReader(file))
    mine = {name: [row for row in points if row["method"] == "lora_dpo"] for name, points in found.items()}
    assert [float(row["loss"]) for row in mine["training"]] == pytest.approx([p["loss"] for p in made["curve"]], 1e-5)
    assert len(mine["preference"]) == len(made["preference_curve"])
    assert float(mine["preference"][-1]["reward_margin"]) == made["preference_curve"][-1]["reward_margin"]
    assert {row["method"] for row in found["preference"]} == {"lora_dpo"}
    assert not (finished / "plots/preference.csv").exists(), "nobody learnt from pairs"


def test_speed_and_utilisation_of_training_are_medians_over_the_curve(mixed):
    curve = files.read_json(mixed / "data/training/demo-demo-lora/42.json")["curve"]
    found = load(mixed, "training")["demo-demo-lora"]
    speeds = [point["tokens_per_second"] for point in curve]
    assert found["median_tokens_per_second"] == pytest.approx(np.median(speeds)) != pytest.approx(np.mean(speeds))
    assert found["median_utilisation"] == pytest.approx(0.2)
    assert found["valid_loss"] > found["train_loss"]


def test_cost_and_mmlu_hold_numbers_only(finished):
    cost, mmlu = load(finished, "cost"), load(finished, "mmlu")
    assert all(isinstance(value, (int, float)) for numbers in cost.values() for value in numbers.values())
    found = mmlu["demo-demo-lora-f16"]
    assert set(found) == {"accuracy", "wall_seconds", "cpu_seconds", "seconds", "question_seconds"}
    assert set(found["seconds"]) == set(found["accuracy"]) and set(found["seconds"]["rates"]) == {"wall", "cpu"}
    assert sum(one["wall"] for one in found["seconds"].values()) == pytest.approx(found["wall_seconds"], rel=1e-5)
    assert set(mmlu["demo-demo-lora-f16"]["accuracy"]) == {"rates", "interest", "inflation", "definitions"}


def test_the_numbers_are_those_of_the_items(finished):
    items = files.read_table(finished / "data/items/demo-demo-lora-q4_0.parquet")
    test = [row for row in items if row["split"] == "test"]
    nats, tokens = -sum(row["log_likelihood"] for row in test), sum(row["tokens"] for row in test)
    found = load(finished, "quality")["demo-demo-lora-q4_0"]
    assert found["test_loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["test_perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert found["test_bits_per_byte"] == pytest.approx(
        nats / math.log(2) / sum(row["bytes"] for row in test), rel=1e-5
    )
    assert found["kld"] == pytest.approx(sum(row["kld"] for row in test) / tokens, rel=1e-5)
    f1 = np.mean([answers.f1(row["generated"], row["answer"]) for row in test])
    assert found["test_f1"] == pytest.approx(f1, rel=1e-5)
    bleu = sacrebleu.corpus_bleu([row["generated"] for row in test], [[row["answer"] for row in test]])
    assert found["test_bleu"] == pytest.approx(bleu.score, rel=1e-5)
    asked = [row for row in items if row["split"] == "mmlu"]
    assert found["mmlu_accuracy"] == pytest.approx(
        np.mean([r["chosen"] == r["correct_option"] for r in asked]), rel=1e-5
    )


@pytest.mark.slow
def test_a_registered_metric_reaches_every_output(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "METRICS", dict(registry.METRICS))

    def tried_ratio(answer: str, expected: str) -> float:
        return len(answer) / len(expected)

    definition = "characters of the answer over those of the expected one"
    registry.per_answer(Metric("tried_ratio", "tried ratio", "", definition, decimals=2, side_by_side=True))(
        tried_ratio
    )
    registry.register(Metric("generated_tokens", "tokens", "lower", "tokens of the answer", split="test"))
    run = prepare(tmp_path, monkeypatch)
    score.main()
    aggregate.main()

    variant = Variant("demo", "demo", "lora", "q4_0")
    test = [row for row in files.read_table(variant.items) if row["split"] == "test"]
    ratios = [len(row["generated"]) / len(row["answer"]) for row in test]
    scores = [row for row in files.read_table("data/scores.parquet") if row["variant"] == str(variant)]
    assert [row["tried_ratio"] for row in scores if row["split"] == "test"] == ratios
    quality = load(tmp_path, "quality")[str(variant)]
    assert quality["test_tried_ratio"] == pytest.approx(np.mean(ratios), rel=1e-5)
    assert quality["generated_tokens"] == pytest.approx(np.mean([row["generated_tokens"] for row in test]))
    (row,) = (row for row in rows(tmp_path, "summary") if row["variant"] == str(variant))
    assert {
        f"{name}{end}"
        for name in ("test_tried_ratio", "seen_tried_ratio", "generated_tokens")
        for end in ("", "_low", "_high")
    } <= set(row)

    cfg = params.load_all()
    results = Results(run, cfg.seed, cfg.evaluate.bootstrap, cfg.decide)
    text, shown = fake_results.report(Path()), f"{results.interval(variant, 'test_tried_ratio').value:.2f} ["
    assert f"- **tried ratio**: {definition}." in text
    assert "- **tokens** (lower is better): tokens of the answer." in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    for label in ("exact match", "tried ratio", "tokens"):
        assert any(line.startswith("|  |") and f"| {label} |" in line for line in tables), label
    assert any(f"| {shown}" in line for line in tables)
    assert any("| test tried ratio | seen tried ratio |" in line for line in tables)
    assert "tried ratio" in [axes.get_title() for axes in pictures.methods(results).axes]
    compared = compare.comparison(results, variant, Variant("demo", "demo", "base", "trained"))
    assert any(line.startswith(f"| test tried ratio | {shown}") for line in compared)
    assert any(line.startswith("| tokens |") for line in compared)


def test_no_two_metrics_have_one_name():
    with pytest.raises(ValueError, match="two metrics"):
        registry.register(metrics.metric("test_f1")[1])


def test_summary_has_every_number_and_the_intervals(finished):
    summary = {f"{r['model']}-{r['dataset']}-{r['method']}-{r['format']}": r for r in rows(finished, "summary")}
    for variant, numbers in load(finished, "quality").items():
        for name, value in numbers.items():
            row = summary[variant]
            assert float(row[name]) == value
            assert float(row[f"{name}_low"]) <= float(row[f"{name}_high"])
    for variant, numbers in load(finished, "cost").items():
        assert all(float(summary[variant][name]) == value for name, value in numbers.items())
    assert summary["demo-demo-base-trained"]["kld"] == ""
    for variant, numbers in load(finished, "mmlu").items():
        for subject, value in numbers["accuracy"].items():
            low, high = (float(summary[variant][f"mmlu_{subject}_{end}"]) for end in ("low", "high"))
            assert low <= value == float(summary[variant][f"mmlu_{subject}"]) <= high


def test_the_summary_says_how_much_of_kld_is_estimated_and_how_well(finished):
    items = files.read_table(finished / "data/items/demo-demo-lora-q4_0.parquet")
    test = [row for row in items if row["split"] == "test"]
    tokens = sum(row["tokens"] for row in test)
    (found,) = (row for row in rows(finished, "summary") if row["variant"] == "demo-demo-lora-q4_0")
    assert float(found["kld_tail"]) == pytest.approx(sum(row["kld_tail"] for row in test) / tokens, rel=1e-5)
    error = math.sqrt(sum(row["kld_variance"] for row in test)) / tokens
    assert float(found["kld_error"]) == pytest.approx(error, rel=1e-5)


def test_decode_speed_stands_by_batch_size(finished):
    (thing,) = (thing for thing in cost_file(finished)["things"] if "demo-demo-lora-f16" in thing["members"])
    cost = load(finished, "cost")["demo-demo-lora-f16"]
    found = {name.rpartition("_")[2]: value for name, value in cost.items() if "_batch_" in name}
    for size in ("4", "16"):
        speeds = [one["batch_sweep"][size] for one in thing["rounds"]]
        assert found.pop(size) == pytest.approx(np.median(speeds), rel=1e-5)
    assert not found


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
def test_memory_that_a_gpu_reserved_stands_beside_what_it_used(copy):
    written = cost_file(copy)
    for thing in written["things"]:
        if "demo-demo-lora-f16" in thing["members"]:
            for one in thing["rounds"]:
                one |= {"peak_gpu_memory_mb": 512, "peak_gpu_memory_reserved_mb": 768}
    files.write_json(copy / "data/cost.json", written)
    aggregate.main()
    cost = load(copy, "cost")
    assert cost["demo-demo-lora-f16"]["peak_gpu_memory_reserved_mb"] == 768
    assert cost["demo-demo-lora-f16"]["model_memory_mb"] == 768, "what must fit is what counts"
    assert "peak_gpu_memory_reserved_mb" not in cost["demo-demo-lora-bf16"]
    assert "GPU memory reserved MB" in fake_results.report(copy)


def test_an_answer_to_a_prompt_is_compared_with_the_base_and_with_nothing_else(finished):
    scores = [row for row in files.read_table(finished / "data/scores.parquet") if row["split"] == "prompt"]
    assert len(scores) == len(fake_results.PROMPTS) * len(load(finished, "quality"))
    for row in scores:
        assert {name for name, value in row.items() if value is not None} == {
            "variant",
            "split",
            "item",
            "cosine_to_base",
        }
    cosines = {(row["variant"], row["item"]): row["cosine_to_base"] for row in scores}
    assert cosines["demo-demo-base-trained", "prompt1"] == 1
    assert cosines["demo-demo-lora-f16", "prompt1"] < 1


def test_every_answer_to_a_prompt_is_a_row_of_prompts_csv(finished):
    with (finished / "report/prompts.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(fake_results.PROMPTS) * len(load(finished, "quality"))
    row = next(row for row in found if (row["variant"], row["item"]) == ("demo-demo-lora-f16", "prompt1"))
    assert row["prompt"] == fake_results.PROMPTS[1]
    assert row["answer"] == "lora | f16\n<i>says</i> so"
    assert float(row["tokens_per_second"]) == pytest.approx(9 / 0.25)


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
def test_prompts_change_no_metric_and_without_any_there_is_no_trace_of_them(finished, copy):
    run = params.load_all().run
    fake_results.write(copy, run, items=25, questions=10, prompts=())
    score.main()
    aggregate.main()
    for path in sorted((finished / "metrics").iterdir()):
        assert (copy / "metrics" / path.name).read_bytes() == path.read_bytes(), path.name
    assert "Prompt" not in fake_results.report(copy)
    assert not (copy / "report/prompts.csv").exists()


def test_variants_asked_different_prompts_are_not_set_side_by_side(results):
    of = results.of(PAIR, "lora")[0]
    results.columns[of]["split"] = np.where(results.columns[of]["split"] == "prompt", "", results.columns[of]["split"])
    with pytest.raises(UserError, match=r"prompts: .* different items"):
        prompted.prompts(results, PAIR)


def test_the_base_as_trained_is_what_cosine_to_base_compares_with(finished):
    quality = load(finished, "quality")
    assert quality["demo-demo-base-trained"]["cosine_to_base"] == pytest.approx(1, abs=1e-5)
    assert quality["demo-demo-lora-trained"]["cosine_to_base"] < 0.9


def test_the_ladder_compares_each_format_with_what_it_was_made_from(finished):
    ladder = {(row["method"], row["format"]): row for row in rows(finished, "ladder")}
    assert {fmt: row["made_from"] for (method, fmt), row in ladder.items() if method == "lora"} == {
        "bf16": "trained",
        "f16": "bf16",
        "q4_0": "f16",
    }
    quality = load(finished, "quality")
    change = quality["demo-demo-lora-q4_0"]["test_loss"] - quality["demo-demo-lora-trained"]["test_loss"]
    assert float(ladder["lora", "q4_0"]["change_test_loss"]) == pytest.approx(change, abs=1e-5)
    assert float(ladder["lora", "q4_0"]["change_test_loss_low"]) > 0  # the made-up q4_0 is far worse


def test_a_format_whose_source_is_not_listed_is_compared_with_the_next_one_down(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch, precisions=[], quants=["q4_0"])
    score.main()
    cfg = params.load_all()
    results = Results(cfg.run, 1, 20, cfg.decide)
    assert results.made_from(Variant("demo", "demo", "lora", "q4_0")).format == "trained"


def test_the_best_is_good_enough_and_the_base_is_not(results):
    good = ranking.good_enough(results, PAIR)
    assert good[0] == ranking.ranked(results, PAIR)[0]
    assert {variant.method for variant in good} == {"lora"}


@pytest.mark.slow
def test_a_second_run_writes_the_same_bytes(finished, tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch)
    score.main()
    aggregate.main()
    for name in OUTPUTS:
        for path in sorted((finished / name).iterdir()):
            assert (tmp_path / name / path.name).read_bytes() == path.read_bytes(), path.name
    scores = "data/scores.parquet"
    assert (tmp_path / scores).read_bytes() == (finished / scores).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
def test_leftovers_of_a_longer_run_list_are_removed_and_not_reported(copy, capsys):
    for name in ("items/{}-bf16.parquet", "facts/{}-bf16.json", "training/{}/42.json"):
        (copy / "data" / name.format("demo-demo-qlora")).parent.mkdir(exist_ok=True)
        shutil.copy(copy / "data" / name.format("demo-demo-lora"), copy / "data" / name.format("demo-demo-qlora"))
    shutil.copy(copy / "data/copying/demo.parquet", copy / "data/copying/qlora_questions.parquet")
    shutil.copytree(copy / "data/prepared/demo", copy / "data/prepared/qlora_questions")
    score.main()
    aggregate.main()
    assert "removed data/items/demo-demo-qlora-bf16.parquet: not in the run list" in capsys.readouterr().out
    assert not list((copy / "data").rglob("*qlora*"))
    assert not any("qlora" in path.read_text() for path in (copy / "metrics").iterdir())


@pytest.mark.parametrize("missing", ["items/demo-demo-lora-f16.parquet", "facts/demo-demo-lora-f16.json"])
def test_a_missing_file_is_named_and_nothing_is_written(copy, missing):
    (copy / "data" / missing).unlink()
    for name in OUTPUTS:
        shutil.rmtree(copy / name)
    with pytest.raises(UserError, match=f"data/{missing}: missing"):
        aggregate.main()
    assert not any((copy / name).exists() for name in OUTPUTS)


def test_scores_of_other_items_are_refused(copy):
    fake_results.write(copy, params.load_all().run, items=20)
    with pytest.raises(UserError, match=r"data/scores\.parquet: not made from the present"):
        aggregate.main()


def test_variants_asked_different_items_are_not_compared(results):
    ours, theirs = results.of(PAIR, "lora")[0], results.of(PAIR, "base")[0]
    results.columns[ours]["item"] = results.columns[ours]["item"][::-1]
    with pytest.raises(UserError, match="different items"):
        results.compare(ours, theirs, "test_loss")


@pytest.mark.slow
def test_text_without_answers_is_ranked_by_loss(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch, kind="text")
    score.main()
    aggregate.main()
    found = load(tmp_path, "quality")["demo-demo-lora-bf16"]
    assert "test_loss" in found
    assert "test_f1" not in found
    text = fake_results.report(tmp_path)
    assert "**demo on demo: ship `lora" in text and "- **Why**: test loss " in text
    assert "## Prompts" in text


@pytest.mark.slow
def test_without_base_there_is_no_cosine_to_base(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch, methods=["lora"])
    score.main()
    aggregate.main()
    assert "cosine_to_base" not in load(tmp_path, "quality")["demo-demo-lora-bf16"]


def test_copied_answers_are_scored_as_those_of_a_variant(finished, results):
    copied = files.read_table(finished / "data/copying/demo.parquet")
    scores = [row for row in files.read_table(finished / "data/scores.parquet") if row["variant"] == "demo-copying"]
    assert [row["item"] for row in scores] == [row["item"] for row in copied]
    right = [answers.f1(row["generated"], row["answer"]) for row in copied]
    assert [row["f1"] for row in scores] == right and 0 < np.mean(right) < 1
    floor = results.floor(PAIR)
    assert floor == Copied("demo")
    assert results.interval(floor, "test_f1").value == pytest.approx(np.mean(right))
    assert all(results.has(floor, f"test_{name}") for name in ("exact_match", "bleu", "rouge_l", "bertscore", "cosine"))
    assert not any(results.has(floor, name) for name in ("test_loss", "seen_f1", "mmlu_accuracy", "cosine_to_base"))


def test_any_variant_is_compared_with_copying_on_the_same_items(results):
    floor, (variant, *_) = results.floor(PAIR), results.of(PAIR, "lora")
    found = results.compare(variant, floor, "test_f1")
    assert found.value == pytest.approx(
        results.interval(variant, "test_f1").value - results.interval(floor, "test_f1").value
    )
    back = results.compare(floor, variant, "test_f1")
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert found.error < results.interval(variant, "test_f1").error + results.interval(floor, "test_f1").error
    assert results.mcnemar(variant, floor, "test_exact_match") < 0.05
    results.columns[variant]["item"] = results.columns[variant]["item"].copy()
    results.columns[variant]["item"][0] = "another"
    results._sums.clear()
    results._values.clear()
    with pytest.raises(UserError, match="different items"):
        results.compare(variant, floor, "test_f1")


def test_copying_is_no_variant_of_the_metrics_files(finished):
    """It is the floor of a decision, and no more."""
    there = {path.name for path in (finished / "metrics").iterdir() if "copying" in path.read_text()}
    assert there == {"decision.json", "headline.json"}


def test_of_a_text_nothing_is_copied(tmp_path, monkeypatch):
    run = prepare(tmp_path, monkeypatch, kind="text", precisions=[], quants=[])
    score.main()
    results = Results(run, 1, 20, params.load_all().decide)
    assert results.floor(PAIR) is None
    assert results.cut(results.of(PAIR)[0]) == results.too_long(PAIR) == (0, 0)


def test_with_an_answer_pattern_exact_match_compares_what_it_finds(copy):
    path, pattern = copy / "data/prepared/demo/info.json", r"interest is (\d+)"
    files.write_json(path, files.read_json(path) | {"answer_pattern": pattern})
    before = files.read_table("data/scores.parquet")
    score.main()
    after = files.read_table("data/scores.parquet")
    items = {
        (name, row["split"], row["item"]): row
        for name in ("demo-demo-lora-q4_0", "demo-demo-base-trained")
        for row in files.read_table(f"data/items/{name}.parquet")
    }
    of_both = [row for row in after if (row["variant"], row["split"], row["item"]) in items and row["f1"] is not None]
    for row in of_both:
        item = items[row["variant"], row["split"], row["item"]]
        assert row["exact_match"] == answers.exact_match_of(pattern, item["generated"], item["answer"])
    assert {row["exact_match"] for row in of_both} == {0.0, 1.0}
    for one, other in zip(before, after, strict=True):
        # As text: NaN, which scores what is not JSON, equals nothing.
        assert repr({**one, "exact_match": 0}) == repr({**other, "exact_match": 0})


@pytest.fixture
def cut_short(copy):
    """Of the base as trained, three test answers are as long as an answer may be; no expected one is longer."""
    for path in sorted((copy / "data/items").iterdir()):
        rows = files.read_table(path)
        for place, row in enumerate(row for row in rows if row["split"] == "test"):
            row["answer_tokens"] = 48
            if path.stem == "demo-demo-base-trained":
                row["generated_tokens"] = 48 if place in (3, 5, 8) else 47
        files.write_table(path, rows, pq.read_schema(path))
    return copy


def test_answers_that_did_not_end_by_themselves_are_counted(cut_short):
    cfg = params.load_all()
    results = Results(cfg.run, 1, 20, cfg.decide)
    assert results.cut(results.of(PAIR, "base")[0]) == (3, 25)
    assert results.cut(results.of(PAIR, "lora")[0]) == (0, 25)
    assert results.too_long(PAIR) == (0, 25)
    results.columns[results.of(PAIR)[0]]["answer_tokens"][1] = 49
    assert results.too_long(PAIR) == (1, 25)
    marked = [line for line in methods._group(results, PAIR)["answers"] if " † |" in line]
    assert len(marked) == 2, "where an expected one is longer, the F1 of all scores a cut"


def test_f1_of_a_format_whose_answers_were_cut_is_marked_in_the_tables_of_formats(cut_short):
    """In the matrix first, a row a method, then in the table of each method, a row a format."""
    cfg = params.load_all()
    results = Results(cfg.run, 1, 20, cfg.decide)
    results.columns[Variant("demo", "demo", "lora", "q4_0")]["generated_tokens"][:] = 48
    text = formats.section(results, [])
    marked = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if " † |" in line]
    assert [row[0] for row in marked] == ["`base`", "`lora`", "`trained`", "`q4_0`"]
    assert [place for row in marked[:2] for place, cell in enumerate(row) if cell.endswith(" †")] == [1, 4]
    assert text.count("†: of these answers") == 1 and text.count("†") == 5


def test_nothing_is_marked_where_every_answer_ended(results):
    assert "†" not in formats.section(results, []) + methods.section(results, [])


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
def test_what_was_cut_stands_in_the_summary_and_beside_f1(cut_short):
    aggregate.main()
    shares = {row["variant"]: float(row["test_cut_share"]) for row in rows(cut_short, "summary")}
    assert shares.pop("demo-demo-base-trained") == 0.12
    assert set(shares.values()) == {0}
    text = fake_results.report(cut_short)
    for head, names in (("Methods, as trained", ["`base`"]), ("Formats", ["`base`", "`trained`"])):
        part = text.split(f"\n## {head}\n")[1].split("\n## ")[0]
        assert [line.split("|")[1].strip() for line in part.splitlines() if " † |" in line] == names
    assert "†: of these answers, or of the expected ones, more than 1 % are longer than 48 tokens" in text
    assert "| demo / demo | 48 | 25 | 0 (0.0%) | 0 (0.0%) | 3 (12.0%) | `demo-demo-base-trained` |" in text


# --- validation on the way


def watched(folder: Path, method: str, rule: dict | None, taken: int, kept: int) -> None:
    """Gives a training of 240 steps what it has where its validation loss was measured at every tenth, by a rule."""
    path = Cell("demo", "demo", method).training(42).facts
    row = files.read_json(folder / path)
    last = row["curve"][-1]["step"]
    measured = [p | ({"valid_loss": p["loss"] + 0.3} if rule else {}) for p in row["curve"]]
    curve = [point for point in measured if point["step"] <= taken]
    own = {"steps": last, "train_steps": taken, "kept_step": kept}
    if rule:
        own |= {"rule": rule, "valid_seconds": 1.25}
    files.write_json(folder / path, row | own | {"curve": curve})


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
def test_the_report_says_what_was_stopped_what_was_kept_and_what_compares(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch, methods=["base", "full", "lora", "vblora"], quants=["q4_0"])
    score.main()
    rule = {"valid_every": 10, "keep": "best", "patience": 2}
    watched(tmp_path, "lora", rule, taken=60, kept=40)
    watched(tmp_path, "full", rule, taken=240, kept=240)
    watched(tmp_path, "vblora", None, taken=240, kept=240)
    aggregate.main()
    text = fake_results.report(tmp_path)
    table = [line for line in text.splitlines() if line.startswith(("| `lora`", "| `full`", "| `vblora`"))]
    assert any("| 60 of 240, kept 40 |" in line for line in table)
    assert sum("| 240 of 240 |" in line for line in table) == 2
    assert (
        "`full`; `lora`: validation loss every 10 steps, kept is the lowest, stopped after 2 without a lower one."
        in text
    )
    assert "`vblora`: no validation loss on the way, all steps, kept is the last." in text
    assert "**Not one rule for all**" in text
    assert "`lora` stopped early. What compares is the outcome of one budget under one rule" in text
    assert "Dashed: validation loss. A ring: the weights that are kept." in text
    numbers = files.read_json("metrics/training.json")["demo-demo-lora"]
    assert (numbers["steps"], numbers["train_steps"], numbers["kept_step"]) == (240, 60, 40)
    with Path("plots/training.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "lora"]
    assert [row["step"] for row in rows if row["valid_loss"]] == ["10", "20", "30", "40", "50", "60"]

    watched(tmp_path, "vblora", rule, taken=240, kept=90)
    assert "**Not one rule for all**" not in methods.section(fake_results.read(), [])


def test_without_a_validation_loss_the_report_says_nothing_of_it(finished):
    text = fake_results.report(finished)
    assert "validation loss every" not in text and "stopped early" not in text and "Dashed" not in text
    with (finished / "plots/training.csv").open() as file:
        assert "valid_loss" not in next(csv.reader(file))
