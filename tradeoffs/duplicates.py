"""Finding examples that say the same: exactly, or almost."""

import re
from collections.abc import Sequence

from datasketch import MinHash, MinHashLSH

# Words, numbers whole (3.5 is not 35), and signs that carry meaning ($ % + -); commas, quotes and such do not count.
WORDS = re.compile(r"\d+(?:[.,]\d+)*|\w+|[^\w\s.,;:!?'\"()]")
PERMUTATIONS = 128


def words(text: str) -> list[str]:
    """The text as it counts for comparison: lower case, no punctuation, no matter what space."""
    return WORDS.findall(text.casefold())


def normalised(text: str) -> str:
    """Equal for two texts that differ only in case, spacing and punctuation; punctuation alone is kept as it is."""
    return " ".join(words(text)) or text.strip()


def near_duplicates(
    kept: Sequence[str], candidates: Sequence[str], threshold: float, same_numbers: bool
) -> dict[int, int]:
    """Which candidates are near-duplicates of a kept text: {index in candidates: index in kept}.

    Two texts are near-duplicates when the Jaccard similarity of their word 3-grams is at least `threshold` and, with
    `same_numbers`, they hold the same numbers: questions of one template that differ in their numbers are different
    questions, while documents that differ in a date are not. MinHash LSH (Broder 1997; Indyk & Motwani 1998) finds the
    pairs to look at, and each is then compared exactly.
    """
    shingles = [_shingles(text) for text in kept]
    # The index looks a little below the threshold, where it would begin to miss pairs; at least 0.5 keeps it selective.
    index = MinHashLSH(threshold=max(threshold - 0.15, min(threshold, 0.5)), num_perm=PERMUTATIONS)
    for number, sketch in enumerate(_sketches(shingles)):
        index.insert(number, sketch)
    found = {}
    others = [_shingles(text) for text in candidates]
    for number, sketch in enumerate(_sketches(others)):
        for match in sorted(index.query(sketch)):
            alike = _jaccard(shingles[match], others[number]) >= threshold
            if alike and not (same_numbers and _numbers(kept[match]) != _numbers(candidates[number])):
                found[number] = match
                break
    return found


def _shingles(text: str) -> frozenset[str]:
    found = words(text)
    return frozenset(" ".join(found[start : start + 3]) for start in range(max(1, len(found) - 2)))


def _sketches(shingles: Sequence[frozenset[str]]) -> list[MinHash]:
    # Sorted: the sketch does not depend on it, but then nothing here depends on PYTHONHASHSEED.
    return MinHash.bulk([[part.encode() for part in sorted(s)] for s in shingles], num_perm=PERMUTATIONS)


def _numbers(text: str) -> list[str]:
    return [word for word in words(text) if word[0].isdigit()]


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)
