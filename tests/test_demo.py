"""The demo's words: the same for the same seed, computed answers that are right, exams that no training text holds."""

import os
import re
import subprocess
import sys
from itertools import islice

import pytest

from tradeoffs.base import demo_pages
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import demo_exams, demo_questions
from tradeoffs.sources.demo_facts import CURRENCIES, GLOSSARY

DIGEST = """
import hashlib
from tradeoffs.base import demo_pages
from tradeoffs.sources import demo_exams, demo_questions
pages = list(demo_pages.documents(200, 7))
text = repr([demo_questions.questions(200, 7), demo_exams.exam("financial_terms", 20, 7), pages])
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_words_do_not_depend_on_the_hash_seed():
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(digests) == 1


def test_another_seed_gives_other_words():
    assert demo_questions.questions(50, 1) != demo_questions.questions(50, 2)
    assert list(demo_pages.documents(50, 1)) != list(demo_pages.documents(50, 2))


def test_questions_are_all_different_and_as_many_as_asked_for():
    pairs = demo_questions.questions(3000, 42)
    assert len({question for question, _ in pairs}) == 3000


def test_more_questions_than_the_templates_can_make_is_an_error(monkeypatch):
    monkeypatch.setattr(demo_questions, "SKILLS", {"currency": demo_questions.SKILLS["currency"]})
    with pytest.raises(UserError, match=r"generate\.questions: 500 asked for, .* make only about \d+ different"):
        demo_questions.questions(500, 42)


def test_more_exam_questions_than_a_topic_can_make_is_an_error():
    with pytest.raises(UserError, match=r"topic_questions: 400 asked for, topic world_currencies makes only"):
        demo_exams.exam("world_currencies", 400, 42)


# The answer of each skill, worked out again from the numbers of the question alone.
@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        (r"is (\d+)% of \$(\d+)\?", lambda p, x: f"{p}% of ${x} is ${p * x / 100:g}."),
        (r"simple interest on \$(\d+) at (\d+)% for (\d+)", lambda x, r, t: f"interest is ${x * r * t / 100:g}."),
        (r"went from \$(\d+) to \$(\d+)\.", lambda a, b: f"{'fell' if b < a else 'rose'} by {abs(b - a) / a:.0%}."),
        (r"Convert \$(\d+) at a rate of (\d+)", lambda x, r: f"You get {x * r} "),
        (r"ROI of a \$(\d+) investment with a gain of \$(\d+)", lambda c, g: f"is {g / c * 100:g}%."),
        (r"revenue of \$(\d+) and costs of \$(\d+)", lambda r, c: f"profit of ${r - c}."),
        (r"fixed costs \$(\d+), price \$(\d+), unit cost \$(\d+)", lambda f, p, c: f"is {f / (p - c):g} units."),
        (r"average of \$(\d+), \$(\d+) and \$(\d+)", lambda a, b, c: f"is ${(a + b + c) / 3:g}."),
        (r"a (\d+)% tip on a \$(\d+)", lambda p, x: f"tip is ${p * x / 100:g} and the total is ${x + p * x / 100:g}."),
        (r"saves \$(\d+) a month\. How much is that in (\d+)", lambda x, n: f"saves ${x * n} in {n} months."),
        (r"earns \$(\d+) and spends \$(\d+)", lambda i, s: f"has ${i - s} left."),
        (r"costs \$(\d+)\. What is the price after a (\d+)%", lambda x, p: f"costs ${x * (100 - p) / 100:g} after"),
    ],
)
def test_answers_are_computed_right(pattern, answer):
    checked = 0
    for question, given in demo_questions.questions(4000, 3):
        found = re.search(pattern, question)
        if found:
            assert answer(*map(int, found.groups())) in given, question
            checked += 1
    assert checked > 5


def test_definitions_and_currencies_are_answered_from_the_tables():
    pairs = dict(demo_questions.questions(3000, 42))
    for term, meaning in GLOSSARY.items():
        assert pairs.get(f"Define {term}.", f"{term} is {meaning}.").casefold() == f"{term} is {meaning}.".casefold()
    for country, money in CURRENCIES.items():
        question = f"What is the currency of {country}?"
        assert pairs.get(question, money + ".").endswith(f"{money}.")


@pytest.mark.parametrize("topic", demo_exams.TOPICS)
def test_an_exam_has_different_questions_with_four_choices_and_balanced_letters(topic):
    exam = demo_exams.exam(topic, 100, 42)
    test = exam[demo_exams.DEV_QUESTIONS :]
    assert len(test) == 100
    assert [sum(choice.answer == letter for choice in test) for letter in range(4)] == [25, 25, 25, 25]
    assert len({(choice.question, frozenset(choice.choices)) for choice in exam}) == len(exam)
    assert all(len(set(choice.choices)) == 4 for choice in exam)


def test_the_right_choice_about_a_price_follows_from_its_numbers():
    for choice in demo_exams.exam("price_changes", 60, 5):
        old, new = map(int, re.findall(r"\$(\d+)", choice.question))
        said = choice.choices[choice.answer]
        assert (new == old, new == 2 * old, new < old) == tuple(
            said == f"it {verb}" for verb in ("stayed the same", "doubled", "fell")
        )


def test_no_exam_question_is_in_the_training_text():
    asked = {
        (choice.question, frozenset(choice.choices))
        for topic in demo_exams.TOPICS
        for choice in demo_exams.exam(topic, 150, 42)
    }
    quizzes = re.compile(r"^(.+)\nA\. (.+)\nB\. (.+)\nC\. (.+)\nD\. (.+)\nAnswer: [ABCD]$", re.MULTILINE)
    trained_on = {
        (found[0], frozenset(found[1:])) for page in demo_pages.documents(8000, 42) for found in quizzes.findall(page)
    }
    assert len(trained_on) > 1000
    assert not asked & trained_on


def test_training_text_asks_no_question_of_the_dataset():
    text = "\n".join(islice(demo_pages.documents(8000, 42), 1500))
    answers = ("The simple interest is", "The return on investment is", "The break-even point is")
    assert not any(answer in text for answer in answers)


def test_held_out_pages_say_nothing_that_the_training_text_says():
    pages = demo_pages.held_out(200, 8000, 42)
    assert len(set(pages)) == 200
    trained_on = "\n".join(demo_pages.documents(8000, 42))
    for page in pages:
        if page.startswith("The following are multiple choice questions"):
            said = re.findall(r"^(.+)\nA\. ", page, re.MULTILINE)
            blocks = [block for block in page.split("\n\n")[1:] if block]
            assert said and not any(block in trained_on for block in blocks)
        else:
            assert page not in trained_on
            assert not any(sentence in trained_on for sentence in re.findall(r"[A-Z][^.]+\.", page)), page


def test_held_out_pages_are_of_the_same_kind_for_another_seed_others_and_no_exam():
    pages = demo_pages.held_out(200, 2000, 42)
    assert pages == demo_pages.held_out(200, 2000, 42) != demo_pages.held_out(200, 2000, 43)
    assert any("Answer:" in page for page in pages) and any("Answer:" not in page for page in pages)
    asked = {choice.text for topic in demo_exams.TOPICS for choice in demo_exams.exam(topic, 100, 42)}
    assert not any(block in asked for page in pages for block in page.split("\n\n"))


def test_documents_hold_as_many_statements_as_asked_for():
    few, many = (sum(map(len, demo_pages.documents(count, 1))) for count in (500, 1000))
    assert 1.7 < many / few < 2.3
