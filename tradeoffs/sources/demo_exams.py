"""The demo's multiple-choice exams, about the same world.

A multiple-choice question belongs either to the exams or to the prose that a generated model learns from, by a hash of
its words, so no exam question is ever part of its training text, whatever the seeds and counts.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import multiple_choice
from tradeoffs.sources.demo_facts import BOOKS, CONTINENTS, FIRMS, GLOSSARY, GOODS, NAMES
from tradeoffs.sources.demo_questions import PERCENTS, percent_of
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


def _books_choice(rng: Random, place: int) -> Choice:
    side = list(BOOKS)[place]
    asks = (
        "The books of a {firm} show {entry}. What is it?",
        "A {firm} has {entry}. Where does it stand?",
        "For a {firm}, what is {entry}?",
        "A {firm} writes down {entry}. What kind of entry is that?",
    )
    question = rng.choice(asks).format(firm=rng.choice(FIRMS), entry=rng.choice(BOOKS[side]))
    return Choice(question, tuple(BOOKS), place)


def _continent_choice(rng: Random, place: int) -> Choice:
    continent = list(CONTINENTS)[place]
    country, money = rng.choice(list(CONTINENTS[continent].items()))
    asks = (
        "{name} pays with the {money} of {country}. Where is {name}?",
        "{name} has {money} from {country}. Where is that?",
    )
    question = rng.choice(asks).format(name=rng.choice(NAMES), money=money, country=country)
    return Choice(question, tuple(CONTINENTS), place)


def _price_choice(rng: Random, place: int) -> Choice:
    old = rng.randint(10, 49)
    step = rng.randint(5, 9)
    new = (old + step, old - step, old, 2 * old)[place]
    asks = (
        "A {thing} cost ${old} and now costs ${new}. What did the price do?",
        "The price of a {thing} went from ${old} to ${new}.",
    )
    question = rng.choice(asks).format(thing=rng.choice(GOODS), old=old, new=new)
    return Choice(question, ("it rose", "it fell", "it stayed the same", "it doubled"), place)


def _term_choice(rng: Random, place: int) -> Choice:
    term, meaning = rng.choice(sorted(GLOSSARY.items()))
    question = rng.choice(("Which word means {}?", "What do we call {}?")).format(meaning)
    return Choice(question, _placed(rng, term, set(GLOSSARY) - {term}, place), place)


def _percent_choice(rng: Random, place: int) -> Choice:
    slots = percent_of(rng)
    others = {f"${percent * slots['amount'] // 100}" for percent in PERCENTS if percent != slots["percent"]}
    asks = ("How much is {percent}% of ${amount}?", "A fee of {percent}% on ${amount} comes to")
    question = rng.choice(asks).format(**slots)
    return Choice(question, _placed(rng, f"${slots['result']}", others, place), place)


def _placed(rng: Random, right: str, others: set[str], place: int) -> tuple[str, ...]:
    wrong = rng.sample(sorted(others), 3)
    return (*wrong[:place], right, *wrong[place:])


# Multiple-choice topics, in the order in which `topics: N` takes them; each is drawn with its right answer in a given
# place. The first three always offer the same choices, so a very small model can learn the letter of each answer; in
# the others it must find the letter beside the answer, which it hardly can.
TOPICS: dict[str, Callable[[Random, int], Choice]] = {
    "bookkeeping": _books_choice,
    "world_currencies": _continent_choice,
    "price_changes": _price_choice,
    "financial_terms": _term_choice,
    "percentages": _percent_choice,
}
SAME_CHOICES = 3


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
