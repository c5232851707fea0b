"""What a variant costs: the numbers of data/cost and what tables call them."""

from tradeoffs.common.cells import Variant
from tradeoffs.results import reading

# Names in metrics/cost.json, which other tools read; and the labels.
COST = {
    "size_mb": "size MB",
    "load_seconds": "load s",
    "prefill_tokens_per_second": "prefill tok/s",
    "decode_tokens_per_second": "decode tok/s",
    "ttft_seconds": "first token s",
    "latency_p50_seconds": "p50 latency s",
    "latency_p95_seconds": "p95 latency s",
    "eval_samples_per_second": "scored items/s",
    "peak_memory_mb": "memory MB",
    "peak_gpu_memory_mb": "GPU memory MB",
    "peak_gpu_memory_reserved_mb": "GPU memory reserved MB",
}
BATCH = "decode_tokens_per_second_batch_"  # and how many sequences; of all of them together


def read(variant: Variant) -> dict:
    """data/cost/<variant>.json with its sweep over batch sizes, and the spread of that, as single numbers."""
    found = reading.read_json(variant.cost)
    for numbers in (found, found.get("spread", {})):
        numbers.update({f"{BATCH}{size}": number for size, number in numbers.pop("batch_sweep", {}).items()})
    return found
