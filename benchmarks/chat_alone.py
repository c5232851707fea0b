"""The model without a server: its answers to conversations one at a time, and how fast it is in batches.

    python -m benchmarks.chat_alone VARIANT < asked.json      in a workspace; prints a line of JSON

`asked`: {"answers": [{"history": a conversation that ends with a question, "said": token ids}], "max_tokens": of an
answer}, or {"sample": a question, "sequences": at the same time}. Where an answer is another one than the model gives
alone, it is told whether rounding decided (benchmarks/ties.py).
"""

import json
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.ties import first_difference
from tradeoffs.chat.messages import Asked, Turn
from tradeoffs.chat.worker.llama import LlamaDecoder
from tradeoffs.chat.worker.loading import load
from tradeoffs.chat.worker.prompts import Prompts
from tradeoffs.common import cores
from tradeoffs.common.cells import Variant
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.measure.speed import undisturbed
from tradeoffs.plumbing import cli

STEPS = 24  # of a batch, as many as `evaluate.cost.decode_tokens` of the default


def main(name: str) -> None:
    asked = json.load(sys.stdin)
    cores.wait_politely()
    variant = Variant.parse(name)
    decoder = load(variant)
    assert isinstance(decoder, LlamaDecoder)
    with decoder:
        prompts = Prompts(variant, decoder.context)
        if "sequences" in asked:
            sample = prompts.of(Asked("", name, (Turn("user", asked["sample"]),))).ids
            common.say(speeds(decoder, sample, asked["sequences"]))
        else:
            common.say(compared(decoder, prompts, name, asked["answers"], asked["max_tokens"]))


def compared(
    decoder: LlamaDecoder, prompts: Prompts, name: str, answers: list[dict[str, Any]], max_tokens: int
) -> dict[str, list[dict[str, Any]]]:
    """Answers that are other ones than evaluation gets of the model alone, by whether rounding explains it."""
    found: dict[str, list[dict[str, Any]]] = {"different": [], "ties": []}
    for answer in answers:
        turns = tuple(Turn(**turn) for turn in answer["history"])
        ids = prompts.of(Asked("", name, turns, max_tokens=max_tokens)).ids
        alone = decoder.stream(np.asarray(ids, np.int32), max_tokens, prompts.stop_ids)[0]
        if difference := first_difference(decoder, ids, answer["said"], alone, prompts.stop_ids[0]):
            kind = "ties" if difference.tie else "different"
            found[kind].append({"question": answer["history"][-1]["content"], **asdict(difference)})
    return found


def speeds(runtime: LlamaCppRuntime, ids: list[int], sequences: int) -> dict[str, float]:
    """Tokens per second as the report measures them (tradeoffs/measure/speed.py): of a batch, and of a prompt read."""
    sample = np.resize(np.asarray(ids, np.int32), STEPS)
    runtime.decode(sample, 1, sequences)
    steps = [step for _ in range(3) for step in runtime.decode(sample, STEPS, sequences)]
    prompt = np.resize(sample, min(512, runtime.context))
    runtime.prefill(prompt)
    read = undisturbed([runtime.prefill(prompt) for _ in range(5)])
    return {"decode_tokens_per_second": sequences / undisturbed(steps), "prefill_tokens_per_second": len(prompt) / read}


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("name", metavar="VARIANT")
    cli.command(main, options)
