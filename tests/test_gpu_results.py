"""On a machine with a GPU the memory that counts is its own: in each choice, file and picture, the host's beside it."""

import csv
from dataclasses import replace

import fake_gpu
import fake_results
import pytest
from sketches import sketched

from stages import aggregate, score
from tradeoffs import decide, params
from tradeoffs.common import files
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.explore import data
from tradeoffs.gate import pairing
from tradeoffs.params import Limits
from tradeoffs.report import decision as sentences
from tradeoffs.report import front, machine, methods, prompts
from tradeoffs.report.pictures import bars, topics
from tradeoffs.report.pictures import methods as pictures
from tradeoffs.repro import ending
from tradeoffs.results import costs, decision, ranking, tables, tuning

PAIR = Pair("demo", "demo")
RUN = {"methods": ["base", "full", "lora"], "precisions": ["bf16", "int8", "nf4"], "quants": ["f16", "q4_0"]}
SLOW_FIXTURES = {"written"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    fake_results.finished(folder, items=60, stages=[score], **RUN)
    return folder


@pytest.fixture(scope="module")
def on_cpu(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return fake_results.read()


@pytest.fixture(scope="module")
def on_gpu(folder, on_cpu):
    """The same run, whose models of transformers ran on a GPU."""
    fake_gpu.put_on_gpu(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return fake_results.read()


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def named(name: str) -> Variant:
    return Variant("demo", "demo", *name.split())


def test_a_models_memory_is_what_the_gpu_set_aside_and_the_hosts_stands_beside_it(on_cpu, on_gpu):
    for variant in on_gpu.variants:
        before, after = on_cpu.cost[variant], on_gpu.cost[variant]
        if fake_gpu.runs_on_it(variant):
            assert after["model_memory_mb"] == after["peak_gpu_memory_reserved_mb"]
            assert after["model_memory_mb"] == fake_gpu.RESERVED[variant.format] + 4, "the median of five rounds"
            assert after["host_memory_mb"] == before["model_memory_mb"]
            bounds = costs.interval(on_gpu, variant, "model_memory_mb")
            assert bounds == costs.interval(on_gpu, variant, "peak_gpu_memory_reserved_mb") and bounds.low < bounds.high
        else:
            assert after == before and "host_memory_mb" not in after
        assert {name for name in before if before[name] != after[name]} <= {"model_memory_mb"}


def test_where_only_what_was_in_use_is_known_that_is_the_memory():
    found = costs.memory_that_counts({"model_memory_mb": 20.0, "peak_gpu_memory_mb": 900.0})
    assert found == {"model_memory_mb": 900.0, "host_memory_mb": 20.0}
    assert costs.memory_that_counts({"model_memory_mb": 20.0}) == {}


def test_who_is_lighter_is_told_by_the_gpu(on_cpu, on_gpu):
    bf16, int8 = named("lora bf16"), named("lora int8")
    assert costs.cheaper(on_cpu, int8, bf16, "model_memory_mb")
    assert costs.cheaper(on_gpu, bf16, int8, "model_memory_mb")


def test_the_choice_and_the_pareto_set_go_by_the_gpus_memory(on_cpu, on_gpu):
    """int8 takes less of the host than bf16, and more of the GPU."""
    found = {}
    for name, results in (("cpu", on_cpu), ("gpu", on_gpu)):
        results.decide = replace(results.decide, cost="model_memory_mb", limits=Limits(runtime="transformers"))
        found[name] = decision.decide(results, PAIR)
        table = found[name].candidates.table.cheaper["model_memory_mb"]
        place = {v: at for at, v in enumerate(found[name].candidates.order)}
        assert table[place[named("full int8")], place[named("full bf16")]] == (name == "cpu")
    fronts = {name: [v.format for v in one.pareto["model_memory_mb"]] for name, one in found.items()}
    assert "int8" in fronts["cpu"] and "int8" not in fronts["gpu"]
    weights = [on_gpu.cost[v]["model_memory_mb"] for v in found["gpu"].pareto["model_memory_mb"]]
    assert len(weights) > 1 and weights == sorted(weights, reverse=True)
    same = [on_gpu.cost[v]["model_memory_mb"] for v in found["gpu"].same_cost]
    assert max(same) < 1.05 * min(same)


def test_a_limit_of_memory_is_held_against_the_gpus(on_gpu):
    on_gpu.decide = replace(on_gpu.decide, limits=Limits(max_memory_mb=1000.0))
    found = decision.decide(on_gpu, PAIR)
    assert {v.format for v in found.fit} == {"bf16", "nf4", "f16", "q4_0"}
    assert found.missed[named("lora int8")]["max_memory_mb"] == pytest.approx(0.454)  # the worst round had 1,454
    on_gpu.decide = replace(on_gpu.decide, limits=Limits())


def test_training_peaks_are_the_gpus_where_there_is_one(on_cpu, on_gpu):
    for results, expected in ((on_cpu, False), (on_gpu, True)):
        row = results.training[named("lora trained").cell]
        peak, gpu = tuning.peak_memory(row)
        assert gpu == expected and peak == (fake_gpu.TRAINED if gpu else row["peak_memory_mb"])
    assert tuning.peak_memory({"total_params": 3}) is None
    assert tables.training(on_gpu)["demo-demo-lora"]["peak_gpu_memory_reserved_mb"] == fake_gpu.TRAINED


def widths(axes) -> list[float]:
    return sorted(round(patch.get_width(), 3) for patch in axes.patches)


def test_the_pictures_of_memory_are_the_gpus_with_the_hosts_beside_it(on_cpu, on_gpu):
    trained, formats = bars.memory(on_gpu).axes
    rows = [on_gpu.training[v.cell] for v in on_gpu.as_trained(PAIR) if v.method != "base"]
    host = [row["peak_memory_mb"] for row in rows]
    assert widths(trained) == sorted([*host, *[fake_gpu.TRAINED] * len(rows)])
    assert trained.get_xlabel() == "peak memory of the GPU (MB)"
    names = [label.get_text() for label in formats.get_yticklabels()]
    assert {"nf4, GPU", "bf16, GPU", "q4_0"} <= set(names)
    assert fake_gpu.RESERVED["int8"] + 4 in widths(formats)
    trained, formats = bars.memory(on_cpu).axes
    assert widths(trained) == sorted(host) and "GPU" not in trained.get_xlabel() + formats.get_xlabel()
    assert len(formats.patches) == len(on_cpu.formats)


def test_methods_shows_the_gpus_memory_of_training_and_answering(on_cpu, on_gpu):
    def panels(results) -> dict[str, list[float]]:
        return {axes.get_title(): widths(axes) for axes in pictures.methods(results).axes}

    found = panels(on_gpu)
    assert found["training GPU memory (MB)"][-1] == fake_gpu.TRAINED
    assert found["model GPU memory (MB)"][-1] == fake_gpu.RESERVED["trained"] + 4
    assert not any("GPU" in title for title in panels(on_cpu))


def test_topics_stand_by_where_they_were_asked_and_in_4_bits(on_cpu, on_gpu):
    """Accuracies above, seconds below; of one model the untouched base and the best method side by side."""
    expected = ["GPU: trained", "CPU: f16", "GPU, 4 bits: nf4", "CPU, 4 bits: q4_0"]
    axes = topics.topics(on_gpu).axes
    assert [one.get_title() for one in axes] == 2 * expected
    assert [one.get_title() for one in topics.topics(on_cpu).axes] == 2 * ["CPU: trained", "CPU, 4 bits: nf4"]
    asked = list(fake_results.SUBJECTS)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["all", *asked]
    best = next(v for v in ranking.ranked(on_gpu, PAIR) if v.format == "trained")
    some = [named("base trained"), best]
    shares = [on_gpu.interval(v, "mmlu_accuracy").value for v in some]
    shares += [found.value for v in some for found, _ in on_gpu.subjects(v).values()]
    assert widths(axes[0]) == sorted(round(share, 3) for share in shares)
    seconds = [on_gpu.subject_seconds[v][name]["wall"] for v in some for name in asked]
    assert widths(axes[4]) == sorted(round(took, 3) for took in seconds)


def test_the_sentence_and_the_tables_say_which_memory_is_which(on_cpu, on_gpu):
    trained = on_gpu.as_trained(PAIR)
    said = sentences._costs(on_gpu, named("lora nf4"), named("lora nf4"))[-1]
    assert "MB of GPU memory, and 39" in said and said.endswith("MB of the host's")
    assert sentences._costs(on_gpu, named("lora q4_0"), named("lora q4_0"))[-1].endswith("of memory above the process")
    for results, expected in ((on_gpu, True), (on_cpu, False)):
        found = decision.decide(results, PAIR)
        for lines in (
            front._formats(results, replace(found, recommended=named("lora nf4"))),
            methods._answering_table(results, trained),
            decide._table(results, found, dict.fromkeys(results.variants, ""), "why"),
        ):
            assert ("memory of the model on the host MB" in "\n".join(lines)) == expected


def test_the_machine_is_a_row_with_its_gpus_their_memory_and_driver(on_gpu):
    table = "\n".join(machine._machines(on_gpu))
    assert "| processor | cores | RAM GB | GPU | its GB | driver | here |" in table
    measured = "| Abacus, wood | 2, 1 used | 31 | 2 x NVIDIA H200 | 150.8 | 550.127.08 |"
    assert f"{measured} costs were measured; quality was computed |" in table
    assert "| Abacus, wood | 2 | 31 | 2 x NVIDIA H200 | 150.8 | 550.127.08 | methods were trained |" in table
    assert machine.written(fake_gpu.HARDWARE) == "Abacus, wood, 2 cores, 2 x NVIDIA H200"


def test_the_page_to_explore_has_both_memories_of_both(on_gpu):
    found = data.of_pair(on_gpu, PAIR)
    names = [one["name"] for one in found["measures"]]
    (row,) = (one for one in found["variants"] if one["name"] == "demo-demo-lora-bf16")
    values = dict(zip(names, row["values"], strict=True))
    assert values["model_memory_mb"][0] == 982 and values["host_memory_mb"][0] == pytest.approx(73, rel=0.1)
    assert values["train_peak_gpu_memory_mb"] == [fake_gpu.IN_USE * fake_gpu.TRAINED]
    assert values["train_peak_memory_mb"][0] < 1000


@pytest.fixture(scope="module")
def written(on_gpu, folder):
    """What aggregate writes of it."""
    with pytest.MonkeyPatch.context() as patch, sketched():
        patch.chdir(folder)
        aggregate.main()
    return folder


def test_what_dvc_draws_and_the_last_lines_of_a_run_have_the_gpus_memory(written):
    with (written / "metrics/summary.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert float(rows["demo-demo-lora-bf16"]["model_memory_mb"]) == 982
    assert float(rows["demo-demo-lora-bf16"]["host_memory_mb"]) == pytest.approx(73, rel=0.1)
    assert rows["demo-demo-lora-q4_0"]["host_memory_mb"] == ""
    cost = files.read_json("metrics/cost.json")
    assert cost["demo-demo-lora-bf16"]["model_memory_mb"] == 982
    found = ending.read()
    ours = found.decision["demo-demo"]["recommended"]
    on_it = {ours: found.cost[ours] | {"model_memory_mb": 982.0, "host_memory_mb": 77.0}}
    costs_line = ending.lines(replace(found, cost=found.cost | on_it), params.load_all())[1]
    assert "982 MB of memory, 77 MB of the host's beside the GPU's" in costs_line
    elsewhere = {ours: {k: v for k, v in found.cost[ours].items() if k != "host_memory_mb"}}
    assert "host" not in ending.lines(replace(found, cost=found.cost | elsewhere), params.load_all())[1]


def test_each_answer_to_a_prompt_has_the_memory_that_it_took_above_the_weights(on_cpu, on_gpu, written):
    with (written / "report/prompts.csv").open(newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert float(rows["demo-demo-lora-bf16"]["answer_gpu_mb"]) == fake_gpu.ANSWER
    assert rows["demo-demo-lora-q4_0"]["answer_gpu_mb"] == "", "llama.cpp answered on the CPU"
    assert "| tokens/s | GPU memory MB | cosine to base |" in (written / "report/answers.md").read_text()
    assert not any("answer_gpu_mb" in row for row in tables.prompts(on_cpu))
    assert "GPU memory" not in prompts.section(on_cpu, [])


def test_an_answer_that_took_other_memory_is_the_same_answer(on_cpu, on_gpu):
    both = [dict(results.columns[named("lora bf16")]) for results in (on_cpu, on_gpu)]
    assert pairing._equal(*both)
    both[1]["latency_seconds"] = both[1]["latency_seconds"] * 2
    both[1]["seconds"] = both[1]["seconds"] * 2
    assert pairing._equal(*both), "no clock says the same twice"
    both[1]["tokens"] = both[1]["tokens"] + 1
    assert not pairing._equal(*both)


def test_the_report_tells_of_the_gpu(written):
    text = fake_results.report(written)
    assert "where there is a GPU, its own peak is the memory that counts" in text
    assert "On a GPU the memory of the model is what was set aside there" in text
