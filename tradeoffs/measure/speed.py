"""How fast a loaded model is and what memory it takes: the same calls for every runtime, and one process for each.

First one sequence at a time, as a user would ask; then memory is read, since a batch takes what memory there is; then
several at once.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.evaluate.runtime import Runtime, Target
from tradeoffs.measure.waiting import Clock
from tradeoffs.measure.work import Work
from tradeoffs.plumbing.errors import UserError

FURTHER = 4  # tokens after the first one of each prompt, by which what a further one takes is timed
SHARE = "waited"  # part of the measured time that threads waited for a core


def measure(runtime: Runtime, work: Work, before_mb: float, load_seconds: float) -> dict[str, Any]:
    """All numbers of one process. `before_mb`: what was resident before the model was loaded."""
    clock, cfg = Clock(), work.settings
    sample = np.asarray(work.sample, np.int32)
    runtime.decode(sample[: runtime.context // 2], 2)  # warm-up: first calls build plans and touch memory
    ids = np.resize(sample, min(cfg.prefill_tokens, runtime.context - cfg.decode_tokens))
    runtime.prefill(ids)  # ... at this length
    found: dict[str, Any] = {"load_seconds": load_seconds}
    found["prefill_tokens_per_second"] = len(ids) / clock.median(partial(runtime.prefill, ids), cfg.repetitions)
    seconds = clock.median(partial(runtime.decode, ids, cfg.decode_tokens), cfg.repetitions)
    found["decode_tokens_per_second"] = cfg.decode_tokens / seconds
    found |= latency(runtime, work, clock)
    peak = peak_memory_mb()
    found |= {"peak_memory_mb": peak, "model_memory_mb": max(0.0, peak - before_mb), **runtime.gpu_memory()}
    found["batch_sweep"] = batch_sweep(runtime, work, clock)
    found["eval_samples_per_second"] = work.items / clock.median(partial(_score, runtime, work.targets()), 1)
    found |= {"device": runtime.device}
    return found | ({SHARE: clock.waited / clock.seconds} if clock.known else {})


def latency(runtime: Runtime, work: Work, clock: Clock) -> dict[str, Any]:
    """Of each prompt alone the seconds to the first token, and the median of what a further one takes.

    Answers are not let end: what is timed is a token, and how many an answer has is a variant's own.
    """
    timed = [clock.calm(partial(_stream, runtime, np.asarray(ids, np.int32))) for ids in work.prompts]
    if not timed:
        return {}
    further = [seconds for _, seconds in timed if seconds is not None]
    found: dict[str, Any] = {"prompts_ttft_seconds": [first for first, _ in timed]}
    return found | ({"seconds_per_token": float(np.median(further))} if further else {})


def _stream(runtime: Runtime, prompt: np.ndarray) -> tuple[float, float | None]:
    """Seconds to the first token, and to each further one; None where the context has no room for one."""
    answer, first, whole = runtime.stream(
        prompt, min(1 + FURTHER, runtime.context - len(prompt)), stop_ids=[runtime.vocabulary]
    )
    return first, (whole - first) / (len(answer) - 1) if len(answer) > 1 else None


def batch_sweep(runtime: Runtime, work: Work, clock: Clock) -> dict[str, float]:
    """Decode speed of all sequences of a batch together, by its size, which is left out if it does not fit the memory.

    The sequences begin with as many tokens as are decoded.
    """
    cfg = work.settings
    ids = np.resize(np.asarray(work.sample, np.int32), min(cfg.decode_tokens, runtime.context - cfg.decode_tokens))
    found: dict[str, float] = {}
    for size in cfg.batch_sizes:
        try:
            runtime.decode(ids, 1, size)  # warm-up at this size
            seconds = clock.median(partial(runtime.decode, ids, cfg.decode_tokens, size), cfg.repetitions)
        except UserError as error:
            print(f"note: no decode speed of {size} sequences: {error}")
            break
        found[str(size)] = size * cfg.decode_tokens / seconds
    return found


def _score(runtime: Runtime, targets: Sequence[Target]) -> float:
    begun = time.perf_counter()
    runtime.score(targets)
    return time.perf_counter() - begun
