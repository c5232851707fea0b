"""Which training examples stand in which optimiser step, and how they become a padded batch."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from tradeoffs.common.batching import padded
from tradeoffs.plumbing.errors import UserError

IGNORED = -100  # the label that cross-entropy leaves out
# Batches sorted by length together: more waste less padding (8: a tenth, MULTIPLE included), but are more of a kind.
POOL = 8
Example = tuple[np.ndarray, np.ndarray]  # ids int32 (length,), scored bool (length,)


def read_examples(path: Path) -> list[Example]:
    """Token ids and their scored flags, one pair per row. Raises UserError if there is nothing to learn from."""
    table = pq.read_table(path, columns=["ids", "scored"])
    columns = (table[name].to_numpy(zero_copy_only=False) for name in ("ids", "scored"))
    examples = [(ids, scored) for ids, scored in zip(*columns, strict=True) if scored.any()]
    if not examples:
        raise UserError(f"{path}: has no row with a scored token, so there is nothing to train on; look at the dataset")
    return examples


def schedule(lengths: list[int], batch_size: int, steps: int, seed: int) -> list[int]:
    """The index of every example in the order it is trained on: `steps` times `batch_size` indices.

    Goes through the data in shuffled passes. A budget of less than one pass takes the first examples only: they are in
    random order, and the ones that `seen` asks about come first (see stages/prepare.py). Neighbouring batches are
    sorted by length together, so that a batch holds examples of similar length, and then shuffled. Same arguments,
    same order.
    """
    random = np.random.default_rng(seed)
    needed = steps * batch_size
    used = min(len(lengths), needed)
    passes = -(-needed // used)
    stream = np.concatenate([random.permutation(used) for _ in range(passes)])[:needed]
    order = []
    for pool in np.split(stream, range(POOL * batch_size, needed, POOL * batch_size)):
        by_length = pool[np.argsort(np.array(lengths)[pool], kind="stable")].reshape(-1, batch_size)
        order.extend(random.permutation(by_length).reshape(-1).tolist())
    return order


def collate(examples: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """A batch for a causal model: `input_ids` and `labels`, int64 (examples, padded(longest)), padded on the right.

    There is no attention mask: under causal attention nothing looks to the right, so padding changes no scored token,
    and without a mask attention takes its fast path.
    """
    shape = (len(examples), padded(max(len(ids) for ids, _ in examples)))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    for row, (ids, scored) in enumerate(examples):
        input_ids[row, : len(ids)] = ids
        labels[row, : len(ids)] = np.where(scored, ids, IGNORED)
    return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}


def pack(examples: list[Example]) -> dict[str, torch.Tensor]:
    """The examples one after the other in a single row, int64 (1, sum of lengths), with no padding at all.

    `position_ids` begin anew with every example, from which attention of variable length sees where one ends. The first
    token of an example is never a label: what stands before it is another example's end.
    """
    labels = [np.where(scored, ids, IGNORED) for ids, scored in examples]
    for row in labels:
        row[0] = IGNORED
    rows = {
        "input_ids": [ids for ids, _ in examples],
        "labels": labels,
        "position_ids": [np.arange(len(ids)) for ids, _ in examples],
    }
    return {name: torch.from_numpy(np.concatenate(parts).astype(np.int64))[None] for name, parts in rows.items()}
