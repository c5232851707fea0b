"""The page in a browser: it asks for nothing, decides as Python does, and no text of the results does anything in it.

Skipped only where there is no Chromium; Playwright's library drives it, and downloads none.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import chromium
import fake_results
import hostile
import numpy as np
import pytest
import test_choice

from stages import score
from tradeoffs import metrics, params
from tradeoffs.common.cells import Variant
from tradeoffs.common.texts import harmless
from tradeoffs.decide import loss as loss_of
from tradeoffs.explore import making, packing, writing
from tradeoffs.report.formatting import cost_of, guard_label, quality_of
from tradeoffs.results import decision, limits

SETTINGS = 20
WAIT = 20_000  # ms until something that must come is taken for missing
pytestmark = [pytest.mark.slow, chromium.NEEDED]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The results of one model on a data set with questions and on a text, and the folder they are in."""
    folder = tmp_path_factory.mktemp("run")
    lists = {"methods": ["base", "full", "lora", "vblora"], "datasets": ["demo", "stories"], "seeds": [42, 43]}
    return fake_results.finished(
        folder, items=40, stages=(score,), **lists, precisions=["bf16", "nf4"], quants=["q8_0", "q4_0"]
    ), folder


def written(results, folder: Path, name: str) -> Path:
    shown = making.contents(results, results.groups(), seed=42)
    (folder / name).write_text(writing.page(shown, "0" * 64), encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def page_file(run):
    return written(*run, "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium.launched() as found:
        yield found


class Tab:
    """An open page, what it asked for and what it complained of."""

    def __init__(self, browser, path: Path, **context):
        self.requests: list[str] = []
        self.said: list[str] = []
        self.page = browser.new_context(**context).new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("performance.getEntriesByName('rendered').length")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def tab(browser, page_file, request) -> Iterator[Tab]:
    found = Tab(browser, page_file, **getattr(request, "param", {}))
    yield found
    assert found.requests == [page_file.as_uri()]
    assert found.said == []
    found.page.context.close()


def pick(tab: Tab, **limit: str) -> None:
    for name, value in limit.items():
        tab.page.select_option(f"#limit-{name}", value)


def fill(tab: Tab, name: str, value: float | None) -> None:
    tab.page.locator(f"[id='limit-{name}']").fill("" if value is None else repr(value))


def settings(table) -> list[dict]:
    """Random limits, each between what nothing keeps and what everything does, two of five of them at a time or so."""
    luck, found = np.random.default_rng(5), []
    for _ in range(SETTINGS):
        one: dict[str, float | str] = {}
        for name in table.limited:
            known = table.limited[name][np.isfinite(table.limited[name])]
            if luck.random() < 0.25 and len(known) and known.max() > 0:
                one[name] = float(luck.choice(known[known > 0]) * luck.uniform(0.9, 1.1))
        if luck.random() < 0.3:
            one["runtime"] = str(luck.choice(table.runtime))
        found.append(one)
    return found


def as_limits(chosen: dict) -> params.Limits:
    losses = {name.removeprefix(limits.LOSS): most for name, most in chosen.items() if name.startswith(limits.LOSS)}
    return params.Limits(
        **{k: v for k, v in chosen.items() if not k.startswith(limits.LOSS)}, max_loss_of=losses or None
    )


def test_limits_change_the_decision_as_python_decides(tab, run):
    results, pair = run[0], run[0].groups()[0]
    rules, names = results.decide, making.data._losses(results, pair)
    every, decided = settings(decision.candidates(results, pair, names).table), []
    tab.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for number, chosen in enumerate(every):
        cost = decision.WEIGHED[number % len(decision.WEIGHED)]
        tab.page.click("#unlimited")
        tab.page.select_option("#cost", cost)
        for name, limit in chosen.items():
            pick(tab, runtime=limit) if name == "runtime" else fill(tab, name, limit)
        results.decide = replace(rules, limits=as_limits(chosen), cost=cost)
        try:
            found = decision.decide(results, pair)
        finally:
            results.decide = rules
        assert tab.page.get_attribute("#answer", "data-recommended") == str(found.recommended or "")
        if found.recommended is None:
            assert f"{found.nearest.method} {found.nearest.format}" in tab.text("#answer")
            frontier = ["nothing that fits"]
        else:
            frontier = [f"{v.method} {v.format}" for v in found.pareto[cost][1:]] or ["nothing that fits"]
        assert [line.split(":")[0] for line in tab.texts("#frontier li")] == frontier
        decided.append(found.recommended)
    assert len(set(decided)) > 4 and None in decided, "the settings are of different kinds"


LENIENT = {"exact_match": 0.9, "loss": 0.001, "f1": 0.001, "mmlu_accuracy": 0.001}  # much can be taken, little kept


def test_guards_that_are_lost_are_those_of_python_under_any_limits(browser, run, tmp_path):
    """One guard is held to the best of what fits, so what is lost depends on the limits."""
    results, rules, pair = run[0], run[0].decide, run[0].groups()[0]
    guards = {"mmlu_accuracy": "base", "test_loss": "best", "test_f1": "best"}
    held = replace(rules, metric="test_exact_match", guards=guards, margins={**rules.margins, **LENIENT})
    results.decide, seen = held, set()
    try:
        tab = Tab(browser, written(results, tmp_path, "page.html"))
        tab.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        names = making.data._losses(results, pair)
        for number, chosen in enumerate(settings(decision.candidates(results, pair, names).table)[:8]):
            cost = decision.WEIGHED[number % len(decision.WEIGHED)]
            results.decide = replace(held, limits=as_limits(chosen), cost=cost)
            found = decision.decide(results, pair)
            results.decide = held
            tab.page.click("#unlimited")
            tab.page.select_option("#cost", cost)
            for name, limit in chosen.items():
                pick(tab, runtime=limit) if name == "runtime" else fill(tab, name, limit)
            if not found.recommended:
                continue
            lost = [guard.metric for guard in found.guards[found.recommended] if guard.word == decision.LOST]
            labels = [guard_label(results, name, pair.dataset) for name in lost]
            said = tab.text("#answer").partition("worse beyond its margin: ")[2].partition(";")[0].partition("\n")[0]
            assert said.rstrip(".") == ", ".join(labels)
            seen.add(tuple(lost))
    finally:
        results.decide = rules
    tab.page.context.close()
    assert {(), ("test_loss", "test_f1")} <= seen


def test_a_table_is_unpacked_as_it_was(browser):
    luck, page = np.random.default_rng(8), browser.new_page()
    for _ in range(40):
        table = test_choice.drawn(luck)
        count = len(table.names)
        lost = {f"guard {place}": luck.random((count, count if place else 1)) < 0.4 for place in range(3)}
        table = replace(table, lost=sum(np.broadcast_to(one, (count, count)).astype(int) for one in lost.values()))
        unpack = (writing.FOLDER / "js/unpack.js").read_text(encoding="utf-8")
        again = page.evaluate(f"(table) => {{ {unpack}; return unpacked(table); }}", packing.packed(table, lost))
        guards = again.pop("guards")
        assert again == table.as_json()
        for guard, (name, rows) in zip(guards, lost.items(), strict=True):
            assert guard == {"guard": name, "lost": np.broadcast_to(rows, (count, count)).astype(int).tolist()}
    page.close()


def test_what_is_no_number_above_0_is_said_and_the_limit_before_it_stays(tab):
    tab.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    fill(tab, "max_size_mb", 4.5)
    before = tab.page.get_attribute("#answer", "data-recommended"), tab.page.text_content("#command")
    field, wrong = tab.page.locator("#limit-max_size_mb"), tab.page.locator("#limit-max_size_mb-wrong")
    for typed in ("0", "-5", "1e999"):
        field.fill("")
        fill(tab, "max_size_mb", 4.5)
        field.select_text()
        field.press_sequentially(typed)
        assert wrong.inner_text() == f"Not a number above 0; still {'1e99' if typed == '1e999' else 4.5} MB.".replace(
            "1e99", "1e+99"
        )
        assert not field.evaluate("field => field.checkValidity()") and field.get_attribute("aria-invalid") == "true"
        if typed != "1e999":  # before its last letter it is a limit
            assert (tab.page.get_attribute("#answer", "data-recommended"), tab.page.text_content("#command")) == before
    fill(tab, "max_size_mb", 3.0)
    assert wrong.inner_text() == "" and field.evaluate("field => field.checkValidity()")
    loss = "max_loss_of.mmlu_accuracy"
    fill(tab, loss, 0)
    assert tab.text(f"[id='limit-{loss}-wrong']") == "Not a number above 0; still no limit."
    with pytest.raises(argparse.ArgumentTypeError, match="no number above 0"):  # the command says the same
        loss_of("mmlu_accuracy=0")


def test_a_slider_does_what_its_field_does_and_says_so(tab):
    slider = tab.page.locator("#limits input[type=range]").first
    before = tab.page.get_attribute("#answer", "data-recommended")
    slider.focus()
    tab.page.keyboard.press("Home")
    smallest = tab.page.input_value("#limit-max_size_mb")
    assert slider.get_attribute("aria-valuetext") == f"{smallest} MB"
    assert "q4_0" in tab.page.get_attribute("#answer", "data-recommended") != before
    tab.page.keyboard.press("End")
    assert tab.page.get_attribute("#answer", "data-recommended") == before
    assert slider.get_attribute("aria-valuetext") == "no limit"


def test_the_command_asks_python_the_same(tab):
    fill(tab, "max_size_mb", 4.5)
    pick(tab, runtime="llama.cpp")
    command = tab.page.text_content("#command").replace("\\\n", "").split()
    assert command == [
        *("python", "-m", "tradeoffs.decide", "--pair", "demo-demo"),
        *("--max-size-mb", "4.5", "--runtime", "llama.cpp"),
    ]


def test_numbers_are_written_as_the_report_writes_them(tab, run):
    results, pair = run[0], run[0].groups()[0]
    tab.page.locator("#columns input:not(:checked)").evaluate_all("all => all.forEach((one) => one.click())")
    names = [one.removeprefix("sort-") for one in tab.page.locator("#table thead button").evaluate_all(IDS)]
    rows = tab.page.locator("#table tbody tr").evaluate_all(CELLS)
    rows = {cells[0]: dict(zip(names, cells, strict=True)) for cells in rows}
    checked = set()
    for v in results.of(pair):
        for name, said in rows[f"{v.method} {v.format}"].items():
            if name in results.cost_labels:
                assert said == cost_of(results, v, name, bounds=True), (v, name)
            elif name in metrics.names("quality") and results.has(v, name):
                found = results.interval(v, name)
                expected = quality_of(results, v, name)
                assert said == (expected if found.low < found.high else expected.partition(" ")[0]), (v, name)
            else:
                continue
            checked.add(name)
    assert {"size_mb", "decode_tokens_per_second", "test_loss", "test_exact_match", "mmlu_accuracy"} <= checked


IDS = "all => all.map(one => one.id)"
CELLS = "all => all.map(row => [...row.children].map(one => one.textContent))"


def test_how_far_a_limit_is_missed_is_said_as_the_command_says_it(tab, run):
    results, rules = run[0], run[0].decide
    fastest = max(results.cost[v]["decode_tokens_per_second"] for v in results.of(results.groups()[0]))
    limit = round(1.3 * fastest)
    results.decide = replace(rules, limits=params.Limits(min_tokens_per_second=limit))
    try:
        found = decision.decide(results, results.groups()[0])
    finally:
        results.decide = rules
    fill(tab, "min_tokens_per_second", limit)
    place = found.candidates.order.index(found.shown)
    said = limits.misses(found.candidates.table, place, found.missed[found.shown])
    (part,) = re.findall(r"\((.*) under\)", said[0])
    assert f"beyond by {part}." in tab.text("#answer")


def test_the_guards_have_a_limit_that_is_seen_and_no_limit_is_cut_off(tab, run):
    for guard in run[0].decide.guards:
        assert tab.page.locator(f"#limits [id='limit-max_loss_of.{guard}']").is_visible()
    tab.page.evaluate("document.querySelectorAll('.limits details').forEach((one) => (one.open = true))")
    assert tab.page.evaluate("(([one]) => one.scrollHeight <= one.clientHeight)(document.querySelectorAll('.limits'))")


@pytest.mark.parametrize("tab", [{"viewport": {"width": width, "height": 900}} for width in (1280, 390)], indirect=True)
def test_no_point_hides_another_and_the_page_says_how(tab, run):
    tab.page.wait_for_selector("#scatter svg")
    boxes = tab.page.locator("#scatter svg .mark-symbol.role-mark").evaluate_all(POINTS)
    assert len(boxes) == len(run[0].of(run[0].groups()[0]))
    for number, (x, y) in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert max(abs(x - other[0]), abs(y - other[1])) > 3, "one lies on the other"
    assert "stand side by side" in tab.text("#scatter-text")


# The middles of the points in the layer with most of them; the others are rings around some.
POINTS = """layers => layers.map((layer) => [...layer.querySelectorAll("path")].map((one) => {
  const box = one.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})).sort((one, other) => other.length - one.length)[0]"""


def test_answers_begin_with_what_ships_and_the_best_of_another_tuned_method(tab):
    first = tab.page.get_attribute("#answer", "data-recommended")
    mine = [tab.page.input_value(f"#beside-{place}") for place in range(3)]
    methods = [name.split("-")[2] for name in mine[:2]]
    assert mine[0] == first and mine[2] == ""
    assert methods[0] != methods[1] and "base" not in methods


@pytest.mark.parametrize("tab", [{"viewport": {"width": 390, "height": 900}}], indirect=True)
def test_on_a_telephone_the_names_stay_and_it_is_seen_that_the_table_goes_on(tab):
    box = tab.page.locator("#variants .wide")
    marked = "one => getComputedStyle(one).maskImage !== 'none'"
    tab.page.wait_for_function("document.querySelector('#variants .wide').classList.contains('more')")
    assert box.evaluate(marked) and "scroll sideways" in tab.text("#table-text")
    name, head = box.locator("tbody th").first, box.locator("thead th").first
    before = name.bounding_box()["x"], head.bounding_box()["x"]
    box.evaluate("one => one.scrollTo(one.scrollWidth, 0)")
    tab.page.wait_for_function("!document.querySelector('#variants .wide').classList.contains('more')")
    assert not box.evaluate(marked)
    assert (name.bounding_box()["x"], head.bounding_box()["x"]) == before


def test_the_table_sorts_filters_and_hides(tab):
    rows = tab.page.locator("#table tbody tr")
    everything = rows.count()
    tab.page.click("#sort-size_mb")
    place = tab.texts("#table thead th button").index("size MB") + 1
    for order in ("ascending", "descending"):
        assert tab.page.get_attribute("th:has(#sort-size_mb)", "aria-sort") == order
        values = [float(text.split()[0]) for text in tab.texts(f"#table tbody tr > :nth-child({place})")]
        assert values == sorted(values, reverse=order == "descending") and len(values) == everything
        tab.page.click("#sort-size_mb")
    tab.page.fill("#words", "lora q4_0")
    assert set(tab.texts("#table tbody th")) == {"lora q4_0", "vblora q4_0"}
    tab.page.fill("#words", "")
    fill(tab, "max_size_mb", 3.0)
    tab.page.check("#only-fits")
    assert 0 < rows.count() < everything
    tab.page.click("text=Columns")
    tab.page.uncheck("#column-size_mb")
    assert tab.page.locator("#sort-size_mb").count() == 0


def test_a_part_of_the_picture_that_is_selected_is_what_the_table_has(tab, run):
    rows, box = tab.page.locator("#table tbody tr"), tab.page.locator("#scatter svg").bounding_box()
    everything = rows.count()
    tab.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 300, steps=4)
    tab.page.mouse.up()
    tab.page.wait_for_function(f"document.querySelectorAll('#table tbody tr').length < {everything}")
    low = float(tab.page.input_value("#window-across-0"))
    some = {v for v in run[0].of(run[0].groups()[0]) if run[0].cost[v]["size_mb"] >= low}
    assert 0 < rows.count() <= len(some)
    tab.page.click("#whole")
    assert rows.count() == everything
    tab.page.click("#window summary")
    tab.page.fill("#window-across-1", "3")
    assert rows.count() == sum(run[0].cost[v]["size_mb"] <= 3 for v in run[0].of(run[0].groups()[0]))


def test_any_quality_is_drawn_against_any_cost(tab):
    for up in tab.page.locator("#up option").evaluate_all("all => all.map(one => one.value)"):
        tab.page.select_option("#up", up)
    for across in tab.page.locator("#across option").evaluate_all("all => all.map(one => one.value)"):
        tab.page.select_option("#across", across)
        tab.page.uncheck("#logarithmic")
        tab.page.check("#logarithmic")
    across = tab.page.locator("#across option:checked").inner_text()
    tab.page.wait_for_function(f"document.querySelector('#scatter svg').textContent.includes({across!r})")
    assert across in tab.text("#scatter-text")


def test_answers_stand_side_by_side_only_where_they_differ(tab, run):
    results = run[0]
    ours, base = (Variant("demo", "demo", method, "trained") for method in ("full", "base"))
    for place, name in enumerate([str(ours), str(base), ""]):
        tab.page.select_option(f"#beside-{place}", name)
    mine, theirs = (making.items.answers.asked(results, v) for v in (ours, base))
    differ = [(one, other) for one, other in zip(mine, theirs, strict=True) if one.generated != other.generated]
    assert f"of {len(differ)} questions shown" in tab.text("#items-text")
    first = [text.strip() for text in tab.texts("#items article:first-child .said")]
    expected = [differ[0][0].question, differ[0][0].expected, differ[0][0].generated, differ[0][1].generated]
    assert first == [text or "(empty)" for text in expected]
    assert tab.page.locator("#items article").count() == 10
    tab.page.click("#more-items")
    assert tab.page.locator("#items article").count() == 20
    tab.page.fill("#find", differ[3][0].question.upper())
    assert differ[3][0].question in tab.texts("#items article .said")


def test_another_pair_is_shown_whole_and_a_text_has_no_answers(tab):
    tab.page.select_option("#pair", "demo-stories")
    assert tab.text("h1").startswith("demo on stories")
    assert "loss" in tab.text("#answer")
    assert not tab.page.is_visible("#items-section") and not tab.page.is_visible("#subjects-section")
    tab.page.select_option("#pair", "demo-demo")
    assert tab.page.is_visible("#items-section") and tab.page.is_visible("#subjects-section")


def test_the_ladder_of_a_method_is_drawn_and_listed(tab):
    tab.page.select_option("#ladder-method", "lora")
    tab.page.select_option("#ladder-measure", label="KLD")
    assert tab.texts("#ladder-table tbody th") == ["bf16", "nf4", "q8_0", "q4_0"]
    tab.page.wait_for_function("document.querySelector('#ladder svg').textContent.includes('KLD')")


def test_everything_is_reached_by_the_keyboard_alone(tab):
    page, reached = tab.page, []
    # More questions than are shown at once; a click on the box would move where the Tab key begins.
    page.locator("#only-differ").evaluate("one => { one.checked = false; one.dispatchEvent(new Event('input')); }")
    for _ in range(150):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "[document.activeElement.id, document.activeElement.tagName, document.activeElement.type]"
        )
        if found[1] == "BODY":
            break
        reached.append(found[0] or found[2] or found[1])
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"{found} does not show that it has the focus"
    wanted = {"pair", "limit-max_size_mb", "range", "limit-runtime", "cost", "committed", "unlimited", "up", "across"}
    wanted |= {"logarithmic", "words", "only-fits", "intervals", "copy", "sort-size_mb", "ladder-method", "subjects-of"}
    assert wanted | {"beside-0", "only-differ", "find", "more-items"} <= set(reached)
    page.focus("#sort-size_mb")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "sort-size_mb"
    assert page.get_attribute("th:has(#sort-size_mb)", "aria-sort") == "ascending"


def test_what_can_be_operated_has_a_name_and_the_decision_is_announced(tab):
    nameless = tab.page.evaluate(
        """[...document.querySelectorAll('input, select, textarea, button')].filter((one) =>
        !one.labels?.length && !one.getAttribute('aria-label') && !one.textContent.trim())
        .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert tab.page.get_attribute("#answer", "aria-live") == "polite"
    for picture in ("#scatter", "#ladder"):
        assert tab.page.get_attribute(picture, "role") == "img" and tab.page.get_attribute(picture, "aria-label")
        assert tab.text(f"{picture}-text")


SIZES = [
    pytest.param({"viewport": {"width": width, "height": 900}, "color_scheme": scheme}, id=f"{width} {scheme}")
    for width in (1280, 390)
    for scheme in ("light", "dark")
]


@pytest.mark.parametrize("tab", SIZES, indirect=True)
def test_nothing_is_wider_than_the_screen_and_all_is_legible_in_both_schemes(tab):
    assert tab.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    contrasts = tab.page.evaluate(chromium.CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts  # WCAG 2.2, 1.4.3


def test_the_limits_of_params_yaml_come_first_and_can_be_lifted(browser, run, tmp_path):
    results, rules = run[0], run[0].decide
    results.decide = replace(rules, limits=params.Limits(max_size_mb=4.5, runtime="llama.cpp"), cost="model_memory_mb")
    try:
        tab = Tab(browser, written(results, tmp_path, "page.html"))
        found = decision.decide(results, results.groups()[0])
    finally:
        results.decide = rules
    assert tab.page.get_attribute("#answer", "data-recommended") == str(found.recommended)
    assert tab.page.input_value("#limit-max_size_mb") == "4.5"
    assert tab.page.input_value("#limit-runtime") == "llama.cpp"
    tab.page.click("#unlimited")
    assert "--max-size-mb none" in tab.page.text_content("#command")
    tab.page.click("#committed")
    assert tab.page.get_attribute("#answer", "data-recommended") == str(found.recommended)
    tab.page.context.close()


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory):
    """A page of results in which every text from outside does harm where it is not taken for text."""
    folder = tmp_path_factory.mktemp("hostile")
    results = fake_results.finished(
        folder,
        items=len(hostile.HOSTILE),
        stages=(score,),
        methods=["base", "lora"],
        datasets=["demo"],
        precisions=[],
        quants=["q4_0"],
    )
    for number, variant in enumerate(results.variants):
        mine = results.columns[variant]
        for name, first in (("prompt", 0), ("answer", 1), ("generated", 2 + number)):
            places = np.flatnonzero(mine["split"] == "test")
            mine[name] = mine[name].copy()
            mine[name][places] = [
                hostile.HOSTILE[(place + first) % len(hostile.HOSTILE)] for place in range(len(places))
            ]
        mine["subject"] = np.array([one and f"{one}{hostile.HOSTILE[3]}" for one in mine["subject"]], object)
        results.facts[variant]["runtime"] = hostile.HOSTILE[number % 3]
    return written(results, folder, "page.html")


def test_no_text_of_the_results_does_anything(browser, hostile_file):
    tab = Tab(browser, hostile_file)
    page = tab.page
    page.uncheck("#only-differ")
    while page.is_visible("#more-items"):
        page.click("#more-items")
    asked = page.locator("#items article > .block:first-child .said").evaluate_all(
        "all => all.map(one => one.textContent)"
    )
    shown = [harmless(text) for text in hostile.HOSTILE]
    assert asked == [making.items._short(text) if text.strip() else "(empty)" for text in shown]
    assert page.locator("main :is(img, script, iframe, a, svg a, object, embed)").count() == 0
    assert page.locator("[onload], [onerror], [style*=url]").count() == 0
    assert hostile.HOSTILE[3] in page.locator("#subjects tbody th").first.text_content()
    assert harmless(hostile.HOSTILE[1]) in page.locator("#table tbody td").all_text_contents()
    assert tab.requests == [hostile_file.as_uri()] and tab.said == []
    page.context.close()


def test_the_table_copied_as_markdown_holds_texts_as_text(browser, hostile_file):
    tab = Tab(browser, hostile_file)
    tab.page.evaluate("() => void (navigator.clipboard.writeText = () => Promise.reject(new Error('none here')))")
    tab.page.fill("#words", "lora")
    tab.page.click("#copy")
    tab.page.wait_for_selector("#markdown")
    markdown = tab.page.input_value("#markdown")
    assert [line.count("|") for line in markdown.splitlines()] == [markdown.splitlines()[0].count("|")] * 4
    assert "alert(1)" in markdown and "<" not in markdown
    tags = {found.split(" ")[0] for found in hostile.of_markdown(markdown) if found != "bare links"}
    assert tags <= {"<table", "<thead", "<tbody", "<tr", "<th", "<td", "<code"} and tags
    tab.page.context.close()
