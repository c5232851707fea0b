"""Dropping what is said twice, and splitting by content."""

import hashlib

from tradeoffs import duplicates

Examples = list[dict[str, str]]


def key(row: dict[str, str]) -> str:
    """What an example is about: a question asked twice is one question, whatever the answers."""
    return row["prompt"] if "prompt" in row else row["text"]


def without_duplicates(examples: Examples) -> tuple[Examples, int, list[str]]:
    """The first of each, how many had an empty field, and the repeated ones."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    empty, repeated = 0, []
    for row in examples:
        content = tuple(duplicates.normalised(value) for name, value in row.items() if name != "id")
        if not all(content):
            empty += 1
        elif content in found:
            repeated.append(key(row))
        else:
            found[content] = row
    return list(found.values()), empty, repeated


def content_hash(purpose: str, row: dict[str, str]) -> int:
    """64 bits that depend on what the example is about and on nothing else, other ones for each purpose."""
    return int(hashlib.sha256(f"{purpose} {duplicates.normalised(key(row))}".encode()).hexdigest()[:16], 16)


def order(row: dict[str, str]) -> int:
    """A place in a random order that does not change when other rows come or go."""
    return content_hash("order", row)


def split(rows: Examples, share: float) -> tuple[Examples, Examples]:
    """(test, rest) by a hash of each example's own words, so that new rows never move an old one."""
    test = [row for row in rows if content_hash("test", row) < share * 16**16]
    chosen = {row["id"] for row in test}
    return test, [row for row in rows if row["id"] not in chosen]


def without_equal_answers(rows: Examples) -> tuple[Examples, int]:
    """Those whose answers differ, of pairs of a chosen and a rejected one, and how many are left out."""
    kept = [row for row in rows if row.get("rejected") != row.get("answer") or "rejected" not in row]
    return kept, len(rows) - len(kept)
