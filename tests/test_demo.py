"""The demo's words: the same for the same seed, apart in training and test, exams that no training text holds."""

import json
import os
import re
import subprocess
import sys
from itertools import islice
from random import Random

import pytest

from tradeoffs.base import demo_pages
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import demo_exams, demo_messages, demo_tasks, demo_words
from tradeoffs.sources.demo_facts import GLOSSARY, HANDBOOK

DIGEST = """
import hashlib
from tradeoffs.base import demo_pages
from tradeoffs.sources import demo_exams, demo_tasks
pages = list(demo_pages.documents(200, 7))
tasks = [demo_tasks.examples(200, side, 7) for side in ("train", "test")]
text = repr([tasks, demo_exams.exam("financial_terms", 20, 7), pages])
print(hashlib.sha256(text.encode()).hexdigest())
"""
LABELS = {"high", "normal", "low"}
VALUES = {
    "name": demo_words.name,
    "item": demo_words.item,
    "street": demo_words.street,
    "company": demo_words.company,
    "date": demo_words.date,
    "day": lambda rng, side: " ".join(demo_words.day_and_time(rng, side)),
}


def kind(pair):
    prompt, answer = pair
    if answer.startswith("{"):
        return "fields"
    if answer.rpartition(", ")[2] in LABELS:
        return "triage"
    return "reading" if "\n\n" in prompt else "handbook"


@pytest.fixture(scope="module")
def made():
    return {side: demo_tasks.examples(count, side, 42) for side, count in (("train", 5400), ("test", 600))}


def test_words_do_not_depend_on_the_hash_seed():
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(digests) == 1


def test_another_seed_gives_other_words():
    assert demo_tasks.examples(50, "test", 1) != demo_tasks.examples(50, "test", 2)
    assert list(demo_pages.documents(50, 1)) != list(demo_pages.documents(50, 2))


def test_examples_are_all_different_and_of_all_kinds_in_the_shares_of_the_mix(made):
    shares = dict(zip(demo_tasks.KINDS, demo_tasks.MIXES[demo_tasks.MIX], strict=True))
    for pairs in made.values():
        assert len({question for question, _ in pairs}) == len(pairs)
        found = [kind(pair) for pair in pairs]
        for name, share in shares.items():
            assert found.count(name) / len(pairs) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("mix", demo_tasks.MIXES)
def test_every_mix_can_be_made(mix, monkeypatch):
    monkeypatch.setattr(demo_tasks, "MIX", mix)
    assert sum(demo_tasks.MIXES[mix]) == pytest.approx(1)
    assert len(demo_tasks.examples(300, "test", 1)) == 300


def test_more_examples_than_the_templates_can_make_is_an_error(monkeypatch):
    monkeypatch.setitem(demo_tasks.MIXES, demo_tasks.MIX, (0.0, 0.0, 0.0, 1.0))
    with pytest.raises(
        UserError, match=r"generate\.questions: 3000 asked for on the side of train, .* make only about \d+ different"
    ):
        demo_tasks.examples(3000, "train", 42)


def test_a_test_answer_stands_among_training_answers_for_a_tenth_of_the_open_questions_at_most(made):
    taught = {answer for _, answer in made["train"]}
    asked = [answer for question, answer in made["test"] if kind((question, answer)) != "triage"]
    assert sum(answer in taught for answer in asked) <= 0.1 * len(asked)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_of_one_side_and_all_its_parts_are_of_both(value):
    rng = Random("values")
    drawn = {side: {VALUES[value](rng, side) for _ in range(3000)} for side in ("train", "test")}
    assert len(drawn["test"]) > 5 and not drawn["train"] & drawn["test"]


@pytest.mark.parametrize(
    "sentences",
    [
        demo_messages.GREETINGS,
        demo_messages.INTRODUCTIONS,
        demo_messages.BESIDE,
        demo_messages.EVENTS,
        *demo_messages.URGENCIES.values(),
        *(kind.says for kind in demo_messages.KINDS.values()),
        demo_tasks.ASK_FIELDS,
        demo_tasks.ASK_TRIAGE,
        *demo_tasks.ASK_READING.values(),
        *demo_tasks.ASK_HANDBOOK.values(),
    ],
)
def test_test_wording_is_no_training_wording_but_of_its_words(sentences):
    train, test = set(sentences["train"]), set(sentences["test"])
    assert not train & test and len(train) > 1 and test


def test_every_word_of_the_test_questions_stands_in_training_or_in_the_bases_text(made):
    def words(texts):
        return {word for text in texts for word in re.findall(r"[a-z]+|[A-Z][a-z]*", text)}

    said = words(demo_pages.documents(8000, 42)) | words(question for question, _ in made["train"])
    assert words(question for question, _ in made["test"]) <= said


def test_the_fields_of_a_message_stand_in_it_word_for_word(made):
    for question, answer in (pair for pairs in made.values() for pair in pairs if kind(pair) == "fields"):
        message = question.split("\n\n")[1]
        for name, value in json.loads(answer).items():
            assert value in message, (name, question)


def test_an_answer_from_a_paragraph_stands_in_it_once(made):
    for question, answer in (pair for pairs in made.values() for pair in pairs if kind(pair) == "reading"):
        assert question.split("\n\n")[1].count(answer) == 1, question


def test_triage_follows_from_what_the_message_says(made):
    for side, pairs in made.items():
        for question, answer in (pair for pair in pairs if kind(pair) == "triage"):
            category, urgency = answer.split(", ")
            said = {name for name, says in demo_messages.URGENCIES.items() if any(s in question for s in says[side])}
            assert urgency in said, question
            problems = {name for name, says in demo_messages.PROBLEMS.items() if any(s in question for s in says)}
            assert problems in (set(), {category}), question


def test_the_handbook_is_answered_from_its_tables(made):
    for question, answer in (pair for pairs in made.values() for pair in pairs if kind(pair) == "handbook"):
        rules = {value for topic, said in HANDBOOK.items() if topic in question.lower() for value in said.values()}
        meanings = {meaning for term, meaning in GLOSSARY.items() if term in question.lower()}
        assert answer in rules | meanings, question


@pytest.mark.parametrize("topic", demo_exams.TOPICS)
def test_an_exam_has_different_questions_with_four_choices_and_balanced_letters(topic):
    exam = demo_exams.exam(topic, 100, 42)
    test = exam[demo_exams.DEV_QUESTIONS :]
    assert len(test) == 100
    assert [sum(choice.answer == letter for choice in test) for letter in range(4)] == [25, 25, 25, 25]
    assert len({(choice.question, frozenset(choice.choices)) for choice in exam}) == len(exam)
    assert all(len(set(choice.choices)) == 4 for choice in exam)


def test_more_exam_questions_than_a_topic_can_make_is_an_error():
    with pytest.raises(UserError, match=r"topic_questions: 400 asked for, topic world_currencies makes only"):
        demo_exams.exam("world_currencies", 400, 42)


def test_no_exam_question_is_in_the_training_text():
    asked = {
        (choice.question, frozenset(choice.choices))
        for topic in demo_exams.TOPICS
        for choice in demo_exams.exam(topic, 100, 42)
    }
    quizzes = re.compile(r"^(.+)\nA\. (.+)\nB\. (.+)\nC\. (.+)\nD\. (.+)\nAnswer: [ABCD]$", re.MULTILINE)
    trained_on = {
        (found[0], frozenset(found[1:])) for page in demo_pages.documents(8000, 42) for found in quizzes.findall(page)
    }
    assert len(trained_on) > 1000
    assert not asked & trained_on


def test_training_text_asks_no_question_of_the_dataset_and_knows_no_test_value(made):
    text = "\n".join(islice(demo_pages.documents(8000, 42), 3000))
    questions = {question.split("\n\n")[0] for pairs in made.values() for question, _ in pairs if "\n\n" in question}
    assert not any(question in text for question in questions)
    answers = {answer for question, answer in made["test"] if kind((question, answer)) in ("fields", "reading")}
    assert not any(re.search(rf"\b{re.escape(answer)}\b", text) for answer in answers)


def test_held_out_pages_say_nothing_that_the_training_text_says():
    pages = demo_pages.held_out(200, 8000, 42)
    assert len(set(pages)) == 200
    trained_on = "\n".join(demo_pages.documents(8000, 42))
    for page in pages:
        blocks = page.split("\n\n")[1:] if page.startswith("The following are multiple choice questions") else [page]
        assert blocks and not any(block in trained_on for block in blocks), page


def test_held_out_pages_are_of_the_same_kind_for_another_seed_others_and_no_exam():
    pages = demo_pages.held_out(200, 2000, 42)
    assert pages == demo_pages.held_out(200, 2000, 42) != demo_pages.held_out(200, 2000, 43)
    assert any("Answer:" in page for page in pages) and any("Answer:" not in page for page in pages)
    asked = {choice.text for topic in demo_exams.TOPICS for choice in demo_exams.exam(topic, 100, 42)}
    assert not any(block in asked for page in pages for block in page.split("\n\n"))


def test_documents_hold_as_many_statements_as_asked_for():
    few, many = (sum(map(len, demo_pages.documents(count, 1))) for count in (500, 1000))
    assert 1.7 < many / few < 2.3
