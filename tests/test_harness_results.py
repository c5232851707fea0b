"""What tasks measured is, from its items on, a metric like any other: intervals, pairs, verdicts, the decision."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import fake_results
import numpy as np
import pytest

from stages import aggregate
from tradeoffs import metrics, params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant, variants
from tradeoffs.export import card, judged
from tradeoffs.export.chosen import Chosen
from tradeoffs.gate import policy as policies
from tradeoffs.gate.pairing import Pairing
from tradeoffs.gate.policy import Policy, gated_metrics
from tradeoffs.gate.quality import sign_of
from tradeoffs.harness.scoring import ROWS, full_name, per_item
from tradeoffs.metrics import registry
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import tables, tasks, verdicts
from tradeoffs.revisions import WORKSPACE, Revision

SKILL = {"base": 0.3, "lora": 0.8}


@pytest.fixture(autouse=True)
def no_task_is_left_in_the_register():
    before = dict(registry.METRICS)
    yield
    registry.METRICS.clear()
    registry.METRICS.update(before)


def said(name, of, better="higher", form="mean", **more):
    found = {"name": name, "of": of, "metric": "acc", "filter": "none", "better": better, "form": form}
    return found | {"right_or_wrong": form == "mean", "alike": True, "exact": True, "value": 0.5, "shots": 0} | more


def write_tasks(run, items=40):
    """`choices`, a group of two tasks, and `texts`, of which the perplexity is measured, by all variants of a run."""
    for variant in variants(run):
        if variant.method in fake_results.UNMERGEABLE and variant.format != "trained":
            continue
        drawn = np.random.default_rng([len(variant.format), *variant.method.encode()])
        folder = variant.tasks(run.seeds)
        rows = []
        for task in ("facts", "endings"):
            for number in range(items if task == "facts" else items // 4):
                right = float(drawn.random() < SKILL.get(variant.method, 0.5))
                rows.append({"task": task, "item": f"{task}-{number}", "prompt": f"{number}?", "answer": "1"})
                rows[-1] |= {"values": [right], "weights": [1.0]}
        scale = {"facts": 1.0, "endings": 1.0}
        measured = [
            said("facts_acc", "facts"),
            said("endings_acc", "endings"),
            said("choices_acc", "choices", scale=scale),
        ]
        write(folder / "choices.parquet", "choices", rows, measured)
        nats = [-20.0 - 10 * drawn.random() for _ in range(items)]
        rows = [
            {"task": "texts", "item": f"texts-{n}", "prompt": "", "answer": "a", "values": [v], "weights": [9.0]}
            for n, v in enumerate(nats)
        ]
        lower = said("texts_word_perplexity", "texts", "lower", "perplexity", metric="word_perplexity", alike=False)
        write(folder / "texts.parquet", "texts", rows, [lower])


def write(path, task, rows, measured):
    about = {"task": task, "harness": "0.4.13", "seconds": {"wall": 2.0, "cpu": 3.0}, "metrics": measured}
    files.write_table(path, rows, ROWS.with_metadata({"tasks": json.dumps(about)}))


@pytest.fixture
def asked(tmp_path, monkeypatch, sketched):
    """Aggregated results of a run with tasks, and the folder it lies in, where the test then is."""
    fake_results.finished(tmp_path, models=["demo"], datasets=["demo"], methods=["base", "lora"], quants=["q8_0"])
    monkeypatch.chdir(tmp_path)
    change(evaluate={"tasks": ["choices", "texts"]}, margins={"choices_acc": 0.05})
    write_tasks(params.load_all().run)
    aggregate.main()
    return fake_results.read()


def change(margins=None, guards=None, metric=None, evaluate=None):
    text = files.Path("params.yaml").read_text()
    raw = fake_results.yaml.load(text, Loader=fake_results.reading.Loader)
    raw["evaluate"] |= evaluate or {}
    raw["decide"]["margins"] |= margins or {}
    raw["decide"]["guards"] |= guards or {}
    raw["decide"]["metric"] = metric or raw["decide"]["metric"]
    files.write_text("params.yaml", fake_results.quick_yaml.dump(raw))


def test_their_numbers_stand_in_every_table(asked):
    quality, summary = files.read_json("metrics/quality.json"), files.Path("metrics/summary.csv").read_text()
    one = quality["demo-demo-lora-trained"]
    rows = files.read_table("data/tasks/demo-demo-lora-trained-42/choices.parquet")
    assert one["choices_acc"] == pytest.approx(np.mean([row["values"][0] for row in rows]))
    texts = files.read_table("data/tasks/demo-demo-lora-trained-42/texts.parquet")
    assert one["texts_word_perplexity"] == pytest.approx(
        math.exp(-sum(row["values"][0] for row in texts) / sum(row["weights"][0] for row in texts)), rel=1e-5
    )
    # The tasks of a group are in the table of all numbers alone.
    assert "facts_acc" not in one
    header = summary.splitlines()[0].split(",")
    assert {"facts_acc", "facts_acc_low", "choices_acc_high", "texts_word_perplexity_low"} <= set(header)


def test_two_variants_are_compared_on_the_same_items(asked):
    base, lora = (v for v in asked.of(asked.groups()[0]) if v.format == "trained")
    found = asked.compare(lora, base, "choices_acc")
    assert found.low > 0
    assert asked.count(lora, "choices_acc") == 50
    assert asked.interval(lora, "choices_acc").low < asked.values(lora, "choices_acc")[0]
    assert verdicts.standing(asked, [base, lora], "choices_acc").best == lora
    # Better is lower, by what the task says.
    assert metrics.metric("texts_word_perplexity")[1].better == "lower"


def test_the_report_has_a_page_of_them(asked):
    page = files.Path("report/tasks.md").read_text()
    assert "#### choices" in page
    assert "#### texts" in page
    assert "choices acc, against the best" in page  # it has a margin
    assert "word_perplexity, against the best" not in page
    assert "`choices`, wall seconds" in page


def test_without_tasks_there_is_no_page_and_nothing_of_earlier_ones(asked):
    change(evaluate={"tasks": []})
    raw = fake_results.yaml.load(files.Path("params.yaml").read_text(), Loader=fake_results.reading.Loader)
    del raw["decide"]["margins"]["choices_acc"]
    files.write_text("params.yaml", fake_results.quick_yaml.dump(raw))
    aggregate.main()
    assert not files.Path("report/tasks.md").exists()
    assert not list(files.Path("data/tasks").glob("*"))
    assert "choices_acc" not in files.read_json("metrics/quality.json")["demo-demo-lora-trained"]


def test_a_task_may_decide_and_guard(asked):
    change(metric="choices_acc", guards={"texts_word_perplexity": "base"}, margins={"texts_word_perplexity": 0.5})
    aggregate.main()
    decided = files.read_json("metrics/decision.json")["demo-demo"]
    assert decided["metric"] == "choices_acc"
    assert decided["recommended"].startswith("demo-demo-lora")


def test_a_metric_that_no_task_has_is_named_with_the_near_match(asked):
    change(metric="choices_accc", margins={"choices_accc": 0.1})
    with pytest.raises(
        UserError, match=r"decide.m\w+: no task has measured 'choices_accc' \(did you mean choices_acc\?\)"
    ):
        aggregate.main()


def test_what_is_not_there_is_missed(asked):
    files.Path("data/tasks/demo-demo-lora-q8_0/texts.parquet").unlink()
    with pytest.raises(UserError, match=r"demo-demo-lora-q8_0/texts.parquet: missing"):
        aggregate.main()


def test_a_group_may_weigh_its_tasks_alike(tmp_path):
    rows = [{"task": "a", "item": f"a-{n}", "values": [1.0], "weights": [1.0]} for n in range(6)]
    rows += [{"task": "b", "item": f"b-{n}", "values": [0.0], "weights": [1.0]} for n in range(2)]
    scale = {"a": 8 / 2 / 6, "b": 8 / 2 / 2}
    measured = [said("a_acc", "a"), said("b_acc", "b"), said("both_acc", "both", scale=scale, alike=False)]
    write(tmp_path / "both.parquet", "both", rows, measured)
    empty = {"split": np.array([], object), "item": np.array([], object), "items": np.array([])}
    found = tasks.added(empty, tmp_path)
    split, metric = metrics.metric("both_acc")
    mine = found["split"] == split
    sums = np.array([found[column][mine].sum() for column in metric.columns])
    assert metric.of(sums) == pytest.approx(0.5)  # of all items alike it were 0.75
    assert np.isnan(found["both_acc"][~mine]).all()


@pytest.mark.parametrize("name", ["alone", "zuletzt"])  # before and behind the group in the folder
def test_a_task_that_is_asked_alone_and_in_a_group_has_its_items_once(tmp_path, name):
    rows = [{"task": name, "item": f"{name}-{n}", "values": [float(n % 2)], "weights": [1.0]} for n in range(8)]
    other = [{"task": "b", "item": f"b-{n}", "values": [1.0], "weights": [1.0]} for n in range(8)]
    acc = said(f"{name}_acc", name)
    both = [acc, said("b_acc", "b"), said("group_acc", "group", scale={name: 1.0, "b": 1.0})]
    write(tmp_path / "group.parquet", "group", rows + other, both)
    write(tmp_path / f"{name}.parquet", name, rows, [acc | {"shots": 3}])
    empty = {"split": np.array([], object), "item": np.array([], object), "items": np.array([])}
    found = tasks.added(empty, tmp_path)
    counts = {of: int((found["split"] == f"task {of}").sum()) for of in (name, "b", "group")}
    assert counts == {name: 8, "b": 8, "group": 16}
    stands = {metric: registry.METRICS[metric].stands for metric in (f"{name}_acc", "b_acc", "group_acc")}
    assert stands == {f"{name}_acc": "quality", "b_acc": "summary", "group_acc": "quality"}
    assert "with 3 examples" in registry.METRICS[f"{name}_acc"].definition


@pytest.mark.parametrize(
    ("values", "total", "form"),
    [
        ([1, 0, 1, 1], 0.75, "mean"),
        ([True, False], 0.5, "mean"),
        ([-1.0, -3.0], math.exp(2), "perplexity"),
        ([(-10.0, 4), (-20.0, 6)], math.exp(3), "perplexity"),
        ([(-10.0, 4), (-20.0, 6)], 3 / math.log(2), "bits"),
        ([[True, False, True], [True]], 0.75, "mean"),
    ],
)
def test_what_a_number_is_the_sum_of_is_found_by_adding_up(values, total, form):
    found, pair, exact = per_item(values, None, total)
    assert (found, exact) == (form, True)
    assert len(pair[0]) == len(values)


@pytest.mark.parametrize("count", [50, 500])
def test_what_is_no_sum_varies_as_the_jackknife_says(count):
    """The F1 of a class; its standard error by resampling the items is that of the pseudo-values."""
    random = np.random.default_rng(0)
    true = random.random(count) < 0.5
    values = [(int(t), int(t if random.random() < 0.8 else not t)) for t in true]

    def f1(some):
        hit = sum(t and p for t, p in some)
        return 2 * hit / (sum(t for t, _ in some) + sum(p for _, p in some))

    form, (pseudo, weights), exact = per_item(values, f1, f1(values))
    assert (form, exact) == ("mean", False)
    assert pseudo.mean() == pytest.approx(f1(values))
    assert (weights == 1).all()
    drawn = [f1([values[place] for place in random.integers(count, size=count)]) for _ in range(400)]
    assert pseudo.std() / math.sqrt(count) == pytest.approx(np.std(drawn), rel=0.2)


def test_a_number_of_which_nothing_is_known_is_left_out():
    assert per_item([{"a": 1}, {"a": 2}], None, 0.3) is None
    assert per_item([{"a": 1}, {"a": 2}], lambda some: 1 / 0, 0.3) is None


def test_names_hold_letters_digits_and_underscores():
    assert full_name("gsm8k", "exact_match", "strict-match") == "gsm8k_exact_match_strict_match"
    assert full_name("truthfulqa-multi.x", "acc", "none") == "truthfulqa_multi_x_acc"


def test_what_another_commit_said_to_tasks_comes_with_its_items(asked):
    side, lora = Revision(WORKSPACE), Variant("demo", "demo", "lora", "trained")
    mine, other = (f"data/tasks/demo-demo-{method}-trained-42/facts.parquet" for method in ("lora", "base"))
    side.__dict__["outputs"] = dict.fromkeys((mine, other), "0" * 32)
    found = side.wanted([lora])
    assert mine in found and other not in found
    assert {mine, other} <= set(side.wanted())


def test_a_card_names_tasks_beside_the_data_set(asked):
    chosen = Chosen(Variant("demo", "demo", "lora", "q8_0"), params.load_all(), {})
    own = chosen.numbers()
    assert card.tested(chosen, []).endswith("`choices` (50 items), `texts` (40 items).")
    assert {"test_f1", "choices_acc", "texts_word_perplexity"} <= set(card._names(own)) and "facts_acc" not in (
        card._names(own)
    )
    files.write_json(chosen.cell.tokens / "info.json", {"kind": "instruction", "context": 64})
    assert card.limits(chosen)[0].startswith("The numbers are of these test items and tasks alone")
    assert "the task choices and the task texts: measured" in judged._not_compared(chosen, {})


def test_a_gate_judges_what_has_a_margin(asked):
    policy = Policy("all")
    assert gated_metrics(policy, params.load_all().decide.margins)["choices_acc"] == 0.05
    assert "texts_word_perplexity" not in gated_metrics(policy, params.load_all().decide.margins)


def of_file(text):
    files.write_text("own.yaml", text)
    return policies.of(Revision(WORKSPACE), Revision(WORKSPACE), files.Path("own.yaml"))


def test_a_policy_of_a_gate_names_a_metric_of_a_task_and_its_results_tell_which_end_is_better(asked):
    margins = params.load_all().decide.margins
    policy = of_file("metrics: {texts_word_perplexity: 0.1, facts_acc: 0.2}\nignore: [choices_acc]\n")
    policies.require_known(policy)
    found = gated_metrics(policy, margins)
    assert (found["texts_word_perplexity"], found["facts_acc"]) == (0.1, 0.2) and "choices_acc" not in found
    assert [sign_of(name) for name in ("texts_word_perplexity", "facts_acc")] == [-1, 1]


def test_before_the_results_are_read_a_policy_may_name_what_begins_like_a_task(asked):
    registry.METRICS.pop("texts_word_perplexity")
    policy = of_file("metrics: {texts_word_perplexity: 0.1, texts_word_perplexty: 0.1}\n")
    register = dict(registry.METRICS)
    fake_results.read()
    assert "texts_word_perplexity" in registry.METRICS.keys() - register.keys()
    with pytest.raises(UserError, match=r"own.yaml: 1 problem\n  metrics.texts_word_perplexty: .*did you mean texts_w"):
        policies.require_known(policy)
    with pytest.raises(UserError, match=r"metrics.chores_acc: unknown metric \(did you mean choices_acc\?\)"):
        of_file("metrics: {chores_acc: 0.1}\n")


def test_what_no_end_of_is_better_is_judged_by_nobody(asked):
    tasks.register(said("texts_length", "texts", better="", metric="length"), set())
    with pytest.raises(UserError, match=r"own.yaml: 1 problem\n  metrics.texts_length: neither end of it is better"):
        policies.require_known(of_file("metrics: {texts_length: 0.1}\n"))


@pytest.mark.parametrize("name", ["test_f1", "mmlu_accuracy", "general_loss"])
def test_a_task_takes_no_name_of_a_number_of_data_sets(name):
    with pytest.raises(UserError, match=f"has a metric {name}, as data sets have: give the task another name"):
        tasks.register(said(name, name.split("_")[0]), set())


def test_two_tasks_have_no_metric_of_one_name_but_another_commit_may_call_one_otherwise(tmp_path):
    empty = {"split": np.array([], object), "item": np.array([], object), "items": np.array([])}
    for folder, name in (("both", "a"), ("both", "a_b"), ("base", "a-b"), ("head", "a_b")):
        rows = [{"task": name, "item": f"{name}-1", "values": [1.0], "weights": [1.0]}]
        write(tmp_path / folder / f"{name}.parquet", name, rows, [said("a_b_acc", name)])
    with pytest.raises(UserError, match="the tasks a and a_b both have a metric a_b_acc"):
        tasks.added(empty, tmp_path / "both")
    for folder, name in (("base", "a-b"), ("head", "a_b")):
        assert list(tasks.added(empty, tmp_path / folder)["split"]) == [f"task {name}"]


def test_commits_that_call_another_end_better_are_not_compared(asked, tmp_path):
    side, variant = Revision(WORKSPACE), Variant("demo", "demo", "lora", "q8_0")
    side.__dict__["outputs"] = {}
    pairing = Pairing(side, side, asked, asked)
    assert pairing.against(variant, variant, "texts_word_perplexity") == ""
    head = SimpleNamespace(root=tmp_path / "head", run=asked.run, has=asked.has)
    other = said("texts_word_perplexity", "texts", "higher", "perplexity", alike=False)
    write(head.root / variant.tasks(asked.run.seeds) / "texts.parquet", "texts", [], [other])
    why = Pairing(side, side, asked, head).against(variant, variant, "texts_word_perplexity")
    assert why == "base and head say otherwise which end is better"
    tasks.register(said("choices_acc", "choices", better=""), set())
    assert gated_metrics(Policy("all"), {"choices_acc": 0.05}) == {"choices_acc": 0.05}, "a row says so"


def test_no_number_of_the_summary_is_lost_behind_another_of_its_name(asked):
    tasks.register(said("size_mb", "size", metric="mb"), set())
    for columns in (columns for columns in asked.columns.values() if "choices_acc" in columns):
        columns["size_mb"] = columns["choices_acc"]
    registry.METRICS["size_mb"] = replace(registry.METRICS["size_mb"], split="task choices")
    with pytest.raises(UserError, match=r"metrics/summary.csv: size_mb would be the name of two columns"):
        tables.summary(asked)
