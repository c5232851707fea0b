"""Where two greedy answers to one prompt part, and whether that is rounding: logits of the same text differ in their
last digits with what is computed beside it, and where two tokens are as likely as each other, that decides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradeoffs.chat.worker.decoder import Decoder
from tradeoffs.evaluate.runtime import Target
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

BESIDE = 8  # sequences that are computed at the same time in one of the ways


@dataclass(frozen=True)
class Difference:
    """The first token at which answers differ, `at` from 0 on. `gaps`: the logit of `ours` less that of `theirs`, by
    each way to compute the same text; the first one is that of a single run."""

    at: int
    ours: int
    theirs: int
    gaps: tuple[float, ...]

    @property
    def tie(self) -> bool:
        """Whether rounding alone can make the other token the likelier one: it does in one of the ways, or the gap is
        no more than twice what it moves by."""
        moves = max(self.gaps) - min(self.gaps)
        return min(self.gaps) <= 0 <= max(self.gaps) or abs(self.gaps[0]) <= 2 * moves


def first_difference(
    decoder: Decoder, prompt: Sequence[int], ours: Sequence[int], theirs: Sequence[int], stop_id: int
) -> Difference | None:
    """Of two answers, their stop token not among their ids; None where they are the same. An answer that goes on where
    the other ends differs from it by `stop_id`.

    The place is computed anew, from the first token of the prompt on: the prompt at once and then token by token, as a
    single answer is; all at once; token by token, and so beside others; and where the decoder can score as evaluation
    does, in its batches.
    """
    if list(ours) == list(theirs):
        return None
    pairs = zip([*ours, stop_id], [*theirs, stop_id], strict=False)
    at = next(at for at, (one, other) in enumerate(pairs) if one != other)
    one, other = ([*ids, stop_id][at] for ids in (ours, theirs))
    prompt, known = list(prompt), list(ours[:at])
    ways = (
        _logits(decoder, [prompt, *([token] for token in known)]),
        _logits(decoder, [[*prompt, *known]]),
        _logits(decoder, [prompt, *([token] for token in known)], beside=BESIDE),
        _logits(decoder, [[token] for token in [*prompt, *known]], beside=BESIDE),
    )
    gaps = [float(logits[one] - logits[other]) for logits in ways]
    if isinstance(decoder, LlamaCppRuntime):
        gaps += [_scored(decoder, [*prompt, *known], one, other, copies) for copies in (1, 2, BESIDE)]
    return Difference(at, one, other, tuple(gaps))


def _scored(runtime: LlamaCppRuntime, ids: Sequence[int], one: int, other: int, copies: int) -> float:
    """The gap by evaluation's own code, the same text so many times in a batch."""
    scored = np.arange(len(ids) + 1) == len(ids)
    target = Target(np.array([*ids, one], np.int32), scored, at=np.array([[one, other]], np.int32))
    found = runtime.score([target] * copies)[0].at_logprob
    assert found is not None
    return float(found[0, 0] - found[0, 1])


def _logits(decoder: Decoder, pieces: Sequence[Sequence[int]], beside: int = 0) -> np.ndarray:
    """After all pieces, each in a step of its own; of the first of the sequences that read them at the same time."""
    length = sum(map(len, pieces))
    places = []
    for _ in range(1 + min(beside, decoder.places - 1)):
        # Only the first token is named, so that nothing that is kept is gone on from.
        if begun := decoder.begin(pieces[0][:1], length):
            places.append(begun[0])
    try:
        found = dict[int, np.ndarray]()
        for piece in pieces:
            for begin in range(0, len(piece), decoder.step_tokens // len(places)):
                part = piece[begin : begin + decoder.step_tokens // len(places)]
                found = decoder.feed(dict.fromkeys(places, part), {places[0]})
        return np.array(found[places[0]])
    finally:
        for place in places:
            decoder.end(place)
