"""Finding texts that say the same: exactly, or almost, among as many as fit on the disk.

Near-duplicates are found in three steps, each of which looks at what the one before left over. MinHash with bands
(Broder 1997; Indyk & Motwani 1998) finds the texts that may have any; a prefix filter (Chaudhuri et al. 2006; Xiao et
al. 2008) the pairs to look at; and those are compared exactly. The first can miss a pair, seldom (RECALL); the others
cannot. The second is there for texts of one template, which look alike to the first by the thousand.
"""

import math
import os
import re
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray
from tqdm import tqdm
from xxhash import xxh3_64_intdigest

# Words, numbers whole (3.5 is not 35), and signs that carry meaning ($ % + -); commas, quotes and such do not count.
WORDS = re.compile(r"\d+(?:[.,]\d+)*|\w+|[^\w\s.,;:!?'\"()]")
PERMUTATIONS = 128
RECALL = 0.999  # share that the bands find of the pairs that are just as similar as the threshold; of others, more
CHUNK = 4096  # texts whose band keys are written at a time
PART = np.uint64(3)  # the bits of a shingle's hash that say which part of the example it is from
COUNTERS = 1 << 22  # of shingles that share one: all they decide is the order of shingles, for which a guess will do
Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


def words(text: str) -> list[str]:
    """The text as it counts for comparison: lower case, no punctuation, no matter what space.

    Punctuation alone stays as it is: two texts of nothing else would be the same without it.
    """
    return WORDS.findall(text.casefold()) or text.split()


def normalised(text: str) -> str:
    """Equal for two texts that differ only in case, spacing and punctuation."""
    return " ".join(words(text))


def bands(threshold: float) -> tuple[int, int]:
    """(bands, values in each) of a sketch: the most selective ones that find RECALL of the pairs at the threshold.

    Two texts of Jaccard similarity s agree in a band of r values with probability s^r, in one of b with
    1 - (1 - s^r)^b (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4).
    """
    sizes = range(PERMUTATIONS, 0, -1)
    found = (size for size in sizes if 1 - (1 - threshold**size) ** (PERMUTATIONS // size) >= RECALL)
    size = next(found, 1)
    return PERMUTATIONS // size, size


class Texts:
    """Examples that are compared with each other, by the number in which they were added.

    An example has up to four parts (a question, its answer), each given as its words. Two parts are alike when the
    Jaccard similarity of their word 3-grams is at least `threshold` and, with `same_numbers`, they hold the same
    numbers: questions of one template that differ in their numbers are different questions, while documents that differ
    in a date are not. Memory: 24 bytes per example; the rest is in files without a name in `folder`.
    """

    def __init__(self, threshold: float, same_numbers: bool, folder: Path):
        self.threshold, self.same_numbers = threshold, same_numbers
        self._bands, self._band_size = bands(threshold)
        self._shingles = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 open as long as this object is there
        self._band_keys = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._ends = array("Q", [0])
        self._numbers = (array("Q"), array("Q"))  # hashes of the numbers in the first part, and in all
        self._nothing = MinHash(PERMUTATIONS, hashfunc=int)  # shingles are hashes already
        self._chunk: list[NDArray[np.uint32]] = []

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, parts: Sequence[Sequence[str]]) -> None:
        first = _shingles(parts[0], 0)
        every = np.sort(np.concatenate([first, *(_shingles(part, n) for n, part in enumerate(parts[1:], 1))]))
        self._shingles.write(every.tobytes())
        self._ends.append(self._ends[-1] + len(every))
        numbers = [" ".join(word for word in part if word[0].isdigit() and self.same_numbers) for part in parts]
        self._numbers[0].append(xxh3_64_intdigest(numbers[0].encode()))
        self._numbers[1].append(xxh3_64_intdigest("\n".join(numbers).encode()))
        sketch = self._nothing.copy()
        for start in range(0, len(first), 1 << 13):  # it computes with PERMUTATIONS values per shingle at a time
            sketch.update_batch((first[start : start + (1 << 13)] >> np.uint64(32)).tolist())
        self._chunk.append(sketch.hashvalues)
        if len(self._chunk) == CHUNK:
            self._write_chunk()

    def _write_chunk(self) -> None:
        """Band keys of a chunk, one band after the other: equal for texts that agree in the band and in the numbers."""
        count, used = len(self._chunk), self._bands * self._band_size
        values = np.stack(self._chunk)[:, :used].reshape(count, self._bands, self._band_size).astype(np.uint64)
        keys = np.zeros((self._bands, CHUNK), np.uint64)
        keys[:, :count] = np.array(self._numbers[0][-count:], np.uint64)
        for position in range(self._band_size):
            keys[:, :count] ^= values[:, :, position].T
            keys *= np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(32)
        self._band_keys.write(keys.tobytes())
        self._chunk.clear()

    def suspects(self, kept: Numbers, others: Numbers) -> Numbers:
        """Which of both may be a near-duplicate of one of `others`, or of one of `kept` in `others`; ascending."""
        if self._chunk:
            self._write_chunk()
        for file in (self._band_keys, self._shingles):
            file.flush()
        rows = np.concatenate([kept, others])
        is_other = np.arange(len(rows)) >= len(kept)
        found = np.zeros(len(rows), bool)
        for band in tqdm(range(self._bands), desc="bands", leave=False, delay=2):
            keys = self._keys_of(band)[rows]
            by_key = np.argsort(keys)
            begins = np.flatnonzero(np.concatenate([[True], np.diff(keys[by_key]) != 0]))
            sizes = np.diff(np.append(begins, len(rows)))
            wanted = (sizes > 1) & np.logical_or.reduceat(is_other[by_key], begins)
            found[by_key] |= np.repeat(wanted, sizes)
        return np.sort(rows[found])

    def _keys_of(self, band: int) -> Hashes:
        blocks = range(-(-len(self) // CHUNK))
        places = ((block * self._bands + band) * CHUNK * 8 for block in blocks)
        return np.concatenate([_read(self._band_keys.fileno(), place, CHUNK) for place in places])

    def shingles(self, number: int, every: bool) -> Hashes:
        """Hashes of the distinct shingles of an example, ascending; of its first part alone unless `every`."""
        begin, end = self._ends[number], self._ends[number + 1]
        found = _read(self._shingles.fileno(), begin * 8, end - begin)
        return found if every else found[_part_of(found) == 0]

    def similarity(self, one: int, other: int, every: bool) -> float:
        """The Jaccard similarity of their first parts; with `every`, that of the parts that are least alike. 0 with
        other numbers."""
        if self._numbers[every][one] != self._numbers[every][other]:
            return 0.0
        a, b = self.shingles(one, every), self.shingles(other, every)
        parts = set(_part_of(a).tolist()) | set(_part_of(b).tolist()) if every else {0}
        if len(parts) == 1:
            return _jaccard(a, b)
        return min(_jaccard(a[_part_of(a) == part], b[_part_of(b) == part]) for part in parts)

    def numbers_of(self, number: int, every: bool) -> int:
        """Differs where the numbers in the example, or in its first part, do."""
        return self._numbers[every][number]


class Prefixes:
    """What to look up of each of `rows`: its rarest shingles, so many that two near-duplicates share one of them.

    Two sets of Jaccard similarity t share at least t * size elements; so, with all elements in one order, they share
    one of the first size - t * size + 1. With `every`, all parts of an example count as one set: where each part is
    alike, so is the whole. Shingles that no two of `rows` have in their prefixes are left out.
    """

    def __init__(self, texts: Texts, rows: Numbers, every: bool):
        self.texts, self.every = texts, every
        counts = np.zeros(COUNTERS, np.uint32)
        for row in tqdm(rows.tolist(), desc="counting", unit="row", leave=False, delay=2, mininterval=1):
            np.add.at(counts, _counter(texts.shingles(row, every)), 1)
        keys, ends, sizes = array("Q"), array("Q", [0]), array("Q")
        for row in tqdm(rows.tolist(), desc="prefixes", unit="row", leave=False, delay=2, mininterval=1):
            found = texts.shingles(row, every)
            length = len(found) - _ceil(texts.threshold * len(found)) + 1
            rarest = found[np.lexsort((found, counts[_counter(found)]))[:length]]
            keys.frombytes((rarest ^ np.uint64(texts.numbers_of(row, every))).tobytes())
            ends.append(len(keys))
            sizes.append(len(found))
        self._keys, self._sizes = np.array(keys), sizes
        _, inverse, often = np.unique(self._keys, return_inverse=True, return_counts=True)
        self._shared = often[inverse] > 1
        self._ends = ends
        self._place = dict(zip(rows.tolist(), range(len(rows)), strict=True))

    def of(self, row: int) -> tuple[int, list[tuple[int, int]]]:
        """(size of its set, [(position, key), ...]); nothing to look up for what is in no `rows`."""
        place = self._place.get(row)
        if place is None:
            return 0, []
        begin, end = self._ends[place], self._ends[place + 1]
        shared = np.flatnonzero(self._shared[begin:end])
        return self._sizes[place], list(zip(shared.tolist(), self._keys[begin:end][shared].tolist(), strict=True))


class Index:
    """Rows that others are compared with: those that were added so far."""

    def __init__(self, prefixes: Prefixes):
        self._prefixes, self._texts = prefixes, prefixes.texts
        self._rows: list[int] = []
        # Of each key the rows that have it, apart by the size of their set and the key's position in it: most of what
        # cannot be similar enough is then passed over at once, however many rows of one template there are.
        self._found: dict[int, dict[tuple[int, int], list[int]]] = {}

    def add(self, row: int) -> None:
        size, prefix = self._prefixes.of(row)
        for position, key in prefix:
            self._found.setdefault(key, {}).setdefault((size, position), []).append(len(self._rows))
        self._rows.append(row)

    def like(self, row: int) -> tuple[int, float] | None:
        """The one that was added first of those that `row` is a near-duplicate of, and how similar they are."""
        size, prefix = self._prefixes.of(row)
        threshold = self._texts.threshold
        ranks: set[int] = set()
        for position, key in prefix:
            for (other_size, other_position), found in self._found.get(key, {}).items():
                # What can be shared from the first shared element on: the positional filter of PPJoin.
                most = min(size - position, other_size - other_position)
                if most >= _ceil(threshold / (1 + threshold) * (size + other_size)):
                    ranks.update(found)
        for rank in sorted(ranks):
            similarity = self._texts.similarity(self._rows[rank], row, self._prefixes.every)
            if similarity >= threshold:
                return self._rows[rank], similarity
        return None


def _shingles(found: Sequence[str], part: int) -> Hashes:
    """Hashes of the distinct word 3-grams, ascending; the lowest bits are the number of the part."""
    count = max(1, len(found) - 2)
    hashes = (xxh3_64_intdigest(" ".join(found[start : start + 3]).encode()) for start in range(count))
    return np.unique(np.fromiter(hashes, np.uint64, count) & ~PART | np.uint64(part))


def _part_of(hashes: Hashes) -> Hashes:
    return hashes & PART


def _counter(hashes: Hashes) -> Hashes:
    return hashes >> np.uint64(8) & np.uint64(COUNTERS - 1)


def _jaccard(a: Hashes, b: Hashes) -> float:
    """Of two ascending arrays of distinct values."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    places = np.searchsorted(b, a)
    places[places == len(b)] = 0
    shared = np.count_nonzero(b[places] == a)
    return shared / (len(a) + len(b) - shared)


def _ceil(value: float) -> int:
    """Rounded up, but not for what is a whole number but for rounding (0.8 * 5 is 4)."""
    return math.ceil(value - 1e-9)


def _read(file: int, place: int, count: int) -> Hashes:
    return np.frombuffer(os.pread(file, count * 8, place), np.uint64)
