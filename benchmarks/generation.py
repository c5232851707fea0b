"""Greedy answers to 64 questions: TransformersRuntime.generate against transformers' own text-generation pipeline.

    python -m benchmarks.generation [--quick]

Both load the same checkpoint in float32, put the same questions into its chat template and write at most 32 tokens
each. The pipeline runs with its defaults, one question at a time, and in batches; the fastest one is compared. They
agree where the two answers are the same text.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from benchmarks import assets, common
from benchmarks.common import SCRATCH
from tradeoffs.common import files

QUESTIONS = "data/instructions/instruction-data.json"
BATCH_SIZES = (1, 8, 32)  # of the pipeline; its default comes first


def main(arguments: Namespace) -> None:
    prompts, new_tokens = (6, 8) if arguments.quick else (64, 32)
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    script, work = [sys.executable, "-m", "benchmarks.generation"], [checkpoint, prompts, new_tokens]
    settings = {f"batch size {size}": size for size in BATCH_SIZES}
    commands: dict[str, list[object]] = {
        "ours": [*script, "ours", *work],
        **{setting: [*script, "peer", *work, size] for setting, size in settings.items()},
    }
    sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
    found = {side: [common.said(output) for output in sides[side].outputs] for side in sides}
    answers = {side: found[side][-1]["answers"] for side in sides}
    same = {
        setting: sum(a == b for a, b in zip(answers["ours"], answers[setting], strict=True)) / prompts
        for setting in settings
    }
    theirs = common.Peer(
        {setting: sides[setting].median for setting in settings},
        {setting: f"other answers to {1 - same[setting]:.0%}" for setting in settings if same[setting] < 1},
    )
    common.write(
        "generation",
        sides["ours"].median,
        theirs,
        same[theirs.best],
        quick=arguments.quick,
        at_least={"ratio": 1.2, "agreement": 1},
        agreement_by_setting=same,
        seconds={side: sides[side].seconds for side in sides},
        work_seconds={side: [run["work_seconds"] for run in found[side]] for side in sides},
        compared=f"{prompts} questions of {QUESTIONS}, at most {new_tokens} new tokens each, greedy, "
        "float32, SmolLM2-135M's shape with random weights; agreement is the share of questions with the same answer; "
        "work_seconds are those after loading",
        peer="transformers.pipeline('text-generation'), batch size 1 as by default and in batches",
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


def peer(checkpoint: str, prompts: str, new_tokens: str, batch_size: str) -> None:
    """The process of the peer that is timed."""
    import torch
    from transformers import pipeline

    pipe = pipeline("text-generation", model=checkpoint, dtype=torch.float32)
    begun = time.perf_counter()
    asked = questions(int(prompts))
    found: Any = pipe(asked, max_new_tokens=int(new_tokens), do_sample=False, batch_size=int(batch_size))
    answers = [one[0]["generated_text"][-1]["content"].strip() for one in found]
    common.say({"work_seconds": time.perf_counter() - begun, "answers": answers})


PROCESSES: dict[str, Callable[..., None]] = {"ours": ours, "peer": peer}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PROCESSES:
        PROCESSES[sys.argv[1]](*sys.argv[2:])
    else:
        common.run(main)
