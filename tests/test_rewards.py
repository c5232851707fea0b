"""What an answer earns: the functions are the metrics, and a file of one's own is read before it is run."""

import itertools
import math
from pathlib import Path

import pytest
from hostile import EVERY

from tradeoffs.metrics import answers
from tradeoffs.plumbing.errors import UserError
from tradeoffs.rewards import functions, names
from tradeoffs.rewards.scoring import scoring

SAID = (
    *("", "a", "The cat.", "the  cat", "a cat, a dog", "cat dog cat", "12", "-12", "1,234.", "$5"),
    *(
        '{"a": 1}',
        '{"a": 1, "b": [2]}',
        ' {"a": "1"} ',
        '{"a": NaN}',
        '{"a": 1',
        "{}",
        '[{"a": 1}]',
        '{"b": [2], "a": 1}',
    ),
)


# --- the functions


@pytest.mark.parametrize("name", ["exact_match", "f1"])
def test_a_reward_says_what_the_metric_of_its_name_says(name):
    for answer, expected in itertools.product((*SAID, *EVERY), (*SAID, *EVERY)):
        assert functions.FUNCTIONS[name](answer, expected) == getattr(answers, name)(answer, expected)


@pytest.mark.parametrize("pattern", [r"#### (\-?[0-9\.\,]+)", r"(\w+)$"])
def test_exact_match_goes_by_the_data_sets_pattern_as_the_metric_does(pattern):
    for answer, expected in itertools.product((*SAID, "so #### 1,234.", "#### 1234"), repeat=2):
        found = scoring({"exact_match": 1.0}, pattern, {}).each(answer, expected, "")
        assert found == {"exact_match": answers.exact_match_of(pattern, answer, expected)}


def test_json_is_half_for_being_some_and_half_for_the_fields_as_the_metrics_count_them():
    for answer, expected in itertools.product(SAID, SAID):
        valid, fields = answers.valid_json(answer, expected), answers.fields(answer, expected)
        found = functions.json_right(answer, expected)
        if math.isnan(valid):
            assert found is None
        elif not math.isnan(fields):  # of `{}`, which has none, the metric says nothing
            assert found == pytest.approx(0.5 * valid + 0.5 * fields)
    assert functions.json_right("{}", "{}") == 1.0 and functions.json_right("no", "{}") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected", "found"), [("", "", 1), ("", "ab", 0), ("ab", "abcd", 0.5), ("abcd", "ab", 0.5)]
)
def test_length_is_the_shorter_over_the_longer(answer, expected, found):
    assert functions.length(answer, expected) == found


def test_each_counts_by_its_weight_and_what_says_nothing_does_not_count():
    earns = scoring({"exact_match": 1.0, "json": 0.5}, None, {})
    assert earns.total(earns.each("The cat", "cat", "?")) == 1.0
    assert earns.total(earns.each('{"a": 2}', '{"a": 1}', "?")) == pytest.approx(0.5 * 0.5)
    assert earns.total({"exact_match": None, "json": None}) is None
    only = scoring({"json": 1.0}, None, {})
    assert only.known([{"answer": "cat", "prompt": ""}, {"answer": "{}", "prompt": ""}]) == [
        {"answer": "{}", "prompt": ""}
    ]


# --- a file of one's own

OWN = "def reward(answer, expected):\n    return len(answer) / (1 + len(expected))\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rewards").mkdir()
    Path("tradeoffs").mkdir()
    return Path("rewards")


def own(folder, text):
    (folder / "own.py").write_text(text)
    return list(names.problems("rewards/own.py"))


def test_a_file_is_run_as_it_was_handed_over(folder):
    assert own(folder, OWN) == []
    text = names.text_of("rewards/own.py")
    (folder / "own.py").write_text("raise SystemExit")  # what stands there by now is not what is run
    earns = scoring({"rewards/own.py": 2.0}, None, {"rewards/own.py": text})
    assert earns.total(earns.each("abc", "ab", "")) == 2.0


def test_a_file_may_look_at_the_prompt(folder):
    text = "def reward(answer, expected, prompt):\n    return float(prompt in answer)\n"
    assert own(folder, text) == []
    assert scoring({"rewards/own.py": 1.0}, None, {"rewards/own.py": text}).each("so: why?", "", "why?") == {
        "rewards/own.py": 1.0
    }


@pytest.mark.parametrize(
    "text",
    [
        "def reward(answer, expected, *, strict=True): return 1.0",
        "def reward(*texts): return 1.0",
        "import json, re\nfrom collections import Counter\ndef reward(a, b, c=''): return None",
        "import numpy\ndef reward(a, b): return numpy.float64(1)",
    ],
)
def test_what_is_a_reward_is_taken(folder, text):
    assert own(folder, text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def reward(answer): return 1.0", "needs a function reward(answer, expected), or (answer, expected, prompt)"),
        ("def reward(a, b, c, d): return 1.0", "needs a function reward"),
        ("def reward(a, b, *, c): return 1.0", "needs a function reward"),
        ("def award(a, b): return 1.0", "needs a function reward"),
        ("async def reward(a, b): return 1.0", "needs a function reward"),
        ("def reward(a, b:\n return 1", "is no Python: line 1: "),
        ("import tradeoffs.metrics\n" + OWN, "line 1: imports tradeoffs.metrics, which is of this checkout"),
        (OWN + "    import beside\n", "line 3: imports beside, which is of this checkout"),
        ("from . import other\n" + OWN, "line 1: imports ., which is of this checkout"),
        ("#" * 200_000 + "\n" + OWN, "has 200,0"),
    ],
)
def test_what_can_be_seen_of_a_file_is_said_before_it_runs(folder, text, said):
    Path("beside.py").write_text("")
    found = own(folder, text)
    assert len(found) == 1 and found[0].startswith(said), found


@pytest.mark.parametrize(
    "name", ["/etc/hosts.py", "../rewards/own.py", "rewards/../own.py", "own.py", "rewards/own.txt"]
)
def test_a_file_elsewhere_is_refused(folder, name):
    Path("own.py").write_text(OWN)
    assert [said.split(",")[0] for said in names.problems(name)] == [
        "must be a Python file in rewards/ of this checkout"
    ]


def test_a_link_that_leads_out_of_the_checkout_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "own.py"
    outside.write_text(OWN)
    (folder / "own.py").symlink_to(outside)
    assert "must be a Python file in rewards/" in next(names.problems("rewards/own.py"))


def test_a_name_that_there_is_not_is_answered_with_the_near_match():
    assert next(names.problems("exactmatch")).startswith("no reward of that name (did you mean exact_match?)")
    assert set(names.NAMES) == set(functions.FUNCTIONS)


def fails(text, answer="abc"):
    with pytest.raises(UserError) as error:
        scoring({"rewards/own.py": 1.0}, None, {"rewards/own.py": text}).each(answer, "ab", "")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nraise KeyError('x')\n" + OWN, "rewards/own.py: does not run: line 2: KeyError: 'x'"),
        (
            "def reward(a, b):\n    return 1 / 0",
            "rewards/own.py: line 2: ZeroDivisionError: division by zero, of the answer",
        ),
        ("def reward(a, b):\n    return 'good'", "rewards/own.py: reward gave 'good' for the answer abc; it must give"),
        ("def reward(a, b):\n    return float('nan')", "rewards/own.py: reward gave nan for the answer abc"),
    ],
)
def test_what_goes_wrong_in_a_file_is_one_message_with_its_line(text, said):
    assert fails(text).startswith(said)


def test_an_answer_in_a_message_can_do_nothing_to_a_terminal():
    assert "\x1b" not in fails("def reward(a, b):\n    raise ValueError(a)", "\x1b[2Jx" * 50)
