"""The model without a server: its answers to conversations one at a time, and how fast it is in batches.

    python -m benchmarks.chat_alone VARIANT < asked.json      in a workspace; prints a line of JSON

`asked`: {"answers": [{"history": a conversation that ends with a question, "said": token ids}], "max_tokens": of an
answer}, or {"sample": a question, "sequences": at the same time}. Where an answer is another one than the model gives
alone, it is told whether rounding decided: at the first token that differs, both were as likely.
"""

import json
import sys
from typing import Any

import numpy as np

from benchmarks import common
from tradeoffs.chat.messages import Asked, Turn
from tradeoffs.chat.worker.prompts import Prompts
from tradeoffs.common import cores
from tradeoffs.common.cells import Variant
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.measure.speed import undisturbed

ROUNDING = 0.05  # nats
STEPS = 24  # of a batch, as many as `evaluate.cost.decode_tokens` of the default


def main(name: str) -> None:
    asked = json.load(sys.stdin)
    cores.wait_politely()
    variant = Variant.parse(name)
    with LlamaCppRuntime(variant.gguf, batch_tokens="auto") as runtime:
        prompts = Prompts(variant, runtime.context)
        if "sequences" in asked:
            sample = prompts.of(Asked("", name, (Turn("user", asked["sample"]),))).ids
            common.say(speeds(runtime, sample, asked["sequences"]))
        else:
            common.say(compared(runtime, prompts, name, asked["answers"], asked["max_tokens"]))


def compared(
    runtime: LlamaCppRuntime, prompts: Prompts, name: str, answers: list[dict[str, Any]], max_tokens: int
) -> dict[str, list[dict[str, Any]]]:
    """Answers that are other ones than the model gives alone, by whether rounding explains it."""
    found: dict[str, list[dict[str, Any]]] = {"different": [], "ties": []}
    for answer in answers:
        turns = tuple(Turn(**turn) for turn in answer["history"])
        ids = prompts.of(Asked("", name, turns, max_tokens=max_tokens)).ids
        alone = runtime.stream(np.asarray(ids, np.int32), max_tokens, prompts.stop_ids)[0]
        if alone != answer["said"]:
            apart = nats_apart(runtime, ids, alone, answer["said"], prompts.stop_ids)
            found["ties" if apart < ROUNDING else "different"].append(answer | {"alone": alone, "apart": apart})
    return found


def nats_apart(
    runtime: LlamaCppRuntime, ids: list[int], alone: list[int], said: list[int], stop_ids: list[int]
) -> float:
    """How much likelier one of the two tokens is at which two answers part.

    Both come of the same step of the model, which adds up in another order in a batch of other sequences, or after a
    prompt that was read in other pieces.
    """
    same = next(
        (at for at, (one, other) in enumerate(zip(alone, said, strict=False)) if one != other),
        min(len(alone), len(said)),
    )
    options = [answer[same] if same < len(answer) else stop_ids[0] for answer in (alone, said)]
    prompt = np.asarray([*ids, *alone[:same]], np.int32)
    one, other = runtime.choose([prompt], [np.asarray(options, np.int64)])[0].tolist()
    return abs(float(one - other))


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
    main(sys.argv[1])
