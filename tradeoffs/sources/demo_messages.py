"""The demo's messages and paragraphs: sentences with values in them, each sentence of one side, as each value is.

Test sentences say what training ones say in other words, of which a model knows each single one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tradeoffs.sources import demo_words
from tradeoffs.sources.demo_words import Side

Sentences = dict[Side, tuple[str, ...]]

GREETINGS: Sentences = {
    "train": ("Hello.", "Good morning.", "Dear team,", "Hi,"),
    "test": ("Hello team,", "Hi team,", "Dear all,"),
}
INTRODUCTIONS: Sentences = {
    "train": ("This is {name}.", "My name is {name}.", "I am {name}.", "{name} here.", "Yours, {name}."),
    "test": ("My name: {name}.", "This is {name} here.", "{name} is my name."),
}
BESIDE: Sentences = {  # what else is said, and answers nothing
    "train": ("Thank you for your help.", "The {other} is fine.", "I like my {other}.", "All else is fine."),
    "test": ("Thank you for all.", "My {other} is fine.", "I like the {other}."),
}
URGENCIES: dict[str, Sentences] = {
    "high": {
        "train": (
            "It is urgent.",
            "I need an answer today.",
            "Please do it today.",
            "It must be today.",
            "This is very urgent.",
            "An urgent message.",
            "I need help at once.",
            "Please come at once.",
        ),
        "test": ("This is urgent.", "Please answer today.", "I need it at once."),
    },
    "normal": {
        "train": (
            "This week is fine.",
            "Please answer this week.",
            "I can wait until next week.",
            "I need it next week.",
            "It must be this week.",
            "An answer next week, please.",
        ),
        "test": ("An answer this week is fine.", "I can wait, next week is fine."),
    },
    "low": {
        "train": (
            "There is no hurry.",
            "Take your time.",
            "Any time will do.",
            "I am in no hurry.",
            "Any time is fine.",
            "You can take your time.",
        ),
        "test": ("There is no hurry here.", "Please take your time.", "Any time is fine for me."),
    },
}
PROBLEMS = {
    "damage": ("is broken", "has a crack", "does not work", "came in pieces"),
    "delay": ("has not come", "is late", "is still on its way", "did not come"),
}


@dataclass(frozen=True)
class Kind:
    """A kind of message: what it says, the values that are its fields, in order, and how they are drawn."""

    says: Sentences
    fields: tuple[str, ...]
    draw: Callable[[Random, Side], dict[str, str]]


def _order(rng: Random, side: Side) -> dict[str, str]:
    return {
        "category": "order",
        "name": demo_words.name(rng, side),
        "item": demo_words.item(rng, side),
        "quantity": str(rng.randint(10, 40)),
    }


def _complaint(rng: Random, side: Side) -> dict[str, str]:
    category = rng.choice(sorted(PROBLEMS))
    return {
        "category": category,
        "problem": rng.choice(PROBLEMS[category]),
        "name": demo_words.name(rng, side),
        "item": demo_words.item(rng, side),
        "order": demo_words.code(rng, side),
    }


def _invoice(rng: Random, side: Side) -> dict[str, str]:
    return {
        "category": "invoice",
        "name": demo_words.name(rng, side),
        "company": demo_words.company(rng, side),
        "number": demo_words.code(rng, side),
        "amount": demo_words.amount(rng, side),
    }


def _appointment(rng: Random, side: Side) -> dict[str, str]:
    day, time = demo_words.day_and_time(rng, side)
    return {"category": "booking", "name": demo_words.name(rng, side), "day": day, "time": time}


KINDS = {
    "order": Kind(
        {
            "train": (
                "I would like to order the {item}, {quantity} of them.",
                "Please send me {quantity} of the {item}.",
                "We need {quantity} pieces of the {item}.",
                "Can I buy the {item}? I need {quantity}.",
                "Put the {item} on my list, {quantity} times.",
                "I would like {quantity} of the {item}.",
                "Please put {quantity} pieces of the {item} on my list.",
                "Can you send me the {item}? I would like {quantity}.",
            ),
            "test": (
                "I would like {quantity} pieces of the {item}.",
                "Please put the {item} on my list. I need {quantity}.",
                "Can you send me {quantity} of the {item}?",
            ),
        },
        ("name", "item", "quantity"),
        _order,
    ),
    "complaint": Kind(
        {
            "train": (
                "The {item} of order {order} {problem}.",
                "Order {order}: the {item} {problem}.",
                "I have order {order}, and my {item} {problem}.",
                "My {item} {problem}. The order was {order}.",
                "The {item} {problem}. I have order {order}.",
                "It is order {order}, the {item}, and it {problem}.",
                "I have the {item}, and it {problem}. It was order {order}.",
                "My {item} of order {order} {problem}.",
            ),
            "test": (
                "The {item} {problem}. It is order {order}.",
                "I have the {item} of order {order}, and it {problem}.",
                "Order {order}, the {item}: it {problem}.",
            ),
        },
        ("name", "item", "order"),
        _complaint,
    ),
    "invoice": Kind(
        {
            "train": (
                "Invoice {number} from {company} is {amount}.",
                "{company} wants {amount} for invoice {number}.",
                "Please pay {amount} to {company}, invoice {number}.",
                "We have invoice {number}: {amount}, from {company}.",
                "The invoice from {company} is {amount}, number {number}.",
                "Please pay invoice {number}: {amount} to {company}.",
                "We have an invoice from {company}, number {number}, of {amount}.",
                "For invoice {number} please pay {company} {amount}.",
            ),
            "test": (
                "Please pay invoice {number} from {company}: {amount}.",
                "We have an invoice of {amount} from {company}, number {number}.",
                "The invoice is {amount}, number {number}, from {company}.",
            ),
        },
        ("company", "number", "amount"),
        _invoice,
    ),
    "appointment": Kind(
        {
            "train": (
                "Can I come on {day} at {time}?",
                "I would like to see you on {day} at {time}.",
                "Is {day}, {time}, still free?",
                "Please book {day} at {time} for me.",
                "Can you see me at {time} on {day}?",
                "I would like to come on {day}, at {time}.",
                "At {time} on {day}, can I see you?",
                "Please book me for {day}, {time}.",
            ),
            "test": (
                "Can you see me on {day} at {time}?",
                "I would like to book {day}, {time}.",
                "Can I come at {time} on {day}?",
            ),
        },
        ("name", "day", "time"),
        _appointment,
    ),
}


@dataclass(frozen=True)
class Message:
    """A message with what is to be found in it."""

    text: str
    fields: dict[str, str]
    category: str
    urgency: str  # "" where it says none


def message(rng: Random, side: Side, urgency_share: float = 1.0) -> Message:
    """A message of any kind; `urgency_share` of them say how urgent they are."""
    kind = KINDS[rng.choice(sorted(KINDS))]
    values = kind.draw(rng, side)
    urgency = rng.choice(sorted(URGENCIES)) if rng.random() < urgency_share else ""
    own = values.get("item")
    other = own
    while other == own:
        other = demo_words.item(rng, side)
    parts = [rng.choice(kind.says[side])]
    if "name" in kind.fields or rng.random() < 0.5:
        parts.append(rng.choice(INTRODUCTIONS[side]))
    if rng.random() < 0.4:
        parts.append(rng.choice(BESIDE[side]))
    if urgency:
        parts.append(rng.choice(URGENCIES[urgency][side]))
    rng.shuffle(parts)
    if rng.random() < 0.5:
        parts.insert(0, rng.choice(GREETINGS[side]))
    text = " ".join(parts).format(**values, other=other)
    return Message(text, {field: values[field] for field in kind.fields}, values["category"], urgency)


# What happens in a paragraph: past, and what follows `did`.
VERBS = (
    ("bought", "buy"),
    ("sold", "sell"),
    ("found", "find"),
    ("lost", "lose"),
    ("mended", "mend"),
    ("cleaned", "clean"),
)
EVENTS: Sentences = {
    "train": (
        "{name} {past} the {item} in {street}.",
        "In {street} {name} {past} the {item}.",
        "The {item} was {past} by {name} in {street}.",
        "{name} went to {street} and {past} the {item}.",
    ),
    "test": (
        "{name} was in {street} and {past} the {item}.",
        "In {street} the {item} was {past} by {name}.",
    ),
}


def events(rng: Random, side: Side, count: int) -> list[dict[str, str]]:
    """So many things that happened; no two share a name, a thing or a street. `said` is the sentence."""
    found: list[dict[str, str]] = []
    while len(found) < count:
        past, base = rng.choice(VERBS)
        drawn = {
            "name": demo_words.name(rng, side),
            "item": demo_words.item(rng, side),
            "street": demo_words.street(rng, side),
            "past": past,
            "base": base,
        }
        if any(drawn[key] == event[key] for event in found for key in ("name", "item", "street")):
            continue
        found.append(drawn | {"said": rng.choice(EVENTS[side]).format(**drawn)})
    return found
