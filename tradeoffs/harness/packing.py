"""Sequences as one row of a batch in which nothing stands twice: what they begin with together is there once.

A row is a tree, or several. Each token sees those on the way from the root to it, and none beside that way, so it is
what it would be in a sequence by itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tradeoffs.common.batching import padded
from tradeoffs.harness.asking import Ids, alike

SMALL = 128  # nodes of a row, below which it costs nothing that each looks at all others
KIN = 8  # a sequence that shares less than this part of itself with those before begins a tree of its own


@dataclass
class Row:
    """tokens, parents, depths: of each node, parents before their children; -1: behind the shared ids, which are no
    nodes. wanted: nodes whose logits are wanted. asked: per sequence its index, and the nodes that predict its last
    tokens.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    wanted: set[int] = field(default_factory=set)
    asked: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def branches(self) -> bool:
        return any(parent != place - 1 for place, parent in enumerate(self.parents))

    def add(self, other: "Row") -> None:
        """Takes in the trees of another row, which see nothing of those that are here."""
        here = len(self.tokens)
        self.tokens += other.tokens
        self.parents += [parent + here if parent >= 0 else parent for parent in other.parents]
        self.depths += other.depths
        self.wanted |= {node + here for node in other.wanted}
        self.asked += [(index, [node + here for node in nodes]) for index, nodes in other.asked]

    def seen(self) -> np.ndarray:
        """Which node (row) sees which (column); bool (nodes, nodes)."""
        found = np.eye(len(self.tokens), dtype=bool)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                found[place, : parent + 1] |= found[parent, : parent + 1]
        return found


def trees(
    sequences: Sequence[Ids], predict: Sequence[int], shared: int, run: Sequence[int], most: int, logits: int
) -> Iterator[Row]:
    """The sequences of a `run`, which is sorted by their ids, as trees behind the `shared` ids that all begin with.

    Of each sequence the last ids, as many as `predict` says, are wanted. A tree has at most `most` nodes and `logits`
    wanted ones, or is one sequence alone.
    """
    row, path, last = Row(), list[int](), Ids()
    for index in run:
        rest = sequences[index][shared:]
        same = alike(last, rest)
        strange = KIN * same < len(rest)
        full = len(row.tokens) + len(rest) - same > most or len(row.wanted) + predict[index] > logits
        if row.tokens and (full or strange):
            yield row
            row, path, same = Row(), [], 0
        path = path[:same]
        for depth in range(same, len(rest)):
            row.parents.append(path[-1] if path else -1)
            row.tokens.append(rest[depth])
            row.depths.append(depth)
            path.append(len(row.tokens) - 1)
        nodes = path[len(path) - predict[index] :]
        row.wanted.update(nodes)
        row.asked.append((index, nodes))
        last = rest
    if row.tokens:
        yield row


def batches(trees: Iterable[Row], tokens: int, logits: int) -> list[list[Row]]:
    """Trees in rows of one length, which go through at once: at most so many tokens, padding included, and logits.

    In a row of several trees each node also looks at those of which it sees nothing, so rows are as short as the
    longest tree allows. The largest come first; what is longer than `tokens` is alone.
    """
    found: list[list[Row]] = []
    width = wanted = 0
    for tree in sorted(trees, key=lambda tree: -len(tree.tokens)):
        size, more = len(tree.tokens), len(tree.wanted)
        if found and width <= tokens and wanted + more <= logits:
            wanted += more
            if room := next((row for row in found[-1] if len(row.tokens) + size <= width), None):
                room.add(tree)
                continue
            if (len(found[-1]) + 1) * width <= tokens:
                found[-1].append(tree)
                continue
        width, wanted = max(min(SMALL, tokens), padded(size)), more
        found.append([tree])
    return found
