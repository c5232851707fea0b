"""Tokens per second at batch 1: LlamaCppRuntime.prefill and .decode against llama.cpp's own llama-bench.

    python -m benchmarks.decode [--quick]

Both read the same f16 file, take in a prompt of 512 tokens, and go on from an empty cache token by token. Both keep to
what they time inside: loading and starting count on neither side. llama-bench runs with its defaults, and with flash
attention off and on; of each kind of speed the best one is compared.
"""

import json
import statistics
import sys
from argparse import Namespace

import numpy as np

from benchmarks import common, ggufs, peers
from benchmarks.common import SCRATCH
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

INSIDE = 5  # measurements within a process, which are its median
SETTINGS: dict[str, list[object]] = {
    "defaults": [],
    "flash attention off": ["-fa", "off"],
    "flash attention on": ["-fa", "on"],
}


def main(arguments: Namespace) -> None:
    prompt, new = (128, 16) if arguments.quick else (512, 64)
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    model = ggufs.made(checkpoint, "f16")
    bench = [peers.tool("llama-bench"), "-m", model, "-p", prompt, "-n", new, "-t", peers.threads(), "-r", INSIDE]
    commands: dict[str, list[object]] = {
        "ours": [sys.executable, "-m", "benchmarks.decode", "ours", model, prompt, new],
        **{setting: [*bench, "-o", "json", *options] for setting, options in SETTINGS.items()},
    }
    sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
    found = {
        side: [(common.said if side == "ours" else speeds)(text) for text in sides[side].outputs] for side in sides
    }
    speed = {
        side: {kind: statistics.median(row[kind] for row in found[side]) for kind in ("prefill", "decode")}
        for side in commands
    }
    seconds = {side: prompt / speed[side]["prefill"] + new / speed[side]["decode"] for side in speed}
    best = {kind: max(speed[setting][kind] for setting in SETTINGS) for kind in ("prefill", "decode")}
    common.write(
        "decode",
        seconds["ours"],
        common.Peer({setting: seconds[setting] for setting in SETTINGS}),
        None,  # of speeds alone there is nothing to agree on
        quick=arguments.quick,
        prefill_ratio=speed["ours"]["prefill"] / best["prefill"],
        decode_ratio=speed["ours"]["decode"] / best["decode"],
        at_least={"prefill_ratio": 0.95, "decode_ratio": 0.95},
        tokens_per_second=speed,
        repetitions=found,
        compared=f"{prompt} prompt tokens, {new} new ones, batch 1, SmolLM2-135M's shape with random weights, f16; "
        "seconds are those of one prompt and its new tokens",
        peer=f"llama-bench of llama-cpp-python {peers.VERSION}",
        threads=peers.threads(),
        commands={side: common.shown(command) for side, command in commands.items()},
    )


def ours(model: str, prompt: str, new: str) -> None:
    """The process that is measured; a warm-up of each kind first, as llama-bench does."""
    with LlamaCppRuntime(model, batch_tokens=2048) as runtime:
        ids = np.random.default_rng(0).integers(3, runtime.vocabulary, int(prompt)).astype(np.int32)
        runtime.prefill(ids)
        prefill = [int(prompt) / runtime.prefill(ids) for _ in range(INSIDE)]
        runtime.decode(ids[:1], 1)
        decode = [int(new) / sum(runtime.decode(ids[:1], int(new))) for _ in range(INSIDE)]
    common.say({"prefill": statistics.median(prefill), "decode": statistics.median(decode)})


def speeds(output: str) -> dict[str, float]:
    """Tokens per second from llama-bench's JSON: a row for the prompt and a row for the new tokens."""
    rows = json.loads(output[output.index("[") : output.rindex("]") + 1])
    return {("prefill" if row["n_prompt"] else "decode"): statistics.median(row["samples_ts"]) for row in rows}


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    else:
        common.run(main)
