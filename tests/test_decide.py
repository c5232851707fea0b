"""`python -m tradeoffs.decide`: what it ships keeps every limit, by numbers of the files; what it left, it says why."""

import argparse
import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import fake_results
import numpy as np
import pytest
import quick_yaml
from sketches import sketched

from stages import aggregate, score
from tradeoffs import decide, metrics, params
from tradeoffs.common import files
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.params import Limits
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report import page
from tradeoffs.repro import ending
from tradeoffs.results import costs, decision, limits, verdicts
from tradeoffs.results.intervals import Interval
from tradeoffs.results.verdicts import UNFIT

REPO = Path(__file__).parents[1]
PAIR = Pair("demo", "demo")
RUN = {"methods": ["base", "full", "lora"], "precisions": ["bf16"], "quants": ["f16", "q8_0", "q4_0"]}
NO_OPTION = {"pair": None, "max_size_mb": None, "max_memory_mb": None, "min_tokens_per_second": None}
NO_OPTION |= {"max_loss_of": [], "runtime": None, "json": None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run up to `score`; tests read it only."""
    folder = tmp_path_factory.mktemp("decide")
    fake_results.finished(folder, items=60, stages=[score], **RUN)
    return folder


@pytest.fixture
def results(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return fake_results.read()


def limited(results, **some) -> decision.Decision:
    results.decide = replace(results.decide, limits=Limits(**some))
    return decision.decide(results, PAIR)


def named(results, name: str) -> Variant:
    return next(v for v in results.variants if f"{v.method} {v.format}" == name)


def rows(text: str) -> dict[str, str]:
    """The last cell of the rows below `Left, and why`, by their variants."""
    lines = text.partition("Left, and why")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[-1] for row in cells}


# --- what fits


@pytest.mark.parametrize("limit", [2.5, 4.0, 5.0, 8.0])
def test_what_fits_a_size_is_what_is_no_larger(results, limit):
    found = limited(results, max_size_mb=limit)
    assert set(found.fit) == {v for v in results.of(PAIR) if results.cost[v]["size_mb"] <= limit}
    assert found.recommended in found.fit
    assert {v for front in found.pareto.values() for v in front} <= set(found.fit)
    for v, verdict in found.standing.verdicts.items():
        assert (verdict.word == UNFIT) == (v not in found.fit)


def test_a_speed_and_a_memory_fit_only_if_the_worse_end_of_their_interval_does(results):
    quick = named(results, "full q8_0")
    speed, memory = (costs.interval(results, quick, key) for key in ("decode_tokens_per_second", "model_memory_mb"))
    assert speed.low < speed.value and memory.value < memory.high
    speed, memory = (Interval(**files.rounded(vars(one))) for one in (speed, memory))
    assert quick in limited(results, min_tokens_per_second=speed.low).fit
    assert quick not in limited(results, min_tokens_per_second=speed.value).fit
    assert quick in limited(results, max_memory_mb=memory.high).fit
    assert quick not in limited(results, max_memory_mb=memory.value).fit


def test_what_was_not_measured_does_not_fit_and_says_so(results, monkeypatch):
    silent = named(results, "full q4_0")
    monkeypatch.delitem(results.cost[silent], "decode_tokens_per_second")
    monkeypatch.delitem(results.costs.intervals[silent], "decode_tokens_per_second")
    found = limited(results, min_tokens_per_second=1.0)
    assert set(results.of(PAIR)) - set(found.fit) == {silent}
    assert decide.why_left(results, found, silent) == "decode speed not measured"
    row = decision.row(results, found)
    assert row["verdicts"][str(silent)]["beyond"] == {"min_tokens_per_second": "not measured"}


def test_a_runtime_is_a_limit(results):
    found = limited(results, runtime="llama.cpp")
    assert {v.format for v in found.fit} == {"f16", "q8_0", "q4_0"}
    left = decision.row(results, found)["verdicts"]["demo-demo-lora-bf16"]
    assert (left["verdict"], left["beyond"]) == (UNFIT, {"runtime": "transformers"})


@pytest.mark.parametrize("name", ["mmlu_accuracy", "general_loss"])
def test_a_loss_that_a_guard_holds_to_the_base_is_the_end_of_the_guards_interval(results, name):
    found = limited(results, max_loss_of={name: 0.1})
    base = results.untouched(PAIR)
    for v in results.of(PAIR):
        guard = next((g for g in found.guards[v] if g.metric == name), None)
        if guard is None:  # the base itself, or a form of it where only models as trained have the metric
            assert not found.missed[v]
            continue
        lost = -guard.difference.low if name == "mmlu_accuracy" else guard.difference.high
        lost /= 1 if name == "mmlu_accuracy" else float(results.values(base, name)[0])
        assert (v in found.fit) == (lost <= 0.1)
        assert found.missed[v].get(f"max_loss_of.{name}", 0.0) == pytest.approx(max(0.0, lost / 0.1 - 1), rel=1e-4)


@pytest.mark.parametrize("name", ["test_f1", "test_loss", "seen_exact_match"])
def test_any_other_loss_is_held_to_the_best_of_all_whatever_else_is_limited(results, name):
    order = results.of(PAIR)
    best = verdicts.standing(results, order, name)
    whole = abs(float(results.values(best.best, name)[0])) if metrics.metric(name)[1].better == "lower" else 1.0
    lost = {v: max(abs(one.difference.low), abs(one.difference.high)) / whole for v, one in best.verdicts.items()}
    limit = files.rounded(float(np.median(list(lost.values()))))
    alone = limited(results, max_loss_of={name: limit})
    assert set(alone.fit) == {v for v in order if files.rounded(lost[v]) <= limit}
    small = limited(results, max_loss_of={name: limit}, max_size_mb=5.0)
    assert set(small.fit) == {v for v in alone.fit if results.cost[v]["size_mb"] <= 5.0}


def test_a_number_that_is_written_like_its_limit_keeps_it(results):
    """0.3 - 0.15 is a little more than 0.15 in a float."""
    table = limited(results, max_loss_of={"mmlu_accuracy": 0.1}).candidates.table
    for some in table.limited.values():
        assert some.tolist() == [float(f"{one:.6g}") for one in some.tolist()]


def test_a_metric_without_a_margin_can_be_limited_too(results):
    assert not results.judged("test_bleu")
    assert 0 < len(limited(results, max_loss_of={"test_bleu": 30.0}).fit) < len(results.of(PAIR))


def test_a_loss_against_a_base_that_is_not_there_is_not_known(tmp_path, monkeypatch):
    lone = fake_results.finished(tmp_path, stages=[score], methods=["lora"], precisions=[], quants=["q4_0"])
    found = limited(lone, max_loss_of={"mmlu_accuracy": 0.5})
    assert found.recommended is None
    assert all(math.isinf(one["max_loss_of.mmlu_accuracy"]) for one in found.missed.values())


# --- the command


def test_without_limits_it_decides_as_the_report(finished, results, capsys, tmp_path):
    decide.main(**{**NO_OPTION, "json": tmp_path / "mine.json"})
    text = capsys.readouterr().out
    found = decision.decide(results, PAIR)
    assert text.startswith(f"**demo on demo: ship `{found.recommended.method} {found.recommended.format}`**")
    score_only = json.loads((tmp_path / "mine.json").read_text())
    aggregated = decision.table(results, [found])
    assert score_only["demo-demo"]["recommended"] == aggregated["demo-demo"]["recommended"]
    assert set(score_only["demo-demo"]) == set(aggregated["demo-demo"])
    assert "limits" not in score_only["demo-demo"]
    listed = [f"{v.method} {v.format}" for v in found.candidates.order if v != found.recommended]
    assert list(rows(text)) == listed


def test_each_that_was_left_says_why(results, capsys):
    decide.main(**{**NO_OPTION, "max_size_mb": 5.0, "max_loss_of": [("mmlu_accuracy", 0.2)]})
    text = capsys.readouterr().out
    found = limited(results, max_size_mb=5.0, max_loss_of={"mmlu_accuracy": 0.2})
    left = rows(text)
    assert left["full f16"].startswith("size 7.3 MB (46 % over)")
    assert "- Limits: size at most 5 MB; loss of mmlu_accuracy at most 0.2. " in text
    for v, verdict in found.standing.verdicts.items():
        if v != found.recommended and not found.missed[v] and v not in found.passed_over:
            assert verdict.word in left[f"{v.method} {v.format}"]
    assert all(left.values())


def test_where_nothing_fits_the_nearest_miss_is_said_and_the_exit_is_1(results, capsys, tmp_path):
    with pytest.raises(UserError, match=r"nothing keeps the limits: demo-demo \(nearest: demo-demo-lora-q4_0\)"):
        decide.main(**{**NO_OPTION, "max_size_mb": 1.0, "json": tmp_path / "mine.json"})
    text = capsys.readouterr().out
    assert text.startswith(
        "**demo on demo: nothing keeps the limits; nearest is `lora q4_0`**: size 2.3 MB (130 % over)"
    )
    assert "- size at most 1 MB: missed by 15 of 15, nearest lora q4_0: size 2.3 MB (130 % over)" in text
    row = json.loads((tmp_path / "mine.json").read_text())["demo-demo"]
    assert "recommended" not in row
    assert (row["nearest_miss"], row["fit"]) == ("demo-demo-lora-q4_0", 0)
    assert row["verdicts"]["demo-demo-lora-q4_0"]["beyond"] == {"max_size_mb": 1.3}


def test_a_runtime_is_data(results, monkeypatch):
    """It is read from the facts of a variant, which somebody else may have made."""
    for v in results.of(PAIR):
        monkeypatch.setitem(results.facts[v], "runtime", "<b>x</b> | y")
    found = limited(results, runtime="llama.cpp")
    text = "\n".join(decide.shown(results, found))
    assert found.recommended is None and "<b>" not in text
    assert "runs on &lt;b&gt;x&lt;/b&gt; &#124; y" in text


def test_an_option_takes_the_place_of_one_limit_and_none_lifts_it():
    old = Limits(max_size_mb=4.0, max_loss_of={"test_f1": 0.1, "mmlu_accuracy": 0.2}, runtime="llama.cpp")
    single = {"max_size_mb": "none", "max_memory_mb": 50.0, "min_tokens_per_second": None, "runtime": None}
    found = decide.replaced(old, single, [("test_f1", "none"), ("test_loss", 0.3)])
    losses = {"mmlu_accuracy": 0.2, "test_loss": 0.3}
    assert found == Limits(max_memory_mb=50.0, max_loss_of=losses, runtime="llama.cpp")
    assert decide.replaced(old, {"runtime": "none"}, []).runtime is None
    assert decide.replaced(Limits(), {}, []) == Limits()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair": "demo-demmo"}, r"demo-demmo: no model and data set .*\(did you mean demo-demo\?\)"),
        ({"runtime": "lama.cpp"}, r"no runtime 'lama.cpp' \(did you mean llama.cpp\?\)"),
        ({"max_loss_of": [("mmlu_acuracy", 0.1)]}, r"no metric 'mmlu_acuracy' .*\(did you mean mmlu_accuracy\?\)"),
        ({"max_loss_of": [("kld", 0.1)]}, r"no metric 'kld' that can have a limit"),
    ],
)
def test_a_name_that_there_is_none_of_has_a_near_match(results, change, message):
    with pytest.raises(UserError, match=message):
        decide.main(**{**NO_OPTION, **change})


@pytest.mark.parametrize("text", ["-1", "0", "nan", "inf", "four", ""])
def test_a_limit_is_a_number_above_0(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no number above 0"):
        decide.number(text)


def test_a_loss_names_its_metric():
    assert decide.loss("test_f1=0.1") == ("test_f1", 0.1)
    assert decide.loss("test_f1=none") == ("test_f1", "none")
    with pytest.raises(argparse.ArgumentTypeError, match="is not METRIC=Y"):
        decide.loss("0.1")


# --- params.yaml


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"max_sizemb": 3}, "decide.limits.max_sizemb: unknown key (did you mean max_size_mb?)"),
        ({"max_size_mb": 0}, "decide.limits.max_size_mb: must be above 0, is 0"),
        ({"runtime": "llama"}, "decide.limits.runtime: unknown value 'llama' (did you mean llama.cpp?)"),
        (
            {"max_loss_of": {"mmlu": 0.1}},
            "decide.limits.max_loss_of.mmlu: no metric that can have a limit (there are: ",
        ),
        (None, "decide.limits: must be a block of keys, is empty"),
    ],
)
def test_a_wrong_limit_in_params_is_named(tmp_path, block, message):
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    raw["decide"]["limits"] = block
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    with pytest.raises(UserError) as caught:
        params.load_all(tmp_path / "params.yaml")
    assert message in str(caught.value)


# --- the report


@pytest.fixture(scope="module")
def aggregated(tmp_path_factory):
    """A whole run with limits that something keeps, and one with limits that nothing does."""
    found = {}
    for name, block in (("some", {"max_size_mb": 5.0}), ("none", {"max_size_mb": 1.0, "runtime": "llama.cpp"})):
        folder = tmp_path_factory.mktemp(name)
        # With nothing that fits, pictures have no Pareto set: these are painted.
        with pytest.MonkeyPatch.context() as patch, sketched() if name == "some" else nullcontext():
            fake_results.params_file(folder, REPO / "params.yaml", **RUN)
            raw = quick_yaml.load((folder / "params.yaml").read_text())
            raw["decide"]["limits"] = block
            (folder / "params.yaml").write_text(quick_yaml.dump(raw))
            patch.chdir(folder)
            fake_results.write(folder, params.load_all().run, items=20, questions=5)
            score.main()
            aggregate.main()
        found[name] = folder
    return found


SLOW_FIXTURES = {"aggregated"}  # read by conftest.py


def test_a_report_with_limits_says_them_and_ships_what_keeps_them(aggregated, monkeypatch, capsys):
    monkeypatch.chdir(aggregated["some"])
    row = json.loads(Path("metrics/decision.json").read_text())["demo-demo"]
    assert row["limits"] == {"max_size_mb": 5.0}
    assert row["fit"] == sum("beyond" not in one for one in row["verdicts"].values())
    assert json.loads(Path("metrics/cost.json").read_text())[row["recommended"]]["size_mb"] <= 5.0
    text = Path("report/report.md").read_text()
    assert f"- **Limits** (`decide.limits`): size at most 5 MB. {row['fit']} of 15 variants keep them" in text
    assert "beyond a limit" in text
    assert "**Limits** (`decide.limits`): size at most 5 MB." in Path("report/reading.md").read_text()
    decide.main(**{**NO_OPTION, "json": aggregated["some"] / "mine.json"})
    assert json.loads(Path("mine.json").read_text())["demo-demo"] == row
    ours = Variant.parse(row["recommended"])
    assert capsys.readouterr().out.startswith(f"**demo on demo: ship `{ours.method} {ours.format}`**")


def test_a_report_of_which_nothing_fits_says_so_and_what_is_nearest(aggregated, monkeypatch):
    monkeypatch.chdir(aggregated["none"])
    row = json.loads(Path("metrics/decision.json").read_text())["demo-demo"]
    assert "recommended" not in row and row["nearest_miss"].endswith("-q4_0")
    assert row["pareto"] == {key: [] for key in decision.WEIGHED}
    nearest = Variant.parse(row["nearest_miss"])
    first = f"**demo on demo: nothing keeps the limits; nearest is `{nearest.method} {nearest.format}`: size 2.3 MB"
    for path in ("report/summary.md", "report/report.md"):
        text = Path(path).read_text()
        assert first in text
        assert "ship `" not in text
    front = Path("report/report.md").read_text()
    assert f"nearest miss: `{nearest.method} {nearest.format}`" in front or "nearest miss, best found" in front
    assert sorted(path.name for path in Path("plots").glob("quality_vs_*.png"))
    lines = ending.lines(ending.read(), params.load_all())
    assert lines[0].startswith("demo on demo: nothing keeps the limits (`decide.limits`); nearest is ")
    assert any("`decide.limits`, which nothing keeps" in line for line in lines)
    assert len(lines) <= 10


def test_the_overview_of_several_says_which_nothing_fits(aggregated, monkeypatch):
    monkeypatch.chdir(aggregated["none"])
    results = fake_results.read()
    found = page.decision.decision.decide(results, PAIR)
    assert "nothing fits; nearest: `" in "\n".join(page.decision.overview(results, [found]))


def test_of_each_limit_alone_it_is_said_how_many_miss_it_and_who_is_nearest(results):
    table = decision.candidates(results, PAIR, ["mmlu_accuracy"]).table
    places = {name.split("-", 2)[2]: place for place, name in enumerate(table.names)}
    losses = np.full(len(table.names), np.nan)
    losses[places["lora-bf16"]], losses[places["lora-q8_0"]] = 0.3, 0.2
    table = replace(table, limited=table.limited | {"max_loss_of.mmlu_accuracy": losses})
    small = sum(limit <= 4.0 for limit in table.limited["max_size_mb"])
    asked = {"max_size_mb": 4.0, "max_loss_of.mmlu_accuracy": 0.1, "runtime": "llama.cpp"}
    one, two, three = limits.each(table, asked)
    least = min(found for found in table.limited["max_size_mb"] if found > 4.0)
    assert one.startswith(f"size at most 4 MB: missed by {15 - small} of 15, nearest ")
    assert f": size {least:g} MB (" in one
    assert two == (
        "loss of mmlu_accuracy at most 0.1: missed by 15 of 15, not measured of 13, nearest lora q8_0: loss of "
        "mmlu_accuracy up to 0.2 (100 % over)"
    )
    assert three == f"runtime llama.cpp: missed by {sum(one != 'llama.cpp' for one in table.runtime)} of 15"
    assert limits.each(table, {"max_size_mb": 400.0}) == ["size at most 400 MB: missed by none of 15"]
    there = np.arange(15) > 3
    absent = "4 of 15 do not run on the device that is decided for"
    assert limits.each(replace(table, there=there), {"max_size_mb": 400.0})[1] == absent


def test_limits_are_said_with_their_units():
    asked = Limits(max_size_mb=2048.0, min_tokens_per_second=12.5, max_loss_of={"test_loss": 0.05, "test_f1": 0.01})
    assert limits.said(limits.flat(asked)) == [
        "size at most 2,048 MB",
        "decode speed at least 12.5 tokens/s",
        "loss of test_loss at most 5 %",
        "loss of test_f1 at most 0.01",
    ]
