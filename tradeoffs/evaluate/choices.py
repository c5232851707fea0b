"""How likely each option of a multiple-choice question is, also where options take different numbers of tokens."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tradeoffs.evaluate.runtime import Runtime

Step = tuple[tuple[int, ...], int]  # what precedes a token, and the token


def by_question(runtime: Runtime, questions: Sequence[dict], seconds: np.ndarray | None = None) -> list[np.ndarray]:
    """Log-probability of each option, float32 (options,) per question, in their order; questions of one subject.

    A question that was cut to fit the context has lost the beginning that the others share, so it stands apart.
    `seconds`, float64 (questions,), is filled with what each of them took.
    """
    found: dict[int, np.ndarray] = {}
    for cut in (False, True):
        places = [place for place, question in enumerate(questions) if question["cut"] == cut]
        if places:
            took = None if seconds is None else np.zeros(len(places))
            found |= zip(places, option_logprobs(runtime, [questions[place] for place in places], took), strict=True)
            if seconds is not None:
                seconds[places] = took
    return [found[place] for place in range(len(questions))]


def option_logprobs(runtime: Runtime, questions: Sequence[dict], seconds: np.ndarray | None = None) -> np.ndarray:
    """Log-probability of each option after its prompt, in nats; float32 (questions, options).

    `questions` hold `ids`, `options` and `stems` as `tokenize.questions` makes them. An option with a stem counts
    as in lm-evaluation-harness: the log-probabilities of all its tokens are added, and of a prompt that does not fit
    the context together with it the last tokens are kept. `seconds`, float64 (questions,), is filled with what each
    question took: all of its prompts, of one that several questions have an equal share.
    """
    steps = [
        [
            _steps(question["ids"], [*stem, last], runtime.context)
            for stem, last in zip(question["stems"], question["options"], strict=True)
        ]
        for question in questions
    ]
    asked: dict[tuple[int, ...], list[int]] = {}
    for prompt, token in (step for options in steps for some in options for step in some):
        asked.setdefault(prompt, []).append(token)
    most = max(map(len, asked.values()))
    logprobs = runtime.choose(
        [np.asarray(prompt, np.int32) for prompt in asked],
        # As many for every prompt: the last one again and again, where there are fewer.
        [np.asarray(tokens + tokens[-1:] * (most - len(tokens)), np.int32) for tokens in asked.values()],
    )
    if seconds is not None:
        seconds[:] = _per_question(steps, dict(zip(asked, runtime.seconds.tolist(), strict=True)))
    found = {
        (prompt, token): float(logprob)
        for (prompt, tokens), row in zip(asked.items(), logprobs, strict=True)
        for token, logprob in zip(tokens, row, strict=False)
    }
    return np.asarray([[sum(found[step] for step in some) for some in options] for options in steps], np.float32)


def _per_question(steps: Sequence[Sequence[Sequence[Step]]], took: dict[tuple[int, ...], float]) -> list[float]:
    """The seconds of each question's prompts, by those of every prompt."""
    prompts = [{prompt for some in options for prompt, _ in some} for options in steps]
    shared = Counter(prompt for mine in prompts for prompt in mine)
    return [sum(took[prompt] / shared[prompt] for prompt in mine) for mine in prompts]


def _steps(ids: Sequence[int], option: Sequence[int], context: int) -> list[Step]:
    """Every token of an option with what precedes it, all within the window that ends before the last one."""
    window = (*ids, *option[:-1])[-context:]
    return [(window[: len(window) - len(option) + 1 + at], token) for at, token in enumerate(option)]
