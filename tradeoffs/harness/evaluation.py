"""One task of lm-evaluation-harness on one variant: what it was asked and said, a row per item, into data/tasks/."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.harness import finding
from tradeoffs.harness.asking import Continues
from tradeoffs.harness.finding import Loaded
from tradeoffs.params import Harness
from tradeoffs.plumbing import clock


@dataclass(frozen=True)
class Reads:
    """How every format but `trained` is asked."""

    harness: Annotated[Harness, "evaluate.harness"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]


def evaluate_format(variant: Variant, task: str, cfg: Reads, absent: bool, make: Callable[[], Continues]) -> None:
    """Asks a task of a format, by the runtime that `make` loads; of one that is `absent`, as nothing was made of its
    method, it writes that there are no answers. Raises UserError as `finding.load` does."""
    path = variant.tasks(()) / f"{task}.parquet"
    if absent:
        write_nothing(path)
    else:
        evaluate(variant, task, cfg.harness, make, path)


def evaluate(variant: Variant, task: str, asked: Harness, make: Callable[[], Continues], path: Path) -> None:
    """Asks a task, or all of a group, by the runtime that `make` loads, and writes `path`.

    The task comes first: what is not there, or may not run, is said before a model is loaded. Raises UserError as
    `finding.load` does.
    """
    with clock.loading():
        loaded = finding.load(task, asked)
        tokenizer, info = tokenizer_of(variant), files.read_json(variant.cell.tokens / "info.json")
        runtime = make()
    print(f"{variant}, {task} on {runtime.device}")
    ask_and_write(runtime, tokenizer, info["stop_ids"], loaded, asked, path)


def tokenizer_of(variant: Variant) -> Any:
    """The model's own, of which all token ids are, whatever runs them."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(variant.cell.base, trust_remote_code=False, local_files_only=True)


def ask_and_write(
    runtime: Continues, tokenizer: Any, stop_ids: Sequence[int], loaded: Loaded, asked: Harness, path: Path
) -> None:
    """See `evaluate`; of a runtime that is loaded."""
    from tradeoffs.harness.scoring import ROWS, scored

    wall, cpu, gpu = time.perf_counter(), time.process_time(), runtime.gpu_clock()
    found = ask(runtime, tokenizer, stop_ids, loaded, asked)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu} | ({"gpu": gpu()} if gpu else {})
    rows, metrics = scored(loaded, found)
    said = {"task": loaded.name, "harness": finding.require(), "seconds": seconds, "metrics": metrics}
    files.write_table(path, rows, ROWS.with_metadata({"tasks": json.dumps(said)}))
    for metric in metrics:
        if "scale" in metric or len(loaded.tasks) == 1:
            print(f"  {metric['name']} {metric['value']:.4g}")


def ask(runtime: Continues, tokenizer: Any, stop_ids: Sequence[int], loaded: Loaded, asked: Harness) -> dict[str, Any]:
    """What lm-evaluation-harness makes of the model's answers: its own `evaluate`, with an LM that asks `runtime`."""
    from lm_eval.evaluator import evaluate as evaluated

    from tradeoffs.harness.model import RuntimeLM

    groups = {"group_map": {name: group.child_names for name, group in loaded.groups.items()}}
    model = RuntimeLM(runtime, tokenizer, stop_ids)
    with finding.quiet():
        found: Any = evaluated(
            model,
            {"tasks": loaded.tasks, "groups": loaded.groups, **groups},
            limit=asked.limit or None,
            bootstrap_iters=0,
            apply_chat_template=asked.chat_template,
            fewshot_as_multiturn=True,
            confirm_run_unsafe_code=asked.unsafe_code,
        )
    return dict(found)


def write_nothing(path: Path) -> None:
    """In place of the answers of a variant that there is not."""
    from tradeoffs.harness.scoring import ROWS

    files.write_table(path, [], ROWS)
