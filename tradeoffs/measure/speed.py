"""How fast a loaded model is and what memory it takes: the same calls for every runtime, and one process for each.

First one sequence at a time, as a user would ask, of fixed lengths; then memory is read, before the prompts, whose
lengths are the pair's own, and before batches, which take what memory there is; then the prompts, then several at once.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.evaluate.runtime import Runtime, Target
from tradeoffs.measure.waiting import Waiting
from tradeoffs.measure.work import Work
from tradeoffs.plumbing.errors import UserError


def undisturbed(seconds: Sequence[float]) -> float:
    """What one of many equal steps takes: their lower quartile.

    Whatever else runs on the machine takes a core for some milliseconds, in which a step of two threads comes to a
    stand, and leaves most other steps as they are. A mean or a sum says how busy the machine was; a quarter of the
    steps has to be undisturbed for this to say what the model takes.
    """
    return float(np.quantile(seconds, 0.25))


def measure(runtime: Runtime, work: Work, before_mb: float, load_seconds: float) -> dict[str, Any]:
    """All numbers of one process. `before_mb`: what was resident before the model was loaded."""
    cfg, waiting = work.settings, Waiting()
    sample = np.asarray(work.sample, np.int32)
    ids = np.resize(sample, min(cfg.prefill_tokens, runtime.context - cfg.decode_tokens))
    runtime.decode(ids, min(2, cfg.decode_tokens))  # warm-up: first calls build plans and touch memory
    runtime.prefill(ids)
    found: dict[str, Any] = {"device": runtime.device, "load_seconds": load_seconds}
    found["prefill_tokens_per_second"] = len(ids) / _repeated(partial(runtime.prefill, ids), cfg.repetitions)
    steps = [step for _ in range(cfg.repetitions) for step in runtime.decode(ids, cfg.decode_tokens)]
    found["decode_tokens_per_second"] = 1 / undisturbed(steps)
    peak = peak_memory_mb()
    found |= {"peak_memory_mb": peak, "model_memory_mb": max(0.0, peak - before_mb), **runtime.gpu_memory()}
    first = first_tokens(runtime, work)
    found |= {"prompts_ttft_seconds": first} if first else {}
    found["batch_sweep"] = batch_sweep(runtime, work)
    share = waiting.share()  # before the scoring, which has threads of its own that wait for each other
    found |= {} if share is None else {"waited": share}
    if not work.scored:
        return found
    seconds = _repeated(partial(_score, runtime, work.targets()), cfg.repetitions)
    return found | {"eval_samples_per_second": work.items / seconds}


def first_tokens(runtime: Runtime, work: Work) -> list[float]:
    """Seconds to the first token of each prompt, timed once: they are many, and there are more rounds.

    Untimed before: the longest, for which memory is taken; on a GPU each, whose kernels are chosen at its first use.
    """
    prompts = [np.asarray(prompt, np.int32) for prompt in work.prompts]
    for prompt in sorted(prompts, key=len, reverse=True)[: 1 if runtime.device == "cpu" else None]:
        runtime.prefill(prompt)
    return [runtime.prefill(prompt) for prompt in prompts]


def batch_sweep(runtime: Runtime, work: Work) -> dict[str, float]:
    """Decode speed of all sequences of a batch together, by its size, which is left out if it does not fit the memory.

    The sequences begin with as many tokens as are decoded.
    """
    cfg = work.settings
    ids = np.resize(np.asarray(work.sample, np.int32), min(cfg.decode_tokens, runtime.context - cfg.decode_tokens))
    found: dict[str, float] = {}
    for size in cfg.batch_sizes:
        try:
            runtime.decode(ids, 1, size)  # warm-up at this size
            found[str(size)] = size / undisturbed(runtime.decode(ids, cfg.decode_tokens, size))
        except UserError as error:
            print(f"note: no decode speed of {size} sequences: {error}")
            break
    return found


def _repeated(once: partial[float], repetitions: int) -> float:
    return undisturbed([once() for _ in range(repetitions)])


def _score(runtime: Runtime, targets: Sequence[Target]) -> float:
    begun = time.perf_counter()
    runtime.score(targets)
    return time.perf_counter() - begun
