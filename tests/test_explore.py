"""The page to look for yourself: what is in it, that it is one file that nothing in it can turn against its reader."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import fake_results
import hostile
import numpy as np
import pytest
from dvc.fs import LocalFileSystem
from dvc.ignore import DvcIgnoreFilter

from stages import score
from tradeoffs import metrics
from tradeoffs.explore import data, items, making, packing, stamp, writing
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report.pictures import style
from tradeoffs.repro import ending
from tradeoffs.results import answers, decision
from tradeoffs.results.choice import Table

REPO = Path(__file__).parents[1]
SLOW_FIXTURES = {"results", "shown"}  # read by conftest.py


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of one model with questions and with a text."""
    folder = tmp_path_factory.mktemp("run")
    methods, datasets = ["base", "full", "lora"], ["demo", "stories"]
    return fake_results.finished(
        folder, stages=(score,), methods=methods, datasets=datasets, precisions=["bf16"], quants=["q8_0", "q4_0"]
    ), folder


@pytest.fixture
def run(results, monkeypatch):
    """The same, in whose folder the test is."""
    monkeypatch.chdir(results[1])
    return results[0]


@pytest.fixture(scope="module")
def shown(results):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(results[1])
        return making.contents(results[0], results[0].groups(), seed=42)


class Parsed(HTMLParser):
    """What a page loads, and its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inside: list[tuple[str, dict, str]] = []
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        if tag in ("script", "style"):
            self._open = tag
            self.inside.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag):
        self._open = "" if tag == self._open else self._open

    def handle_data(self, text):
        if self._open:
            tag, attrs, before = self.inside[-1]
            self.inside[-1] = (tag, attrs, before + text)


def policy_of(page: str) -> dict[str, list[str]]:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    return {name: sources for name, *sources in (part.split() for part in found[1].split(";"))}


def test_the_page_asks_for_nothing_and_runs_its_own_scripts_alone(shown):
    page = writing.page(shown, "0" * 64)
    parsed, policy = Parsed(page), policy_of(page)
    assert parsed.addresses == ["#variants"]
    assert policy["default-src"] == ["'none'"] and "unsafe" not in str(policy)
    for tag, attrs, text in parsed.inside:
        if attrs.get("type") != "application/json":
            source = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{source}'" in policy[f"{tag}-src"]
    assert [tag for tag, _, _ in parsed.inside] == ["style", "script", "script", "script"]


def test_no_script_of_ours_makes_html_or_code_of_a_text():
    forbidden = r"(?:inner|outer)HTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc|DOMParser|setTimeout"
    assert not re.findall(forbidden, writing.own_script())


def test_every_script_of_the_folder_is_in_the_page():
    assert sorted(writing.SCRIPTS) == sorted(path.stem for path in (writing.FOLDER / "js").iterdir())


def test_scripts_are_no_longer_than_other_files():
    for path in writing.FOLDER.rglob("*.*"):
        if path.suffix in (".js", ".html"):
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len(lines) <= 350 and max(map(len, lines)) <= 120, path.name


def test_whatever_a_text_says_it_stays_within_its_element():
    value = {"texts": list(hostile.HOSTILE), "names": ["</script><script>alert(1)</script>", "<!--<script>", "\u2028"]}
    text = writing.written(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029]", text)
    elements = hostile.elements(writing.page(value, "0" * 64))
    assert elements == hostile.elements(writing.page({}, "0" * 64))


def test_every_number_of_the_results_is_in_the_page(run, shown):
    for pair, one in zip(run.groups(), shown["pairs"], strict=True):
        names = [row["name"] for row in one["measures"]]
        measured = [name for stands in ("quality", "summary") for name in metrics.names(stands)]
        assert {name for name in measured if any(run.has(v, name) for v in run.of(pair))} <= set(names)
        assert set(run.cost_labels) & set().union(*(run.cost[v] for v in run.of(pair))) <= {*names, "answer_tokens_p50"}
        for variant, row in zip(run.of(pair), one["variants"], strict=True):
            assert row["name"] == str(variant)
            values = dict(zip(names, row["values"], strict=True))
            found = run.interval(variant, one["metric"])
            assert values[one["metric"]] == pytest.approx([found.value, found.low, found.high], rel=1e-5)
            assert values["size_mb"][0] == pytest.approx(run.cost[variant]["size_mb"], rel=1e-5)


def test_what_training_took_is_a_cost_of_its_methods_alone(shown):
    one = shown["pairs"][0]
    place = [row["name"] for row in one["measures"]].index("train_seconds")
    assert {row["method"] for row in one["variants"] if row["values"][place] is None} == {"base"}


def test_the_page_decides_by_the_table_that_the_report_is_decided_by(run, shown):
    for pair, one in zip(run.groups(), shown["pairs"], strict=True):
        found = decision.candidates(run, pair).table
        table, packed = found.as_json(), {"width", "cheaper", "lost"}  # read back in test_explore_browser.py
        assert {name: one["table"][name] for name in table if name not in {"limited", *packed}} == {
            name: table[name] for name in table if name not in {"limited", *packed}
        }
        assert one["table"]["width"] == packing.packed(found, {})["width"]
        assert one["table"]["cheaper"] == packing.packed(found, {})["cheaper"]
        assert table["limited"].items() <= one["table"]["limited"].items()
        assert f"max_loss_of.{one['metric']}" in one["table"]["limited"]


def test_copying_that_is_not_beaten_is_said_of_every_variant_as_the_report_has_it(run):
    pair, rules, seen = run.groups()[0], run.decide, set()
    for metric in ("test_loss", "test_exact_match"):
        run.decide = replace(rules, metric=metric)
        try:
            rows = data.of_pair(run, pair)["variants"]
            floors = [decision.floor(run, variant, metric) for variant in run.of(pair)]
        finally:
            run.decide = rules
        for row, found in zip(rows, floors, strict=True):
            words = "copying is better: " if found.better else "not shown to beat copying: "
            said = [warning for warning in row["warnings"] if "copying" in warning]
            assert [warning.startswith(words) for warning in said] == ([] if found.beaten else [True])
            seen.add((metric, found.metric, found.beaten))
    assert {("test_loss", "test_f1", False), ("test_exact_match", "test_exact_match", False)} <= seen


def test_five_hundred_variants_have_room(shown):
    """Made up: each variant of the fake run many times, beside random numbers for every two of them."""
    luck, count, pair = np.random.default_rng(3), 500, dict(shown["pairs"][0])
    width = luck.random((count, count))
    table = Table(
        value=luck.random(count),
        width=np.maximum(width, width.T),
        margin=luck.random(count),
        method=np.arange(count) // 5,
        once=luck.random(count) < 0.5,
        names=[f"demo-demo-method{place // 5}-q{place % 5}_0" for place in range(count)],
        cheaper={cost: luck.random((count, count)) < 0.5 for cost in decision.WEIGHED},
        lost=np.zeros((count, count)),
        limited={name: luck.random(count) for name in pair["table"]["limited"]},
        runtime=["llama.cpp"] * count,
    )
    pair["table"] = packing.packed(table, {name: luck.random((count, count)) < 0.5 for name in ("one", "two", "three")})
    pair["variants"] = [pair["variants"][place % len(pair["variants"])] for place in range(count)]
    if pair["subjects"]:
        shares = pair["subjects"]["shares"]
        pair["subjects"] = pair["subjects"] | {"shares": [shares[place % len(shares)] for place in range(count)]}
    some = [(method, row) for method, rows in pair["ladder"]["methods"].items() for row in rows]
    rows = [some[place % len(some)][1] for place in range(count)]
    pair["ladder"] = pair["ladder"] | {"methods": {"all": rows}}
    pair["items"] = None
    assert writing.frame() + writing.size(pair) < writing.LARGEST


def test_a_width_that_depends_on_the_direction_is_not_packed_in_silence(run):
    table = decision.candidates(run, run.groups()[0]).table
    skewed = table.width.copy()
    skewed[0, 1] += 1
    with pytest.raises(ValueError, match="other way round"):
        packing.packed(replace(table, width=skewed), {})


def test_the_ladder_is_that_of_the_report(run, shown):
    pair = run.groups()[0]
    ladder = shown["pairs"][0]["ladder"]
    names = [row["name"] for row in ladder["changes"]]
    q4_0 = next(row for row in ladder["methods"]["lora"] if row["format"] == "q4_0")
    variant, trained = (next(v for v in run.of(pair, "lora") if v.format == name) for name in ("q4_0", "trained"))
    found = run.compare(variant, trained, "test_loss")
    assert q4_0["from"] == run.made_from(variant).format
    change = q4_0["change"][names.index("test_loss")]
    assert change == pytest.approx([found.value, found.low, found.high], rel=1e-5)


def test_each_text_of_an_answer_is_there_once_and_leads_back_to_who_said_it(run, shown):
    pair, kept = run.groups()[0], shown["pairs"][0]["items"]
    assert len(set(kept["texts"])) == len(kept["texts"])
    for variant, mine, f1, exact in zip(run.of(pair), kept["answers"], kept["f1"], kept["exact"], strict=True):
        asked = answers.asked(run, variant)
        assert [kept["texts"][place] for place in mine] == [one.generated for one in asked]
        assert f1 == [round(1000 * one.f1) for one in asked]
        assert exact == "".join(str(int(one.exact)) for one in asked)


def test_a_text_asks_nothing_and_has_no_answers(shown):
    text = shown["pairs"][1]
    assert text["items"] is None and text["subjects"] is None and text["copying"] == {}


def test_where_not_all_answers_fit_as_many_as_do_are_kept_and_the_page_has_no_more_than_its_bytes(run):
    pair = run.groups()[0]
    whole = making.contents(run, [pair, pair], seed=42)
    largest = writing.frame() + writing.size(whole) - 2000
    cut = making.contents(run, [pair, pair], seed=42, largest=largest)
    one, other = (len(found["items"]["questions"]) for found in cut["pairs"])
    assert one == other and 0 < one < cut["pairs"][0]["items"]["asked"]
    assert len(writing.page(cut, "0" * 64).encode()) <= largest
    assert f"{2 * one} of " in making._kept(cut)


def test_a_long_answer_is_cut_and_says_so():
    found = items._short("long" * 2500)
    assert len(found) < 2100 and found.endswith("(8,000 more characters)")


def test_more_pairs_than_a_page_has_room_for_are_one_message(run):
    with pytest.raises(UserError, match=r"variants: .* MB more than a page .* --pair MODEL-DATASET"):
        making.contents(run, run.groups(), seed=42, largest=writing.frame() + 1000)


def test_a_pair_can_be_named_and_a_wrong_name_has_a_near_match(run, tmp_path):
    said = making.make(tmp_path / "page.html", ["demo-stories"])
    assert "no answers" in said and (tmp_path / "page.html").stat().st_size < writing.LARGEST
    with pytest.raises(UserError, match=r"--pair demo-storys: .*did you mean demo-stories"):
        making.make(tmp_path / "page.html", ["demo-storys"])
    assert "which is new" not in said
    assert f"(in {tmp_path / 'new'}, which is new)" in making.make(tmp_path / "new/page.html", ["demo-stories"])
    with pytest.raises(UserError, match=r"is there and is no file"):
        making.make(tmp_path, ["demo-stories"])


LOCK = """schema: '2.0'
stages:
  aggregate:
    cmd: python -m stages.aggregate
    deps:
    - path: data/items
      md5: {}
  base@demo:
    cmd: python
"""


def test_a_page_is_of_these_results_until_the_entry_of_aggregate_changes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(LOCK.format("one"))
    Path("page.html").write_text(writing.page({}, stamp.present()))
    assert stamp.of(Path("page.html")) == stamp.present() != stamp.present(["demo-stories"])
    Path("dvc.lock").write_text(LOCK.format("one") + "  other:\n    cmd: x\n")
    assert stamp.of(Path("page.html")) == stamp.present()
    Path("dvc.lock").write_text(LOCK.format("two"))
    assert stamp.of(Path("page.html")) != stamp.present()
    assert stamp.of(Path("none.html")) is None


def test_the_real_lock_has_the_entry_that_a_page_is_stamped_by(monkeypatch, tmp_path):
    lock = (REPO / "dvc.lock").read_text(encoding="utf-8")
    assert "data/items" in stamp._ENTRY.search(lock)[0]


def test_the_end_of_a_run_makes_the_page_only_where_it_is_not_of_these_results(run, monkeypatch):
    made = []
    monkeypatch.setattr(
        making, "make", lambda: made.append(1) or making.stamp.PAGE.write_text(writing.page({}, stamp.present()))
    )
    Path("report").mkdir(exist_ok=True)
    stamp.PAGE.unlink(missing_ok=True)
    ending.page()
    ending.page()
    assert len(made) == 1


def test_what_stops_the_page_is_said_and_no_page_of_other_results_stays(run, monkeypatch, capsys):
    def stopped():
        raise UserError("too many")

    monkeypatch.setattr(making, "make", stopped)
    Path("report").mkdir(exist_ok=True)
    stamp.PAGE.write_text("old")
    ending.page()
    assert capsys.readouterr().out == f"{stamp.PAGE} was not made: too many\n"
    assert not stamp.PAGE.exists()


def test_neither_git_nor_dvc_knows_of_the_page(tmp_path):
    """It lies in the folder of the report, an output of `aggregate`, whose hash it must not change."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(REPO / name, tmp_path)
    ignored = DvcIgnoreFilter(LocalFileSystem(), str(tmp_path))
    names = [str(stamp.PAGE), "report/report.html"]
    assert [ignored.is_ignored_file(str(tmp_path / name)) for name in names] == [True, False]
    found = subprocess.run(["git", "check-ignore", *names], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == names[:1]


def test_colours_of_methods_are_those_of_the_pictures_and_different_on_a_dark_page(run):
    found = data.colours(run)
    assert list(found) == ["base", "full", "lora"]
    assert (data.COLOURS, data.BASE_COLOUR) == (style.COLOURS, style.BASE_COLOUR)
    assert len({one["dark"] for one in found.values()}) == len({one["light"] for one in found.values()}) == 3


def test_the_report_itself_stays_free_of_scripts():
    pages = set(REPO.glob("report/*.html")) - {REPO / stamp.PAGE}
    assert REPO / "report/report.html" in pages
    assert not [path.name for path in pages if "<script" in path.read_text(encoding="utf-8")]
