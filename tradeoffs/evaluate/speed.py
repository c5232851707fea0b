"""How fast a runtime is: answers one at a time, prefill and decode apart, and decode of several sequences at once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tradeoffs.evaluate.items import SPLITS, Answering, Row, chunks, prompt
from tradeoffs.evaluate.runtime import Runtime
from tradeoffs.params import Cost, Splits
from tradeoffs.plumbing.errors import UserError


def latency(runtime: Runtime, tokens: Path, counts: Splits, cfg: Cost, answering: Answering) -> list[Row]:
    """Batch 1: seconds to the first token and to the end of the answer, over the first prompts of `test`."""
    rows = []
    counts = replace(counts, test=min(cfg.latency_prompts, counts.test))
    for chunk in chunks(tokens, counts, SPLITS[:1]):
        for item in chunk.items:
            _, first, whole = runtime.stream(prompt(item), answering.limit, answering.stop_ids)
            rows.append({"item": item["id"], "ttft_seconds": first, "latency_seconds": whole})
    return rows


def latency_summary(rows: list[Row]) -> dict[str, float]:
    """Medians over the prompts, and how long the slowest twentieth takes at least."""
    whole = [row["latency_seconds"] for row in rows]
    return {
        "ttft_seconds": float(np.median([row["ttft_seconds"] for row in rows])),
        "latency_p50_seconds": float(np.percentile(whole, 50)),
        "latency_p95_seconds": float(np.percentile(whole, 95)),
    }


def prefill_and_decode(runtime: Runtime, sample: np.ndarray, cfg: Cost) -> dict[str, Any]:
    """Prefill and decode apart, batch 1: medians over the repetitions, and the repetitions themselves as spread."""
    ids = np.resize(sample, min(cfg.prefill_tokens, runtime.context - cfg.decode_tokens))
    runtime.prefill(ids)  # warm-up at this length
    prefill = [len(ids) / runtime.prefill(ids) for _ in range(cfg.repetitions)]
    decode = [cfg.decode_tokens / runtime.decode(ids, cfg.decode_tokens) for _ in range(cfg.repetitions)]
    return {
        "prefill_tokens_per_second": float(np.median(prefill)),
        "decode_tokens_per_second": float(np.median(decode)),
        "spread": {"prefill_tokens_per_second": prefill, "decode_tokens_per_second": decode},
    }


def batch_sweep(runtime: Runtime, sample: np.ndarray, cfg: Cost, spread: dict[str, Any]) -> dict[str, Any]:
    """`batch_sweep`: decode speed of all sequences of a batch together, by its size; medians, every value in `spread`.

    The sequences begin with as many tokens as are decoded. A size that does not fit the memory is left out.
    """
    ids = np.resize(sample, min(cfg.decode_tokens, runtime.context - cfg.decode_tokens))
    found: dict[str, float] = {}
    spread["batch_sweep"] = {}
    for size in cfg.batch_sizes:
        try:
            runtime.decode(ids, 1, size)  # warm-up at this size
            seconds = [runtime.decode(ids, cfg.decode_tokens, size) for _ in range(cfg.repetitions)]
        except UserError as error:
            print(f"note: no decode speed of {size} sequences: {error}")
            break
        speeds = [size * cfg.decode_tokens / passed for passed in seconds]
        spread["batch_sweep"][str(size)] = speeds
        found[str(size)] = float(np.median(speeds))
    return {"batch_sweep": found}
