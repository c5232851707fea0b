"""What is recommended is good enough, cheapest, and named with what it loses; what cannot be told apart is equal."""

from dataclasses import replace
from types import SimpleNamespace

import fake_results
import numpy as np
import pytest

from stages import score
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report import decision as shown
from tradeoffs.results import costs, decision, ranking, verdicts
from tradeoffs.results.intervals import Interval
from tradeoffs.results.verdicts import GOOD, Verdict

PAIR = Pair("demo", "demo")
METHODS = ["base", "full", "lora"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decision")
    return fake_results.finished(
        folder, items=60, stages=[score], methods=METHODS, precisions=[], quants=["f16", "q4_0"]
    )


@pytest.fixture
def judged(results, monkeypatch):
    """Sets which variants are good enough, and what each costs; all others are too much worse and cost 1000."""

    compare = verdicts.compared

    def judge(good: dict[str, float], others: dict[str, float] | None = None) -> None:
        prices = good | (others or {})

        def compared(results, some, name):
            own = compare(results, some, name)
            value = [1.0 if _short(v) in good else -1.0 - place for place, v in enumerate(some)]
            exact = {"width": np.zeros((len(some), len(some))), "once": np.zeros(len(some), bool)}
            return replace(own, quality=replace(own.quality, value=np.array(value), **exact))

        def price(v):
            return prices.get(_short(v), 1000.0)

        monkeypatch.setattr(verdicts, "compared", compared)
        for v in results.variants:
            for key in decision.WEIGHED:
                sign = 1 if costs.CHEAPER[key] == "lower" else -1
                monkeypatch.setitem(results.cost[v], key, 5000.0 + sign * price(v))
        monkeypatch.setattr(costs, "told_apart", lambda results, a, b, key: abs(price(a) - price(b)) > 1)
        monkeypatch.setattr(costs, "cheaper", lambda results, a, b, key: price(a) < price(b) - 1)
        monkeypatch.setattr(decision, "guards", lambda results, v, best: [])

    return judge


def _short(variant: Variant) -> str:
    return f"{variant.method} {variant.format}"


def named(results, name: str) -> Variant:
    return next(v for v in results.variants if _short(v) == name)


def says(monkeypatch, found: Interval) -> None:
    """Lets every comparison of two find this."""
    monkeypatch.setattr(verdicts, "against", lambda results, ours, theirs, name: Verdict(GOOD, found, None))


def chosen(results) -> str:
    return _short(decision.decide(results, PAIR).recommended)


def test_the_cheapest_of_what_is_good_enough_is_recommended(results, judged):
    judged({"lora q4_0": 2.0, "full f16": 8.0}, {"base q4_0": 0.5})
    assert chosen(results) == "lora q4_0"


def test_what_is_too_much_worse_is_never_recommended_however_cheap(results, judged):
    judged({"full f16": 8.0}, {"base q4_0": 0.1, "lora q4_0": 0.1})
    assert chosen(results) == "full f16"


def test_of_those_that_are_not_told_apart_the_better_one_is_named(results, judged):
    judged({"lora q4_0": 2.0, "full q4_0": 2.4})
    ranked = [_short(v) for v in ranking.ranked(results, PAIR) if _short(v) in ("lora q4_0", "full q4_0")]
    assert chosen(results) == ranked[0]
    # ... though the other one is measured as a little cheaper.
    judged({ranked[0]: 2.4, ranked[1]: 2.0})
    assert chosen(results) == ranked[0]


def test_of_equals_the_smallest_is_the_best_found(results, monkeypatch):
    sizes = [results.cost[v]["size_mb"] for v in results.of(PAIR)]
    assert len(set(sizes)) > 2 and sizes != sorted(sizes)
    alike = SimpleNamespace(values=np.ones((len(sizes), 1)))
    monkeypatch.setattr(verdicts, "measure", lambda results, some, name: alike)
    assert [results.cost[v]["size_mb"] for v in ranking.ranked(results, PAIR)] == sorted(sizes)


def test_of_those_that_cost_the_same_the_one_that_loses_fewest_guards_is_named(results, judged, monkeypatch):
    judged({"lora q4_0": 2.0, "full q4_0": 2.0})
    first = chosen(results)
    lost = decision.Guard("mmlu_accuracy", results.variants[0], Interval(-0.2, -0.3, -0.1, 0.05), 0.03, decision.LOST)
    monkeypatch.setattr(decision, "guards", lambda results, v, best: [lost] if _short(v) == first else [])
    assert chosen(results) != first


def test_of_one_size_the_fastest_is_named_though_another_is_a_little_better(results, judged, monkeypatch):
    judged({"full f16": 2.0, "lora f16": 2.0})
    better = chosen(results)
    fast = ({"full f16", "lora f16"} - {better}).pop()
    speed = "decode_tokens_per_second"
    monkeypatch.setattr(costs, "cheaper", lambda results, a, b, key: key == speed and _short(a) == fast != _short(b))
    assert chosen(results) == fast


def test_a_pareto_set_begins_with_what_can_be_recommended(results, judged):
    judged({"full f16": 8.0}, {"base q4_0": 0.1, "lora q4_0": 4.0})
    for cost in decision.WEIGHED:
        front = [_short(v) for v in decision.decide(results, PAIR).pareto[cost]]
        assert front[0] == "full f16"
        assert front[-1] == "base q4_0"  # nothing is cheaper


def test_a_difference_that_is_not_told_apart_puts_nothing_into_a_pareto_set(results, judged):
    judged({"full q4_0": 2.0}, {"base q4_0": 1.5, "lora q4_0": 1.2})
    assert [_short(v) for v in decision.decide(results, PAIR).pareto["size_mb"]] == ["full q4_0"]


def test_a_guard_is_kept_lost_or_unclear_by_its_whole_interval(results, monkeypatch):
    base, best = results.untouched(PAIR), named(results, "full f16")
    for found, word in (
        (Interval(-0.01, -0.02, 0.01, 0.01), decision.KEPT),
        (Interval(-0.2, -0.3, -0.1, 0.05), decision.LOST),
        (Interval(-0.03, -0.08, 0.02, 0.02), decision.UNCLEAR),
        (Interval(0.3, 0.2, 0.4, 0.05), decision.KEPT),
    ):
        says(monkeypatch, found)
        guard = next(g for g in decision.guards(results, best, best) if g.metric == "mmlu_accuracy")
        assert (guard.word, guard.against) == (word, base)


def test_a_guard_can_be_held_to_the_best(results, monkeypatch):
    best, other = named(results, "full f16"), named(results, "lora f16")
    monkeypatch.setattr(results, "decide", replace(results.decide, guards={"mmlu_accuracy": "best"}))
    assert decision.guards(results, best, best) == []
    assert [g.against for g in decision.guards(results, other, best)] == [best]


def test_what_no_guard_could_look_at_is_no_all_clear(tmp_path):
    lone = fake_results.finished(tmp_path, stages=[score], methods=["lora"], precisions=[], quants=["q4_0"])
    found = decision.decide(lone, PAIR)
    assert set(found.unchecked) == {"mmlu_accuracy", "general_loss"}
    assert "- **Loses**: not known. Not checked" in shown.section(lone)


def test_forgetting_is_a_guard_of_the_model_as_trained(results):
    best = named(results, "full q4_0")
    guard = next(g for g in decision.guards(results, best, best) if g.metric == "general_loss")
    assert guard.difference == results.compare(best.cell.variant("trained"), results.untouched(PAIR), "general_loss")
    assert guard.word == decision.LOST  # 0.4 nats of about one


def test_copying_is_beaten_by_more_than_the_margin_or_not_at_all(results, monkeypatch):
    best = ranking.ranked(results, PAIR)[0]
    margin = results.margin("test_f1", best)
    for low, beaten in ((margin + 0.01, True), (margin - 0.01, False), (-0.2, False)):
        found = Interval(low + 0.05, low, low + 0.1, 0.02)
        says(monkeypatch, found)
        assert decision.floor(results, best, "test_f1").beaten == beaten


def test_a_collapse_is_said(results, monkeypatch):
    variant = named(results, "full q4_0")
    mine = dict(results.columns[variant])
    assert not any("chosen for" in text for text in decision.warnings(results, variant, "test_f1"))
    asked = mine["split"] == "mmlu"
    for column, value, text in (
        ("chosen", 2.0, "C is chosen for 100% of the questions, and right for "),
        ("generated", "It grows.", "one and the same"),
        ("generated_tokens", 48.0, "60 of 60 were cut"),
    ):
        changed = mine[column].copy()
        changed[asked if column == "chosen" else mine["split"] == "test"] = value
        monkeypatch.setitem(results.columns, variant, mine | {column: changed})
        assert any(text in said for said in decision.warnings(results, variant, "test_f1"))
    monkeypatch.setattr(results, "too_long", lambda pair: (3, 60))
    assert any("3 of 60 expected ones are longer" in said for said in decision.warnings(results, variant, "test_f1"))


def test_right_answers_that_are_rare_under_a_fair_f1_are_said(results, monkeypatch):
    variant, values = named(results, "full q4_0"), results.values
    found = {"test_exact_match": [0.01], "test_f1": [0.6]}
    monkeypatch.setattr(results, "values", lambda v, name: found.get(name, values(v, name)))
    assert any("1.0% of them are exactly right" in said for said in decision.warnings(results, variant, "test_f1"))


def test_loss_and_f1_that_disagree_about_the_best_are_said(results, judged):
    judged({"lora f16": 1.0})
    variant = named(results, "full q4_0")
    assert any("by loss another one is best" in said for said in decision.warnings(results, variant, "test_f1"))
    assert any("by F1 another one is best" in said for said in decision.warnings(results, variant, "test_loss"))


def test_of_what_overlaps_none_that_is_told_apart_as_dearer_is_taken(results, judged, monkeypatch):
    """a overlaps b and c, and b is told apart from c: c is not as cheap as what is cheapest."""
    judged({"full f16": 1.0, "lora f16": 2.0, "lora q4_0": 3.0})
    apart = {("lora f16", "lora q4_0")}
    monkeypatch.setattr(costs, "cheaper", lambda results, a, b, key: (_short(a), _short(b)) in apart)
    for cost in decision.WEIGHED:
        assert _short(decision.decide(results, PAIR).pareto[cost][0]) != "lora q4_0"


def test_the_table_holds_names_and_numbers_that_a_gate_reads(results):
    found = decision.decide(results, PAIR)
    row = decision.table(results, [found])["demo-demo"]
    assert row["recommended"] == str(found.recommended)
    assert row["verdicts"][row["recommended"]]["verdict"] in ("good enough", "best found")
    assert set(row["verdicts"]) == set(map(str, results.variants))
    assert {row["verdicts"][front[0]]["verdict"] for front in row["pareto"].values()} <= {"good enough", "best found"}
    assert set(row["guards"]) == set(row["same_cost"])


def test_the_first_line_says_what_to_ship_and_that_copying_is_not_beaten(results, monkeypatch):
    ours = decision.decide(results, PAIR).recommended
    worse = decision.Floor("test_f1", 0.9, Interval(-0.3, -0.4, -0.2, 0.05), 0.02, False, True)
    unsure = decision.Floor("test_f1", 0.6, Interval(0.01, -0.02, 0.04, 0.05), 0.02, False, False)
    name = f"ship `{_short(ours)}`"
    for floor, line in (
        (None, f"{name}.**"),
        (worse, f"copying is better than all of these; of them, {name}.**"),
        (unsure, f"{name}, but it is not shown to beat copying.**"),
    ):
        monkeypatch.setattr(decision, "floor", lambda results, v, name, floor=floor: floor)
        text = shown.section(results)
        assert f"**demo on demo: {line}" in text
        assert "built-in" not in text  # a value of the template that is a method of its dict
        overview = "\n".join(shown.overview(results, [decision.decide(results, PAIR)]))
        assert (", not beaten" in overview) == (floor is not None)


def test_a_text_is_decided_by_its_loss_and_has_no_floor(tmp_path):
    run = {"models": ["demo"], "datasets": [fake_results.TEXT], "methods": ["base", "lora"]}
    text = fake_results.finished(tmp_path, stages=[score], precisions=[], quants=["q4_0"], **run)
    found = decision.decide(text, Pair("demo", fake_results.TEXT))
    assert (found.metric, found.floor) == ("test_loss", None)
    assert found.recommended.method == "lora"
