"""A model of transformers as a `Decoder`: answers that grow are one batch, which they join and leave from step to step.

The arithmetic is that of `generate`, by which the model was evaluated: rows padded on the left, and positions that
count a row's own tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer

from tradeoffs.chat.worker.decoder import Decoder, NoRoomError
from tradeoffs.chat.worker.torch_apart import ApartDecoder, why_apart
from tradeoffs.chat.worker.torch_base import PLACES, TorchBase
from tradeoffs.chat.worker.torch_rows import Pieces, Rows
from tradeoffs.models.forward import auto_batch, fits


def decoder(model: PreTrainedModel, pad_id: int, cells: int | None = None) -> Decoder:
    """`cells`: tokens of all sequences together, padding included, of which keys and values are kept; None: as many as
    fit the memory that an evaluation gives to a batch, and one sequence as long as the context.

    Raises UserError for a model that keeps nothing of what it has read, or in a form of its own.
    """
    kind = ApartDecoder if why_apart(model) else TorchDecoder
    return kind(model, pad_id, cells)


@dataclass
class _Growing:
    """`ids` that were read, of at most `most`. Its keys and values are `alone` until its prompt is `read`; then they
    are beside those of the others."""

    most: int
    ids: list[int] = field(default_factory=list)
    alone: Rows | None = None
    read: bool = False


@dataclass(frozen=True)
class _Kept:
    """What has ended, for others to begin with."""

    ids: list[int]
    pieces: Pieces


class TorchDecoder(TorchBase):
    """See `Decoder`. Each place has keys and values of its own, so what begins as another did has a copy of them."""

    def __init__(self, model: PreTrainedModel, pad_id: int, cells: int | None = None) -> None:
        self._growing: dict[int, _Growing] = {}
        self._kept: list[_Kept] = []  # the longest unused first
        super().__init__(model, pad_id, cells)
        self._together = Rows(self._like(), step=8)

    def _like(self) -> DynamicCache:
        return DynamicCache(config=self.model.config)

    @torch.inference_mode()
    def _fitting_cells(self) -> int:
        """By a pass, which also is the first one: what libraries prepare at their first use is there then."""
        rows = self._alone(0, 0, self._virtual_pieces())
        self._pass(rows, [[0]])
        return auto_batch(rows.bytes_per_token(), self.on, weights=self.size_mb * 1e6)

    def close(self) -> None:
        self._growing.clear()
        self._kept.clear()
        self._together = Rows(self._like(), step=8)

    @torch.inference_mode()
    def begin(self, ids: Sequence[int], length: int) -> tuple[int, int] | None:
        """See `Decoder`."""
        longest = max([length, *(growing.most for growing in self._growing.values())])
        needed = (len(self._growing) + 1) * (self.virtual + longest)
        if len(self._growing) == PLACES or (self._growing and needed > self.cells):
            return None
        place = next(number for number in range(PLACES) if number not in self._growing)
        known, pieces = self._longest_prefix(list(ids))
        alone = list[Rows]()
        if not fits(lambda: alone.append(self._alone(place, known, pieces))):
            return None
        self._growing[place] = _Growing(length, list(ids[:known]), alone[0])
        self._forget_down_to(self.cells - needed)
        return place, known

    @torch.inference_mode()
    def feed(self, parts: Mapping[int, Sequence[int]], wanted: set[int]) -> dict[int, np.ndarray]:
        """See `Decoder`."""
        found = dict[int, np.ndarray]()

        def work() -> None:
            steps = [place for place, ids in parts.items() if self._growing[place].read and len(ids) == 1]
            found.update(self._tokens({place: parts[place] for place in steps}))
            prompts = {place: list(ids) for place, ids in parts.items() if place not in steps}
            for group in self._alike(prompts):
                found.update(self._prompts({place: prompts[place] for place in group}))

        self._whole_or_not_at_all(work)
        for place, ids in parts.items():
            self._growing[place].ids += ids
            self._growing[place].read |= place in wanted
        return {place: logits for place, logits in found.items() if place in wanted}

    @torch.inference_mode()
    def every(self, place: int, ids: Sequence[int]) -> np.ndarray:
        """See `Decoder`."""
        found = list[np.ndarray]()

        def work() -> None:
            self._set_apart(place)
            alone = self._growing[place].alone
            logits = self._pass(alone, [list(ids)], len(ids)) if alone else None
            if logits is None:
                raise NoRoomError
            found.append(logits[0])

        self._whole_or_not_at_all(work)
        self._growing[place].ids += ids
        return found[0]

    @torch.inference_mode()
    def end(self, place: int) -> None:
        """See `Decoder`."""
        growing = self._growing[place]
        pieces = self._held(place, self.virtual + len(growing.ids))
        known = any(_common(growing.ids, other.ids) == len(growing.ids) for other in self._kept)
        if not known:
            fits(lambda: self._kept.append(_Kept(growing.ids, _copied(pieces))))
        if not growing.alone:
            self._together.leave(place)
        del self._growing[place]
        longest = max((other.most for other in self._growing.values()), default=0)
        self._forget_down_to(self.cells - len(self._growing) * (self.virtual + longest))

    def _whole_or_not_at_all(self, work: Callable[[], None]) -> None:
        """Where memory runs out, takes back what was read. Raises NoRoomError then."""
        with suppress(NoRoomError):
            if fits(work):
                return
        for rows in (self._together, *(growing.alone for growing in self._growing.values())):
            if rows and rows.places:
                rows.cut(rows.lengths[0] - self.virtual - len(self._growing[rows.places[0]].ids))
        raise NoRoomError

    def _tokens(self, parts: dict[int, Sequence[int]]) -> dict[int, np.ndarray]:
        """A token of each of these, which the batch then is made of."""
        for place in list(self._together.places):
            if place not in parts:
                self._set_apart(place)
        for place in parts:
            if alone := self._growing[place].alone:
                length = alone.lengths[0]
                self._together.join(place, length, alone.take(place, length))
                self._growing[place].alone = None
        places = list(self._together.places)
        if not places:
            return {}
        logits = self._pass(self._together, [list(parts[place]) for place in places])
        if logits is not None:
            return dict(zip(places, logits[:, 0], strict=True))
        # No more together from here on than half of what was too much.
        self.cells = max(1, len(places) * self._together.width // 2)
        for place in places:
            self._set_apart(place)
        return {place: self._read(place, list(parts[place])) for place in places}

    def _alike(self, parts: dict[int, list[int]]) -> list[list[int]]:
        """The places in groups: those that have about as many new ids, and are about as long, are little padding."""
        groups = list[list[int]]()
        wholes = {place: len(self._growing[place].ids) + len(ids) for place, ids in parts.items()}
        for place in sorted(parts, key=lambda place: (-len(parts[place]), -wholes[place])):
            first = groups[-1][0] if groups else place
            as_many = 4 * len(parts[place]) >= 3 * len(parts[first])
            if groups and as_many and wholes[first] <= 2 * wholes[place] <= 4 * wholes[first]:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def _prompts(self, parts: dict[int, list[int]]) -> dict[int, np.ndarray]:
        """Ids of prompts, in one pass where that can be; the logits after the last of each.

        As many ids of each go through: before the fewer ones of a row stand some that it has read already, once more,
        and only a row that has not so many is padded. So nothing stands between the tokens of a row.
        """
        for place in parts:
            self._set_apart(place)
        if len(parts) == 1:
            return {place: self._read(place, ids) for place, ids in parts.items()}
        count, rows = max(map(len, parts.values())), Rows(self._like(), step=len(parts))
        fed, lengths = list[list[int]](), list[int]()
        for place, ids in parts.items():
            growing = self._growing[place]
            known = max(len(growing.ids) + len(ids) - count, 0)
            new = [*growing.ids[known:], *ids]
            if growing.alone:
                rows.join(place, self.virtual + known, growing.alone.take(place, self.virtual + known))
            fed.append([self.pad_id] * (count - len(new)) + new)
            lengths.append(self.virtual + known + len(new))
        between = self.virtual and min(lengths) < self.virtual + count
        logits = None if between else self._pass(rows, fed, lengths=lengths)
        if logits is None:
            return {place: self._read(place, ids) for place, ids in parts.items()}
        for place, length in zip(parts, lengths, strict=True):
            self._growing[place].alone = self._alone(place, length - self.virtual, rows.take(place, length))
        return dict(zip(parts, logits[:, 0], strict=True))

    def _read(self, place: int, ids: list[int]) -> np.ndarray:
        """Appends ids to what is alone; the logits after the last one. Where memory runs out, half of them at a
        time."""
        alone = self._growing[place].alone
        logits = self._pass(alone, [ids]) if alone else None
        if logits is not None:
            return logits[0, 0]
        if len(ids) == 1:
            raise NoRoomError
        self._read(place, ids[: len(ids) // 2])
        return self._read(place, ids[len(ids) // 2 :])

    def _pass(
        self, rows: Rows, ids: list[list[int]], last: int = 1, lengths: list[int] | None = None
    ) -> np.ndarray | None:
        """Appends ids, as many to each row, or so many that it has these lengths; the logits after each of the `last`.
        None if there is no memory for it, even with all forgotten that has ended."""
        found, count = list[np.ndarray](), len(ids[0])
        lengths = lengths or [length + count for length in rows.lengths]

        def work() -> None:
            rows.prepare(count)
            found.append(self._logits(ids, rows, lengths, last))

        if not fits(work):
            self._kept.clear()
            if not fits(work):
                return None
        rows.advance(count, lengths)
        return found[0]

    def _alone(self, place: int, known: int, pieces: Pieces) -> Rows:
        """Keys and values of one sequence that begins with these, of so many of its ids."""
        rows = Rows(self._like())
        rows.join(place, self.virtual + known, pieces)
        return rows

    def _set_apart(self, place: int) -> None:
        """Takes one out of the batch, if it is there."""
        growing = self._growing[place]
        if growing.alone is None:
            length = self.virtual + len(growing.ids)
            growing.alone = self._alone(place, len(growing.ids), self._together.take(place, length))
            self._together.leave(place)

    def _longest_prefix(self, ids: list[int]) -> tuple[int, Pieces]:
        """How many of the ids, at most all but the last, are the beginning of a sequence that is there, and their keys
        and values."""
        ids = ids[:-1]
        growing = {place: _common(ids, one.ids) for place, one in self._growing.items()}
        kept = [_common(ids, one.ids) for one in self._kept]
        most = max([*growing.values(), *kept], default=0)
        if not most:
            return 0, self._virtual_pieces()
        length = self.virtual + most
        if most in growing.values():
            return most, self._held(next(place for place, known in growing.items() if known == most), length)
        found = self._kept.pop(kept.index(most))
        if most < len(found.ids):  # else the new one is more of the same
            self._kept.append(found)
        return most, [part and (part[0][:, :, :length], part[1][:, :, :length]) for part in found.pieces]

    def _held(self, place: int, length: int) -> Pieces:
        return (self._growing[place].alone or self._together).take(place, length)

    def _virtual_pieces(self) -> Pieces:
        layers: Any = self._first.layers if self._first else []
        return [(layer.keys, layer.values) for layer in layers if not isinstance(layer, DummyLayer)]

    def _forget_down_to(self, tokens: int) -> None:
        while self._kept and sum(self.virtual + len(one.ids) for one in self._kept) > tokens:
            self._kept.pop(0)


def _copied(pieces: Pieces) -> Pieces:
    return [part and (part[0].clone(), part[1].clone()) for part in pieces]


def _common(ids: list[int], others: list[int]) -> int:
    """How many ids two sequences begin with alike; by halves, since whole lists are compared in no time."""
    low, high = 0, min(len(ids), len(others))
    while low < high:
        middle = (low + high + 1) // 2
        if ids[low:middle] == others[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
