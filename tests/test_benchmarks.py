"""A benchmark's result says what was aimed at, against which setting of the peer, and which code it measured; a
disagreement is an error, no file names this machine's folders, and the pages say what the results say."""

import re
import shutil
import sys

import pytest

from benchmarks import assets, common, measured, status, training_run
from benchmarks.common import Peer
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

PAGES = [
    *(assets.ROOT / name for name in ("README.md", "CHANGELOG.md", "examples/README.md", "benchmarks/README.md")),
    *sorted((assets.ROOT / "docs").glob("*.md")),
]


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_a_missed_speed_is_printed_and_no_error(results, capsys):
    aims = {"ratio": 2, "decode_ratio": 0.5, "agreement": 1}
    common.write("decode", 2.0, Peer({"defaults": 3.0}), 1.0, at_least=aims, decode_ratio=0.6)
    assert "decode: missed: ratio is 1.5, the target at least 2\n" in capsys.readouterr().out
    found = files.read_json(results / "decode.json")
    assert found["target"] == aims


@pytest.mark.parametrize("off_by", [0.02, -0.02])
def test_a_disagreement_is_an_error_once_the_result_is_written(results, off_by):
    with pytest.raises(UserError, match=r"^decode: off_by is -?0\.02, the target at most 0\.01; results/decode\.json"):
        common.write("decode", 1.0, Peer({"defaults": 1.0}), {"off_by": off_by}, at_most={"off_by": 0.01})
    assert files.read_json(results / "decode.json")["agreement"] == {"off_by": off_by}


def test_what_is_exactly_as_aimed_at_is_not_missed(results, capsys):
    common.write("decode", 1.0, Peer({"defaults": 1.0}), 1.0, at_least={"agreement": 1, "ratio": 1})
    assert "missed" not in capsys.readouterr().out


def test_a_command_is_shown_without_the_machines_folders(results, tmp_path):
    command = [sys.executable, "-m", "benchmarks.zoo", tmp_path / ".scratch/x", assets.FOLDER / "data"]
    assert common.shown(command) == "python -m benchmarks.zoo .scratch/x $TRADEOFFS_ASSETS/data"


def test_the_headline_is_against_the_peers_best_setting_with_that_of_its_defaults_beside_it(results):
    common.write("decode", 2.0, Peer({"defaults": 9.0, "large batches": 5.0, "small batches": 6.0}), None)
    found = files.read_json(results / "decode.json")
    assert (found["ratio"], found["ratio_defaults"]) == (2.5, 4.5)
    assert (found["peer_best"], found["peer_seconds"]) == ("large batches", 5.0)


def test_a_setting_that_does_other_work_is_named_and_not_counted(results):
    common.write("decode", 2.0, Peer({"defaults": 9.0, "a": 1.0, "b": 6.0}, {"a": "other answers"}), None)
    found = files.read_json(results / "decode.json")
    assert (found["peer_best"], found["ratio"], found["not_counted"]) == ("b", 3, {"a": "other answers"})


def test_where_no_setting_counts_the_defaults_are_compared():
    assert Peer({"defaults": 9.0, "a": 1.0}, {"defaults": "x", "a": "x"}).best == "defaults"


def test_the_settings_of_a_training_that_count_end_with_the_same_loss_after_the_same_steps_and_examples():
    ours = {"steps": 8.0, "examples": 64.0}
    same = ours | {"final_loss_relative_difference": 0.019}
    assert training_run.not_the_same(same, ours) is None
    assert (
        training_run.not_the_same(same | {"final_loss_relative_difference": 0.03}, ours) == "its final loss is 3.0% off"
    )
    assert training_run.not_the_same(same | {"steps": 7.0}, ours) == "7 steps and 64 examples"


def test_sides_take_turns_in_an_order_that_is_drawn_and_then_gone_through_backwards():
    sides = [f"side {number}" for number in range(9)]
    orders = [common.turns(sides, repetition) for repetition in range(6)]
    assert all(sorted(order) == sides for order in orders)
    assert all(orders[at + 1] == orders[at][::-1] for at in (0, 2, 4))
    assert orders[0] != orders[2]
    assert orders == [common.turns(sides[::-1], repetition) for repetition in range(6)]


def test_every_repetition_of_every_side_is_kept():
    command = [sys.executable, "-c", "print('x')"]
    sides = common.take_turns({"ours": [command, command], "peer": [command]}, 2)
    assert {name: (len(side.seconds), side.outputs) for name, side in sides.items()} == {
        "ours": (2, ["x\nx\n"] * 2),
        "peer": (2, ["x\n"] * 2),
    }


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small project: one benchmark, one stage, what they live off, and what neither does."""
    made = {
        "benchmarks/one.py": "from benchmarks import two\n",
        "benchmarks/two.py": "def late():\n    from tradeoffs.room import a\n",
        "stages/stage.py": "import tradeoffs.room.b\n",
        "tradeoffs/room/a.py": "from tradeoffs.plumbing import cli\n",
        "tradeoffs/room/b.py": "import json\n",
        "tradeoffs/plumbing/cli.py": "import sys\n",
        "tradeoffs/other.py": "X = 1\n",
    }
    for name, text in made.items():
        files.write_text(tmp_path / name, text)
    monkeypatch.setattr(measured, "ROOT", tmp_path)
    monkeypatch.setattr(status, "ROOT", tmp_path)
    measured.imports.cache_clear()
    yield tmp_path
    measured.imports.cache_clear()


def test_what_is_measured_is_what_a_benchmark_and_its_stages_live_off(checkout):
    assert measured.code(["benchmarks/one.py"]) == ["tradeoffs/room/a.py"]
    assert measured.code(["benchmarks/one.py", "stages/stage.py"]) == [
        "stages/stage.py",
        "tradeoffs/room/a.py",
        "tradeoffs/room/b.py",
    ]


@pytest.mark.parametrize(
    ("changed", "older"),
    [
        ("tradeoffs/room/a.py", True),
        ("benchmarks/two.py", False),
        ("tradeoffs/plumbing/cli.py", False),
        ("tradeoffs/other.py", False),
    ],
)
def test_a_result_is_older_where_code_that_it_measured_changed_since(checkout, changed, older):
    code = measured.facts("benchmarks/one.py")
    assert not status.is_older(code)
    with (checkout / changed).open("a") as file:
        file.write("# a comment\n")
    measured.imports.cache_clear()
    assert status.is_older(code) == older


def test_a_result_of_a_benchmark_that_is_gone_or_without_a_digest_is_older(checkout):
    code = measured.facts("benchmarks/one.py")
    (checkout / "benchmarks/one.py").unlink()
    assert status.is_older(code)
    assert status.is_older({"commit": "1234567"})


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commit_says_where_the_code_differs_from_it(checkout):
    assert measured.commit(["benchmarks/one.py"]) == "unknown"
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "x"]):
        common.output_of(["git", "-C", checkout, *command])
    head = measured.commit(["benchmarks/one.py"])
    assert re.fullmatch("[0-9a-f]{7}", head)
    (checkout / "tradeoffs/other.py").write_text("X = 2\n")
    assert measured.commit(["benchmarks/one.py"]) == head
    (checkout / "tradeoffs/room/a.py").write_text("X = 2\n")
    assert measured.commit(["benchmarks/one.py"]) == f"{head}, changed"


def test_the_list_names_a_result_whose_code_changed_since():
    old = {"ratio": 2.0, "ratio_defaults": 3.0, "code": {"commit": "1234567"}}
    assert "| `decode` | 2.00 | 3.00 | 1234567 | **changed since** |" in status.table({"decode": old})


@pytest.mark.parametrize("page", [status.LIST, *status.PAGES])
def test_the_pages_say_what_the_committed_results_say(page):
    """`python -m benchmarks.status` writes them."""
    text = (assets.ROOT / page).read_text(encoding="utf-8")
    assert text == status.with_results(page, text, status.read())


def test_a_page_that_lost_its_place_for_a_figure_is_refused():
    with pytest.raises(UserError, match=r"^docs/training\.md: says 0 times, not once: \{train_lora\.ratio\} times"):
        status.with_results("docs/training.md", "Faster.", status.read())
    with pytest.raises(UserError, match=r"^benchmarks/README\.md: needs a line <!-- status:begin -->"):
        status.with_results(status.LIST, "Nothing.", status.read())


def test_no_page_names_a_ratio_but_in_a_sentence_that_follows_the_results():
    claims = re.compile(r"(times|twice|half)[^.|]{0,40}? (as fast|faster|the speed)")
    assert claims.search("A training engine three times as fast.") and claims.search("2.1 times (all weights) as fast")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for sentence in status.SENTENCES:
            text = re.sub(status.pattern(sentence), "", text)
        assert not claims.search(text), page


def test_every_result_is_of_a_benchmark_that_make_runs():
    named = re.findall(r"^BENCHMARKS := (.*)$", (assets.ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert set(status.read()) <= set(named)
    assert all((assets.ROOT / f"benchmarks/{name}.py").is_file() for name in named)
