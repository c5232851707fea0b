"""Sequences with a cache of their own each: none passes over the cells of others. What has ended is kept outside of it.

For models whose context takes little memory. There, passing over what others have, and what has ended, would take more
time than all else.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain, count

import numpy as np

from tradeoffs.chat.worker.llama_cache import Held, Kept

PAGE = 1 << 16  # bytes


class Pages:
    """Memory for states of any size. It is there from the first moment on, so that a process does not seem to leak."""

    def __init__(self, size: float) -> None:
        self._pages = np.full((int(size) // PAGE, PAGE), 255, np.uint8)
        self._unused = list(range(len(self._pages)))

    def fits(self, size: int) -> bool:
        return -(-size // PAGE) <= len(self._unused)

    def put(self, state: np.ndarray) -> list[int]:
        """Where it is; the caller has asked whether it fits."""
        found = [self._unused.pop() for _ in range(0, len(state), PAGE)]
        for at, page in enumerate(found):
            part = state[at * PAGE : (at + 1) * PAGE]
            self._pages[page, : len(part)] = part
        return found

    def get(self, pages: Sequence[int], size: int) -> np.ndarray:
        return self._pages[pages].reshape(-1)[:size]

    def free(self, pages: Sequence[int]) -> None:
        self._unused += pages


class Ended(Held):
    """A sequence that has ended: where its state is kept."""

    pages: list[int]
    size: int


class Apart:
    """See `Sequences`. A place is a slot. The lowest ones are taken: llama.cpp computes what lies in a row at once."""

    def __init__(self, cache: Kept, places: int, context: int, window: int, kept: float) -> None:
        """`window`: tokens that the model looks back; 0: all. `kept`: bytes of what has ended."""
        self._cache, self._places, self._window = cache, places, window
        cache.open(places * context, places, unified=False)
        self._pages = Pages(kept)
        self.held: dict[int, Held] = {}  # by slot: what grows
        self.ended: OrderedDict[int, Ended] = OrderedDict()  # the longest unused first
        self._numbers = count()

    def begin(self, ids: np.ndarray, length: int) -> tuple[int, int] | None:
        place = next((slot for slot in range(self._places) if slot not in self.held), None)
        if place is None:
            return None
        best, known = None, 0
        for name, held in chain(self.ended.items(), self.held.items()):
            if (common := held.common(ids)) > known:
                best, known = (name, held), common
        if best and not self._go_on(place, *best, known):
            self._cache.forget(place)
            known = 0
        self.held[place] = Held(np.resize(ids, length), known)
        return place, known

    def grown(self, parts: Mapping[int, Sequence[int]]) -> None:
        for place, ids in parts.items():
            self.held[place].take(ids)

    def end(self, place: int) -> None:
        held = self.held.pop(place)
        if held.count:
            self._keep(held, self._cache.state(place))
        self._cache.forget(place)

    def drop_ended(self) -> bool:
        return False  # it takes no room from what grows

    def _go_on(self, place: int, name: int, held: Held, known: int) -> bool:
        """Whether the first tokens of a sequence are in another place now."""
        if isinstance(held, Ended):
            state = self._pages.get(held.pages, held.size)
            self.ended.move_to_end(name)
            if 2 * known >= held.count:  # little of it is lost: it goes on as the new one
                self._drop(name)
        else:
            state = self._cache.state(name)
        if not self._cache.restore(place, state):
            return False
        # A state holds no more than its window: of what the next token sees, all must be there.
        if self._window and self._cache.first(place) > max(0, known - self._window):
            return False
        return known == held.count or self._cache.cut(place, known)

    def _keep(self, held: Held, state: np.ndarray) -> None:
        while not self._pages.fits(len(state)):
            if not self.ended:
                return
            self._drop(next(iter(self.ended)))
        kept = Ended(held.ids[: held.count].copy(), held.count, False)
        kept.pages, kept.size = self._pages.put(state), len(state)
        self.ended[next(self._numbers)] = kept

    def _drop(self, name: int) -> None:
        self._pages.free(self.ended.pop(name).pages)
