"""What a variant costs: the rounds of data/cost.json, pooled over all that has the same shapes, as numbers.

A value is the median over the rounds, its interval a 95 % bootstrap over rounds. Variants with the same shapes share
speed, load time, size and memory; what depends on the prompts is shared within a pair, and only how long an answer is,
in the latency to its end, is a variant's own.

The memory that counts, in the choice and in every picture, is that of where a variant runs: of a process on a CPU, of
the GPU on one (`memory_that_counts`).

Of several devices (`run.devices`) the numbers of the first have the plain names, by which is decided, compared and
drawn; those of each other one have `_on_` and its name behind theirs. So no number is of a device that nobody named.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tradeoffs.common import files
from tradeoffs.common.cells import COST as FILE
from tradeoffs.common.cells import Variant
from tradeoffs.formats.names import AUTO, DEVICES
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import intervals
from tradeoffs.results.intervals import Interval

if TYPE_CHECKING:
    from tradeoffs.results.results import Results

MEMORY = "model_memory_mb"
HOST = "host_memory_mb"  # beside the GPU's memory, what the model takes of the process that drives it
# Most memory of a GPU, the one that must fit first; where a variant runs on a GPU, that is what its model needs.
GPU_PEAKS = ("peak_gpu_memory_reserved_mb", "peak_gpu_memory_mb")
# Names in metrics/cost.json, which other tools read; and the labels.
COST = {
    "size_mb": "size MB",
    "load_seconds": "load s",
    "prefill_tokens_per_second": "prefill tok/s",
    "decode_tokens_per_second": "decode tok/s",
    "ttft_seconds": "first token s",
    "latency_mean_seconds": "mean latency s",
    "latency_p50_seconds": "p50 latency s",
    "latency_p95_seconds": "p95 latency s",
    "answer_tokens_p50": "p50 answer tokens",
    "eval_samples_per_second": "scored items/s",
    MEMORY: "memory of the model MB",
    HOST: "memory of the model on the host MB",
    "peak_memory_mb": "memory of the process MB",
    "peak_gpu_memory_mb": "GPU memory MB",
    "peak_gpu_memory_reserved_mb": "GPU memory reserved MB",
}
BATCH = "decode_tokens_per_second_batch_"  # and how many sequences; of all of them together
ON = "_on_"  # and a device
OF_NO_DEVICE = ("size_mb", "answer_tokens_p50")  # the same on each
# Which end of a cost is the cheaper one; how long answers are is no cost.
CHEAPER: dict[str, Literal["lower", "higher"]] = {
    name: "higher" if name.endswith("_per_second") else "lower" for name in COST if name != "answer_tokens_p50"
}
# Differences below these parts of the larger number are nothing to decide by: norms that a GGUF holds in float32 and a
# folder in bf16, pages of libraries, and what the speed of one and the same file differs by from hour to hour.
TOLERANCES = {"size": 0.01, "memory": 0.05, "other": 0.10}
RESAMPLES, SEED = 1000, 0  # of the rounds

Numbers = dict[str, float]
Intervals = dict[str, Interval]


@dataclass(frozen=True)
class Costs:
    """Numbers of each variant by their names, the intervals of those that have one, and where they were measured.

    What was not measured on the first device has its size there, and nothing else.

    machine: `hardware`; `busy`, the part of all measurements whose threads waited for a core for more than `limit` of
    their time, where the kernel tells; `devices`, the device's name of each variant that was measured on the first;
    `on`, the same of each of `run.devices`; `left_out`, why llama.cpp was measured on none, by the device.
    """

    numbers: dict[Variant, Numbers]
    intervals: dict[Variant, Intervals]
    machine: dict[str, Any]


def read(
    facts: Mapping[Variant, dict],
    columns: Mapping[Variant, dict[str, np.ndarray]],
    root: Path = Path(),
    devices: Sequence[str] = (AUTO,),
) -> Costs:
    """data/cost.json of the variants whose `facts` and items are given, on the `devices` of a run list.

    Raises UserError if it does not hold them.
    """
    files.must_exist(root / FILE)
    found = files.read_json(root / FILE)
    first, *others = (_on(found, device, facts, columns) for device in devices)
    numbers, bounds = dict(first.numbers), dict(first.intervals)
    for device, other in zip(devices[1:], others, strict=True):
        for variant in facts:
            mine = {name: one for name, one in other.numbers[variant].items() if name not in OF_NO_DEVICE}
            numbers[variant] = numbers[variant] | {f"{name}{ON}{device}": one for name, one in mine.items()}
            further = {f"{name}{ON}{device}": one for name, one in other.intervals[variant].items()}
            bounds[variant] = bounds[variant] | further
    named = {device: one.machine["devices"] for device, one in zip(devices, (first, *others), strict=True)}
    return Costs(numbers, bounds, first.machine | {"on": named})


def _on(
    found: dict, device: str, facts: Mapping[Variant, dict], columns: Mapping[Variant, dict[str, np.ndarray]]
) -> Costs:
    """What was found on one device, by the plain names."""
    alike: dict[str, list[dict]] = {}
    own: dict[str, dict] = {}
    left_out = found.get("left_out", {})
    for thing in found["things"]:
        if thing.get("on", AUTO) == device:
            alike.setdefault(thing["shapes"], []).append(thing)
            own |= dict.fromkeys(thing["members"], thing)
    shared = {shapes: _shared(some) for shapes, some in alike.items()}
    numbers, bounds = dict[Variant, Numbers](), dict[Variant, Intervals]()
    devices = {}
    for variant, known in facts.items():
        thing = own.get(str(variant))
        if thing is None and device in left_out and known["runtime"] == "llama.cpp":
            numbers[variant], bounds[variant] = {"size_mb": known["size_mb"]}, {}
            continue
        if thing is None or thing["shapes"] != known["shapes"]:
            raise UserError(f"{FILE}: not measured with the present {variant.facts}; run `dvc repro`")
        of_pair = _of_prompts(thing) | _latency(variant, thing, known, columns[variant])
        bounds[variant] = shared[thing["shapes"]] | of_pair
        numbers[variant] = {"size_mb": known["size_mb"]} | {key: one.value for key, one in bounds[variant].items()}
        if thing["prompts"] and not _letters(thing, columns[variant]):
            numbers[variant]["answer_tokens_p50"] = float(np.median(_answer_tokens(variant, thing, columns[variant])))
        devices[variant] = thing["rounds"][0]["device"]
    return Costs(numbers, bounds, _machine(found) | {"devices": devices, "left_out": left_out})


def bare(key: str) -> str:
    """The name of a cost without the device that it is of."""
    name, there, device = key.rpartition(ON)
    return name if there and device in DEVICES else key


def device_key(key: str, devices: Sequence[str]) -> str:
    """Which of the `devices` of a run list a cost is of."""
    return devices[0] if bare(key) == key else key.rpartition(ON)[2]


def named(key: str, device: str, devices: Sequence[str]) -> str:
    """What a run list with these `devices` calls a cost on one of them."""
    return bare(key) if device == devices[0] or bare(key) in OF_NO_DEVICE else f"{bare(key)}{ON}{device}"


def known(key: str) -> bool:
    """Whether there is a cost of this name, of whatever device, that has a cheaper end."""
    return bare(key) in CHEAPER or bare(key).startswith(BATCH)


def better(key: str) -> Literal["lower", "higher"]:
    """Which end of a cost is the cheaper one, of whatever device; a speed of batches has no name of its own."""
    return CHEAPER.get(bare(key), "higher")


def device_of(results: "Results", variant: Variant, key: str) -> str | None:
    """The name of the device that a cost of a variant was measured on; None if it was not."""
    measured: str | None = results.costs.machine["on"].get(device_key(key, results.run.devices), {}).get(variant)
    return measured


def on(results: "Results", device: str) -> "Results":
    """The same results with the costs of one of `run.devices` by their plain names, and of no other: decided there."""
    there, mine = copy(results), {v: results.columns[v] for v in results.variants}
    for cached in ("batch_sizes", "cost_labels"):
        vars(there).pop(cached, None)
    there.run = replace(results.run, devices=[device])
    there.costs = read(results.facts, mine, results.root, [device])
    there.cost = there.costs.numbers
    return there


def labels(batch_sizes: Sequence[int], devices: Sequence[str]) -> dict[str, str]:
    """What tables call each cost, by its name; of several devices with that of the device."""
    found = COST | {f"{BATCH}{size}": f"decode tok/s, {size} at a time" for size in batch_sizes}
    first, *others = devices
    if not others:
        return found
    own = {name: label for name, label in found.items() if name not in OF_NO_DEVICE}
    found = found | {name: f"{label}, {first}" for name, label in own.items()}
    return found | {f"{name}{ON}{device}": f"{label}, {device}" for device in others for name, label in own.items()}


def with_host(results: "Results", some: Sequence[Variant], names: Sequence[str]) -> list[str]:
    """Names of costs to show of some variants: behind the memory of the model the host's, where one runs on a GPU."""
    host = [HOST] if any(HOST in results.cost[v] for v in some) else []
    return [one for name in names for one in (name, *(host if name == MEMORY else ()))]


def interval(results: "Results", variant: Variant, key: str) -> Interval | None:
    """Over the rounds; None where a cost is absent, or exact as a size is."""
    return results.costs.intervals[variant].get(key)


def told_apart(results: "Results", ours: Variant, theirs: Variant, key: str) -> bool:
    """Whether two cost by a number that differs: beyond its tolerance, and with intervals that do not overlap."""
    mine, other = results.cost[ours].get(key), results.cost[theirs].get(key)
    if mine is None or other is None or abs(mine - other) <= tolerance(key) * max(mine, other):
        return False
    one, two = interval(results, ours, key), interval(results, theirs, key)
    return one is None or two is None or one.high < two.low or two.high < one.low


def cheaper(results: "Results", ours: Variant, theirs: Variant, key: str) -> bool:
    """Whether `ours` costs less by a number, told apart."""
    if not told_apart(results, ours, theirs, key):
        return False
    less = results.cost[ours][key] < results.cost[theirs][key]
    return less == (better(key) == "lower")


def tolerance(key: str) -> float:
    """The part of a cost that is nothing to decide by."""
    return next((part for word, part in TOLERANCES.items() if word in key), TOLERANCES["other"])


def _draws(rounds: int) -> np.ndarray:
    """Which rounds each resample holds; int64 (1 + RESAMPLES, rounds), each of them once in row 0."""
    drawn = np.random.default_rng(SEED).integers(0, rounds, (RESAMPLES, rounds))
    return np.vstack([np.arange(rounds), drawn])


def _shared(alike: Sequence[dict]) -> Intervals:
    """What things of the same shapes share, over the rounds of all of them: those of one round are drawn together."""
    rows = [[_flat(thing["rounds"][number]) for thing in alike] for number in range(len(alike[0]["rounds"]))]
    names = [*COST, *(name for name in rows[0][0] if name.startswith(BATCH))]
    found = {}
    for name in names:
        if all(name in one for row in rows for one in row):
            values = np.array([[one[name] for one in row] for row in rows])
            found[name] = _pooled(values)
    return found


def _flat(measured: dict) -> dict:
    """What a process found that does not depend on the prompts, each as a single number."""
    found = {name: measured[name] for name in COST if name in measured and name != "eval_samples_per_second"}
    found |= memory_that_counts(measured)
    return found | {f"{BATCH}{size}": speed for size, speed in measured["batch_sweep"].items()}


def memory_that_counts(measured: Mapping[str, float]) -> Numbers:
    """What a model needs where it runs: MEMORY, and of one on a GPU what it takes of the host beside it.

    A process that was measured on a GPU says both: what it took of the host's memory by the name that it has on a CPU,
    and the peaks of the GPU's. Empty on a CPU, where the name means what it says.
    """
    peak = next((measured[name] for name in GPU_PEAKS if name in measured), None)
    return {} if peak is None else {MEMORY: peak, HOST: measured[MEMORY]}


def _pooled(values: np.ndarray) -> Interval:
    """The median of all values, shape (rounds, things), and its interval over rounds."""
    drawn = values[_draws(len(values))]  # (1 + RESAMPLES, rounds, things)
    return intervals.interval(np.median(drawn.reshape(len(drawn), -1), axis=1))


def _of_prompts(thing: dict) -> Intervals:
    """What depends on the prompts and items of a pair, over the rounds of one thing."""
    rounds = thing["rounds"]
    speeds = [one["eval_samples_per_second"] for one in rounds if "eval_samples_per_second" in one]
    found = {"eval_samples_per_second": _pooled(np.array(speeds)[:, None])} if speeds else {}
    if thing["prompts"]:
        found["ttft_seconds"] = _pooled(np.array([[np.median(one["prompts_ttft_seconds"])] for one in rounds]))
    return found


def _letters(thing: dict, columns: dict[str, np.ndarray]) -> bool:
    """Whether the timed prompts are multiple-choice questions, which are answered by a letter."""
    return bool(np.isin(thing["prompts"], columns["item"][columns["split"] == "mmlu"]).all())


def _further_tokens(variant: Variant, thing: dict, facts: dict, columns: dict[str, np.ndarray]) -> np.ndarray:
    """How many steps an answer to each timed prompt takes after its first token, which comes with the prompt.

    One that ended by itself took a step more than it has tokens, that which says so; a letter takes none.
    """
    if _letters(thing, columns):
        return np.zeros(len(thing["prompts"]))
    tokens = _answer_tokens(variant, thing, columns)
    return np.where(tokens < facts["max_new_tokens"], tokens, tokens - 1)


def _answer_tokens(variant: Variant, thing: dict, columns: dict[str, np.ndarray]) -> np.ndarray:
    """How long a variant's answers to the timed prompts are, in tokens. Raises UserError if it lacks one."""
    mine = columns["split"] == "test"
    lengths = dict(zip(columns["item"][mine], columns["generated_tokens"][mine], strict=True))
    found = np.array([lengths.get(item, np.nan) for item in thing["prompts"]], np.float64)
    if np.isnan(found).any():
        raise UserError(f"{FILE}: prompts were timed that {variant.items} has no answers to; run `dvc repro`")
    return found


def _latency(variant: Variant, thing: dict, facts: dict, columns: dict[str, np.ndarray]) -> Intervals:
    """To the end of a variant's own answer: time to its first token, and for each further one what decoding one takes.

    Both are medians over the rounds of all members.
    """
    if not thing["prompts"]:
        return {}
    steps = _further_tokens(variant, thing, facts, columns)
    first = np.array([one["prompts_ttft_seconds"] for one in thing["rounds"]])  # (rounds, prompts)
    further = np.array([1 / one["decode_tokens_per_second"] for one in thing["rounds"]])
    draws = _draws(len(further))
    whole = np.median(first[draws], axis=1) + steps * np.median(further[draws], axis=1)[:, None]
    found = {"latency_mean_seconds": intervals.interval(whole.mean(axis=1))}
    return found | {
        f"latency_p{percent}_seconds": intervals.interval(np.percentile(whole, percent, axis=1)) for percent in (50, 95)
    }


def _machine(found: dict) -> dict[str, Any]:
    waited = [one["waited"] for thing in found["things"] for one in thing["rounds"] if "waited" in one]
    busy = sum(share > found["busy"] for share in waited) / len(waited) if waited else None
    rounds = len(found["things"][0]["rounds"]) if found["things"] else 0
    return {"hardware": found["hardware"], "limit": found["busy"], "busy": busy, "rounds": rounds}
