"""What the demo's model learns from, and is asked about afterwards: pages of prose and of quizzes about its world."""

from collections.abc import Iterator
from itertools import islice
from random import Random

from tradeoffs.sources import multiple_choice
from tradeoffs.sources.demo_exams import SAME_CHOICES, TOPICS, draw
from tradeoffs.sources.demo_questions import SKILLS, Skill

# Pages of a base model's training text: how many are prose and not a quiz, how many quizzes have just one question (a
# model learns to look back sooner where there is little to look at), and how many are about the first three topics.
PROSE_SHARE = 0.5
SHORT_SHARE = 0.7
SAME_CHOICES_SHARE = 0.75


def documents(sentences: int, seed: int) -> Iterator[str]:
    """Training text for a base model: paragraphs of prose and pages of quizzes, `sentences` statements in all.

    The prose holds the same kind of facts as `questions`, but never a question with its answer: answering is what
    tuning teaches.
    """
    return (page for page, _ in _training_pages(sentences, seed))


def held_out(count: int, sentences: int, seed: int) -> list[str]:
    """Pages of the same kind, `count` or as many as are found, with no statement of `documents(sentences, seed)`.

    What can be said in but a few ways (a definition, a country's currency) has been said there, so it is not in them.
    """
    known = {statement for _, statements in _training_pages(sentences, seed) for statement in statements}
    found: dict[str, None] = {}
    for page, statements in islice(_pages(Random(f"demo held out {seed}")), 50 * count):
        if known.isdisjoint(statements):
            found.setdefault(page)
        if len(found) == count:
            break
    return list(found)


def _training_pages(sentences: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    made = 0
    for page, statements in _pages(Random(f"demo prose {seed}")):
        if made >= sentences:
            return
        yield page, statements
        made += len(statements)


def _pages(rng: Random) -> Iterator[tuple[str, list[str]]]:
    """Pages without end, each with its statements: sentences, or the words of questions with their choices."""
    skills, topics = list(SKILLS.values()), list(TOPICS)
    while True:
        if rng.random() < PROSE_SHARE:
            said = [_statement(rng, rng.choice(skills)) for _ in range(rng.randint(1, 3))]
            yield " ".join(said), said
        else:
            size = 1 if rng.random() < SHORT_SHARE else rng.randint(2, 6)
            topic = rng.choice(topics[:SAME_CHOICES] if rng.random() < SAME_CHOICES_SHARE else topics[SAME_CHOICES:])
            drawn = [draw(rng, topic, rng.randrange(4), exam=False) for _ in range(size)]
            texts = (multiple_choice.title(topic), *(choice.text for choice in drawn))
            yield "\n\n".join(texts), [choice.words for choice in drawn]


def _statement(rng: Random, skill: Skill) -> str:
    return rng.choice(skill.prose).format(**skill.draw(rng))
