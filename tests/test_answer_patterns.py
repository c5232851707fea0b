"""What a data set's `answer_pattern` finds in an answer, and what exact match then compares."""

import json
import re
from pathlib import Path

import pytest
import quick_yaml
from needs import needs

from benchmarks import assets
from tradeoffs.common.examples import picked
from tradeoffs.metrics.answers import exact_match_of

REPO = Path(__file__).parents[1]
GSM8K = quick_yaml.load((REPO / "params.yaml").read_text())["datasets"]["gsm8k"]["answer_pattern"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("He pays 3 * 6 = 18 dollars.\n#### 18", "18"),
        ("#### 1,234", "1234"),
        ("#### 1,234,567", "1234567"),
        ("#### -5", "-5"),
        ("#### 0.5", "0.5"),
        ("#### 18.", "18"),  # the full stop ends a sentence
        ("#### 1,234.", "1234"),
        ("#### 18, as asked.", "18"),
        ("#### 18\n\nQuestion: What is 2 + 3?\nAnswer: 2 + 3 = 5\n#### 5", "18"),  # it went on after its answer
        ("#### $18", None),  # as for its authors
        ("The answer is 18.", None),
        ("#### .", None),
        ("", None),
    ],
)
def test_the_pattern_of_gsm8k_finds_the_number_after_the_mark(answer, found):
    assert picked(GSM8K, answer) == found


@pytest.mark.parametrize(
    ("answer", "found"),
    [("1,2", "1,2"), ("1,2345", "1,2345"), ("12,345.5", "12345.5"), ("0,5 and 1,000", "0,5 and 1000"), ("a,b", "a,b")],
)
def test_only_commas_between_thousands_are_none_of_an_answer(answer, found):
    assert picked(r"Answer: (.+)", f"Answer: {answer}") == found


def test_a_pattern_can_ask_for_the_last_one():
    assert picked(r"(?s).*Answer: (\w+)", "Answer: no\nNo, wait.\nAnswer: yes") == "yes"


def test_a_group_that_did_not_take_part_finds_nothing():
    assert picked(r"Answer:(?: (\w+))?", "Answer:") is None


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("By another way.\n#### 1234", "#### 1,234", 1.0),
        ("#### 5", "#### -5", 0.0),  # no sign is lost as punctuation
        ("#### 15", "#### 1.5", 0.0),  # nor a point
        ("1234", "#### 1,234", 0.0),  # the number alone is not what was asked for
        ("", "#### 5", 0.0),
        ("#### 4\n#### 5", "#### 5", 0.0),
        ("#### 5\n#### 4", "#### 5", 1.0),
    ],
)
def test_exact_match_compares_what_was_found(answer, expected, right):
    assert exact_match_of(GSM8K, answer, expected) == right


def test_case_is_none_of_an_answer():
    assert exact_match_of(r"Answer: (\w+)", "I think... Answer: Yes.", "Answer: yes") == 1.0
    assert exact_match_of(r"Answer: (\w+)", "Answer: no", "Answer: yes") == 0.0


@needs("data/gsm8k")
@pytest.mark.parametrize("split", ["train", "test"])
def test_of_every_answer_of_gsm8k_it_finds_what_its_authors_do(split):
    lines = assets.find(f"data/gsm8k/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    numbers = [answer.rsplit("####", 1)[1].strip().replace(",", "") for answer in answers]
    assert [picked(GSM8K, answer) for answer in answers] == numbers
    assert any(number.startswith("-") for number in numbers)
    assert any("," in answer.rsplit("####", 1)[1] for answer in answers)
    for answer, number in zip(answers[:50], numbers, strict=False):
        assert exact_match_of(GSM8K, f"Somehow.\n#### {number}", answer) == 1.0
        assert exact_match_of(GSM8K, re.sub(r"#### .*", f"#### {number}1", answer), answer) == 0.0
