"""The demo's task: what small models are tuned for, in four kinds of question with answers that are known.

    fields    a short message            -> its fields, as JSON
    triage    a short message            -> category and urgency
    reading   a question on a paragraph  -> words of the paragraph
    handbook  a question on the handbook -> what it says, which must be known by heart

Test questions are in other words than all training questions, about other names and values (demo_words, demo_messages);
only what the handbook says is the same, and the labels of triage are. Everything is drawn from `random.Random(<text>)`,
which seeds by SHA-512: the same seed gives the same bytes on every machine.
"""

import json
from collections.abc import Callable
from random import Random

from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources.demo_facts import GLOSSARY, HANDBOOK
from tradeoffs.sources.demo_messages import Sentences, events, message
from tradeoffs.sources.demo_words import Side

Pair = tuple[str, str]  # a question and its answer

ASK_FIELDS: Sentences = {
    "train": (
        "Write this message as JSON.",
        "The fields of this message as JSON:",
        "Which fields are here? Use JSON.",
        "JSON of the fields, please.",
        "As JSON: what does this message say?",
        "This message as JSON:",
        "Please write the fields as JSON.",
        "Use JSON for this message.",
    ),
    "test": ("Write the fields of this message as JSON.", "Use JSON: which fields are here?", "Please use JSON."),
}
ASK_TRIAGE: Sentences = {
    "train": (
        "Category and urgency of this message:",
        "Which category, and which urgency?",
        "Category? Urgency?",
        "This message: which category is it, and which urgency?",
        "Please write category and urgency.",
        "How urgent is this message, and of which category?",
        "What is the category, and the urgency?",
        "This message has a category and an urgency:",
    ),
    "test": (
        "Which category and urgency?",
        "This message: category and urgency?",
        "Please write the category and the urgency.",
    ),
}
ASK_READING: dict[str, Sentences] = {
    "name": {
        "train": (
            "Who {past} the {item}?",
            "By whom was the {item} {past}?",
            "Who was in {street}?",
            "Who was it, in {street}?",
            "Who was it that was in {street}?",
            "The {item}: who {past} it?",
        ),
        "test": ("Who was it that {past} the {item}?", "Who {past} the {item} in {street}?"),
    },
    "item": {
        "train": (
            "What did {name} {base}?",
            "What was {past} by {name}?",
            "What was {past} in {street}?",
            "What was it that was {past} by {name}?",
            "What did {name} {base} there?",
            "What was {past} there, in {street}?",
        ),
        "test": ("What was it that {name} {past}?", "What did {name} {base} in {street}?"),
    },
    "street": {
        "train": (
            "Where was {name}?",
            "Where was the {item} {past}?",
            "Where did {name} {base} the {item}?",
            "Where was it that the {item} was {past}?",
            "Where was the {item}?",
            "Where was it, {name}?",
        ),
        "test": ("Where was it that {name} {past} the {item}?", "Where was the {item} {past} by {name}?"),
    },
}
ASK_HANDBOOK: dict[str, Sentences] = {
    "room": {
        "train": (
            "Which room is for {topic}?",
            "Where do I go for {topic}?",
            "The room for {topic}?",
            "{Topic}: where?",
        ),
        "test": ("Which room do I go to for {topic}?", "For {topic}, which room?"),
    },
    "days": {
        "train": (
            "How long do {topic} take?",
            "How many days for {topic}?",
            "{Topic}: how long?",
            "The days for {topic}?",
        ),
        "test": ("How many days do {topic} take?", "For {topic}, how many days?"),
    },
    "meaning": {
        "train": ("What is {term}?", "Define {term}.", "What does {term} mean?", "The meaning of {term}?"),
        "test": ("What is the meaning of {term}?", "What does it mean, {term}?"),
    },
}
BEFORE: Sentences = {  # without it there would be too few different questions about the handbook
    "train": ("", "A question: ", "Please tell me: ", "From the handbook: "),
    "test": ("", "Please: ", "A question from the handbook: "),
}


def _fields(rng: Random, side: Side) -> Pair:
    drawn = message(rng, side, urgency_share=0.5)
    return f"{rng.choice(ASK_FIELDS[side])}\n\n{drawn.text}", json.dumps(drawn.fields)


def _triage(rng: Random, side: Side) -> Pair:
    drawn = message(rng, side)
    return f"{rng.choice(ASK_TRIAGE[side])}\n\n{drawn.text}", f"{drawn.category}, {drawn.urgency}"


def _reading(rng: Random, side: Side) -> Pair:
    told = events(rng, side, rng.randint(1, 2))
    about, asked = rng.choice(told), rng.choice(sorted(ASK_READING))
    question = rng.choice(ASK_READING[asked][side]).format(**about)
    return f"{question}\n\n{' '.join(event['said'] for event in told)}", about[asked]


def _handbook(rng: Random, side: Side) -> Pair:
    asked = rng.choice(sorted(ASK_HANDBOOK))
    if asked == "meaning":
        term, answer = rng.choice(sorted(GLOSSARY.items()))
        values = {"term": term}
    else:
        topic, said = rng.choice(sorted(HANDBOOK.items()))
        values, answer = {"topic": topic, "Topic": topic.capitalize()}, said[asked]
    question = rng.choice(ASK_HANDBOOK[asked][side]).format(**values)
    return rng.choice(BEFORE[side]) + question, answer


KINDS: dict[str, Callable[[Random, Side], Pair]] = {
    "fields": _fields,
    "triage": _triage,
    "reading": _reading,
    "handbook": _handbook,
}
# Shares of the kinds, in their order, that were tried.
MIXES = {
    "messages": (0.50, 0.30, 0.15, 0.05),
    "even": (0.32, 0.32, 0.32, 0.04),
    "reading": (0.25, 0.20, 0.50, 0.05),
    "labels": (0.30, 0.50, 0.15, 0.05),
    "memory": (0.25, 0.15, 0.20, 0.40),
}
MIX = "messages"


def examples(count: int, side: Side, seed: int) -> list[Pair]:
    """`count` different questions of a side with their answers, kinds mixed as MIX says.

    Raises UserError when a kind cannot make as many as its share asks for.
    """
    rng = Random(f"demo {side} {seed}")
    shares = dict(zip(KINDS, MIXES[MIX], strict=True))
    found: dict[str, str] = {}
    for _ in range(50 * count):
        if len(found) == count:
            return list(found.items())
        [kind] = rng.choices(list(shares), list(shares.values()))
        question, answer = KINDS[kind](rng, side)
        found.setdefault(question, answer)
    raise UserError(
        f"datasets: generate.questions: {count} asked for on the side of {side}, the templates make only about "
        f"{len(found)} different ones; ask for fewer"
    )
