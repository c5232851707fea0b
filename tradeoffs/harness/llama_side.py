"""The llama.cpp runtime with what tasks ask: a context is decoded once for all that may follow it."""

from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from tradeoffs.evaluate.runtime import Rows
from tradeoffs.harness.asking import Asked, Ended, Ids, Said, runs
from tradeoffs.llama_cpp.context import DECODE_TOKENS, SEQUENCES, last
from tradeoffs.llama_cpp.runtime import CHUNK_ELEMENTS, LlamaCppRuntime
from tradeoffs.llama_cpp.scores import score_rows

Head = tuple[Ids, list[int]]  # a context, and which of what is asked goes on from it


class LlamaTasks(LlamaCppRuntime):
    """What several contexts begin with lies in sequence 0 of the KV cache; a context, and each of its continuations,
    has a sequence of its own that shares the cells before it."""

    def continuations(self, asked: Sequence[Asked]) -> list[Said]:
        """See `Continues.continuations`."""
        heads: dict[Ids, list[int]] = {}
        for index, one in enumerate(asked):
            window, count = one.window(self.context)
            heads.setdefault(window[: len(window) - count + 1], []).append(index)
        contexts = list(heads)
        self._check([np.asarray(ids) for ids in contexts])
        logprob: list[list[float]] = [[] for _ in asked]
        greedy = [True] * len(asked)
        with tqdm(total=len(asked), desc="likelihoods", leave=False) as bar:
            for shared, run in runs(contexts, [len(ids) - 1 for ids in contexts], DECODE_TOKENS):
                groups = list(_groups([(contexts[place], heads[contexts[place]]) for place in run], asked, shared))
                self._llama.reserve(shared + max(_tokens(group, asked, shared) for group in groups))
                if shared:
                    begin = np.asarray(contexts[run[0]][:shared], np.int32)
                    for _ in self._llama.decode([begin], [0], [0], [np.zeros(shared, bool)]):
                        pass  # no logits are wanted of it
                for group in groups:
                    self._go_on(group, asked, shared, logprob, greedy)
                    bar.update(sum(len(members) for _, members in group))
        return [Said(float(np.sum(some)), best) for some, best in zip(logprob, greedy, strict=True)]

    def answers(self, prompts: Sequence[Ids], most: int, stop_ids: Sequence[int], ended: Ended) -> list[list[int]]:
        """See `Continues.answers`."""
        return self.generate([np.asarray(prompt, np.int32) for prompt in prompts], most, stop_ids, ended)

    def _go_on(
        self, group: Sequence[Head], asked: Sequence[Asked], shared: int, logprob: list[list[float]], greedy: list[bool]
    ) -> None:
        """Fills `logprob` and `greedy` for a group: first tokens by its contexts, then all others by the tokens before
        them. The cache is then left with the `shared` ids alone."""

        def note(members: Sequence[int], places: Sequence[int], rows: Sequence[int], logits: np.ndarray) -> None:
            true = np.array([asked[index].continuation[place] for index, place in zip(members, places, strict=True)])
            said, best = self._said(logits[rows] if len(rows) != len(logits) else logits, true)
            for index, one, first in zip(members, said.tolist(), best.tolist(), strict=True):
                logprob[index].append(one)
                greedy[index] &= first

        slots = list(range(1, len(group) + 1))
        for slot in slots if shared else ():
            self._llama.share(shared, slot)
        fed = [np.asarray(ids[shared:], np.int32) for ids, _ in group]
        for owners, logits in self._llama.decode(fed, slots, [shared] * len(group), [last(ids) for ids in fed]):
            pairs = [(index, row) for row, owner in enumerate(owners.tolist()) for index in group[owner][1]]
            note([index for index, _ in pairs], [0] * len(pairs), [row for _, row in pairs], logits)

        members, places, starts = list[int](), list[int](), list[int]()
        for slot, (ids, mine) in zip(slots, group, strict=True):
            for number, index in enumerate(index for index in mine if len(asked[index].continuation) > 1):
                members.append(index)
                places.append(slot if number == 0 else len(group) + len(places) + 1)
                starts.append(len(ids))
                if number:
                    self._llama.share(len(ids), places[-1], slot)
        fed = [np.asarray(asked[index].continuation[:-1], np.int32) for index in members]
        if fed:
            done = [0] * len(members)
            for owners, logits in self._llama.decode(fed, places, starts, [np.ones(len(ids), bool) for ids in fed]):
                at = list[int]()
                for owner in owners.tolist():
                    done[owner] += 1
                    at.append(done[owner])
                note([members[owner] for owner in owners.tolist()], at, range(len(logits)), logits)
        for slot in {*slots, *places}:
            self._llama.forget(slot)

    def _said(self, logits: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of a token by each row of logits, and whether it is the most likely one; both (rows,)."""
        step = max(1, CHUNK_ELEMENTS // self.vocabulary)
        chunks = [slice(start, start + step) for start in range(0, len(true), step)]
        asked = Rows(true.astype(np.int32), None, None, 0, None)
        parts = list(self._pool.map(score_rows, [logits[c] for c in chunks], [asked[c] for c in chunks]))
        said, best = (np.concatenate([getattr(part, name) for part in parts]) for name in ("logprob", "argmax"))
        return said.astype(np.float64), best == true


def _groups(heads: Sequence[Head], asked: Sequence[Asked], shared: int) -> Iterator[list[Head]]:
    """Contexts that are decoded together, each with what follows it: as many tokens as one decode takes, where more
    than one context or continuation is in a group, and as many sequences as the cache keeps apart."""
    group: list[Head] = []
    for ids, members in heads:
        for index in members:
            more: Head = (ids, [index])
            same = bool(group) and group[-1][0] == ids
            wider = [*group[:-1], (ids, [*group[-1][1], index])] if same else [*group, more]
            if group and (_tokens(wider, asked, shared) > DECODE_TOKENS or _slots(wider) >= SEQUENCES):
                yield group
                wider = [more]
            group = wider
    if group:
        yield group


def _tokens(group: Sequence[Head], asked: Sequence[Asked], shared: int) -> int:
    """Cells that a group takes, beside the shared ones."""
    return sum(
        len(ids) - shared + sum(len(asked[index].continuation) - 1 for index in members) for ids, members in group
    )


def _slots(group: Sequence[Head]) -> int:
    return len(group) + sum(len(members) for _, members in group)
