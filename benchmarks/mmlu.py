"""Three subjects of MMLU, 5-shot: TransformersRuntime.choose against `lm_eval --model hf`, whole processes.

    python -m benchmarks.mmlu [--quick]

Both load the same checkpoint in float32, tokenise the same questions and choose an option for each. A few batch sizes
of lm-evaluation-harness are tried on a part of the questions, and its fastest one is compared.
"""

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks import common, mmlu_tasks
from benchmarks.common import SCRATCH
from tradeoffs.common import files

SUBJECTS = ["abstract_algebra", "anatomy", "astronomy"]  # the first three with at least 100 test questions
SHOTS = 5
BATCH_SIZES = (1, 4, 16)


def main(arguments: Namespace) -> None:
    each, tried = (5, 2) if arguments.quick else (100, 20)
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    tasks = SCRATCH / f"mmlu-{each}"
    names = mmlu_tasks.write_tasks(tasks, mmlu_tasks.questions(SUBJECTS, each))
    trials = {}
    for size in BATCH_SIZES:
        begun = time.perf_counter()
        common.output_of(harness(checkpoint, tasks, names, size, ["--limit", tried]))
        trials[size] = time.perf_counter() - begun
        print(f"lm_eval, batch size {size}: {trials[size]:.1f} s for {tried} questions of each subject", flush=True)
    fastest = min(trials, key=lambda size: trials[size])
    with files.new_folder(SCRATCH / "mmlu-output") as out:
        commands = {
            "ours": [sys.executable, "-m", "benchmarks.mmlu", "ours", checkpoint, each],
            "peer": harness(checkpoint, tasks, names, fastest, ["--output_path", out, "--log_samples"]),
        }
        sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
        theirs = mmlu_tasks.chosen_by_harness(out, names)
        evaluating = files.read_json(max(out.rglob("results_*.json")))["total_evaluation_time_seconds"]
    found = common.said(sides["ours"].output)
    same = [a == b for a, b in zip(found["chosen"], theirs, strict=True)]
    common.write(
        "mmlu",
        sides["ours"].median,
        sides["peer"].median,
        sum(same) / len(same),
        quick=arguments.quick,
        at_least={"ratio": 5, "agreement": 1},
        seconds={side: sides[side].seconds for side in sides},
        # Of the last repetition: what imports and, on the peer's side, its index of all tasks take is the rest.
        parts={"ours": found["seconds"], "peer": {"evaluation": float(evaluating)}},
        batch_size_trials=trials,
        compared=f"{', '.join(SUBJECTS)}: {len(same)} questions, {SHOTS}-shot, float32, SmolLM2-135M's shape with "
        "random weights; agreement is the share of questions with the same chosen option",
        peer=f"lm_eval --model hf --batch_size {fastest} of lm-eval {mmlu_tasks.version()}, its mmlu template on local "
        "files",
        commands={side: common.shown(command) for side, command in commands.items()},
    )


def harness(checkpoint: Path, tasks: Path, names: list[str], batch_size: int, more: list[Any]) -> list[Any]:
    """The peer's command."""
    return [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf"),
        *("--model_args", f"pretrained={checkpoint},dtype=float32", "--device", "cpu"),
        *("--include_path", tasks, "--tasks", ",".join(names), "--num_fewshot", SHOTS),
        *("--batch_size", batch_size, *more),
    ]


def ours(checkpoint: str, each: str) -> None:
    """The process that is timed."""
    begun = time.perf_counter()
    import torch
    from transformers import AutoTokenizer

    from tradeoffs import params
    from tradeoffs.models.loading import load_model
    from tradeoffs.tokenize import chat, questions
    from tradeoffs.transformers_runtime import TransformersRuntime

    imported = time.perf_counter()
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model = load_model(Path(checkpoint), None, torch.float32, torch.device("cpu"))
    runtime = TransformersRuntime(model, params.load_all().evaluate.batch_tokens, chat.pad_id(tokenizer))
    loaded = time.perf_counter()
    rows = mmlu_tasks.questions(SUBJECTS, int(each))
    asked = questions.mmlu_rows(tokenizer, rows, SHOTS, len(rows), runtime.context)
    tokenised = time.perf_counter()
    mmlu_tasks.choose(runtime, asked)
    done = time.perf_counter()
    common.say(
        {
            "accuracy": sum(row["chosen"] == row["answer"] for row in asked) / len(asked),
            "chosen": [row["chosen"] for row in asked],
            "seconds": {
                "imports": imported - begun,
                "loading": loaded - imported,
                "tokenising": tokenised - loaded,
                "choosing": done - tokenised,
            },
        }
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    else:
        common.run(main)
