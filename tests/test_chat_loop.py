"""Answers join, grow and leave in one loop; their texts, draws and log-probabilities are what one alone would have."""

import json
import threading
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from needs import needs
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from benchmarks import families
from tradeoffs.chat.messages import Asked, Begun, Ended, Failed, Logprob, Queued, Said, events, line
from tradeoffs.chat.worker.answer import Answer
from tradeoffs.chat.worker.decoder import NoRoomError
from tradeoffs.chat.worker.loop import ECHOED, SHARED, STEP, TELL, Loop
from tradeoffs.chat.worker.prompts import Prompt
from tradeoffs.chat.worker.sampling import BrokenError, Sampler
from tradeoffs.chat.worker.text import Text
from tradeoffs.llama_cpp.scores import logprobs

VOCABULARY, STOP = 50, 0
TEXTS = [
    "A loan of 1200 at 5 percent costs 60 a year.\nThe rate rose to 7 percent.",
    "The bank pays interest on the balance of each account at the end of the year.",
    "What is a bond? A bond is a loan that can be sold.",
]
# Plain words, digits, line breaks, double spaces, and what only bytes can spell.
SAMPLE = "The rate of 12 loans:\n\n  naïve café, 3.5 % — 😀 a year, 日本語のテキスト, don't"


def logits_after(ids):
    """Of a model that has read these ids: as random as one that was not trained, and the same each time."""
    return np.random.default_rng(list(ids)).normal(0, 3, VOCABULARY).astype(np.float32)


def common(one, other):
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


class Small:
    """A `Decoder` of such a model, with room for `cells` tokens in all."""

    name, device, vocabulary = "small", "cpu", VOCABULARY

    def __init__(self, places=4, context=200, step_tokens=16, cells=10_000):
        self.places, self.context, self.step_tokens, self.cells = places, context, step_tokens, cells
        self.held, self.promised, self.fed, self.full = {}, {}, [], False

    def begin(self, ids, length):
        if sum(self.promised.values()) + length > self.cells:
            return None
        known = max((common(ids[:-1], held) for held in self.held.values()), default=0)
        place = next(at for at in range(self.places) if at not in self.held)
        self.held[place], self.promised[place] = list(ids[:known]), length
        return place, known

    def feed(self, parts, wanted):
        if self.full:
            raise NoRoomError
        self.fed.append({place: len(ids) for place, ids in parts.items()})
        for place, ids in parts.items():
            self.held[place] += ids
        return {place: logits_after(self.held[place]) for place in wanted}

    def every(self, place, ids):
        rows = []
        for one in ids:
            self.held[place].append(one)
            rows.append(logits_after(self.held[place]))
        return np.array(rows)

    def end(self, place):
        del self.held[place], self.promised[place]


class Numbers:
    """A tokenizer of sorts: each token is its number and a space."""

    decoder = None

    def encode(self, text, add_special_tokens):
        return SimpleNamespace(ids=[1])

    def decode(self, ids, skip_special_tokens=True):
        return "".join(f"{one} " for one in ids)

    def id_to_token(self, one):
        return str(one)

    def get_added_tokens_decoder(self):
        return {}


NUMBERS = Numbers()


def greedy(ids, most):
    """What such a model says after these ids."""
    read, said = list(ids), []
    while len(said) < most and (token := int(logits_after(read).argmax())) != STOP:
        read.append(token)
        said.append(token)
    return said


class Talk:
    """A loop whose events are kept by answer, and a clock that stands still."""

    def __init__(self, **decoder):
        self.decoder = Small(**decoder)
        self.now = 100.0
        self.loop = Loop(self.decoder, [STOP], self.keep, lambda: self.now)
        self.events = defaultdict(list)

    def ask(self, name, ids, most=8, **asked):
        asked = Asked(name, "small", **asked)
        prompt = Prompt(list(ids), 0, most)
        self.loop.add(Answer(asked, prompt, self.now, Text(NUMBERS, asked.stop), Sampler(asked)))

    def keep(self, said):
        for event in next(iter([list(events(line(said)))])):  # as it goes to the other process
            self.events[event.id].append(event)

    def step(self, count=1):
        for _ in range(count):
            self.keep(self.loop.step())

    def run(self, steps=500):
        """Until all have ended; how many steps it took."""
        for took in range(steps):
            if took and all(self.ends(name) for name in self.events):
                return took
            self.step()
        raise AssertionError(f"not all have ended after {steps} steps")

    def ends(self, name):
        return [event for event in self.events[name] if isinstance(event, (Ended, Failed))]

    def ended(self, name):
        (event,) = self.ends(name)
        return event

    def said(self, name):
        return "".join(event.text for event in self.events[name] if isinstance(event, Said))


def prompt(seed, length):
    return np.random.default_rng(seed).integers(1, VOCABULARY, length).tolist()


def test_each_answer_is_that_of_the_model_whatever_joins_and_leaves_beside_it():
    talk = Talk(places=4)
    prompts = {f"{at}": prompt(at, 1 + at * 7 % 60) for at in range(30)}
    for at, (name, ids) in enumerate(prompts.items()):
        talk.ask(name, ids, most=at % 9 + 1)
        talk.step(at % 3)
    talk.run()
    for at, (name, ids) in enumerate(prompts.items()):
        end, expected = talk.ended(name), greedy(ids, at % 9 + 1)
        assert list(end.ids) == expected and end.tokens == len(expected)
        assert end.text == talk.said(name) == NUMBERS.decode(expected)
        assert end.reason == ("length" if len(expected) == at % 9 + 1 else "stop")
    assert not talk.decoder.held  # every place is free again


def test_an_answer_begins_before_it_is_said_and_ends_once():
    talk = Talk(places=1)
    talk.ask("a", prompt(1, 40))
    talk.ask("b", prompt(2, 3))
    talk.run()
    kinds = {name: [type(event) for event in talk.events[name]] for name in "ab"}
    for name in "ab":
        rest = [kind for kind in kinds[name] if kind is not Queued]
        assert rest[0] is Begun and rest[-1] is Ended and set(rest[1:-1]) <= {Said}
    begun = next(event for event in talk.events["b"] if isinstance(event, Begun))
    assert begun == Begun("b", 3, begun.cached_tokens, 0, context=200, max_tokens=8)
    assert kinds["a"][0] is Begun and kinds["b"][0] is Queued


def test_who_waits_is_told_a_place_only_when_it_is_another_one():
    talk = Talk(places=1)
    for name in "abcd":
        talk.ask(name, prompt(5, 30), most=30)
    talk.step()
    places = lambda name: [event.place for event in talk.events[name] if isinstance(event, Queued)]  # noqa: E731
    assert [places(name) for name in "abcd"] == [[], [1], [2], [3]]
    talk.now += TELL
    talk.step(3)
    assert [places(name) for name in "abcd"] == [[], [1], [2], [3]]
    talk.loop.leave("b")
    talk.step()
    talk.now += TELL
    talk.step()
    assert [places(name) for name in "acd"] == [[], [2, 1], [3, 2]]
    talk.ask("e", prompt(5, 30))  # a new one is told at once
    talk.step()
    assert places("e") == [3]


def test_a_place_is_free_one_step_after_nobody_waits_for_its_answer():
    talk = Talk(places=1)
    talk.ask("a", prompt(3, 5), most=100)
    talk.ask("b", prompt(4, 5), most=4)
    talk.step(3)
    talk.loop.leave("a")
    talk.step()
    assert talk.ended("a").reason == "left"
    assert any(isinstance(event, Begun) for event in talk.events["b"])
    assert talk.ended("a").text == talk.said("a") == NUMBERS.decode(talk.ended("a").ids)


def test_who_leaves_the_queue_is_out_of_it_and_an_unknown_name_harms_nobody():
    talk = Talk(places=1)
    for name in "ab":
        talk.ask(name, prompt(6, 5))
    talk.step()
    talk.loop.leave("b")
    talk.loop.leave("nobody")
    talk.run()
    assert talk.ended("b").reason == "left" and talk.ended("b").tokens == 0
    assert list(talk.ended("a").ids) == greedy(prompt(6, 5), 8)


def test_time_ends_answers_that_grow_and_those_that_wait():
    talk = Talk(places=1)
    talk.ask("a", prompt(5, 30), most=100, seconds=10)
    talk.ask("b", prompt(5, 30), most=100, seconds=10)
    talk.step(4)
    talk.now += 11
    talk.step()
    assert [talk.ended(name).reason for name in "ab"] == ["time", "time"]
    assert talk.ended("a").tokens > 0 == talk.ended("b").tokens
    assert talk.ended("b").seconds_waited == 11


def test_a_long_prompt_is_read_in_pieces_while_others_grow_by_a_token_in_each_step():
    talk = Talk(places=3, step_tokens=16)
    talk.ask("a", prompt(5, 2), most=60)
    talk.step()
    talk.ask("long", prompt(8, 130), most=2)
    talk.ask("short", prompt(9, 6), most=2)
    before = len(talk.decoder.fed)
    talk.run()
    fed = talk.decoder.fed[before:]
    assert all(sum(step.values()) <= 16 for step in fed)
    assert all(step.get(0) == 1 for step in fed if 0 in step)
    assert [step[1] for step in fed[:2]] == [9, 14]  # half of the room at least is for the one that came first
    assert fed[0][2] == 6  # and the rest for the short one, which so does not wait for the long one


def test_those_who_ask_at_once_after_the_same_words_wait_until_one_has_read_them():
    talk = Talk(places=8, step_tokens=50)
    same = prompt(1, 120)
    for at, name in enumerate("abc"):
        talk.ask(name, [*same, *prompt(at, 3)], most=2)
    talk.ask("other", prompt(9, 40), most=2)
    begun = lambda name: any(isinstance(event, Begun) for event in talk.events[name])  # noqa: E731
    talk.step()
    assert [begun(name) for name in ("a", "b", "c", "other")] == [
        True,
        False,
        False,
        True,
    ]  # who shares nothing goes on
    talk.step(5)
    assert all(map(begun, "abc"))
    cached = [event.cached_tokens for name in "bc" for event in talk.events[name] if isinstance(event, Begun)]
    assert min(cached) >= len(same) - SHARED
    talk.run()
    assert [list(talk.ended(name).ids) for name in "abc"] == [greedy([*same, *prompt(at, 3)], 2) for at in range(3)]


def test_prompts_are_read_in_smaller_pieces_where_a_step_would_take_long():
    talk = Talk(places=2, context=5000, step_tokens=512)
    feed = talk.decoder.feed

    def slow(parts, wanted):
        talk.now += 0.001 * sum(map(len, parts.values()))
        return feed(parts, wanted)

    talk.decoder.feed = slow
    talk.ask("a", prompt(5, 2), most=60, seconds=1e9)
    talk.step()
    talk.ask("long", prompt(8, 2000), most=2, seconds=1e9)
    talk.step(3)
    assert [step[1] for step in talk.decoder.fed[1:]] == pytest.approx([511, STEP / 0.001, STEP / 0.001], abs=1)


def slow(talk, *, of_a_step, of_a_token):
    """Gives the decoder's steps a length."""
    feed = talk.decoder.feed

    def slow_feed(parts, wanted):
        talk.now += of_a_step + of_a_token * sum(map(len, parts.values()))
        return feed(parts, wanted)

    talk.decoder.feed = slow_feed


def test_who_asks_beside_many_waits_for_the_first_token_hardly_longer_than_all_prompts_take():
    talk = Talk(places=32, context=5000, step_tokens=512)
    slow(talk, of_a_step=0.010, of_a_token=0.0018)  # as measured of a model of 135M parameters on two cores
    prompts = {f"{at}": prompt(at, 60) for at in range(32)}
    for name, ids in prompts.items():
        talk.ask(name, ids, most=64, seconds=1e9)
    talk.run()
    all_read = 0.010 + 0.0018 * 32 * 60
    first = sorted(talk.ended(name).seconds_to_first for name in prompts)
    assert first[16] < 0.6 * all_read and first[-1] < 1.15 * all_read


def test_an_echo_beside_others_does_not_make_their_prompts_be_read_in_smaller_pieces():
    talk = Talk(places=3, context=5000, step_tokens=512)
    slow(talk, of_a_step=0.0, of_a_token=0.0001)
    every = talk.decoder.every

    def slow_every(place, ids):
        talk.now += 10.0
        return every(place, ids)

    talk.decoder.every = slow_every
    talk.ask("a", prompt(5, 2), most=60, seconds=1e9)
    talk.step()
    talk.ask("echo", prompt(6, 400), most=1, seconds=1e9, echo=True)
    talk.ask("long", prompt(8, 1600), most=2, seconds=1e9)
    talk.step(3)
    assert [step[2] for step in talk.decoder.fed[1:]] == [511, 511, 511]


def test_a_prompt_that_cannot_be_read_fails_alone():
    talk = Talk(places=2, context=50, cells=40)
    talk.ask("fits", prompt(1, 5), most=5)
    talk.ask("long", prompt(1, 45), most=6)
    talk.ask("larger than the cache", prompt(1, 40), most=6)
    talk.ask("empty", [])
    talk.ask("foreign", [3, VOCABULARY])
    talk.ask("negative", [3, -1])
    talk.run()
    assert list(talk.ended("fits").ids) == greedy(prompt(1, 5), 5)
    faults = {name: talk.ended(name).fault for name in talk.events if name != "fits"}
    assert faults == {"long": "too_long", "larger than the cache": "too_long"} | dict.fromkeys(
        ("empty", "foreign", "negative"), "invalid"
    )
    assert "45 tokens" in talk.ended("long").message and "context of 50" in talk.ended("long").message


def test_no_answer_without_a_token_that_was_allowed():
    talk = Talk()
    talk.ask("a", prompt(1, 5), most=0)
    talk.run()
    assert (talk.ended("a").tokens, talk.ended("a").reason, talk.said("a")) == (0, "length", "")


def test_logits_that_are_no_numbers_end_their_answer_alone():
    talk = Talk()
    feed = talk.decoder.feed

    def broken(parts, wanted):
        found = feed(parts, wanted)
        return {
            place: one * np.nan if place == 1 and len(talk.decoder.held[1]) > 7 else one for place, one in found.items()
        }

    talk.decoder.feed = broken
    for name in "abc":
        talk.ask(name, prompt(5, 5), most=8)
    talk.run()
    assert talk.ended("b").fault == "broken" and talk.said("b")
    assert talk.ended("a").ids == talk.ended("c").ids == tuple(greedy(prompt(5, 5), 8))


def test_a_cache_without_the_room_it_promised_costs_the_last_answer_and_no_other():
    talk = Talk()
    for name in "abc":
        talk.ask(name, prompt(5, 5), most=8)
    talk.step(2)
    talk.decoder.full = True
    talk.step()
    talk.decoder.full = False
    talk.run()
    assert talk.ended("c").fault == "broken"
    assert talk.ended("a").ids == talk.ended("b").ids == tuple(greedy(prompt(5, 5), 8))


def test_thousands_in_the_queue_are_not_looked_through_in_each_step():
    talk = Talk(places=1)
    for at in range(3000):
        talk.ask(f"{at}", prompt(5, 5), most=40)
    talk.step()
    seen = Counter()

    class Watched(type(talk.loop._queue)):
        def values(self):
            seen["all"] += 1
            return super().values()

    talk.loop._queue = Watched(talk.loop._queue)
    said = sum(map(len, talk.events.values()))
    talk.step(20)
    assert sum(map(len, talk.events.values())) - said == 20  # a token each, and nobody's place
    assert seen["all"] <= 2 * 20  # for the first and the last of them


def test_the_loop_runs_in_a_thread_of_its_own_until_it_is_closed():
    decoder, told, done = Small(), [], threading.Event()

    def send(said):
        told.extend(said)
        if any(isinstance(event, Ended) for event in said):
            done.set()

    loop = Loop(decoder, [STOP], send)
    thread = threading.Thread(target=loop.run)
    thread.start()
    asked = Asked("a", "small")
    loop.add(Answer(asked, Prompt(prompt(1, 5), 0, 4), 1e12, Text(NUMBERS), Sampler(asked)))
    assert done.wait(10)
    loop.close()
    thread.join(10)
    assert not thread.is_alive() and told[-1].ids == tuple(greedy(prompt(1, 5), 4))


def test_each_step_is_a_sign_of_life_also_where_it_says_nothing():
    talk = Talk(step_tokens=16)
    sent = []

    def send(said):
        sent.append(said)
        if any(isinstance(event, Ended) for event in said):
            loop.close()

    loop = Loop(talk.decoder, [STOP], send)
    asked = Asked("a", "small")
    loop.add(Answer(asked, Prompt(prompt(1, 80), 0, 1), 1e12, Text(NUMBERS), Sampler(asked)))
    loop.run()
    assert len(sent) == 5 and sent[1:4] == [[], [], []]


def test_log_probabilities_are_those_of_evaluation():
    talk = Talk()
    ids = prompt(5, 12)
    talk.ask("a", ids, most=6, logprobs=3)
    talk.run()
    found = [one for event in talk.events["a"] if isinstance(event, Said) for one in event.logprobs]
    read = list(ids)
    for token, one in zip(talk.ended("a").ids, found, strict=True):
        logits = logits_after(read)
        order = np.argsort(-logits)[:3]
        assert one.token == f"{token} "
        assert one.logprob == pytest.approx(float(logprobs(logits, np.array([token]))[0]), abs=1e-6)
        assert [name for name, _ in one.top] == [f"{at} " for at in order]
        np.testing.assert_allclose([value for _, value in one.top], logprobs(logits, order), atol=1e-6)
        read.append(token)


@pytest.mark.parametrize("count", [0, 1, VOCABULARY, 10 * VOCABULARY])
def test_as_many_of_the_likely_tokens_as_are_asked_for_and_there(count):
    talk = Talk()
    talk.ask("a", prompt(5, 5), most=2, logprobs=count)
    talk.run()
    for event in talk.events["a"]:
        if isinstance(event, Said):
            assert [len(one.top) for one in event.logprobs] == [min(count, VOCABULARY)]


def test_an_impossible_token_has_a_log_probability_that_json_can_say():
    talk = Talk()
    feed = talk.decoder.feed

    def certain(parts, wanted):
        found = feed(parts, wanted)
        for one in found.values():
            one[4:] = -np.inf
        return found

    talk.decoder.feed = certain
    talk.ask("a", prompt(5, 5), most=1, logprobs=6)
    talk.run()
    (one,) = next(event for event in talk.events["a"] if isinstance(event, Said)).logprobs
    assert [value for _, value in one.top][4:] == [-9999.0, -9999.0]


def test_an_echo_that_one_line_does_not_hold_is_refused():
    talk = Talk(context=ECHOED)
    talk.ask("large", [1] * (ECHOED // 21 + 1), most=1, echo=True, logprobs=20)
    talk.ask("small", prompt(1, 3), most=1)
    talk.step(3)
    assert talk.ended("large").fault == "too_long" and "log-probabilities" in talk.ended("large").message
    assert talk.ended("small").reason == "length"


@pytest.mark.parametrize("most", [0, 1, 5])
def test_echo_gives_the_log_probability_of_each_token_of_the_prompt(most):
    talk = Talk(step_tokens=16)
    ids = prompt(5, 150)
    talk.ask("beside", prompt(7, 5), most=30)
    talk.ask("a", ids, most=most, logprobs=1, echo=True)
    talk.run()
    first, *rest = talk.ended("a").prompt_logprobs
    assert first == Logprob(f"{ids[0]} ", None)
    for at, one in enumerate(rest, 1):
        logits = logits_after(ids[:at])
        assert one.token == f"{ids[at]} "
        assert one.logprob == pytest.approx(float(logprobs(logits, np.array([ids[at]]))[0]), abs=1e-5)
        assert one.top[0][0] == f"{logits.argmax()} "
    assert len(rest) == len(ids) - 1
    assert list(talk.ended("a").ids) == greedy(ids, most)
    assert list(talk.ended("beside").ids) == greedy(prompt(7, 5), 30)


# Sampling


def drawn(logits, temperature, top_p, count=20_000):
    sampler = Sampler(Asked("a", "small", temperature=temperature, top_p=top_p, seed=1))
    return np.bincount([sampler.pick(logits) for _ in range(count)], minlength=len(logits)) / count


def expected(logits, temperature, top_p):
    """By the definition: the fewest of the most likely tokens that have top_p together, in proportion."""
    weights = np.exp(logits.astype(np.float64) / temperature)
    weights /= weights.sum()
    kept, mass = np.zeros(len(weights)), 0.0
    for token in sorted(range(len(weights)), key=lambda one: -weights[one]):
        kept[token] = weights[token]
        mass += weights[token]
        if mass >= top_p:
            break
    return kept / mass


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 0.01])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("size", [12, 2000])  # more than are sorted at first
def test_tokens_are_drawn_as_the_definition_says(size, temperature, top_p):
    logits = np.random.default_rng(size).normal(0, 1, size).astype(np.float32)
    shares, wanted = drawn(logits, temperature, top_p), expected(logits, temperature, top_p)
    assert not shares[wanted == 0].any()
    error = np.sqrt(wanted * (1 - wanted) / 20_000)
    assert (np.abs(shares - wanted) <= 5 * error + 5 / 20_000).all()


def test_the_same_seed_draws_the_same_and_another_one_something_else():
    def draws(seed):
        sampler = Sampler(Asked("a", "small", temperature=1.0, seed=seed))
        return [sampler.pick(logits_after([at])) for at in range(40)]

    assert draws(7) == draws(7) != draws(8)
    assert draws(None) != draws(None)
    assert draws(-1) == draws(-1) != draws(1)  # clients may send negative ones
    draws(2**70)


def test_the_last_digits_of_logits_rarely_change_what_is_drawn():
    """Two tokens that are nearly as likely change places in an order by weight."""
    random = np.random.default_rng(0)
    logits = np.full(100, 1.0, np.float32) + random.normal(0, 1e-6, 100).astype(np.float32)
    samplers = [Sampler(Asked("a", "small", temperature=1.0, seed=3)) for _ in range(2)]
    same = sum(
        samplers[0].pick(logits) == samplers[1].pick(logits + random.normal(0, 1e-5, 100).astype(np.float32))
        for _ in range(500)
    )
    assert same >= 495


@pytest.mark.parametrize("temperature", [0, -1.0, 1e-320, 1e-10])
def test_no_temperature_or_next_to_none_is_greedy(temperature):
    logits = logits_after([1])
    sampler = Sampler(Asked("a", "small", temperature=temperature, seed=1))
    assert {sampler.pick(logits) for _ in range(50)} == {int(logits.argmax())}


@pytest.mark.parametrize("top_p", [0.0, -1.0, 1e-300])
def test_hardly_any_mass_is_that_of_the_likeliest(top_p):
    logits = logits_after([1])
    sampler = Sampler(Asked("a", "small", temperature=5.0, top_p=top_p, seed=1))
    assert {sampler.pick(logits) for _ in range(50)} == {int(logits.argmax())}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_no_token_comes_of_logits_that_are_no_numbers(temperature, wrong):
    logits = logits_after([1])
    logits[30] = wrong
    with pytest.raises(BrokenError):
        Sampler(Asked("a", "small", temperature=temperature)).pick(logits)
    with pytest.raises(BrokenError):
        Sampler(Asked("a", "small", temperature=temperature)).pick(np.full(10, -np.inf, np.float32))


# Texts


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece():
    """As Llama's: what is no token is spelled in bytes."""
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = spaces
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=100))
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def metaspace():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<s>", "</s>"], unk_token="<s>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_pieces():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[SEP]"]))
    return tokenizer


MADE = {"byte level": byte_level, "sentencepiece": sentencepiece, "metaspace": metaspace, "word pieces": word_pieces}
KINDS = list(MADE)


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: make() for kind, make in MADE.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_token_by_token_is_what_all_of_them_decode_to(tokenizers, kind):
    """Also where the tokens are no text at all: parts of characters, special tokens, ids that are none."""
    tokenizer, random = tokenizers[kind], np.random.default_rng(0)
    cases = [
        tokenizer.encode(text, add_special_tokens=False).ids for text in [SAMPLE, "日本語のテキスト", "  a  ", *TEXTS]
    ]
    cases += [random.integers(0, tokenizer.get_vocab_size() + 3, random.integers(1, 60)).tolist() for _ in range(200)]
    for ids in cases:
        text = Text(tokenizer)
        said = "".join([*map(text.add, ids), text.rest()])
        assert said == text.whole == tokenizer.decode(ids)


@pytest.mark.slow
@needs(*(f"tokenizers/{family}" for family in families.NAMES))
@pytest.mark.parametrize("family", families.NAMES)
def test_so_it_is_with_the_tokenizers_of_real_models(family):
    tokenizer, random = families.tokenizer(family).backend_tokenizer, np.random.default_rng(0)
    cases = [tokenizer.encode(text, add_special_tokens=False).ids for text in [SAMPLE, *TEXTS]]
    cases += [random.integers(0, tokenizer.get_vocab_size() + 3, random.integers(1, 60)).tolist() for _ in range(200)]
    cases += [[tokenizer.encode(one, add_special_tokens=False).ids[-1] for one in "日語😀éa \n"] * 9]
    for ids in cases:
        text = Text(tokenizer)
        said = "".join([*map(text.add, ids), text.rest()])
        assert said == text.whole == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])
def test_text_is_said_as_soon_as_it_is_certain(tokenizers, kind):
    tokenizer = tokenizers[kind]
    text = Text(tokenizer)
    ids = tokenizer.encode(SAMPLE, add_special_tokens=False).ids
    said = [text.add(one) for one in ids]
    plain = [one for one, new in zip(ids, said, strict=True) if not new]
    assert all("�" not in new for new in said)
    assert all(not text.piece(one).strip("�") or one < 3 + 256 for one in plain[1:])
    assert sum(map(bool, said)) > len(ids) / 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_costs_the_same_in_a_long_answer(tokenizers, kind):
    tokenizer, decoded = tokenizers[kind], []

    class Counting:
        decoder = tokenizer.decoder

        def decode(self, ids, **options):
            decoded.append(len(ids))
            return tokenizer.decode(ids, **options)

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    text = Text(Counting(), ["no such text"])
    for one in tokenizer.encode(TEXTS[0], add_special_tokens=False).ids * 40:
        text.add(one)
    assert max(decoded) < 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", ["percent", "t costs", "5", " 60 a", "nowhere", "A loan", ".", "", "year."])
def test_a_text_ends_before_the_first_of_its_stops_and_nothing_of_it_is_said(tokenizers, kind, stop):
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(TEXTS[0] * 2, add_special_tokens=False).ids
    text, said, read = Text(tokenizer, [stop, "of no text"]), "", 0
    for one in ids:
        said += text.add(one)
        read += 1
        if text.stopped:
            break
    else:
        said += text.rest()
    whole = tokenizer.decode(ids)
    at = whole.find(stop) if stop else -1
    assert said == text.whole == (whole[:at] if at >= 0 else whole)
    assert text.stopped == (at >= 0)
    # No token is waited for that is not needed.
    assert at < 0 or stop not in tokenizer.decode(ids[: read - 1])


def test_what_may_become_a_stop_is_said_when_it_does_not(tokenizers):
    tokenizer = tokenizers["byte level"]
    text = Text(tokenizer, ["percent of all"])
    said = "".join(map(text.add, tokenizer.encode("5 percent of a loan, percent of", add_special_tokens=False).ids))
    assert said == "5 percent of a loan, " and text.rest() == "percent of"


@pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])  # others know no such letter
@pytest.mark.parametrize(("stop", "reason", "text"), [("é", "stop", "caf"), ("ë", "length", "café")])
def test_a_stop_that_the_last_allowed_token_completes_is_why_it_ends(tokenizers, kind, stop, reason, text):
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode("café", add_special_tokens=False).ids
    asked = Asked("a", "small", stop=(stop,))
    answer = Answer(asked, Prompt([1], 0, len(ids)), 0.0, Text(tokenizer, asked.stop), Sampler(asked))
    said = [answer.grow(np.eye(tokenizer.get_vocab_size(), dtype=np.float32)[one], set(), 1.0) for one in ids]
    said.append(answer.rest())
    assert "".join(one.text for one in said if one) == answer.end(2.0).text == text
    assert answer.end(2.0).reason == reason


def test_a_token_by_itself_has_its_space(tokenizers):
    for kind in ("byte level", "sentencepiece"):
        tokenizer = tokenizers[kind]
        text, ids = Text(tokenizer), tokenizer.encode("The bank pays", add_special_tokens=False).ids
        assert "".join(map(text.piece, ids)).strip() == "The bank pays"
