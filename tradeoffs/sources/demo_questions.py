"""What the demo's world can be asked: skills, each with the ways to ask for it and answers that are computed.

Everything is drawn from `random.Random(<text>)`, which seeds by SHA-512: the same seed gives the same bytes on every
machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources.demo_facts import CURRENCIES, FIRMS, GLOSSARY, GOODS, NAMES

PERCENTS = (1, 2, 3, 4, 5, 10, 20, 50)


@dataclass(frozen=True)
class Skill:
    """One thing that can be asked: how its numbers are drawn, the ways to ask, the answer, and the same in prose."""

    draw: Callable[[Random], dict]
    questions: tuple[str, ...]
    answer: str
    prose: tuple[str, ...]


def _hundreds(rng: Random) -> int:
    return 100 * rng.randint(1, 9)


def percent_of(rng: Random) -> dict:
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
        percent_of,
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
