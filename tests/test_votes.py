"""Votes: kept whole, read strictly, counted with an exact interval."""

import json
import multiprocessing
import os
import runpy
import stat
import sys
from pathlib import Path

import hostile
import pytest
from scipy import stats

from tradeoffs.chat import votes
from tradeoffs.common.texts import harmless
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
A, B, GONE = "demo-demo-lora-q4_0", "demo-demo-lora-q8_0", "old-demo-lora-q4_0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((REPO / "params.yaml").read_bytes())
    return tmp_path


def vote(left=A, right=B, better="left", blind=True, **more):
    asked = [{"role": "user", "content": "who?"}]
    return {"left": left, "right": right, "better": better, "blind": blind, "messages": asked} | {
        "answers": ["me", "you"],
        **more,
    }


def record(vote):
    votes.record(vote, {A, B, GONE})


def started(capsys, monkeypatch, *options) -> tuple[int | str | None, str]:
    monkeypatch.setattr(sys, "argv", ["votes", *options])
    try:
        runpy.run_module("tradeoffs.votes", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_a_vote_is_a_line_with_all_that_was_said_and_when():
    record(vote(messages_right=[], answers=["\ud800", "\n"]))
    record(vote(better="tie"))
    first, second = map(json.loads, votes.VOTES.read_text().splitlines())
    assert first.pop("at") <= second.pop("at")
    assert first == vote(messages_right=[], answers=["\ud800", "\n"]) and second == vote(better="tie")
    assert stat.S_IMODE(votes.VOTES.stat().st_mode) == 0o600


def test_both_orders_of_a_pair_count_together_and_ties_are_for_nobody():
    for left, right, better in ((A, B, "left"), (B, A, "right"), (B, A, "left"), (A, B, "tie"), (B, A, "tie")):
        record(vote(left, right, better, blind=better != "tie"))
    (found,) = votes.summary()
    assert {key: found[key] for key in ("variant", "other", "votes", "wins", "losses", "ties", "blind")} == {
        **{"variant": A, "other": B, "votes": 5, "wins": 2, "losses": 1, "ties": 2, "blind": 3}
    }
    assert found["win_rate"] == pytest.approx(2 / 3, rel=1e-5)


def test_only_ties_have_no_win_rate():
    record(vote(better="tie"))
    assert "win_rate" not in votes.summary()[0] and "win_rate_low" not in votes.summary()[0]


@pytest.mark.parametrize("wins, losses", [(0, 1), (1, 0), (7, 3), (0, 300), (1000, 1)])
def test_the_interval_is_that_of_clopper_and_pearson(wins, losses):
    exact = stats.binomtest(wins, wins + losses).proportion_ci(0.95, method="exact")
    found = votes.rate(wins, losses)
    assert (found["win_rate_low"], found["win_rate_high"]) == pytest.approx((exact.low, exact.high), rel=1e-5)


WRONG = [
    ({"left": ""}, 'left is "", no name'),
    ({"left": "demo"}, 'left is "demo", no name'),
    ({"left": A + "\n"}, "no name"),
    ({"right": None}, "right is null"),
    ({"right": "x-y-z-w"}, "right is x-y-z-w, no variant of the run list"),
    ({"right": A}, f"both sides are {A}"),
    ({"better": "both"}, 'better is "both", not left, right or tie'),
    ({"better": ["left"]}, 'better is ["left"]'),
    ({"blind": 1}, "blind is 1, not true or false"),
    ({"messages": "who?"}, "messages is no list"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages is no list of messages"),
    ({"messages_right": None}, "messages_right is no list"),
    ({"answers": ["one"]}, "answers are not two texts"),
    ({"answers": ["one", 2]}, "answers are not two texts"),
]


@pytest.mark.parametrize("change, said", WRONG)
def test_what_is_no_vote_is_refused_and_not_kept(change, said):
    with pytest.raises(UserError, match="no vote: ") as refused:
        record(vote(**change))
    assert said in str(refused.value)
    assert not votes.VOTES.exists()


def test_a_field_that_is_not_of_a_vote_is_not_kept():
    record(vote(token="secret"))
    assert "secret" not in votes.VOTES.read_text()


@pytest.mark.parametrize("text", hostile.EVERY)
def test_hostile_texts_stay_one_line_and_come_back(text):
    record(vote(messages=[{"role": "user", "content": text}], answers=[text, text]))
    (line,) = votes.VOTES.read_bytes().splitlines()
    assert json.loads(line)["answers"] == [text, text]
    with pytest.raises(UserError) as refused:
        record(vote(left=text))
    assert not hostile.harm(harmless(str(refused.value)))
    assert len(str(refused.value)) < 150


def cast(count: int) -> None:
    for _ in range(count):
        record(vote(answers=["long " * 20_000, "you"]))


def test_many_at_a_time_do_not_mix():
    context = multiprocessing.get_context("fork")
    some = [context.Process(target=cast, args=(25,)) for _ in range(4)]
    for one in some:
        one.start()
    for one in some:
        one.join()
    assert [one.exitcode for one in some] == [0] * 4
    assert votes.summary()[0]["votes"] == 100


def test_a_vote_that_does_not_fit_the_disk_leaves_no_part_of_it(monkeypatch):
    record(vote())
    before, write, room = votes.VOTES.read_bytes(), os.write, [50]

    def full(file, data):
        if not room[0]:
            raise OSError(28, "No space left on device")
        part, room[0] = data[: room[0]], 0
        return write(file, part)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"data/votes.jsonl: No space left on device: the vote is not kept"):
        record(vote())
    assert votes.VOTES.read_bytes() == before


def test_a_line_that_was_cut_short_does_not_take_the_next_with_it():
    record(vote())
    with votes.VOTES.open("ab") as file:
        file.write(b'{"left": "de')
    record(vote(better="right"))
    with pytest.raises(UserError) as refused:
        votes.summary()
    assert str(refused.value).startswith("data/votes.jsonl: line 2: no JSON, or not all of it; mend or delete")
    lines = votes.VOTES.read_text().splitlines()
    votes.VOTES.write_text("\n".join([lines[0], "", lines[2]]))  # an editor that leaves no end of the last line
    assert votes.summary()[0]["votes"] == 2


def test_all_damaged_lines_are_named_at_once_but_not_without_end(folder, capsys, monkeypatch):
    record(vote())
    with votes.VOTES.open("a") as file:
        file.write('[]\n{"left": 1}\n' + "[" * 100_000 + "\n" + "{}\n" * 9)
    code, _ = started(capsys, monkeypatch)
    assert code.startswith(
        "error: data/votes.jsonl: line 2: it is no object; line 3: left is 1, no name of a variant; "
    )
    assert "line 4: no JSON" in code and "; and 7 more; mend or delete" in code


def test_a_line_that_can_be_read_in_two_ways_is_not_counted():
    record(vote())
    with votes.VOTES.open("a") as file:
        file.write(json.dumps(vote())[:-1] + ', "better": "right"}\n')
    with pytest.raises(UserError, match="line 2: a key stands twice in an object; mend or delete"):
        votes.summary()


def test_the_table_says_what_is_no_longer_in_the_run_list(capsys, monkeypatch):
    for better in ("left", "left", "tie", "right"):
        record(vote(GONE, A, better, blind=better == "left"))
    record(vote(A, B, "tie", blind=False))
    code, out = started(capsys, monkeypatch)
    assert code == 0
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("| `")
    ]
    assert rows == [
        [f"`{A}`", f"`{B}`", "1", "0", "0", "1", "only ties", "0"],
        [f"`{A}`", f"`{GONE}`*", "4", "1", "2", "1", "33.3% [0.8%, 90.6%]", "2"],
    ]
    assert "* no longer in the run list" in out
    assert "The left answer won 66.7% [9.4%, 99.2%] of all votes with a winner" in out


def test_blind_only_leaves_out_what_was_seen_with_names(capsys, monkeypatch):
    for better, blind in (("left", True), ("right", False), ("tie", False)):
        record(vote(better=better, blind=blind))
    code, out = started(capsys, monkeypatch, "--blind-only", "--json")
    assert code == 0
    assert json.loads(out) == [
        {"variant": A, "other": B, "votes": 1, "wins": 1, "losses": 0, "ties": 0, "blind": 1}
        | {"win_rate": 1.0, "win_rate_low": 0.025, "win_rate_high": 1.0}
    ]
    assert "no longer" not in started(capsys, monkeypatch)[1]


def test_without_votes_it_says_where_they_come_from(capsys, monkeypatch):
    code, out = started(capsys, monkeypatch)
    assert code == 0 and out.startswith("no vote in data/votes.jsonl yet: ")
    assert json.loads(started(capsys, monkeypatch, "--json")[1]) == []
    record(vote(blind=False))
    assert started(capsys, monkeypatch, "--blind-only")[1].startswith("no blind vote in ")


def test_people_s_votes_are_in_no_commit_until_they_say_so():
    assert "/data/votes.jsonl" in (REPO / ".gitignore").read_text().splitlines()
    assert "votes.jsonl" not in (REPO / "Makefile").read_text()  # `make clean` leaves them
