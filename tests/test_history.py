"""A number over commits and experiments, and two variants of different commits: paired where the items are the same."""

import csv
import shutil
from pathlib import Path

import fake_commits
import numpy as np
import pyarrow.parquet as pq
import pytest
import quick_yaml
from dvc.repo import Repo
from fake_commits import committed, git
from PIL import Image

from tradeoffs import compare, params
from tradeoffs.common.cells import COST, Variant
from tradeoffs.common.files import read_json, write_json
from tradeoffs.history import points
from tradeoffs.history.__main__ import main
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import tables
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results
from tradeoffs.revisions import WORKSPACE, Both, Revision

SLOW_FIXTURES = {"made"}  # read by conftest.py
LORA = Variant("demo", "demo", "lora", "q4_0")
F16 = Variant("demo", "demo", "lora", "f16")
HOSTILE = "a | b <script>alert(1)</script> `x`"


def worse() -> None:
    """LORA answers nothing right any more."""
    table = pq.read_table(LORA.items)
    said = ["no" if text is not None else None for text in table["generated"].to_pylist()]
    place = table.schema.get_field_index("generated")
    pq.write_table(table.set_column(place, table.schema.field(place), [said]), LORA.items)


def keep(recommended: Variant) -> None:
    """What a run leaves in metrics/, as far as it is read."""
    cfg = params.load_all()
    results = Results(cfg.run, cfg.seed, cfg.evaluate.bootstrap, cfg.decide)
    tables.write_csv("metrics/summary.csv", tables.summary(results))
    write_json("metrics/decision.json", {"demo-demo": {"recommended": str(recommended)}})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project of five runs; of the third the items are gone. And the commits by their names."""
    folder = tmp_path_factory.mktemp("history")
    shas = {}
    with pytest.MonkeyPatch.context() as patch:
        fake_commits.begin(patch, folder)
        for name, items, change in (
            ("first", 30, lambda: None),
            ("worse", 30, worse),
            ("lost", 31, lambda: None),
            ("back", 30, lambda: None),
            ("other", 32, lambda: None),
        ):
            fake_commits.fill(items, change)
            keep(F16 if name == "worse" else LORA)
            shas[name] = fake_commits.commit(HOSTILE if name == "back" else name)
            Path("README.md").write_text(name)
            committed("Nothing that a run leaves")
        fake_commits.fill(32, worse)
        fake_commits.commit("An experiment that was a commit")
        git("reset", "-q", "--soft", "HEAD~1")
        with Repo() as repo:
            repo.experiments.save(name="try-it", force=True)
        git("reset", "-q", "--hard", "HEAD")
        oid = Revision(shas["lost"]).outputs[str(LORA.items)]
        Path(".dvc/cache/files/md5", oid[:2], oid[2:]).unlink()
    return folder, shas


@pytest.fixture
def shas(made, monkeypatch, tmp_path):
    for name, value in fake_commits.ALONE.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(made[0], tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return made[1]


def followed(metric: str = "test_f1", variant: str = str(LORA), since=None, count=20, exp=False, **files):
    main(metric, variant, "HEAD", since, count, exp, files.get("csv"), files.get("png"))


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def read(name: str, *only: Variant) -> Results:
    return Revision(name).results(200, params.load_all().decide, only)


def test_a_change_beyond_noise_a_gap_and_a_break_are_told(shas, capsys):
    followed()
    found = rows(capsys.readouterr().out)
    assert [row[0] for row in found] == [sha[:7] for sha in list(shas.values())[::-1]]
    other, back, lost, lower, first = (row[4] for row in found)
    assert first == "the first"
    assert lower == "worse, beyond noise"
    assert lost == "value as committed; items not to be had"
    assert back == f"better, beyond noise (against {shas['worse'][:7]})"
    assert other.startswith("break: other test items (0 of base and 2 of head alone)")
    assert found[2][2] and not found[2][3], "the committed value, and no difference"
    assert not found[0][3]


def test_a_difference_is_the_paired_one_and_its_bounds_hold_for_all(shas, tmp_path):
    followed(csv=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        by_sha = {row["commit"]: row for row in csv.DictReader(file)}
    row = by_sha[shas["worse"]]
    old, new = (read(shas[name], LORA) for name in ("first", "worse"))
    drawn = new.values(LORA, "test_f1") - old.values(LORA, "test_f1")
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    assert float(row["difference"]) == pytest.approx(drawn[0], rel=1e-5)
    assert float(row["difference_low"]) <= low + 0.02 and float(row["difference_high"]) >= high - 0.02
    assert row["beyond_noise"] == "1" and row["against"] == shas["first"]
    kept = by_sha[shas["lost"]]
    there = {
        line["variant"]: line
        for line in csv.DictReader(git("show", f"{shas['lost']}:metrics/summary.csv").splitlines())
    }
    assert kept["value"] == there[str(LORA)]["test_f1"] and kept["low"] == there[str(LORA)]["test_f1_low"]
    assert "whoever ran it: dvc push" in kept["why"]


def test_what_is_recommended_is_followed_from_one_variant_to_another(shas, capsys):
    followed(variant="recommended", count=4)
    said = capsys.readouterr().out
    assert [row[2] for row in rows(said)] == [f"`{LORA}`"] * 3 + [f"`{F16}`"]
    assert said.startswith("**`test_f1` of what is recommended**")
    followed(variant="demo-demo-recommended", count=1)
    assert f"of what is recommended of demo-demo ({LORA})" in capsys.readouterr().out


def test_since_has_what_the_commit_itself_had_and_n_is_how_many(shas, capsys):
    followed(since=f"{shas['worse']}~0")
    assert [row[0] for row in rows(capsys.readouterr().out)][-1] == shas["worse"][:7]
    followed(count=2)
    assert len(rows(capsys.readouterr().out)) == 2
    followed(count=1, since=f"{shas['worse']}~0")
    assert len(rows(capsys.readouterr().out)) == 1


def test_of_few_items_a_change_is_by_students_t():
    one = Interval(0.1, 0.0, 0.2, 0.05)
    found = points._widened(one, 10)
    assert found.high - found.value > 1.2 * 0.1 and points._widened(one, 100000).high == pytest.approx(0.2, rel=1e-3)
    assert not points._widened(one, 1).excludes_0


def test_an_experiment_is_held_against_the_last_commit(shas, capsys, tmp_path):
    followed(exp=True, png=tmp_path / "out.png")
    newest = rows(capsys.readouterr().out)[0]
    assert newest[0] == "try-it" and newest[4] == "worse, beyond noise"
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size[0] > 400


def test_equal_runs_are_the_same_and_costs_are_not_paired(shas, capsys):
    git("checkout", "-q", shas["first"])
    Path("metrics/note").write_text("1")
    committed("Again")
    followed()
    assert rows(capsys.readouterr().out)[0][4] == "the same"
    followed("size_mb")
    assert rows(capsys.readouterr().out)[0][4] == "the same"


def test_a_speed_of_the_same_shapes_is_not_called_worse(shas, capsys):
    fake_commits.fill(32)
    cost = read_json(COST)
    for thing in cost["things"]:
        for one in thing["rounds"]:
            one["decode_tokens_per_second"] /= 10
    write_json(COST, cost)
    fake_commits.commit("Slow")
    followed("decode_tokens_per_second", count=2)
    assert rows(capsys.readouterr().out)[0][4].startswith("break: moved by 0.10")


def test_another_seed_is_a_break(shas, capsys):
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["seed"] += 1
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    Path("metrics/note").write_text("1")
    committed("Another seed")
    followed()
    assert rows(capsys.readouterr().out)[0][4] == "break: other seed"


def test_texts_of_commits_are_texts(shas, capsys):
    followed()
    said = capsys.readouterr().out
    assert "<script>" not in said and "a &#124; b &lt;script&gt;" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("test_f2",), r"test_f2: no metric of quality and no cost \(did you mean"),
        (("test_f1", "demo"), "not of the form MODEL-DATASET-METHOD-FORMAT"),
        (("test_f1", "demo-demo-full-q4_0"), "no commit that was looked at has it"),
        (("test_f1", str(LORA), "nothing"), "nothing: no such commit"),
    ],
)
def test_what_is_not_there_is_one_message(shas, words, said):
    with pytest.raises(UserError, match=said):
        followed(*words)


def test_a_metric_is_known_by_every_name_in_the_summary():
    for name in ("test_exact_match", "mmlu_accuracy", "general_loss", "decode_tokens_per_second"):
        assert points.known(name) == name


# --- compare, over commits


def compared(capsys, *words: str, revs: tuple[str, ...] = ()) -> dict[str, list[str]]:
    compare.main(*words, revs=revs)
    said = capsys.readouterr().out
    return {"said": [said]} | {row[0]: row[1:] for row in rows(said)}


def test_one_variant_of_two_commits_is_paired_on_the_same_items(shas, capsys):
    found = compared(capsys, str(LORA), str(LORA), revs=(shas["worse"], shas["first"]))
    assert found["said"][0].startswith(f"**`{LORA}`** of {shas['worse'][:7]} against **`{LORA}`** of")
    old, new = (read(shas[name], LORA) for name in ("first", "worse"))
    value = new.values(LORA, "test_f1")[0] - old.values(LORA, "test_f1")[0]
    assert found["test F1"][2].startswith(f"{value:+.3f} [") and found["test F1"][3] == "too much worse"
    assert found["test loss"][2].startswith("+0.000 [") and "not told apart" in found["size MB"][2]


def test_both_of_one_commit_are_as_they_were_in_its_folder(shas, capsys):
    git("checkout", "-q", shas["back"])
    with Repo() as repo:
        repo.checkout(force=True)
    here = compared(capsys, str(LORA), str(F16))
    git("checkout", "-q", "main")
    there = compared(capsys, str(LORA), str(F16), revs=(shas["back"],))
    assert {k: v for k, v in here.items() if k != "said"} == {k: v for k, v in there.items() if k != "said"}
    assert f"both of {shas['back'][:7]}" in there["said"][0]


def test_two_variants_of_two_commits_are_as_of_one_where_nothing_changed(shas, capsys):
    """Two methods, so that their trainings count."""
    base = "demo-demo-base-q4_0"
    one = compared(capsys, str(LORA), base, revs=(shas["back"],))
    two = compared(capsys, str(LORA), base, revs=(shas["back"], shas["first"]))
    assert one["test F1"] == two["test F1"] and one["multiple choice"] == two["multiple choice"]


def test_several_seeds_count_over_commits_as_within_one(shas, capsys):
    fake_commits.fill(12, seeds=[42, 43, 44])
    sha = fake_commits.commit("Seeds")
    Path("README.md").write_text("again")
    again = committed("Again")
    base = "demo-demo-base-q4_0"
    one = compared(capsys, str(LORA), base, revs=(sha,))
    two = compared(capsys, str(LORA), base, revs=(sha, again))
    assert one["test F1"] == two["test F1"] and one["test F1"][3] != "one training"


def test_the_workspace_is_a_side_too(shas, capsys):
    with Repo() as repo:
        repo.checkout(force=True)
    found = compared(capsys, str(LORA), str(LORA), revs=(WORKSPACE, "HEAD"))
    assert found["test F1"][2].startswith("+0.000")


@pytest.mark.parametrize(
    ("revs", "said"),
    [
        (("other", "back"), r"cannot be compared: other test items \(0 of base and 2 of head alone\)"),
        (("lost", "first"), "neither in DVC's cache nor in a remote"),
        (("nothing", "first"), "nothing: no such commit"),
        (("first", "first", "first"), "one for both variants, or one for each"),
    ],
)
def test_what_cannot_be_compared_is_one_message(shas, revs, said):
    with pytest.raises(UserError, match=said):
        compare.main(str(LORA), str(LORA), revs=[shas.get(rev, rev) for rev in revs])


def test_a_variant_that_a_commit_has_not_is_named_with_the_commit(shas):
    with pytest.raises(UserError, match=r"demo-demo-full-q4_0: no variant of the run list in params\.yaml of HEAD \("):
        compare.main("demo-demo-full-q4_0", str(LORA), revs=["HEAD", "HEAD"])


def test_what_is_beside_changes_nothing_of_the_first(shas):
    mine, other = (read(shas[name], LORA) for name in ("worse", "first"))
    before = mine.interval(LORA, "test_f1")
    called = Variant("demo", "demo", "@second", "q4_0")
    beside = Both(mine, other, LORA, called)
    assert mine.variants == [LORA] and called not in mine.columns and called not in mine.cost
    assert beside.interval(LORA, "test_f1") == before
    assert beside.interval(called, "test_f1") == other.interval(LORA, "test_f1")
