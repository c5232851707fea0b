"""Where two greedy answers to one prompt part, and whether that is rounding: logits of the same text differ in their
last digits with what is computed beside it, and where two tokens are as likely as each other, that decides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradeoffs.chat.worker.decoder import Decoder

BESIDE = 8  # sequences that are computed at the same time in one of the ways


@dataclass(frozen=True)
class Difference:
    """The first token at which answers differ, `at` from 0 on; `gap`: of its two logits in a single run, that of `ours`
    less that of `theirs`. `rounding`: how far any logit at this place moves between ways to compute the same text."""

    at: int
    ours: int
    theirs: int
    gap: float
    rounding: float

    @property
    def tie(self) -> bool:
        """Whether both logits can change places by rounding alone."""
        return abs(self.gap) <= 2 * self.rounding


def first_difference(
    decoder: Decoder, prompt: Sequence[int], ours: Sequence[int], theirs: Sequence[int], stop_id: int
) -> Difference | None:
    """Of two answers, their stop token not among their ids; None where they are the same. An answer that goes on where
    the other ends differs from it by `stop_id`.

    The place is computed anew three times, from the first token of the prompt on: the prompt at once and then token by
    token, as a single answer is; all at once; token by token beside others.
    """
    if list(ours) == list(theirs):
        return None
    pairs = zip([*ours, stop_id], [*theirs, stop_id], strict=False)
    at = next(at for at, (one, other) in enumerate(pairs) if one != other)
    one, other = ([*ids, stop_id][at] for ids in (ours, theirs))
    prompt, known = list(prompt), list(ours[:at])
    single = _logits(decoder, [prompt, *([token] for token in known)])
    others = (
        _logits(decoder, [[*prompt, *known]]),
        _logits(decoder, [prompt, *([token] for token in known)], beside=BESIDE),
        _logits(decoder, [[token] for token in [*prompt, *known]], beside=BESIDE),
    )
    rounding = max(float(np.abs(logits - single).max()) for logits in others)
    return Difference(at, one, other, float(single[one] - single[other]), rounding)


def _logits(decoder: Decoder, pieces: Sequence[Sequence[int]], beside: int = 0) -> np.ndarray:
    """After all pieces, each in a step of its own; of the first of the sequences that read them at the same time."""
    length = sum(map(len, pieces))
    places = []
    for _ in range(1 + min(beside, decoder.places - 1)):
        # Only the first token is named, so that nothing that is kept is gone on from.
        if found := decoder.begin(pieces[0][:1], length):
            places.append(found[0])
    try:
        found = {}
        for piece in pieces:
            for begin in range(0, len(piece), decoder.step_tokens // len(places)):
                part = piece[begin : begin + decoder.step_tokens // len(places)]
                found = decoder.feed(dict.fromkeys(places, part), {places[0]})
        return np.array(found[places[0]])
    finally:
        for place in places:
            decoder.end(place)
