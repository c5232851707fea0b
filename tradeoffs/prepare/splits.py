"""Cleaning examples and splitting them by content, with memory that does not grow with their texts."""

import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare import duplicates
from tradeoffs.prepare.duplicates import Numbers
from tradeoffs.sources.readers import Example

SHOWN = 5  # dropped examples of each kind that info.json names
SHOWN_CHARACTERS = 500  # of each


def parts(example: Example) -> tuple[str, ...]:
    """The texts of an example, each of which must be alike where two examples are: first what it is about (`key`); of a
    conversation then all that is said after that, and what the system is told, if anything."""
    if "messages" in example:
        first = _first_question(example)
        others = [turn for turn in example["messages"] if turn is not first]
        said = "\n".join(turn["content"] for turn in others if turn["role"] != "system")
        return (key(example), said, *(turn["content"] for turn in others if turn["role"] == "system"))
    return tuple(value for name, value in example.items() if name != "id")


def key(example: Example) -> str:
    """What an example is about: a question asked twice is one question, whatever the answers.

    A conversation is about the first that its user says, whatever follows: every answer is learned and evaluated, so
    that two conversations that begin alike give each other's answers away, were one in train and the other in test. The
    price is that those that begin with the same greeting are all on one side, too. More turns in the key would not do:
    with any number of them, one conversation can be the beginning of another and yet have another key.
    """
    if "messages" in example:
        return (_first_question(example) or {"content": ""})["content"]
    return example["prompt"] if "prompt" in example else example["text"]


def _first_question(example: Example) -> dict[str, str] | None:
    return next((message for message in example["messages"] if message["role"] == "user"), None)


def content_hash(purpose: str, normalised: str) -> int:
    """64 bits that depend on a normalised text and on nothing else, other ones for each purpose."""
    return int(hashlib.sha256(f"{purpose} {normalised}".encode()).hexdigest()[:16], 16)


class Rows:
    """The examples of a data set that can be used, by their number, in the order in which they were read.

    Their texts are in a file without a name in `folder`, which ends with this process. Memory: 33 bytes per example and
    what `texts` takes; to divide them, some 300 bytes each.
    """

    def __init__(self, threshold: float, same_numbers: bool, folder: Path):
        self.texts = duplicates.Texts(threshold, same_numbers, folder)
        self.read = self.empty = self.equal_answers = 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 open as long as this object is there
        self._ends = array("Q", [0])
        self._is_test, self._content, self._order, self._id = array("b"), array("Q"), array("Q"), array("Q")

    def add(self, examples: Iterable[Example], test_share: float) -> None:
        """Reads `examples`; those whose key has a hash below `test_share` of all hashes become test examples.

        So a test example stays one whatever is added, and what asks the same is on the same side.
        """
        for example in tqdm(examples, desc="reading", unit="row", leave=False, delay=2, mininterval=1):
            self.read += 1
            if "rejected" in example and example["rejected"] == example["answer"]:
                self.equal_answers += 1
                continue
            found = [duplicates.words(part) for part in parts(example)]
            if not all(found):
                self.empty += 1
                continue
            normalised = [" ".join(words) for words in found]
            is_test = content_hash("test", normalised[0]) < test_share * 16**16
            id = files.content_id(*_values(example))
            self._is_test.append(is_test)
            self._content.append(content_hash(f"content {is_test}", "\x1f".join(normalised)))
            self._order.append(content_hash("order", normalised[0]))
            self._id.append(int(id, 16))
            self.texts.add(found)
            self._file.write(json.dumps({"id": id, **example}, ensure_ascii=False).encode() + b"\n")
            self._ends.append(self._file.tell())

    def distinct(self) -> tuple[Numbers, Numbers, Numbers]:
        """(test, rest, repeated): the first of each content, in the order of a hash, and all others, as they were read.

        Any first part of that order is a random sample, of which more rows move none. What asks the same is in the
        order of the ids.
        """
        self._file.flush()
        _, first = np.unique(np.array(self._content), return_index=True)
        repeated = np.setdiff1d(np.arange(len(self._content)), first, assume_unique=True)
        order, id = np.array(self._order)[first], np.array(self._id)[first]
        first = first[np.lexsort((id, order))]
        is_test = np.array(self._is_test, bool)[first]
        return first[is_test], first[~is_test], repeated

    def line(self, number: int) -> bytes:
        """An example as a line of JSON."""
        begin, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - begin, begin)

    def shown(self, number: int) -> str:
        """What an example is about, as info.json names it."""
        text = key(json.loads(self.line(number)))
        return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} ..."

    def write(self, path: Path, numbers: Iterable[int]) -> None:
        with files.new_file(path) as target, target.open("wb") as file:
            file.writelines(map(self.line, numbers))


def divide(rows: Rows, wanted: params.Dataset, where: str) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """The rows of each split, and what info.json says about those that say the same as another, or almost.

    A row of `test` stays there, whatever it is like. What is like it is in no other split, what is like one of `valid`
    is not in train, and of rows of train that are alike in all their parts, the first in the order of a hash stays.
    `valid` is the end of that order, `seen` its beginning: with more validation rows, what is trained on first stays
    what it was. Raises UserError where there are fewer rows than the splits ask for.
    """
    test, rest, repeated = rows.distinct()
    _check_sides(where, wanted, rows.read, {"test": len(test), "train": len(rest)})
    suspects = rows.texts.suspects(test, rest)
    by_key = duplicates.Prefixes(rows.texts, suspects, every=False)
    by_all = by_key if wanted.kind == "text" else duplicates.Prefixes(rows.texts, suspects, every=True)

    leaks = _like(duplicates.Index(by_key), test.tolist(), rest.tolist(), "comparing with test")
    unlike = [row for row in rest.tolist() if row not in leaks]
    lost = f"of {rows.read} rows {rows.empty + rows.equal_answers} are empty, {len(repeated)} duplicates"
    lost += f", {len(test)} in test and {len(leaks)} like one of those"
    valid_rows, seen_rows = wanted.valid or 0, wanted.seen or 0
    if len(unlike) <= valid_rows:
        raise UserError(
            f"{where}.valid: {valid_rows} asked for, beside test there are only {len(unlike)} rows, and training "
            f"needs some too; lower it or add rows ({lost})"
        )
    valid, train = unlike[-valid_rows:], unlike[:-valid_rows]
    like_valid = _like(duplicates.Index(by_key), valid, train, "comparing with valid")
    train = [row for row in train if row not in like_valid]
    within = _like(duplicates.Index(by_all), [], train, "comparing within train", among=True)
    train = [row for row in train if row not in within]
    if len(train) < seen_rows:
        raise UserError(
            f"{where}.seen: {seen_rows} asked for, train has only {len(train)} rows; lower it or add rows ({lost}, "
            f"{len(valid)} in valid and {len(like_valid)} like one of those, {len(within)} like another one of train)"
        )
    dropped = {
        "empty": rows.empty,
        "duplicates": len(repeated),
        "near_duplicates": len(leaks),
        "near_duplicates_of_valid": len(like_valid),
        "near_duplicates_within": len(within),
        "duplicate_examples": [rows.shown(row) for row in repeated[:SHOWN].tolist()],
        "near_duplicate_examples": _shown(rows, leaks),
        "near_duplicates_within_examples": _shown(rows, within),
    }
    dropped |= {"equal_answers": rows.equal_answers} if wanted.kind == "preference" else {}
    return {"train": train, "seen": train[:seen_rows], "valid": valid, "test": test.tolist()}, dropped


def without_examples(folder: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """The splits of a data set that has questions alone: all are there, and hold nothing."""
    counts = dict.fromkeys(("read", "train", "seen", "valid", "test"), 0)
    for name in ("train", "seen", "valid", "test"):
        files.write_text(folder / f"{name}.jsonl", "\n")  # of an empty file that a stage depends on DVC warns
    return counts, {}


def _like(
    index: duplicates.Index, kept: Iterable[int], others: Iterable[int], what: str, among: bool = False
) -> dict[int, tuple[int, float]]:
    """Which of `others` is a near-duplicate of one that is kept: {row: (the one it is like, similarity)}.

    With `among`, of others that are not, too: those are kept from then on.
    """
    for row in kept:
        index.add(row)
    found = {}
    for row in tqdm(others, desc=what, unit="row", leave=False, delay=2, mininterval=1):
        like = index.like(row)
        if like:
            found[row] = like
        elif among:
            index.add(row)
    return found


def _shown(rows: Rows, found: dict[int, tuple[int, float]]) -> list[dict[str, Any]]:
    return [
        {"dropped": rows.shown(row), "like": rows.shown(like), "similarity": similarity}
        for row, (like, similarity) in list(found.items())[:SHOWN]
    ]


def _check_sides(where: str, wanted: params.Dataset, read: int, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if not count and wanted.test_share is None:
            raise UserError(f"{where}: {name} is empty: the source's own {name} split has no row that can be used")
        if not count:
            share = f"{read} rows, test_share {wanted.test_share:g}"
            share += " (conversations that begin alike stay together)" if wanted.kind == "chat" else ""
            raise UserError(f"{where}: {name} is empty: {share}; give more rows or another test_share")


def _values(example: Example) -> Iterable[str]:
    """What an example's id is the hash of: its texts, and the roles of those who said them."""
    if "messages" in example:
        return (value for message in example["messages"] for value in (message["role"], message["content"]))
    return example.values()
