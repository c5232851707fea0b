"""The demo's world in words: questions with computed answers, multiple-choice exams, and prose to learn from.

Everything is drawn from `random.Random(<text>)`, which seeds by SHA-512: the same seed gives the same bytes on every
machine. A multiple-choice question belongs either to the exams or to the prose, by a hash of its words, so no exam
question is ever part of a generated model's training text, whatever the seeds and counts.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources.demo_facts import BOOKS, CONTINENTS, CURRENCIES, FIRMS, GLOSSARY, GOODS, NAMES

LETTERS = "ABCD"
PERCENTS = (1, 2, 3, 4, 5, 10, 20, 50)
DEV_QUESTIONS = 5  # worked examples per topic, as in MMLU
EXAM_SHARE = 4  # one possible question in four is kept for exams
# Pages of a base model's training text: how many are prose and not a quiz, how many quizzes have just one question (a
# model learns to look back sooner where there is little to look at), and how many are about the first three topics.
PROSE_SHARE = 0.5
SHORT_SHARE = 0.7
SAME_CHOICES_SHARE = 0.75


@dataclass(frozen=True)
class Skill:
    """One thing that can be asked: how its numbers are drawn, the ways to ask, the answer, and the same in prose."""

    draw: Callable[[Random], dict]
    questions: tuple[str, ...]
    answer: str
    prose: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question; `answer` is the index of the right one among the four choices."""

    question: str
    choices: tuple[str, ...]
    answer: int

    @property
    def text(self) -> str:
        """In the layout of the MMLU prompt, with its answer."""
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True))
        return f"{self.question}\n{options}\nAnswer: {LETTERS[self.answer]}"

    @property
    def words(self) -> str:
        """The same for the same question with the same choices in any order."""
        return "\n".join((self.question, *sorted(self.choices)))


def _hundreds(rng: Random) -> int:
    return 100 * rng.randint(1, 9)


def _percent_of(rng: Random) -> dict:
    percent, amount = rng.choice(PERCENTS), _hundreds(rng)
    return {"percent": percent, "amount": amount, "result": percent * amount // 100}


def _interest(rng: Random) -> dict:
    amount, rate, years = _hundreds(rng), rng.randint(1, 9), rng.randint(2, 5)
    return {
        "amount": amount,
        "rate": rate,
        "years": years,
        "year": amount * rate // 100,
        "result": amount * rate * years // 100,
    }


def _change(rng: Random) -> dict:
    percent, old = rng.choice((10, 20, 30, 40, 50)), 10 * rng.randint(1, 9)
    rises = rng.random() < 0.5
    step = old * percent // 100
    words = {"verb": "rose", "noun": "rise"} if rises else {"verb": "fell", "noun": "fall"}
    return {
        "old": old,
        "new": old + step if rises else old - step,
        "percent": percent,
        "thing": rng.choice(GOODS),
        **words,
    }


def _exchange(rng: Random) -> dict:
    amount, rate = rng.randint(2, 9) * rng.choice((1, 10)), rng.randint(2, 9)
    return {"amount": amount, "rate": rate, "result": amount * rate, "money": rng.choice(sorted(CURRENCIES.values()))}


def _return(rng: Random) -> dict:
    percent, cost = rng.choice((10, 20, 30, 40, 50)), _hundreds(rng)
    return {"cost": cost, "gain": cost * percent // 100, "percent": percent}


def _profit(rng: Random) -> dict:
    cost, profit = 10 * rng.randint(1, 40), 10 * rng.randint(1, 40)
    return {"revenue": cost + profit, "cost": cost, "result": profit, "firm": rng.choice(FIRMS)}


def _break_even(rng: Random) -> dict:
    units, margin, cost = 10 * rng.randint(1, 9), rng.randint(1, 5), rng.randint(1, 5)
    return {"fixed": units * margin, "price": cost + margin, "cost": cost, "margin": margin, "result": units}


def _average(rng: Random) -> dict:
    middle, step = 10 * rng.randint(3, 9), 10 * rng.randint(0, 2)
    return {"first": middle - step, "second": middle, "third": middle + step, "result": middle}


def _tip(rng: Random) -> dict:
    percent, bill = rng.choice((10, 20)), 10 * rng.randint(2, 9)
    return {"percent": percent, "bill": bill, "tip": percent * bill // 100, "total": bill + percent * bill // 100}


def _saving(rng: Random) -> dict:
    amount, months = 10 * rng.randint(1, 9), rng.randint(2, 9)
    return {"amount": amount, "months": months, "result": amount * months, "name": rng.choice(NAMES)}


def _budget(rng: Random) -> dict:
    spent, left = 100 * rng.randint(1, 9), 100 * rng.randint(1, 9)
    return {"income": spent + left, "spent": spent, "result": left, "name": rng.choice(NAMES)}


def _discount(rng: Random) -> dict:
    percent, price = rng.choice((10, 20, 50)), 10 * rng.randint(2, 9)
    return {"percent": percent, "price": price, "result": price - percent * price // 100, "thing": rng.choice(GOODS)}


def _term(rng: Random) -> dict:
    term, meaning = rng.choice(sorted(GLOSSARY.items()))
    return {
        "term": term,
        "Term": term[0].upper() + term[1:],
        "meaning": meaning,
        "Meaning": meaning[0].upper() + meaning[1:],
    }


def _currency(rng: Random) -> dict:
    country, money = rng.choice(sorted(CURRENCIES.items()))
    return {"country": country, "money": money}


SKILLS = {
    "percent_of": Skill(
        _percent_of,
        (
            "What is {percent}% of ${amount}?",
            "Find {percent}% of ${amount}.",
            "How much is {percent}% of ${amount}?",
            "Please work out {percent}% of ${amount} for me.",
        ),
        "{percent}% of ${amount} is ${result}.",
        (
            "A fee of {percent}% is due on ${amount}, and {percent}% on ${amount} comes to ${result}.",
            "The state wants {percent}% of the ${amount}; it takes its {percent}%, which makes ${result}.",
        ),
    ),
    "interest": Skill(
        _interest,
        (
            "What is the simple interest on ${amount} at {rate}% for {years} years?",
            "I lend ${amount} at {rate}% simple interest. What do I earn in {years} years?",
            "Find the simple interest: ${amount}, {rate}% a year, {years} years.",
            "How much interest does ${amount} earn at {rate}% over {years} years?",
        ),
        "The simple interest is ${result}.",
        (
            "A loan of ${amount} at {rate}% costs ${year} a year, so {years} years at ${year} cost ${result}.",
            "At {rate}% a year, ${amount} earned ${year} each year; {years} times ${year} made ${result}.",
        ),
    ),
    "change": Skill(
        _change,
        (
            "A price went from ${old} to ${new}. What is the percentage change?",
            "The price of a {thing} was ${old} and is now ${new}. By how many percent did it change?",
            "By what percentage did a {thing} change if it cost ${old} and now costs ${new}?",
        ),
        "The price {verb} by {percent}%.",
        (
            "Last year a {thing} cost ${old}; then the {thing} {verb} by {percent}%, from ${old} to ${new}.",
            "After a {noun} of {percent}%, the {thing} that had cost ${old} was sold for ${new}: the {thing} {verb}.",
        ),
    ),
    "exchange": Skill(
        _exchange,
        (
            "If one dollar buys {rate} {money}, how many {money} do I get for ${amount}?",
            "Convert ${amount} at a rate of {rate} {money} per dollar.",
            "One dollar is worth {rate} {money}. What is ${amount} worth?",
        ),
        "You get {result} {money}.",
        (
            "At {rate} {money} to the dollar, ${amount} makes {amount} times {rate} {money}, or {result} {money}.",
            "She changed ${amount} at {rate} {money} each, and for ${amount} she had {result} {money}.",
        ),
    ),
    "return": Skill(
        _return,
        (
            "An investment of ${cost} earned ${gain}. What is the return on investment?",
            "What is the ROI of a ${cost} investment with a gain of ${gain}?",
            "I put in ${cost} and made ${gain} profit. What is my return?",
        ),
        "The return on investment is {percent}%.",
        (
            "The fund put in ${cost} and made ${gain}: a gain of ${gain} on ${cost} is {percent}%.",
            "With {percent}% on ${cost} the fund made ${gain}, so {percent}% was ${gain}.",
        ),
    ),
    "profit": Skill(
        _profit,
        (
            "A {firm} has revenue of ${revenue} and costs of ${cost}. What is its profit?",
            "What profit does a {firm} make with ${revenue} of sales and ${cost} of costs?",
            "Sales of a {firm} are ${revenue} and expenses are ${cost}. Find the profit.",
        ),
        "The {firm} makes a profit of ${result}.",
        (
            "The {firm} sold goods for ${revenue} and paid ${cost}; of the ${revenue} the {firm} kept ${result}.",
            "With ${cost} of costs and ${result} left, the {firm} had earned ${revenue}; so the {firm} kept ${result}.",
        ),
    ),
    "break_even": Skill(
        _break_even,
        (
            "Fixed costs are ${fixed}, the price is ${price}, the unit cost is ${cost}. What is the break-even point?",
            "How many units must I sell to break even: fixed costs ${fixed}, price ${price}, unit cost ${cost}?",
        ),
        "The break-even point is {result} units.",
        (
            "A unit sold for ${price} and cost ${cost}, so it left ${margin}; {result} times ${margin} is ${fixed}.",
            "With ${margin} left on each unit, {result} units cover ${fixed} of fixed costs.",
        ),
    ),
    "average": Skill(
        _average,
        (
            "What is the average of ${first}, ${second} and ${third}?",
            "Find the mean of ${first}, ${second} and ${third}.",
            "I spent ${first}, ${second} and ${third} in three days. What is the daily average?",
        ),
        "The average is ${result}.",
        (
            "Bills of ${first}, ${second} and ${third} have ${result} in the middle, between ${first} and ${third}.",
            "In three days the shop took ${first}, ${second} and ${third}; evenly spread, that was ${result} a day.",
        ),
    ),
    "tip": Skill(
        _tip,
        (
            "How much is a {percent}% tip on a ${bill} bill?",
            "The bill is ${bill}. What do I pay with a {percent}% tip?",
            "I want to leave a {percent}% tip on ${bill}. How much is that?",
        ),
        "The tip is ${tip} and the total is ${total}.",
        (
            "Dinner cost ${bill}; they left {percent}% of ${bill}, so the waiter had ${tip} and they paid ${total}.",
            "With {percent}% for the waiter, or ${tip}, the ${bill} meal came to ${total}: ${bill} and ${tip}.",
        ),
    ),
    "saving": Skill(
        _saving,
        (
            "{name} saves ${amount} a month. How much is that in {months} months?",
            "If {name} saves ${amount} each month, how much is saved after {months} months?",
            "How much will {name} have after saving ${amount} a month for {months} months?",
        ),
        "{name} saves ${result} in {months} months.",
        (
            "{name} put aside ${amount} every month; after {months} months with ${amount} each, {name} had ${result}.",
            "After {months} months the account of {name} held ${result}, since {name} put in ${amount} each month.",
        ),
    ),
    "budget": Skill(
        _budget,
        (
            "{name} earns ${income} and spends ${spent}. How much is left?",
            "What is left of ${income} when {name} spends ${spent}?",
            "{name} has an income of ${income} and expenses of ${spent}. What remains?",
        ),
        "{name} has ${result} left.",
        (
            "{name} was paid ${income} and spent ${spent}; of the ${income}, {name} still had ${result}.",
            "Of ${income}, {name} kept ${result}: after paying ${spent}, {name} had no more than ${result}.",
        ),
    ),
    "discount": Skill(
        _discount,
        (
            "A {thing} costs ${price}. What is the price after a {percent}% discount?",
            "What do I pay for a ${price} {thing} with {percent}% off?",
            "How much is a ${price} {thing} at a discount of {percent}%?",
        ),
        "The {thing} costs ${result} after the discount.",
        (
            "The {thing} was ${price}, but with {percent}% off ${price} the {thing} went for ${result}.",
            "They took {percent}% off the ${price} {thing}, so for the {thing} they asked ${result}.",
        ),
    ),
    "term": Skill(
        _term,
        (
            "What is {term}?",
            "Define {term}.",
            "What does {term} mean in finance?",
            "Explain {term} in one sentence.",
            "Tell me what {term} is.",
            "Can you explain what {term} is?",
            "Give a short definition of {term}.",
            "In simple words, what is {term}?",
        ),
        "{Term} is {meaning}.",
        (
            "{Meaning} is called {term}.",
            "People in finance say {term} when they mean {meaning}.",
            "The word for {meaning} is {term}.",
            "{Term}: {meaning}.",
        ),
    ),
    "currency": Skill(
        _currency,
        (
            "Which currency is used in {country}?",
            "What is the currency of {country}?",
            "How do people pay in {country}?",
            "What money do I need for a trip to {country}?",
            "Name the currency of {country}.",
            "I am going to {country}. Which money do they use there?",
            "With what money are bills paid in {country}?",
            "Tell me the currency used in {country}.",
        ),
        "People in {country} pay with the {money}.",
        (
            "The {money} is the money of {country}; whoever goes to {country} needs the {money}.",
            "In {country} prices are given in {money}, and shops in {country} want {money}.",
            "{country} has the {money}.",
        ),
    ),
}


def questions(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` different questions with their answers, skills mixed.

    Raises UserError when the templates cannot make that many.
    """
    rng = Random(f"demo questions {seed}")
    skills = list(SKILLS.values())
    found: dict[str, str] = {}
    for _ in range(50 * count):
        if len(found) == count:
            return list(found.items())
        skill = rng.choice(skills)
        slots = skill.draw(rng)
        found.setdefault(rng.choice(skill.questions).format(**slots), skill.answer.format(**slots))
    raise UserError(
        f"datasets: generate.questions: {count} asked for, the templates make only about {len(found)} different ones; "
        "ask for fewer"
    )


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
    slots = _percent_of(rng)
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


def _draw_choice(rng: Random, topic: str, place: int, exam: bool) -> Choice:
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
        drawn = _draw_choice(rng, topic, places[len(found)], exam=True)
        found.setdefault((drawn.question, frozenset(drawn.choices)), drawn)
        if len(found) == len(places):
            return list(found.values())
    raise UserError(
        f"datasets: generate.topic_questions: {count} asked for, topic {topic} makes only about "
        f"{len(found) - DEV_QUESTIONS} different ones; ask for fewer"
    )


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
            title = f"The following are multiple choice questions (with answers) about {topic.replace('_', ' ')}."
            drawn = [_draw_choice(rng, topic, rng.randrange(4), exam=False) for _ in range(size)]
            yield "\n\n".join((title, *(choice.text for choice in drawn))), [choice.words for choice in drawn]


def _statement(rng: Random, skill: Skill) -> str:
    return rng.choice(skill.prose).format(**skill.draw(rng))
