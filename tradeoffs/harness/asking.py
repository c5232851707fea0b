"""What a task of lm-evaluation-harness asks of a runtime, in token ids, and what of it is computed once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tradeoffs.evaluate.runtime import Runtime
from tradeoffs.plumbing.errors import UserError

# Tokens that some sequences must begin with together before these are computed for themselves: of fewer, a pass of its
# own costs more than it saves.
WORTH_SHARING = 32
Ids = tuple[int, ...]
Ended = Callable[[list[int]], bool]  # whether an answer, as far as it goes, has said what ends it


@dataclass(frozen=True)
class Asked:
    """How likely is `continuation` after `context`? Both are not empty."""

    context: Ids
    continuation: Ids

    def window(self, context: int) -> tuple[Ids, int]:
        """The ids that a model with so long a context is given, and how many of the last of them predict.

        As in lm-evaluation-harness what does not fit is cut from the left; the last id of all is only predicted. Raises
        UserError if the continuation alone does not fit.
        """
        if len(self.continuation) > context:
            raise UserError(
                f"a task asks for the likelihood of {len(self.continuation)} tokens at once, and the model's context "
                f"is {context}; leave that task out, or take a model with a longer context"
            )
        return (self.context + self.continuation)[-(context + 1) : -1], len(self.continuation)


@dataclass(frozen=True)
class Said:
    """log_likelihood: nats, sum over the continuation. greedy: each of its tokens was the most likely one."""

    log_likelihood: float
    greedy: bool


class Continues(Runtime, Protocol):
    """A runtime that shares what several requests begin with."""

    def continuations(self, asked: Sequence[Asked]) -> list[Said]:
        """In the order of `asked`."""
        ...

    def answers(self, prompts: Sequence[Ids], most: int, stop_ids: Sequence[int], ended: Ended) -> list[list[int]]:
        """Greedy answers of at most so many tokens, without the stop token; one ends early where `ended` says so."""
        ...


def alike(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many ids two sequences begin with together."""
    most = min(len(ours), len(theirs))
    low = 0
    while low < most and ours[low : low + 64] == theirs[low : low + 64]:  # in steps: prompts share thousands of ids
        low += 64
    low = min(low, most)
    while low < most and ours[low] == theirs[low]:
        low += 1
    return low


def runs(sequences: Sequence[Ids], free: Sequence[int], row: int) -> Iterator[tuple[int, list[int]]]:
    """Indices of sequences that begin alike, each with how many ids these share; in the order of their ids.

    `free` is how many of a sequence's first ids may be shared, since nothing is wanted at them. What fits into one
    `row` of tokens shares in it, so it comes together with other such ones, with 0 in common.
    """
    rest: list[int] = []
    for shared, nodes, run in _alike(sequences, free):
        if shared and nodes > row:
            if rest:
                yield 0, rest
            yield shared, run
            rest = []
        else:
            rest += run
    if rest:
        yield 0, rest


def _alike(sequences: Sequence[Ids], free: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Runs, how many ids each shares, and how many tokens there are in it, what stands twice counted once.

    A run ends where the next sequence shares much less than those before: the examples of one subject are not thrown
    away for an introduction that all subjects have.
    """
    run: list[int] = []
    shared = nodes = 0
    for index in sorted(range(len(sequences)), key=lambda index: sequences[index]):
        ids = sequences[index]
        same = min(alike(sequences[run[0]], ids), free[index], shared) if run else 0
        if run and same >= max(WORTH_SHARING, shared // 2 if len(run) > 1 else 0):
            nodes += len(ids) - alike(sequences[run[-1]], ids)
            run.append(index)
            shared = same
            continue
        if run:
            yield (shared if len(run) > 1 else 0), nodes, run
        run, shared, nodes = [index], free[index], len(ids)
    if run:
        yield (shared if len(run) > 1 else 0), nodes, run
