"""The demo's multiple-choice exams: what the base knows before it is tuned, and may forget by that.

A multiple-choice question belongs either to the exams or to the pages that a generated model learns from, by a hash of
its words, so no exam question is ever part of its training text, whatever the seeds and counts.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import multiple_choice
from tradeoffs.sources.demo_facts import ANIMALS, BOOKS, CONTINENTS, FIRMS, GLOSSARY, NAMES, TRADES
from tradeoffs.sources.multiple_choice import LETTERS

DEV_QUESTIONS = 5  # worked examples per topic, as in MMLU
EXAM_SHARE = 4  # one possible question in four is kept for exams


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question; `answer` is the index of the right one among the four choices."""

    question: str
    choices: tuple[str, ...]
    answer: int

    @property
    def text(self) -> str:
        """In the layout of the MMLU prompt, with its answer."""
        return f"{multiple_choice.asked(self.question, self.choices)} {LETTERS[self.answer]}"

    @property
    def words(self) -> str:
        """The same for the same question with the same choices in any order."""
        return "\n".join((self.question, *sorted(self.choices)))


def _sorting(choices: Mapping[str, Iterable[str]], *asks: str) -> Callable[[Random, int], Choice]:
    """A topic that always offers the same choices; `thing` is one of what belongs to the right one."""

    def draw(rng: Random, place: int) -> Choice:
        right = list(choices)[place]
        slots = {"thing": rng.choice(list(choices[right])), "name": rng.choice(NAMES), "firm": rng.choice(FIRMS)}
        return Choice(rng.choice(asks).format(**slots), tuple(choices), place)

    return draw


def _term_choice(rng: Random, place: int) -> Choice:
    term, meaning = rng.choice(sorted(GLOSSARY.items()))
    wrong = rng.sample(sorted(set(GLOSSARY) - {term}), 3)
    question = rng.choice(("Which word means {}?", "What do we call {}?")).format(meaning)
    return Choice(question, (*wrong[:place], term, *wrong[place:]), place)


# Multiple-choice topics, in the order in which `topics: N` takes them; each is drawn with its right answer in a given
# place. All but the last always offer the same choices, so a very small model can learn the letter of each answer; in
# that one it must find the letter beside the answer, which it hardly can.
TOPICS: dict[str, Callable[[Random, int], Choice]] = {
    "bookkeeping": _sorting(
        BOOKS,
        "The books of a {firm} show {thing}. What is it?",
        "A {firm} has {thing}. Where does it stand?",
        "For a {firm}, what is {thing}?",
        "A {firm} writes down {thing}. What kind of entry is that?",
    ),
    "world_currencies": _sorting(
        {
            continent: [f"{money} of {country}" for country, money in countries.items()]
            for continent, countries in CONTINENTS.items()
        },
        "{name} pays with the {thing}. Where is {name}?",
        "{name} has the {thing}. Where is that?",
    ),
    "animals": _sorting(
        ANIMALS,
        "{name} saw {thing}. What is it?",
        "{name} draws {thing}. What kind of animal is that?",
        "What did {name} see, if it was {thing}?",
    ),
    "trades": _sorting(
        TRADES,
        "{name} {thing}. What is {name}?",
        "Every day {name} {thing}. Which trade is that?",
        "{name} {thing} for a {firm}. What is {name}?",
    ),
    "financial_terms": _term_choice,
}
SAME_CHOICES = 4


def is_exam(choice: Choice) -> bool:
    """Whether this question, with its choices in any order, belongs to the exams and not to the training text."""
    return hashlib.sha256(choice.words.encode()).digest()[0] % EXAM_SHARE == 0


def draw(rng: Random, topic: str, place: int, exam: bool) -> Choice:
    """A question of the exams or, without `exam`, of the training text, with its right answer in that place."""
    while True:
        choice = TOPICS[topic](rng, place)
        if is_exam(choice) == exam:
            return choice


def exam(topic: str, count: int, seed: int) -> list[Choice]:
    """`DEV_QUESTIONS` worked examples and `count` test questions of one topic, all different.

    Among the test questions each letter is right equally often, as far as `count` allows. Raises UserError when the
    topic's words cannot make that many.
    """
    rng = Random(f"demo exam {topic} {seed}")
    places = [rng.randrange(4) for _ in range(DEV_QUESTIONS)] + rng.sample([n % 4 for n in range(count)], count)
    found: dict[tuple, Choice] = {}
    for _ in range(50 * len(places)):
        drawn = draw(rng, topic, places[len(found)], exam=True)
        found.setdefault((drawn.question, frozenset(drawn.choices)), drawn)
        if len(found) == len(places):
            return list(found.values())
    raise UserError(
        f"datasets: generate.topic_questions: {count} asked for, topic {topic} makes only about "
        f"{len(found) - DEV_QUESTIONS} different ones; ask for fewer"
    )
