"""Sequences that share one cache: a common beginning is stored once, and one may take all of it. But each token of each
sequence passes over the cells of all: for models with a long context, of which there is no room for many."""

from collections.abc import Mapping, Sequence

import numpy as np

from tradeoffs.chat.worker.llama_cache import Held, Kept
from tradeoffs.llama_cpp.context import SEQUENCES


class Cells:
    """Which cells of the cache are in use, by how many sequences: llama.cpp does not say it."""

    def __init__(self, count: int) -> None:
        self._uses = np.zeros(count, np.int32)
        self._unused = np.arange(count)  # the first `free` of them
        self.free = count

    def take(self, count: int) -> np.ndarray:
        self.free -= count
        found = self._unused[self.free : self.free + count].copy()
        self._uses[found] = 1
        return found

    def share(self, cells: np.ndarray) -> None:
        self._uses[cells] += 1

    def give(self, cells: np.ndarray) -> None:
        self._uses[cells] -= 1
        unused = cells[self._uses[cells] == 0]
        self._unused[self.free : self.free + len(unused)] = unused
        self.free += len(unused)


class Shared:
    """See `Sequences`. A place is a slot; what has ended stays there until room is needed, the oldest first."""

    def __init__(self, cache: Kept, cells: int, whole_only: bool, window: int) -> None:
        """`whole_only`: the model's memory cannot go back (recurrent). `window`: tokens that it looks back; 0: all."""
        self._cache, self._whole_only, self._window = cache, whole_only, window
        cache.open(cells, SEQUENCES, unified=True)
        self._cells = Cells(cells)
        self.held: dict[int, Held] = {}  # by slot, the longest unused first

    def begin(self, ids: np.ndarray, length: int) -> tuple[int, int] | None:
        best, known = self._longest_prefix(ids)
        # Little of it is lost: what goes on from a sequence takes it over.
        takes = best is not None and not self.held[best].grows and 2 * known >= self.held[best].count
        if best is not None and takes:
            known = self._cut(best, known)
        while not self._make_room(length - known, best):
            if takes or best is None or self.held[best].grows:
                return None
            takes, known = True, self._cut(best, known)
        cells = np.empty(0, np.int64) if best is None else self.held[best].cells[:known]
        if best is not None and takes:
            place = best
            del self.held[best]
        else:
            place = next(slot for slot in range(SEQUENCES) if slot not in self.held)
            if best is not None:
                self._cache.copy(best, place, known)
                self._cells.share(cells)
        self.held[place] = Held(np.resize(ids, length), known, cells=np.resize(cells, length))
        return place, known

    def grown(self, parts: Mapping[int, Sequence[int]]) -> None:
        for place, ids in parts.items():
            held = self.held[place]
            held.cells[held.take(ids)] = self._cells.take(len(ids))

    def end(self, place: int) -> None:
        held = self.held.pop(place)
        held.grows = False
        self.held[place] = held  # the last one used

    def drop_ended(self) -> bool:
        idle = [place for place, held in self.held.items() if not held.grows]
        for place in idle:
            self._drop(place)
        return bool(idle)

    def _longest_prefix(self, ids: np.ndarray) -> tuple[int | None, int]:
        """The slot whose sequence begins like `ids` for longest, one that has ended before one that grows."""
        best, most = None, 0
        for place, held in self.held.items():
            known = self._usable(place, held, held.common(ids))
            if known > most or (known == most and best is not None and self.held[best].grows):
                best, most = (place, known) if known else (None, 0)
        return best, most

    def _usable(self, place: int, held: Held, known: int) -> int:
        """How much of a common beginning can be gone on from: what is left of a sequence that went further."""
        if self._whole_only and known < held.count:
            return 0  # a recurrent state holds all that it has read
        if self._window and self._cache.first(place) > max(0, known - self._window):
            return 0  # of what the next token sees, something was left behind
        return known

    def _cut(self, place: int, length: int) -> int:
        """Leaves the first tokens of a sequence that has ended; how many that are in fact."""
        held = self.held[place]
        if length < held.count and not self._cache.cut(place, length):
            self._cache.forget(place)
            length = 0
        self._cells.give(held.cells[length : held.count])
        held.count = length
        return length

    def _make_room(self, more: int, keep: int | None) -> bool:
        """Whether there is room for so many more tokens, once some of what has ended is gone."""
        more += sum(len(held.ids) - held.count for held in self.held.values() if held.grows)
        idle = [place for place, held in self.held.items() if not held.grows and place != keep]
        for place in idle:
            if len(self.held) < SEQUENCES and more <= self._cells.free:
                break
            self._drop(place)
        return len(self.held) < SEQUENCES and more <= self._cells.free

    def _drop(self, place: int) -> None:
        held = self.held.pop(place)
        self._cache.forget(place)
        self._cells.give(held.cells[: held.count])
