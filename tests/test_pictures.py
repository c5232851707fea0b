"""Pictures show no more than is known, and names beside points can be read as their own point's."""

from dataclasses import replace
from itertools import combinations

import fake_results
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from stages import score
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.pictures import heatmaps, labels, methods, scatter
from tradeoffs.results import decision, ranking
from tradeoffs.results.intervals import Interval


def test_labels_of_points_that_nearly_coincide_lie_each_on_its_own_side():
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    points = [(0.50, 0.500, "one", "#000000"), (0.50, 0.512, "two", "#111111"), (0.1, 0.1, "far", "#222222")]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels.label_last(figure, [(axes, points, [(x, y) for x, y, _, _ in points])])
    notes = {note.get_text(): note for note in axes.texts}
    assert notes["one"].xyann[1] <= 0 <= notes["two"].xyann[1], "the upper point's label is not below the lower one's"
    assert notes["one"].arrow_patch.get_edgecolor() != notes["two"].arrow_patch.get_edgecolor()


@pytest.mark.parametrize(
    ("ends", "crosses"),
    [(((0, 0), (2, 2), (0, 2), (2, 0)), True), (((0, 0), (2, 2), (0, 1), (0, 2)), False)],
)
def test_lines_that_cross_are_seen(ends, crosses):
    assert labels.cross(*(np.array(end) for end in ends)) is crosses


PAIR = Pair("demo", "demo")
DRAW = {"size_mb": scatter.quality_vs_size, "decode_tokens_per_second": scatter.quality_vs_speed}
POINT, RING = 38, 110  # sizes of marks


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    lists = {"methods": ["base", "full", "lora"], "precisions": ["nf4"], "quants": ["f16", "q8_0", "q4_0"]}
    return fake_results.finished(folder, stages=[score], **lists)


def marks(axes, size: int) -> list[tuple[float, float]]:
    """Where points, or rings, are drawn."""
    drawn = [group for group in axes.collections if isinstance(group, PathCollection) and group.get_sizes()[0] == size]
    return [tuple(place) for group in drawn for place in group.get_offsets().tolist()]


def variants(*names: str) -> list[Variant]:
    return [Variant("demo", "demo", *name.split()) for name in names]


@pytest.mark.parametrize("cost", DRAW)
def test_every_interval_in_a_close_up_is_whole_and_every_point_that_lies_in_it_is_there(results, cost):
    whole, near = DRAW[cost](results).axes[:2]
    (left, right), (low, high) = near.get_xlim(), near.get_ylim()
    bars = [bar for group in near.collections if isinstance(group, LineCollection) for bar in group.get_segments()]
    assert len(bars) == len(marks(near, POINT)) > 0
    for x, y in [*marks(near, POINT), *(end for bar in bars for end in bar)]:
        assert left < x < right and low < y < high
    inside = {(x, y) for x, y in marks(whole, POINT) if left <= x <= right and low <= y <= high}
    assert set(marks(near, POINT)) == inside
    assert right - left < np.diff(whole.get_xlim())[0]


def test_a_close_up_grows_until_no_interval_in_it_is_cut():
    best, rival, third, far, dear = variants("full q4_0", "lora q4_0", "qlora q4_0", "base q4_0", "full f16")
    ends = {best: (0.60, 0.64), rival: (0.58, 0.62), third: (0.55, 0.60), far: (0.1, 0.9), dear: (0.60, 0.64)}
    found = {v: Interval((low + high) / 2, low, high, 0.01) for v, (low, high) in ends.items()}
    found[far] = replace(found[far], value=0.2)
    costs = dict.fromkeys(found, 1.7) | {dear: 5.8}
    limits, inside = scatter._close_up({v: (costs[v], found[v].value) for v in found}, found, costs, [best])
    assert list(inside) == [best, rival, third], "a point outside has no bar in it"
    assert limits["ylim"][0] < 0.55 < 0.64 < limits["ylim"][1]


def test_what_costs_the_same_stands_side_by_side_and_nothing_changes_places():
    methods = ("base", "full", "lora", "qlora", "vblora")
    costs = dict.fromkeys(variants(*(f"{method} q4_0" for method in methods)), 1.7)
    costs |= dict.fromkeys(variants(*(f"{method} q4_k_m" for method in methods)), 1.78)
    ours, alone, nearly = variants("full q4_0", "lora trained", "full trained")
    costs |= {alone: 12.6, nearly: 12.7}
    at = scatter._apart(costs, [ours])
    for one, other in combinations(costs, 2):
        if costs[one] == costs[other]:
            assert at[one] != at[other]
        else:
            assert (at[one] < at[other]) == (costs[one] < costs[other]), (one, other)
    assert (at[ours], at[alone], at[nearly]) == (1.70, 12.6, 12.7)
    assert all(at[v] == pytest.approx(cost, rel=0.07) for v, cost in costs.items())


@pytest.mark.parametrize("cost", DRAW)
def test_a_ring_is_where_the_cost_of_its_variant_is(results, cost):
    front = decision.decide(results, PAIR).pareto[cost]
    for axes in DRAW[cost](results).axes[:2]:
        assert [x for x, _ in marks(axes, RING)] == [results.cost[v][cost] for v in front]


def test_the_points_of_the_pareto_set_are_named_and_the_first_recommended_where_its_cost_decides(results):
    first = decision.decide(results, PAIR).recommended
    label = scatter.quality_vs_size(results).axes[0].get_xlabel()
    assert f"Pareto set: 1 {first.method} {first.format} (recommended)" in label
    assert "(recommended)" not in scatter.quality_vs_speed(results).axes[0].get_xlabel()


def test_a_line_shows_where_copying_is(results):
    floor = results.interval(results.floor(PAIR), "test_f1").value
    for axes in scatter.quality_vs_size(results).axes[:2]:
        assert any(np.allclose(line.get_ydata(), floor) for line in axes.lines)


def test_methods_shows_what_each_can_what_it_took_and_what_it_takes(results):
    found = {axes.get_title(): axes for axes in methods.methods(results).axes if axes.get_title()}
    for name in ("F1", "cosine", "BERTScore"):
        assert len(found[name].containers) == 2 * len(results.as_trained(PAIR)), "test and seen of each"
    trained = [v for v in results.as_trained(PAIR) if v.method != "base"]
    for name, key in (
        ("training memory (MB)", "peak_memory_mb"),
        ("training time (s)", "train_seconds"),
        ("adapter size (MB)", "adapter_mb"),
    ):
        bars = [bar.get_width() for bar in found[name].patches]
        assert bars == [results.training[v.cell][key] for v in trained]
    for name, key in (("mean time of an answer (s)", "latency_mean_seconds"), ("model memory (MB)", "model_memory_mb")):
        assert [bar.get_width() for bar in found[name].patches] == [
            results.cost[v][key] for v in results.as_trained(PAIR)
        ]
    marks = [line.get_xdata() for line in found["mean time of an answer (s)"].lines]
    assert [list(one) for one in marks] == [
        [results.cost[v][f"latency_{end}_seconds"] for end in ("p50", "p95")] for v in results.as_trained(PAIR)
    ]


def test_multiple_choice_shows_what_the_tables_do(results):
    (axes,) = heatmaps.mmlu_subjects(results).axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    best = ranking.best_shipped(results, PAIR)
    formats = [f"{v.method} {v.format}" for v in results.of(PAIR, best) if v.format != "trained"]
    assert names == [*(f"{method} trained" for method in ("base", "full", "lora")), *formats]
