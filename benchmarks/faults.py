"""Breaks what the pipeline reads and where it runs, thousands of times, and counts how it was taken.

    python -m benchmarks.faults [--quick] [--seed N] [--kind params]

Kinds, and how many of each: KINDS. Nothing may end in a traceback, hang, be wrong in silence, lose a byte or need a
step by hand. What is accepted is judged by a rule that its module in benchmarks/breaking states, not by hand.
"""

import multiprocessing
import time
from argparse import Namespace
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks import common
from benchmarks.breaking import WELL, Taken, Try, checkpoints, data, disks, ggufs, kills, params
from tradeoffs.common import cores
from tradeoffs.plumbing.errors import UserError

KINDS = {
    "params": (params, 10_000),
    "data": (data, 5_000),
    "checkpoints": (checkpoints, 200),
    "ggufs": (ggufs, 500),
    "kills": (kills, 100),
    "disks": (disks, 20),
}
QUICK = 50  # one in so many of them, and at least 2
SHOWN = 20  # of those that were not taken well


def main(arguments: Namespace) -> None:
    kinds = arguments.kind or list(KINDS)
    # Side by side, the longest first: what is judged is no time.
    longest_first = sorted(kinds, key=lambda kind: kind != "kills")
    with ProcessPoolExecutor(cores.usable(), multiprocessing.get_context("spawn")) as pool:
        begun = {
            kind: pool.submit(_broken, kind, _count(kind, arguments.quick), arguments.seed) for kind in longest_first
        }
        found = {kind: begun[kind].result() for kind in kinds}
    bad = sum(one["not taken well"] for one in found.values())
    if arguments.kind:
        print(f"{bad} not taken well")
        return
    common.write(
        "faults",
        None,
        None,
        {"not taken well": bad},
        quick=arguments.quick,
        at_most={"not taken well": 0},
        seed=arguments.seed,
        by_kind=found,
        compared="how each broken thing was taken: refused with one message, or accepted where that is right by a rule",
    )


def _count(kind: str, quick: bool) -> int:
    _, count = KINDS[kind]
    return max(2, count // QUICK) if quick else count


def _broken(kind: str, count: int, seed: int) -> dict[str, Any]:
    """Breaks `count` things of a kind. Raises UserError where fewer were tried than asked for."""
    begun, taken, bad = time.perf_counter(), Counter[Taken](), list[Try]()
    module, _ = KINDS[kind]
    for one in module.tries(count, seed):
        taken[one.taken] += 1
        if one.taken not in WELL:
            bad.append(one)
            print(f"{kind}: {one.what}: {one.taken}: {one.said}", flush=True)
    if taken.total() < count:
        raise UserError(f"{kind}: {taken.total()} tried of {count}; its module yields too few")
    print(f"{kind}: {dict(taken)} in {time.perf_counter() - begun:.0f} s", flush=True)
    return {
        "tried": taken.total(),
        **{how.value: number for how, number in taken.items()},
        "not taken well": len(bad),
        "which": [f"{one.what}: {one.taken}" for one in bad[:SHOWN]],
        "seconds": time.perf_counter() - begun,
    }


if __name__ == "__main__":
    common.run(
        main,
        seed={"type": int, "default": 0, "help": "of what is drawn (default: 0)"},
        kind={"action": "append", "choices": list(KINDS), "help": "only these; prints, and writes no result"},
    )
