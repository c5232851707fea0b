"""Options of one token and of several are as likely as the sum of their tokens says, cut to the context or not."""

import numpy as np
import pytest

from tradeoffs.evaluate import choices

CONTEXT = 6


class Runtime:
    """Log-probabilities that depend on every token before, so that a token too few or too many shows."""

    context = CONTEXT

    def __init__(self):
        self.prompts = []

    def choose(self, prompts, options):
        assert len({len(some) for some in options}) == 1
        assert max(len(ids) for ids in prompts) <= CONTEXT
        self.prompts += [tuple(ids.tolist()) for ids in prompts]
        return np.array([[logprob(ids, token) for token in some] for ids, some in zip(prompts, options, strict=True)])


def logprob(ids, token):
    return -((sum((at + 1) * int(value) for at, value in enumerate(ids)) * 7 + int(token) * 3) % 11) / 8 - 0.125


def question(ids, options, stems=((), (), (), ())):
    return {"ids": ids, "options": options, "stems": [list(stem) for stem in stems]}


def test_options_of_one_token_are_asked_once_per_question():
    runtime = Runtime()
    some = [question([1, 2, 3], [5, 6, 7, 8]), question([1, 2, 4], [5, 6, 7, 8])]
    found = choices.option_logprobs(runtime, some)
    assert found.dtype == np.float32
    assert found.tolist() == [[logprob(q["ids"], option) for option in q["options"]] for q in some]
    assert len(runtime.prompts) == 2


class Timed(Runtime):
    """A prompt that takes as many seconds as it has tokens."""

    def choose(self, prompts, options):
        self.seconds = np.array([len(ids) for ids in prompts], np.float64)
        return super().choose(prompts, options)


def test_a_question_took_what_its_prompts_took_and_its_part_of_those_that_others_have_too():
    options = [5, 6, 7, 8]
    some = [
        question([1, 2, 3], options) | {"cut": False},
        question([1, 2], options) | {"cut": True},
        question([1, 2, 3], options, [[9], [], [], []]) | {"cut": False},
    ]
    seconds = np.zeros(3)
    found = choices.by_question(Timed(), some, seconds)
    assert seconds.tolist() == [1.5, 2, 1.5 + 4]
    for one, other in zip(found, choices.by_question(Runtime(), some), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_tokens_of_an_option_are_added_up_as_lm_evaluation_harness_does():
    runtime = Runtime()
    (found,) = choices.option_logprobs(runtime, [question([1, 2, 3], [5, 6, 7, 8], [[9], [], [9], [4, 9]])])
    assert found.tolist() == [
        logprob([1, 2, 3], 9) + logprob([1, 2, 3, 9], 5),
        logprob([1, 2, 3], 6),
        logprob([1, 2, 3], 9) + logprob([1, 2, 3, 9], 7),
        logprob([1, 2, 3], 4) + logprob([1, 2, 3, 4], 9) + logprob([1, 2, 3, 4, 9], 8),
    ]
    assert len(runtime.prompts) == len(set(runtime.prompts)) == 4, "what options share is asked once"


@pytest.mark.parametrize("length", [CONTEXT - 1, CONTEXT])
def test_a_prompt_that_does_not_fit_with_an_options_stem_loses_its_beginning_for_that_option(length):
    ids = list(range(1, length + 1))
    (found,) = choices.option_logprobs(Runtime(), [question(ids, [5, 6, 7, 8], [[9], [], [9], [9]])])
    # As the harness: all that precedes the option's last token, its last CONTEXT tokens.
    window = [*ids, 9][-CONTEXT:]
    assert found[0] == logprob(window[:-1], 9) + logprob(window, 5)
    assert found[1] == logprob(ids, 6)


def test_questions_that_were_cut_stand_apart_and_come_back_in_their_order():
    runtime = Runtime()
    some = [question([1, 2, n], [5, 6, 7, 8]) | {"cut": n % 2 == 0} for n in range(3, 8)]
    found = choices.by_question(runtime, some)
    assert [row.tolist() for row in found] == [[logprob(q["ids"], option) for option in q["options"]] for q in some]
    assert [prompt[-1] for prompt in runtime.prompts] == [3, 5, 7, 4, 6]
