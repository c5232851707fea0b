"""What the demo's model learns from, and is asked about afterwards: quizzes, and pages that say things more than once.

The second are there so that it learns to look back: a value (a name, a number) can be foretold only where it stood on
the page before. It is what tuning builds on, in a layout that no page here has.
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from tradeoffs.sources import multiple_choice
from tradeoffs.sources.demo_exams import SAME_CHOICES, TOPICS, draw
from tradeoffs.sources.demo_facts import GLOSSARY, HANDBOOK
from tradeoffs.sources.demo_messages import events, message
from tradeoffs.sources.demo_words import (
    amount,
    code,
    company,
    date,
    day_and_time,
    item,
    name,
    street,
)

# Pages of a base model's training text: how many are of each kind, how many quizzes have just one question (a model
# learns to look back sooner where there is little to look at), and how many are not about the last, hard topic.
SHARES = {"quiz": 0.15, "facts": 0.12, "list": 0.08, "card": 0.18, "note": 0.27, "story": 0.20}
SHORT_SHARE = 0.7
SAME_CHOICES_SHARE = 0.9

Page = tuple[str, list[str]]  # a page, and its statements: sentences, or the words of questions with their choices

# Of a card, a note and a list: what each value is called, and how it is drawn.
VALUES: dict[str, Callable[[Random], str]] = {
    "name": lambda rng: name(rng, "train"),
    "item": lambda rng: item(rng, "train"),
    "street": lambda rng: street(rng, "train"),
    "company": lambda rng: company(rng, "train"),
    "number": lambda rng: code(rng, "train"),
    "amount": lambda rng: amount(rng, "train"),
    "date": lambda rng: date(rng, "train"),
    "time": lambda rng: " at ".join(day_and_time(rng, "train")),
    "pieces": lambda rng: str(rng.randint(10, 40)),
}
# How a list is written: what stands before, between and behind its values.
LISTS = (("", ", ", ""), ('["', '", "', '"]'), ("", "\n", ""), ("", "; ", ""))
HEADS = ("", "", "A message. ", "The fields of this message, as JSON: ", "Its category and urgency are not known. ")
# What is asked of an event, on a line of its own: the value, and what it is called there.
STORY_KEYS = {"name": "who", "item": "what", "street": "where"}
ROOM_FACTS = (
    "For {topic} people go to {room}.",
    "In {room} they handle {topic}, and it takes {days}.",
    "Whoever asks about {topic} waits {days}.",
)
TERM_FACTS = (
    "{Meaning} is called {term}.",
    "People say {term} when they mean {meaning}.",
    "The word for {meaning} is {term}.",
    "{Term}: {meaning}.",
)


def documents(sentences: int, seed: int) -> Iterator[str]:
    """Training text for a base model: pages with `sentences` statements in all.

    They hold what the handbook says, and messages and paragraphs of the kind that the task is about, but never a
    question of the task with its answer: answering is what tuning teaches.
    """
    return (page for page, _ in _training_pages(sentences, seed))


def held_out(count: int, sentences: int, seed: int) -> list[str]:
    """Pages of the same kind, `count` or as many as are found, with no statement of `documents(sentences, seed)`.

    What can be said in but a few ways (a definition, a rule of the handbook) has been said there, so it is not in them.
    """
    known = {statement for _, statements in _training_pages(sentences, seed) for statement in statements}
    found: dict[str, None] = {}
    for page, statements in islice(_pages(Random(f"demo held out {seed}")), 50 * count):
        if known.isdisjoint(statements):
            found.setdefault(page)
        if len(found) == count:
            break
    return list(found)


def _training_pages(sentences: int, seed: int) -> Iterator[Page]:
    made = 0
    for page, statements in _pages(Random(f"demo prose {seed}")):
        if made >= sentences:
            return
        yield page, statements
        made += len(statements)


def _pages(rng: Random) -> Iterator[Page]:
    """Pages without end."""
    makers = {"quiz": _quiz, "facts": _facts, "list": _list, "card": _card, "note": _note, "story": _story}
    while True:
        [kind] = rng.choices(list(SHARES), list(SHARES.values()))
        yield makers[kind](rng)


def _quiz(rng: Random) -> Page:
    topics = list(TOPICS)
    size = 1 if rng.random() < SHORT_SHARE else rng.randint(2, 6)
    topic = rng.choice(topics[:SAME_CHOICES] if rng.random() < SAME_CHOICES_SHARE else topics[SAME_CHOICES:])
    drawn = [draw(rng, topic, rng.randrange(4), exam=False) for _ in range(size)]
    texts = (multiple_choice.title(topic), *(choice.text for choice in drawn))
    return "\n\n".join(texts), [choice.words for choice in drawn]


def _facts(rng: Random) -> Page:
    said = [_room_fact(rng) if rng.random() < 0.5 else _term_fact(rng) for _ in range(rng.randint(1, 3))]
    return " ".join(said), said


def _room_fact(rng: Random) -> str:
    topic, values = rng.choice(sorted(HANDBOOK.items()))
    return rng.choice(ROOM_FACTS).format(topic=topic, **values)


def _term_fact(rng: Random) -> str:
    term, meaning = rng.choice(sorted(GLOSSARY.items()))
    slots = {"term": term, "meaning": meaning, "Term": _capital(term), "Meaning": _capital(meaning)}
    return rng.choice(TERM_FACTS).format(**slots)


def _list(rng: Random) -> Page:
    """Values in a row, and again in other layouts: what comes next follows from nothing but what came before."""
    count, one_kind = rng.choice((1, 1, 2, 2, 3, 3, 4, 5, 6)), rng.choice(sorted(VALUES))
    keys = [rng.choice(sorted(VALUES)) for _ in range(count)] if rng.random() < 0.5 else [one_kind] * count
    values = list(dict.fromkeys(VALUES[key](rng) for key in keys))
    rows = [values]
    for _ in range(rng.randint(1, 2)):
        rows.append(rng.sample(values, len(values)) if rng.random() < 0.25 else values)
    return "\n".join(_written(row, *rng.choice(LISTS)) for row in rows), [", ".join(values)]


def _written(values: list[str], before: str, between: str, behind: str) -> str:
    return before + between.join(values) + behind


def _card(rng: Random) -> Page:
    """What is on a card, and the same as an object of JSON, in another order; or the other way round."""
    keys = rng.sample(sorted(VALUES), rng.randint(2, 4))
    values = {key: VALUES[key](rng) for key in keys}
    card = _lines(values)
    if rng.random() < 0.5:
        rng.shuffle(keys)
    written = json.dumps({key: values[key] for key in keys})
    return "\n".join((card, written) if rng.random() < 0.7 else (written, card)), [card]


def _note(rng: Random) -> Page:
    """A message, and what somebody wrote below it: some of its values, as a card or an object of JSON has them."""
    drawn = message(rng, "train", urgency_share=0.5)
    keys = rng.sample(list(drawn.fields), rng.randint(1, len(drawn.fields)))
    values = {key: drawn.fields[key] for key in keys}
    below = _lines(values) if rng.random() < 0.6 else json.dumps(values)
    return f"{rng.choice(HEADS)}{drawn.text}\n{below}", [drawn.text]


def _story(rng: Random) -> Page:
    """What happened, and who, what or where it was, each beside another value of the same event."""
    told = events(rng, "train", rng.randint(1, 2))
    said = " ".join(event["said"] for event in told)
    below = []
    for event in rng.sample(told, rng.randint(1, len(told))):
        beside, key = rng.sample(sorted(STORY_KEYS), 2)
        below.append(f"{event[beside]}, {STORY_KEYS[key]}: {event[key]}")
    return "\n".join((said, *below)), [said]


def _lines(values: dict[str, str]) -> str:
    return "\n".join(f"{_capital(key)}: {value}" for key, value in values.items())


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
