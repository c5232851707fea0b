"""Every answer to eleven subjects of MMLU: TransformersRuntime.choose against lm-evaluation-harness, `hf` in float32.

    python -m benchmarks.mmlu_agreement [--quick] [--models stories260k,smollm2,qwen2]

Three models: stories260k, whose context of 512 tokens no 5-shot prompt fits and whose tokenizer writes one letter in
one token and the others in two, and two of the random models of benchmarks.families. Each with 5 examples and with
none; of one further subject some prompts fit their context of 1024 and some do not. Random weights may make near ties,
or always the same choice: so the log-probabilities are compared too, and where the two answer differently the result
says how near the tie was. Nothing is timed.
"""

import logging
import tempfile
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import assets, common, mmlu_tasks, zoo
from tradeoffs.sources.multiple_choice import LETTERS

SUBJECTS = [
    "abstract_algebra",
    "anatomy",
    "computer_security",
    "global_facts",
    "high_school_computer_science",
    "human_sexuality",
    "jurisprudence",
    "management",
    "medical_genetics",
    "public_relations",
    "us_foreign_policy",
]
SHOTS = (5, 0)


def main(arguments: Namespace) -> None:
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.models.split(","):
        checkpoint = assets.find("models/stories260k") if name == "stories260k" else zoo.make(zoo.MODELS) / name
        for shots in SHOTS:
            found[f"{name}, {shots}-shot"] = row = compare(checkpoint, shots, 5 if arguments.quick else None)
            print(f"{name}, {shots}-shot: {row}", flush=True)
    asked = sum(row["questions"] for row in found.values())
    common.write(
        "mmlu_agreement",
        None,
        None,
        1 - sum(len(row["differ"]) for row in found.values()) / asked,
        quick=arguments.quick,
        at_least={"agreement": 1},
        models=found,
        compared=f"{len(SUBJECTS)} subjects of {mmlu_tasks.DATA}, all their test questions: "
        f"{', '.join(SUBJECTS)}; float32; agreement is the share of questions with the same chosen option; the margin "
        "of a question is the difference of the two best options' log-probabilities",
        peer=f"lm_eval --model hf of lm-eval {mmlu_tasks.version()}, its mmlu template",
    )


def compare(checkpoint: Path, shots: int, most: int | None) -> dict[str, Any]:
    """Both sides' answers to the same questions: how many, how many prompts were cut, and where they differ."""
    rows = mmlu_tasks.questions(SUBJECTS, most)
    ours = answers(checkpoint, rows, shots)
    theirs = harness(checkpoint, rows, shots)
    differ = [
        {
            "subject": mine["subject"],
            "question": mine["question"],
            "chosen": [mine["chosen"], peer["chosen"]],
            "margins": [margin(mine["logprobs"]), margin(peer["logprobs"])],
        }
        for mine, peer in zip(ours, theirs, strict=True)
        if mine["chosen"] != peer["chosen"]
    ]
    return {
        "questions": len(ours),
        "cut": sum(mine["cut"] for mine in ours),
        "same_prompt_text": sum(mine["text"] == peer["text"] for mine, peer in zip(ours, theirs, strict=True)),
        "accuracy": [
            sum(row["chosen"] == mine["answer"] for row, mine in zip(side, ours, strict=True)) / len(ours)
            for side in (ours, theirs)
        ],
        "chosen": dict(sorted(Counter(LETTERS[mine["chosen"]] for mine in ours).items())),
        "smallest_margin": min(margin(mine["logprobs"]) for mine in ours),
        "largest_difference_between_options": max(
            abs((mine["logprobs"][i] - mine["logprobs"][0]) - (peer["logprobs"][i] - peer["logprobs"][0]))
            for mine, peer in zip(ours, theirs, strict=True)
            for i in range(1, 4)
        ),
        "differ": differ,
    }


def margin(logprobs: list[float]) -> float:
    first, second = sorted(logprobs, reverse=True)[:2]
    return first - second


def answers(checkpoint: Path, rows: list[dict], shots: int) -> list[dict[str, Any]]:
    """Ours: the rows of `questions.mmlu_rows` with what the model chose, in the order of the questions."""
    import torch
    from transformers import AutoTokenizer

    from tradeoffs.models.loading import load_model
    from tradeoffs.tokenize import chat, questions
    from tradeoffs.transformers_runtime import TransformersRuntime

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    runtime = TransformersRuntime(
        load_model(checkpoint, None, torch.float32, torch.device("cpu")), "auto", chat.pad_id(tokenizer)
    )
    asked = questions.mmlu_rows(tokenizer, rows, shots, len(rows), runtime.context)
    mmlu_tasks.choose(runtime, asked)
    by_id = {row["id"]: row for row in rows}
    for row in asked:
        examples = [r for r in rows if (r["subject"], r["split"]) == (row["subject"], "dev")][:shots]
        row["text"] = questions.mmlu_prompt(row["subject"], examples, by_id[row["id"]])
    return asked


def harness(checkpoint: Path, rows: list[dict], shots: int) -> list[dict[str, Any]]:
    """The peer's, in the same order."""
    import lm_eval
    import numpy as np
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it says so for every single prompt that it cuts
    with tempfile.TemporaryDirectory() as folder:
        names = mmlu_tasks.write_tasks(Path(folder), rows)
        result = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(checkpoint), "dtype": "float32"},
            tasks=names,
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            num_fewshot=shots,
            batch_size=1,  # no padding, whose rounding would differ
            device="cpu",
            bootstrap_iters=0,
            log_samples=True,
        )
    found = []
    for name in names:
        for sample in sorted(result["samples"][name], key=lambda sample: sample["doc_id"]):
            logprobs = [float(one[0][0]) for one in sample["resps"]]
            text = sample["arguments"][0][0]
            found.append({"text": text, "logprobs": logprobs, "chosen": int(np.argmax(logprobs))})
    return found


if __name__ == "__main__":
    common.run(
        main,
        models={"default": "stories260k,smollm2,qwen2", "help": "which models, with commas (default: %(default)s)"},
    )
