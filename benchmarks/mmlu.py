"""Three subjects of MMLU, 5-shot: TransformersRuntime.choose against `lm_eval --model hf`, whole processes.

    python -m benchmarks.mmlu [--quick]

All load the same checkpoint in float32, tokenise the same questions and choose an option for each. The harness runs
with several batch sizes, its default of 1 among them, and the fastest one is compared. Its `auto` is none for a CPU: it
looks for the largest batch that does not run out of memory, and what runs out is the machine's.
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
BATCH_SIZES = (1, 4, 8)  # of the harness; its default comes first


def main(arguments: Namespace) -> None:
    each = 5 if arguments.quick else 40
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    tasks = SCRATCH / f"mmlu-{each}"
    names = mmlu_tasks.write_tasks(tasks, mmlu_tasks.questions(SUBJECTS, each))
    settings = {f"batch size {size}": size for size in BATCH_SIZES}
    with files.new_folder(SCRATCH / "mmlu-output") as out:
        commands = {"ours": [sys.executable, "-m", "benchmarks.mmlu", "ours", checkpoint, each]} | {
            setting: harness(checkpoint, tasks, names, size, out / str(size)) for setting, size in settings.items()
        }
        sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
        theirs = {setting: mmlu_tasks.chosen_by_harness(out / str(size), names) for setting, size in settings.items()}
        evaluating = {
            setting: float(
                files.read_json(max((out / str(size)).rglob("results_*.json")))["total_evaluation_time_seconds"]
            )
            for setting, size in settings.items()
        }
    found = common.said(sides["ours"].output)
    same = {
        setting: sum(a == b for a, b in zip(found["chosen"], chosen, strict=True)) / len(chosen)
        for setting, chosen in theirs.items()
    }
    peer = common.Peer(
        {setting: sides[setting].median for setting in settings},
        {setting: f"other options for {1 - same[setting]:.0%}" for setting in settings if same[setting] < 1},
    )
    common.write(
        "mmlu",
        sides["ours"].median,
        peer,
        same[peer.best],
        quick=arguments.quick,
        at_least={"ratio": 4, "agreement": 1},
        agreement_by_setting=same,
        seconds={side: sides[side].seconds for side in sides},
        # Of the last repetition: what imports and, on the peer's side, its index of all tasks take is the rest.
        parts={"ours": found["seconds"]} | {setting: {"evaluation": evaluating[setting]} for setting in settings},
        compared=f"{', '.join(SUBJECTS)}: {len(found['chosen'])} questions, {SHOTS}-shot, float32, SmolLM2-135M's "
        "shape with random weights; agreement is the share of questions with the same chosen option; the more "
        "questions a subject has, the more ours saves",
        peer=f"lm_eval --model hf of lm-eval {mmlu_tasks.version()}, its mmlu template on local files",
        commands={side: common.shown(command) for side, command in commands.items()},
    )


def harness(checkpoint: Path, tasks: Path, names: list[str], batch_size: int, out: Path) -> list[Any]:
    """The peer's command."""
    return [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf"),
        *("--model_args", f"pretrained={checkpoint},dtype=float32", "--device", "cpu"),
        *("--include_path", tasks, "--tasks", ",".join(names), "--num_fewshot", SHOTS),
        *("--batch_size", batch_size, "--output_path", out, "--log_samples"),
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
