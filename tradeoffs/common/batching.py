"""How many sequences, and which, go through a model at once; shared by training and by both runtimes."""

import math
from collections.abc import Sequence

# Bounds of `batch_tokens: auto`; beyond the higher one, larger batches are no faster.
BATCH_TOKENS = (512, 65536)
HOST_BATCH = 0.5e9  # bytes that a batch may take in main memory: beyond a CPU's caches, more at once is no faster
# Rows are as long as a multiple of it: matrix libraries set themselves up anew for every size that they meet, which on
# a CPU took a quarter of the time of a small model; and 8 is what tensor cores like.
MULTIPLE = 8


def padded(length: int) -> int:
    """How long a row of so many tokens becomes in a batch."""
    return -(-length // MULTIPLE) * MULTIPLE


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of sequences of similar length, longest first, padded size of a batch at most `batch_tokens`.

    A sequence longer than `batch_tokens` is a batch of its own. Longest first: what does not fit in memory fails soon.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def halved(batch: Sequence[int], lengths: Sequence[int]) -> int:
    """Half the padded size of one of the `length_batches`, in tokens: what to try where that one did not fit."""
    return max(1, len(batch) * lengths[batch[0]] // 2)


def fitting_batch(bytes_per_token: float, memory: float) -> int:
    """The largest power of two, within BATCH_TOKENS, of tokens whose `bytes_per_token` fit into `memory`.

    Memory is that of the machine, not what is free right now: the same machine then forms the same batches each time,
    and sums in half precision come out the same to the last digit.
    """
    low, high = BATCH_TOKENS
    return min(max(low, 2 ** int(math.log2(max(1.0, memory / bytes_per_token)))), high)
