"""Where a data set's examples come from: a file or the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.prepare import hub_datasets
from tradeoffs.sources import readers
from tradeoffs.sources.readers import Example


@dataclass(frozen=True)
class Source:
    """Examples as tradeoffs.sources.readers.examples gives them, in source order, read as they are asked for.

    `test` is None where the entry draws its test examples from `train` by hash (`test_share`). `facts` are what
    info.json says about the source; they are complete when both iterators are at their end.
    """

    train: Iterator[Example]
    test: Iterator[Example] | None
    facts: dict[str, Any]


def open_source(wanted: params.Dataset, where: str) -> Source:
    """The examples of a data set with `path` or `hub`; `where` is its key in params ("datasets.alpaca").

    At most `rows` of each split, none longer than `max_characters`. Raises UserError here or while it is iterated: what
    tradeoffs.sources.readers and tradeoffs.prepare.hub_datasets raise.
    """
    if wanted.hub:
        found = hub_datasets.open_splits(wanted, where)
        rows, facts = found.rows, found.facts
    else:
        paths = {"train": wanted.path, "test": wanted.test_path}
        rows = {split: readers.rows(path) for split, path in paths.items() if path}
        facts = {"source": wanted.path, "sha256": files.sha256(readers.checked(str(wanted.path)))}
        if wanted.test_path:
            facts |= {"test_source": wanted.test_path, "test_sha256": files.sha256(readers.checked(wanted.test_path))}
    if wanted.max_characters:
        facts["too_long"] = dict.fromkeys(rows, 0)
    taken = {
        split: readers.examples(found, wanted.columns, wanted.rows, partial(_short_enough, wanted, split, facts))
        for split, found in rows.items()
    }
    return Source(taken["train"], taken.get("test"), facts)


def _short_enough(wanted: params.Dataset, split: str, facts: dict[str, Any], example: Example) -> bool:
    """Whether it has at most `max_characters`; those that have more are counted in `facts`."""
    short = not wanted.max_characters or _characters(example) <= wanted.max_characters
    if not short:
        facts["too_long"][split] += 1
    return short


def _characters(example: Example) -> int:
    """Of all its texts together; of a pair's two answers the longer one counts."""
    if "messages" in example:
        return sum(len(message["content"]) for message in example["messages"])
    answers = max(len(example.get("answer", "")), len(example.get("rejected", "")))
    return len(example.get("prompt", "")) + answers + len(example.get("text", ""))
