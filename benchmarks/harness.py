"""Tasks of lm-evaluation-harness: its own `hf` model against ours over transformers, and a GGUF of the same weights.

    python -m benchmarks.harness [--quick] [--models smollm2_135m,stories260k]

Seven tasks of all kinds (multiple choice with and without examples, the likelihood of an answer and of a text,
generation with and without examples), in float32. Tasks are loaded, and answers judged, by lm-evaluation-harness on
both sides; what is timed, task by task, is its `evaluate`: asking, tokenising, computing, judging. The peer runs with
several batch sizes, its default of 1 among them, and of each task its fastest one is compared. Its `auto` is none for
a CPU: it looks for the largest batch that does not run out of memory, and what runs out is the machine's.

An answer is the option that is chosen, whether an answer's likelihood is that of the most likely one, the text that is
generated; of a rolling likelihood the number, which may be off by rounding.
"""

import math
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import assets, common, ggufs, harness_tasks, mmlu_tasks
from benchmarks.common import SCRATCH
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

BATCH_SIZES = (1, 4, 8, 16)  # of the peer; its default comes first
ROUNDING = 1e-4  # relative, of a log-likelihood in float32
F16_ROUNDING = 0.01  # nats per token, of weights and cache in float16


def main(arguments: Namespace) -> None:
    each = 6 if arguments.quick else arguments.items
    tasks = SCRATCH / f"harness-{each}"
    names = harness_tasks.write(tasks, each)
    settings = {f"batch size {size}": size for size in BATCH_SIZES[: 2 if arguments.quick else None]}
    found: dict[str, Any] = {}
    for name in arguments.models.split(","):
        checkpoint = _checkpoint(name)
        sides = {"ours": "ours", **{setting: str(size) for setting, size in settings.items()}}
        commands = {side: [_command(what, checkpoint, tasks, names)] for side, what in sides.items()}
        took = common.take_turns(commands, arguments.repetitions if name == "smollm2_135m" else 1)
        said = {side: [common.said(output) for output in one.outputs] for side, one in took.items()}
        speed = common.said(common.output_of([sys.executable, "-m", "benchmarks.harness", "speed"]))
        gguf = common.said(common.output_of(_command("gguf", ggufs.made(checkpoint, "f16"), tasks, names, checkpoint)))
        found[name] = {task: _compared(task, said, gguf, speed) for task in names}
        found[name]["whole"] = {side: one.median for side, one in took.items()}
    timed = found["smollm2_135m"] if "smollm2_135m" in found else next(iter(found.values()))
    differing = sum(one["differ"] for tasks_ in found.values() for key, one in tasks_.items() if key != "whole")
    answers = sum(one["answers"] for tasks_ in found.values() for key, one in tasks_.items() if key != "whole")
    common.write(
        "harness",
        None,
        None,
        {"agreement": 1 - differing / answers},
        quick=arguments.quick,
        at_least={"agreement": 1, "least_ratio": 3},
        scripts=["benchmarks/harness_tasks.py"],
        least_ratio=min(timed[task]["ratio"] for task in names),
        ratios={task: timed[task]["ratio"] for task in names},
        ratios_of_the_floor={task: timed[task]["floor"]["ratio"] for task in names},
        models=found,
        compared=f"seven tasks, at most {2 * each} items each, float32; ratio: the peer's fastest setting of the task "
        "over ours; ratios_of_the_floor: over what the machine needs for the products alone; agreement: the share of "
        "answers that are the same as the peer's with batch size 1",
        peer=f"lm_eval.models.huggingface.HFLM of lm-eval {mmlu_tasks.version()}",
    )


def _checkpoint(name: str) -> Path:
    if name == "smollm2_135m":
        return common.smollm2_135m(SCRATCH / "smollm2-135m-2048", context=2048)
    if name == "stories260k":
        return files_copy(assets.find("models/stories260k"), SCRATCH / "stories260k")
    raise UserError(f"--models: {name}: there are smollm2_135m and stories260k")


def files_copy(source: Path, target: Path) -> Path:
    """A checkpoint where a GGUF may be put beside it."""
    import shutil

    if not target.is_dir():
        with files.new_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return target


def _command(side: str, model: Path, tasks: Path, names: list[str], tokenizer: Path | None = None) -> list[object]:
    return [sys.executable, "-m", "benchmarks.harness", "side", side, model, tokenizer or model, tasks, *names]


def _compared(task: str, said: dict[str, list[Any]], gguf: Any, speed: dict[str, float]) -> dict[str, Any]:
    """One task: seconds of each side, the floor, what differs from the peer, and how far the GGUF is off."""
    seconds = {side: statistics.median(one[task]["seconds"] for one in runs) for side, runs in said.items()}
    cpu = {side: statistics.median(one[task]["cpu_seconds"] for one in runs) for side, runs in said.items()}
    ours, peer = (said[side][-1][task]["answers"] for side in ("ours", "batch size 1"))
    best = min((side for side in seconds if side != "ours"), key=lambda side: seconds[side])
    f16 = gguf[task]["answers"]
    return {
        "ratio": seconds[best] / seconds["ours"],
        "peer_best": best,
        "ratio_defaults": seconds["batch size 1"] / seconds["ours"],
        # Of processor time, which tells something beside other load, too.
        "ratio_cpu": min(taken for side, taken in cpu.items() if side != "ours") / cpu["ours"],
        "seconds": seconds | {"gguf": gguf[task]["seconds"]},
        "floor": _floor(said["ours"][-1][task]["needed"], speed, seconds[best]),
        "answers": len(ours),
        "differ": sum(not _same(a, b) for a, b in zip(ours, peer, strict=True)),
        "largest_difference": max((_apart(a, b) for a, b in zip(ours, peer, strict=True)), default=0.0),
        "metrics": said["ours"][-1][task]["metrics"],
        "gguf_same": sum(_same(a, b, loose=True) for a, b in zip(f16, ours, strict=True)) / len(ours),
        "gguf_largest_difference": max((_apart(a, b) for a, b in zip(f16, ours, strict=True)), default=0.0),
        "peer_metrics": said["batch size 1"][-1][task]["metrics"],
    }


def _floor(needed: dict[str, float], speed: dict[str, float], peer: float) -> dict[str, float]:
    read = needed["prompts"] / speed["flops"]
    said = max(needed["answers"] / speed["flops"], needed["steps"] * needed["bytes"] / speed["bytes"])
    return needed | {"seconds": read + said, "ratio": peer / (read + said)}


def speed() -> None:
    """Operations and bytes per second: of the fastest of ten products of large matrices, and of reading memory."""
    import torch

    one, much = torch.rand(4096, 4096), torch.rand(100_000_000)

    def fastest(work: Callable[[], object]) -> float:
        times = []
        for _ in range(10):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        return min(times)

    with torch.inference_mode():
        common.say(
            {"flops": 2 * 4096**3 / fastest(lambda: one @ one), "bytes": 4 * len(much) / fastest(lambda: much.sum())}
        )


def _same(one: dict[str, Any], other: dict[str, Any], loose: bool = False) -> bool:
    if "rolling" in one:
        return math.isclose(one["rolling"], other["rolling"], rel_tol=F16_ROUNDING if loose else ROUNDING)
    return bool(one["answer"] == other["answer"])


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Nats, of the log-likelihoods that an answer is made of."""
    return max((abs(a - b) for a, b in zip(one["nats"], other["nats"], strict=True)), default=0.0)


def side(which: str, model: str, tokenizer_of: str, tasks: str, *names: str) -> None:
    """The process of one side: every task, one after the other."""
    from lm_eval.evaluator import evaluate
    from transformers import AutoTokenizer

    from tradeoffs.harness import finding
    from tradeoffs.params import Harness

    asked = Harness(folder=tasks, limit=0, shots="task", chat_template=False, unsafe_code=False)
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_of)
    lm = _model(which, model, tokenizer)
    needs = _Needs(lm.runtime) if which == "ours" else None
    found = {}
    for name in names:
        loaded = finding.load(name, asked)
        with finding.quiet():
            begun, busy = time.perf_counter(), time.process_time()
            result: Any = evaluate(lm, {"tasks": loaded.tasks, "groups": {}}, bootstrap_iters=0)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - busy
        kind = loaded.tasks[name].OUTPUT_TYPE
        samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
        metrics = {key: value for key, value in result["results"][name].items() if "," in key and "stderr" not in key}
        found[name] = {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "answers": [_answer(kind, sample) for sample in samples],
            "metrics": {key: value for key, value in metrics.items() if isinstance(value, float)},
            "needed": needs.taken() if needs else {},
        }
    common.say(found)


class _Needs:
    """Counts what a runtime is asked that cannot be had without computing it, in operations of products alone."""

    def __init__(self, runtime: Any) -> None:
        model = runtime.model
        self.head = model.get_output_embeddings().weight.numel()
        linear = sum(layer.weight.numel() for layer in model.modules() if hasattr(layer, "in_features"))
        self.layers, self.context, self.bytes = linear - self.head, runtime.context, 4 * linear
        self.asked: list[Any] = []
        self.answered: list[tuple[Sequence[Any], Any]] = []
        self._continuations, self._answers = runtime.continuations, runtime.answers
        runtime.continuations, runtime.answers = self.continuations, self.answers

    def continuations(self, asked: Sequence[Any]) -> Any:
        self.asked += asked
        return self._continuations(asked)

    def answers(self, prompts: Sequence[Any], *others: Any) -> Any:
        found = self._answers(prompts, *others)
        self.answered.append((prompts, found))
        return found

    def taken(self) -> dict[str, float]:
        """Of what has been asked since it was taken last; outside of what is timed."""
        windows = [one.window(self.context) for one in self.asked]
        windows += [(prompt, 1) for prompts, _ in self.answered for prompt in prompts]
        nodes, wanted = set(), set()
        for ids, count in windows:
            way = 0
            for place, token in enumerate(ids):
                way = hash((way, token))
                nodes.add(way)
                if place >= len(ids) - count:
                    wanted.add(way)
        # The last token of an answer goes through no more.
        lengths = [[max(0, len(ids) - 1) for ids in found] for _, found in self.answered]
        more = sum(map(sum, lengths))
        self.asked, self.answered = [], []
        return {
            "tokens": len(nodes) + more,
            "prompts": 2.0 * (len(nodes) * self.layers + len(wanted) * self.head),
            "answers": 2.0 * more * (self.layers + self.head),
            "steps": sum(max(some, default=0) for some in lengths),
            "bytes": self.bytes,
        }


def _model(which: str, model: str, tokenizer: Any) -> Any:
    if which.isdigit():
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=int(which))
    from tradeoffs.harness.model import RuntimeLM
    from tradeoffs.tokenize import chat

    stops = [tokenizer.eos_token_id]  # those of generation_config.json, too
    if which == "gguf":
        from tradeoffs.harness.llama_side import LlamaTasks

        return RuntimeLM(LlamaTasks(model, "auto"), tokenizer, stops)
    import torch

    from tradeoffs.harness.torch_side import TorchTasks
    from tradeoffs.models.loading import load_model

    loaded = load_model(Path(model), None, torch.float32, torch.device("cpu"))
    return RuntimeLM(TorchTasks(loaded, "auto", chat.pad_id(tokenizer)), tokenizer, stops)


def _answer(kind: str, sample: dict[str, Any]) -> dict[str, Any]:
    said = [one[0] for one in sample["resps"]]
    if kind == "generate_until":
        return {"answer": str(said[0]), "nats": []}
    if kind == "loglikelihood_rolling":
        value = float(said[0][0] if isinstance(said[0], (tuple, list)) else said[0])
        return {"rolling": value, "nats": [value]}
    nats = [float(one[0]) for one in said]
    greedy = [bool(one[1]) for one in said]
    return {"answer": nats.index(max(nats)) if kind == "multiple_choice" else greedy, "nats": nats}


if __name__ == "__main__":
    if sys.argv[1:2] == ["side"]:
        side(*sys.argv[2:])
    elif sys.argv[1:2] == ["speed"]:
        speed()
    else:
        common.run(
            main,
            items={"type": int, "default": 8, "help": "of most tasks (default: %(default)s)"},
            models={
                "default": "smollm2_135m,stories260k",
                "help": "which models, with commas (default: %(default)s); the first is timed",
            },
        )
