"""Of a fast model's words some go out together: none is lost, none waits for long, and an end waits for nothing."""

import random
import threading

import pytest

from tradeoffs.chat.messages import Begun, Ended, Failed, Logprob, Said
from tradeoffs.chat.worker.gathered import Gathered


class Steps:
    """Events that come so much later than the last ones, and what goes out then."""

    def __init__(self) -> None:
        self._now, self._out = 0.0, []
        self.gathered = Gathered(self._out.extend, 0.02, lambda: self._now)

    def __call__(self, seconds, *events):
        return self.after(seconds, lambda: self.gathered.send(events))

    def after(self, seconds, call):
        self._now += seconds
        self._out.clear()
        call()
        return list(self._out)


@pytest.fixture
def gathered():
    return Steps()


def ended(name: str) -> Ended:
    return Ended(name, "stop", "", 1, 0, 1, 0.0, 0.0, 0.0, 0.0)


def test_the_first_words_and_the_end_go_out_at_once(gathered):
    begun = Begun("a", 3, 0, 0, 9, 9)
    assert gathered(0, begun, Said("a", "Good", 1)) == [begun, Said("a", "Good", 1)]
    assert gathered(0.001, Said("a", " day", 2)) == []
    assert gathered(0.001, Said("a", "!", 3), ended("a")) == [Said("a", " day!", 3), ended("a")]


def test_in_between_what_was_said_in_a_while_goes_out_together(gathered):
    out = [gathered(0.006, Said("a", f"{number}", number)) for number in range(1, 11)]
    assert [said.text for step in out for said in step] == ["1", "2345", "6789"]
    assert [len(step) for step in out] == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_a_model_with_long_steps_is_not_held_up(gathered):
    for number in range(5):
        assert gathered(0.03, Said("a", "x", number)) == [Said("a", "x", number)]


def test_steps_that_say_nothing_are_a_sign_of_life_now_and_then():
    sent = []
    now = [0.0]
    gathered = Gathered(sent.append, 0.02, lambda: now[0])
    for _ in range(30):
        now[0] += 0.1
        gathered.send([])
    assert sent == [[], [], []]


def test_what_is_followed_by_nothing_goes_out_all_the_same(gathered):
    gathered(0, Said("a", "Good", 1), Said("b", "Bad", 1))
    gathered(0.001, Said("a", " day", 2), Said("b", " day", 2))
    held = [Said("a", " day", 2), Said("b", " day", 2)]
    assert gathered.after(0.02, gathered.gathered.send_held) == held
    assert gathered.after(0.02, gathered.gathered.send_held) == []
    assert gathered(0.001, Said("a", "!", 3)) == [Said("a", "!", 3)]


def test_a_thread_sends_what_is_held():
    out, both = [], threading.Event()

    def send(events):
        out.extend(events)
        if len(out) == 2:
            both.set()

    gathered = Gathered(send)
    threading.Thread(target=gathered.run, daemon=True).start()
    gathered.send([Said("a", "Good", 1)])
    gathered.send([Said("a", " day", 2)])
    assert both.wait(30)
    assert [said.text for said in out] == ["Good", " day"]


def test_tokens_without_a_text_do_not_hold_up_the_first_words(gathered):
    assert gathered(0, Said("a", "", 1)) == [Said("a", "", 1)]
    assert gathered(0.001, Said("a", "é", 2)) == [Said("a", "é", 2)]


def test_probabilities_stay_with_their_words(gathered):
    one, two, three = (Logprob(text, -1.0) for text in "abc")
    gathered(0, Said("a", "a", 1, (one,)))
    gathered(0.001, Said("a", "b", 2, (two,)))
    assert gathered(0.1, Said("a", "c", 3, (three,))) == [Said("a", "bc", 3, (two, three))]


def test_what_failed_has_said_all_that_it_had(gathered):
    gathered(0, Said("a", "Good", 1))
    gathered(0.001, Said("a", " day", 2))
    failed = Failed("a", "broken", "why")
    assert gathered(0.001, failed) == [Said("a", " day", 2), failed]


def test_whatever_comes_when_each_answer_is_whole_and_in_order(gathered):
    draw = random.Random(0)
    left = {name: [f"{name}{number} " for number in range(draw.randrange(1, 40))] for name in "abcdefgh"}
    expected = {name: "".join(words) for name, words in left.items()}
    heard, over = dict.fromkeys(left, ""), set()
    while left:
        events = []
        for name in draw.sample(sorted(left), draw.randrange(1, len(left) + 1)):
            events.append(Said(name, left[name].pop(0), 1))
            if not left[name]:
                events.append(ended(name))
                del left[name]
        for event in gathered(draw.random() / 50, *events):
            assert event.id not in over
            if isinstance(event, Said):
                heard[event.id] += event.text
            else:
                over.add(event.id)
    assert (heard, over) == (expected, set(expected))
