"""Greedy answers to 64 questions: TransformersRuntime.generate against transformers' own text-generation pipeline.

    python -m benchmarks.generation [--quick]

Both load the same checkpoint in float32, put the same questions into its chat template and write at most 32 tokens
each. The pipeline runs with its defaults, one question at a time. They agree where the two answers are the same text.
"""

import sys
import time
from argparse import Namespace
from typing import Any

from benchmarks import assets, common
from benchmarks.common import SCRATCH
from tradeoffs.common import files

QUESTIONS = "data/instructions/instruction-data.json"


def main(arguments: Namespace) -> None:
    prompts, new_tokens = (6, 8) if arguments.quick else (64, 32)
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    commands: dict[str, list[object]] = {
        side: [sys.executable, "-m", "benchmarks.generation", side, checkpoint, prompts, new_tokens]
        for side in ("ours", "peer")
    }
    sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
    found = {side: common.said(sides[side].output) for side in sides}
    same = [a == b for a, b in zip(found["ours"]["answers"], found["peer"]["answers"], strict=True)]
    common.write(
        "generation",
        sides["ours"].median,
        sides["peer"].median,
        sum(same) / len(same),
        quick=arguments.quick,
        at_least={"ratio": 3, "agreement": 1},
        seconds={side: sides[side].seconds for side in sides},
        work_seconds={side: found[side]["work_seconds"] for side in sides},
        compared=f"{prompts} questions of {QUESTIONS}, at most {new_tokens} new tokens each, greedy, "
        "float32, SmolLM2-135M's shape with random weights; agreement is the share of questions with the same answer; "
        "work_seconds are those after loading",
        peer="transformers.pipeline('text-generation'), batch size 1",
        commands={side: common.shown(command) for side, command in commands.items()},
    )


def questions(count: int) -> list[list[dict[str, str]]]:
    """The first questions as chats; their lengths vary."""
    rows = files.read_json(assets.find(QUESTIONS))[:count]
    texts = ["\n\n".join(part for part in (row["instruction"], row["input"]) if part) for row in rows]
    return [[{"role": "user", "content": text}] for text in texts]


def ours(checkpoint: str, prompts: str, new_tokens: str) -> None:
    """A process that is timed; each imports only what it needs itself."""
    from pathlib import Path

    import numpy as np
    import torch
    from transformers import AutoTokenizer

    from tradeoffs import params
    from tradeoffs.models.loading import load_model
    from tradeoffs.transformers_runtime import TransformersRuntime

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = load_model(Path(checkpoint), None, torch.float32)
    runtime = TransformersRuntime(model, params.load_all().evaluate.batch_tokens, tokenizer.pad_token_id)
    begun = time.perf_counter()
    ids = [
        np.array(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False), np.int32)
        for chat in questions(int(prompts))
    ]
    found = runtime.generate(ids, int(new_tokens), [tokenizer.eos_token_id])
    answers = [text.strip() for text in tokenizer.batch_decode(found, skip_special_tokens=True)]
    common.say({"work_seconds": time.perf_counter() - begun, "answers": answers})


def peer(checkpoint: str, prompts: str, new_tokens: str) -> None:
    """The other process that is timed."""
    import torch
    from transformers import pipeline

    pipe = pipeline("text-generation", model=checkpoint, dtype=torch.float32)
    begun = time.perf_counter()
    found: Any = pipe(questions(int(prompts)), max_new_tokens=int(new_tokens), do_sample=False)
    answers = [one[0]["generated_text"][-1]["content"].strip() for one in found]
    common.say({"work_seconds": time.perf_counter() - begun, "answers": answers})


PROCESSES = {"ours": ours, "peer": peer}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PROCESSES:
        PROCESSES[sys.argv[1]](*sys.argv[2:])
    else:
        common.run(main)
