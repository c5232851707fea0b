"""Sequences as one row of a batch in which nothing stands twice: what they begin with together is there once.

A row is a tree. Each token sees those on the way from the root to it, and none beside that way, so it is what it would
be in a sequence by itself; and no row is padded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tradeoffs.harness.asking import Ids, alike


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

    def seen(self) -> np.ndarray:
        """Which node (row) sees which (column); bool (nodes, nodes)."""
        found = np.eye(len(self.tokens), dtype=bool)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                found[place, : parent + 1] |= found[parent, : parent + 1]
        return found


def rows(
    sequences: Sequence[Ids], predict: Sequence[int], shared: int, run: Sequence[int], most: int, logits: int
) -> Iterator[Row]:
    """The sequences of a `run`, which is sorted by their ids, as rows behind the `shared` ids that all begin with.

    Of each sequence the last ids, as many as `predict` says, are wanted. A row has at most `most` nodes and `logits`
    wanted ones, or is one sequence alone.
    """
    row, path, last = Row(), list[int](), Ids()
    for index in run:
        rest = sequences[index][shared:]
        same = alike(last, rest)
        if row.tokens and (len(row.tokens) + len(rest) - same > most or len(row.wanted) + predict[index] > logits):
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
