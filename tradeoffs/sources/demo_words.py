"""The values of the demo's messages and paragraphs: names, things, streets, numbers, times and sums.

Each value of two words belongs to one of two sides, by a hash of them: `test` ones stand in no training example and in
no text that a generated base learns from, whatever the seeds and counts. All are made of the same words (Anna Hart,
blue lamp), so that a model knows all tokens of a value that it has never seen: copying is what is asked.
"""

import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

Side = Literal["train", "test"]
TEST_SHARE = 4  # one possible value in four is a test one

FIRST_NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Kate", "Leo", "Maria", "Noah",
    "Olga", "Paul", "Rosa", "Simon", "Tina", "Victor",
)  # fmt: skip
SURNAMES = (
    "Hart", "Wood", "Ash", "Bell", "Crane", "Dunn", "Fair", "Gold", "Kirk", "Lang", "Marsh", "North", "Oaks", "Penn",
    "Reed", "Stone", "Thorn", "Wall", "West", "Winter",
)  # fmt: skip
COMPANIES = (
    "Alpine", "Baltic", "Crown", "Delta", "Eagle", "Falcon", "Global", "Orion", "Royal", "Summit", "Union", "Zenith",
)  # fmt: skip
TRADES = ("Foods", "Motors", "Paper", "Tools", "Print", "Travel")
STREETS = (
    "Mill", "Church", "Bridge", "Station", "Park", "Garden", "Market", "River", "Castle", "King", "Queen", "Chapel",
    "Forest", "Harbour", "School", "Tower",
)  # fmt: skip
WAYS = ("Lane", "Road", "Street", "Square", "Hill", "Row")
COLOURS = (
    "blue", "red", "green", "black", "white", "grey", "brown", "yellow", "small", "large", "round", "old", "oak",
    "steel", "glass", "silver",
)  # fmt: skip
THINGS = (
    "lamp", "desk", "chair", "table", "clock", "radio", "bag", "coat", "phone", "kettle", "mirror", "shelf", "bench",
    "carpet", "basket", "printer", "heater", "camera", "bicycle", "cupboard",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
NUMBERS = tuple(str(number) for number in range(10, 100))
# Each of these is a token of its own, in which no space is, so that a value is the same tokens wherever it stands.
WORDS = sorted(
    {*FIRST_NAMES, *SURNAMES, *COMPANIES, *TRADES, *STREETS, *WAYS, *COLOURS, *THINGS, *DAYS, *MONTHS, *NUMBERS}
)


def side_of(value: str) -> Side:
    """Which side a value belongs to, by itself alone."""
    return "test" if hashlib.sha256(value.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def _drawn(rng: Random, side: Side, make: Callable[[], str]) -> str:
    while True:
        value = make()
        if side_of(value) == side:
            return value


def _pair(first: Sequence[str], second: Sequence[str]) -> Callable[[Random, Side], str]:
    return lambda rng, side: _drawn(rng, side, lambda: f"{rng.choice(first)} {rng.choice(second)}")


name = _pair(FIRST_NAMES, SURNAMES)
company = _pair(COMPANIES, TRADES)
street = _pair(STREETS, WAYS)
item = _pair(COLOURS, THINGS)


def code(rng: Random, side: Side) -> str:
    """Both sides have all numbers, as both have all first names and all surnames."""
    return rng.choice(NUMBERS)


def amount(rng: Random, side: Side) -> str:
    return f"${rng.choice(NUMBERS)}"


def date(rng: Random, side: Side) -> str:
    return _drawn(rng, side, lambda: f"{rng.randint(10, 28)} {rng.choice(MONTHS)}")


def time(rng: Random, side: Side) -> str:
    """A time of day; there are so few that a day with its time is of one side, and neither alone."""
    return f"{rng.randint(10, 17)}:{rng.choice(('00', '30'))}"


def day_and_time(rng: Random, side: Side) -> tuple[str, str]:
    day, _, hour = _drawn(rng, side, lambda: f"{rng.choice(DAYS)} {time(rng, side)}").partition(" ")
    return day, hour
