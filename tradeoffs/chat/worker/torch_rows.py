"""Keys and values of sequences that grow together: rows of tensors, which all end at the same column.

transformers' own DynamicCache is made anew with every token, and knows of no row that joins or leaves. Here a token is
written behind the others; before a shorter row there are columns that are never attended to, as where a batch is padded
on the left.
"""

from typing import Any

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

STEP = 64  # columns that are made at a time
Pieces = list[tuple[Tensor, Tensor] | None]  # keys and values of one sequence by layer, each (1, heads, tokens, size)


class Rows(DynamicCache):
    """`places` are what the rows are known by, `lengths` their tokens; row i of all tensors is that of places[i]."""

    def __init__(self, like: DynamicCache, step: int = 1) -> None:
        """With layers as those of another cache, which `cuttable` says yes to; room is made for `step` rows at a
        time."""
        Cache.__init__(self, layers=[layer if isinstance(layer, DummyLayer) else _Layer(self) for layer in like.layers])
        self._own = [layer for layer in self.layers if isinstance(layer, _Layer)]
        self._step = step
        self.places: list[int] = []
        self.lengths: list[int] = []
        self.rows = self.columns = self.end = 0

    @property
    def width(self) -> int:
        """Columns that are in use: those of the longest row."""
        return max(self.lengths, default=0)

    def join(self, place: int, length: int, pieces: Pieces) -> None:
        """A row more, of the `length` tokens of `pieces`; of length 0 there are none."""
        row = len(self.places)
        if row == self.rows or length > self.end:
            more = self._step if row == self.rows else 0
            self._resize(self.rows + more, max(self.width, length), self.columns - self.end)
        for layer, states in zip(self._own, pieces, strict=False):
            layer.put(row, self.end - length, states)
        self.places.append(place)
        self.lengths.append(length)

    def take(self, place: int, length: int) -> Pieces:
        """The first `length` tokens of a row, as they stand: views, which hold until the next change."""
        row = self.places.index(place)
        begin = self.end - self.lengths[row]
        return [layer.part(row, begin, begin + length) for layer in self._own]

    def leave(self, place: int) -> None:
        row, last = self.places.index(place), len(self.places) - 1
        if row != last:
            begin = self.end - self.lengths[last]
            for layer in self._own:
                layer.put(row, begin, layer.part(last, begin, self.end))
        self.places[row], self.lengths[row] = self.places[last], self.lengths[last]
        del self.places[last], self.lengths[last]
        if not self.places:
            self.rows = self.columns = self.end = 0
            for layer in self._own:
                layer.reset()

    def prepare(self, count: int) -> None:
        """Makes room for `count` tokens more of each row, which a pass through the model may then write. What a pass
        that failed has written is as if it were not there."""
        if self.end + count > self.columns:
            self._resize(self.rows, self.width, max(count, STEP))
        for layer in self._own:
            layer.written = 0

    def advance(self, count: int, lengths: list[int] | None = None) -> None:
        """The tokens of a pass are there: `count` of each row, or fewer, so that it has these lengths."""
        self.end += count
        self.lengths = lengths or [length + count for length in self.lengths]
        for layer in self._own:
            layer.written = 0

    def cut(self, count: int) -> None:
        """Takes the last tokens of all rows back."""
        self.advance(-count)

    def bytes_per_token(self) -> int:
        """Of a token of a row, in all layers."""
        return sum(layer.bytes_per_token() for layer in self._own)

    def _resize(self, rows: int, before: int, after: int) -> None:
        """New tensors, of so many rows and with at least so many columns before and after `end`."""
        before = -(-before // STEP) * STEP
        begin, count = self.end - self.width, len(self.places)
        # All are made before one is replaced: where memory runs out, everything is as before.
        moved = [layer.moved(rows, before, before + after, count, begin, self.end) for layer in self._own]
        for layer, (keys, values) in zip(self._own, moved, strict=True):
            layer.keys, layer.values = keys, values
        self.rows, self.columns, self.end = rows, before + after, before


class _Layer(CacheLayerMixin):
    """All that was read is there: where a model attends to no more than a window of it, its own mask says so."""

    is_sliding = False
    keys: Any
    values: Any

    def __init__(self, held_in: Rows) -> None:
        super().__init__()
        self._in, self.written = held_in, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros: what is never attended to has the weight 0, and 0 times what is no number would be none.
        self.keys, self.values = (
            states.new_zeros(self._in.rows, states.shape[1], self._in.columns, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, self.written = len(self._in.places), key_states.shape[-2]
        end = self._in.end + self.written
        self.keys[:rows, :, self._in.end : end] = key_states
        self.values[:rows, :, self._in.end : end] = value_states
        used = slice(self._in.end - self._in.width, end)
        return self.keys[:rows, :, used], self.values[:rows, :, used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._in.width + query_length, 0

    def get_seq_length(self) -> int:
        return self._in.width + self.written

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False

    def part(self, row: int, begin: int, end: int) -> tuple[Tensor, Tensor] | None:
        if not self.is_initialized:
            return None
        return self.keys[row : row + 1, :, begin:end], self.values[row : row + 1, :, begin:end]

    def put(self, row: int, begin: int, states: tuple[Tensor, Tensor] | None) -> None:
        """Writes the states of one sequence into the columns of a row, from `begin` on."""
        if states is None:
            return
        if not self.is_initialized:
            self.lazy_initialization(*states)
        for held, new in zip((self.keys, self.values), states, strict=True):
            held[row, :, begin : begin + new.shape[2]] = new[0]

    def moved(self, rows: int, before: int, columns: int, count: int, begin: int, end: int) -> tuple[Any, Any]:
        """The first `count` rows' columns from `begin` to `end` in new tensors, where they end at `before`."""
        if not self.is_initialized:
            return None, None
        found = []
        for held in (self.keys, self.values):
            new = held.new_zeros(rows, held.shape[1], columns, held.shape[3])
            new[:count, :, before - (end - begin) : before] = held[:count, :, begin:end]
            found.append(new)
        return found[0], found[1]

    def bytes_per_token(self) -> int:
        if not self.is_initialized:
            return 0
        return sum(held.shape[1] * held.shape[3] * held.itemsize for held in (self.keys, self.values))


def cuttable(cache: DynamicCache) -> bool:
    """Whether all that a cache holds is keys and values by token, of which some can be taken and others left."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer) for layer in cache.layers)
