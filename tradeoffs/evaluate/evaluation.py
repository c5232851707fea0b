"""One evaluation for both runtimes: likelihoods, divergence from the reference, answers, multiple choice, cost.

What is measured here is the same code and the same token ids for transformers and llama.cpp; only the Runtime differs.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer
from tqdm import tqdm

from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.common.unfinished import Unfinished
from tradeoffs.evaluate import items, speed
from tradeoffs.evaluate.items import GENERAL, ITEMS, SPLITS, Answering, Chunk, Row, chunks
from tradeoffs.evaluate.runtime import Runtime
from tradeoffs.params import Cost, Splits
from tradeoffs.plumbing import clock

Loaded = TypeVar("Loaded", bound=Runtime)
Facts = dict[str, Any]  # of a variant's cost


@dataclass(frozen=True)
class Reads:
    """What an evaluation reads of params.yaml, in whatever stage."""

    splits: Annotated[Splits, "evaluate.splits"]
    max_new_tokens: Annotated[int, "evaluate.max_new_tokens"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]
    kld_top_k: Annotated[int, "evaluate.kld_top_k"]
    kld_tail_samples: Annotated[int, "evaluate.kld_tail_samples"]
    cost: Annotated[Cost, "evaluate.cost"]


def load(variant: Variant, make: Callable[[], Loaded]) -> tuple[Loaded, Facts]:
    """The runtime that `make` loads, and what is known of its cost by then."""
    begun = time.perf_counter()
    with clock.loading():
        runtime = make()
    cost = {"load_seconds": time.perf_counter() - begun}
    print(f"{variant} on {runtime.device}")
    return runtime, cost


def evaluate_reference(runtime: Runtime, variant: Variant, inputs: Sequence[Path], cfg: Reads, cost: Facts) -> None:
    """All that the model as it left training is asked, into data/items/ and data/cost/, and its distributions, which
    those of all other formats are held against, into data/reference/.

    It alone is also asked about general text. `inputs` are the files that `runtime` was made of; `cost` holds what is
    known of its cost already. An evaluation that was killed goes on after the parts that it had finished.
    """
    asked = _Evaluation(runtime, variant, inputs, cfg)
    kept = asked.done.folder / "reference"
    cost = cost | asked.speed()
    cost |= asked.score_and_answer(
        lambda chunk: items.score_reference(runtime, chunk, kept, cfg.kld_top_k, cfg.kld_tail_samples)
    )
    asked.score_general()
    cost |= asked.choose()
    asked.answer_prompts()
    with files.new_folder(variant.cell.reference) as folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    asked.write(cost)


def evaluate_format(runtime: Runtime, variant: Variant, inputs: Sequence[Path], cfg: Reads, cost: Facts) -> None:
    """The same for any other format, with its divergence from the reference of its cell."""
    reference = variant.cell.reference
    asked = _Evaluation(runtime, variant, [*inputs, reference], cfg)
    cost = cost | asked.speed()
    cost |= asked.score_and_answer(lambda chunk: items.score_against(runtime, chunk, reference))
    cost |= asked.choose()
    asked.answer_prompts()
    asked.write(cost)


class _Evaluation:
    """The parts of an evaluation, in the order in which they are called. Those that an earlier run had finished are not
    done again. Items go through in chunks, so memory does not grow with their number.
    """

    def __init__(self, runtime: Runtime, variant: Variant, inputs: Sequence[Path], cfg: Reads):
        self.runtime, self.variant, self.cfg, self.tokens = runtime, variant, cfg, variant.cell.tokens
        self.done = Unfinished(str(variant), ITEMS, [*inputs, self.tokens], cfg, runtime.name, runtime.device)
        info = files.read_json(self.tokens / "info.json")
        tokenizer = Tokenizer.from_file(str(self.tokens / "tokenizer.json"))
        self.answering = Answering(cfg.max_new_tokens, info["stop_ids"], tokenizer)
        self.answers = info["kind"] != "text"
        self.texts = {GENERAL} if self.answers else {GENERAL, *SPLITS}
        self.parts: list[list[str]] = []  # names of those whose rows belong together

    def speed(self) -> Facts:
        """What one at a time costs, and the speed of several."""
        runtime, cfg = self.runtime, self.cfg.cost
        first = next(chunks(self.tokens, self.cfg.splits, SPLITS, self.texts, most=1))
        # Half of a context for the prompt at most: what decodes after it must fit too.
        sample = np.asarray(first.items[0]["ids"], np.int32)
        runtime.decode(sample[: runtime.context // 2], 2)  # warm-up: first calls build plans and touch memory
        cost = speed.prefill_and_decode(runtime, sample, cfg)
        if self.answers:
            self.done.part(
                "latency", partial(speed.latency, runtime, self.tokens, self.cfg.splits, cfg, self.answering)
            )
            cost |= speed.latency_summary(self.done.read("latency"))
        # Before anything is batched: the memory of a batch says how much there was, not how much a format needs.
        cost |= {"peak_memory_mb": peak_memory_mb(), **runtime.gpu_memory()}
        return cost | speed.batch_sweep(runtime, sample, cfg, cost["spread"])

    def score_and_answer(self, score: Callable[[Chunk], list[Row]]) -> Facts:
        """Every item of test and seen; how many were scored in a second."""
        scored: set[tuple[str, str]] = set()  # a document of many windows is one
        seconds = 0.0
        for chunk in chunks(self.tokens, self.cfg.splits, SPLITS, self.texts):
            seconds += self.done.part(chunk.name, partial(score, chunk))["wall"]
            scored.update((chunk.split, item["document"] or item["id"]) for item in chunk.items)
            self.parts.append([chunk.name])
            if self.answers:
                name = f"{chunk.name}-answers"
                self.done.part(name, partial(items.answer, self.runtime, chunk, self.answering))
                self.parts[-1].append(name)
        return {"eval_samples_per_second": len(scored) / seconds}

    def score_general(self) -> None:
        """Text of the base's own kind, by which forgetting is measured."""
        for chunk in chunks(self.tokens, self.cfg.splits, (GENERAL,), self.texts):
            self.done.part(chunk.name, partial(items.score, self.runtime, chunk))
            self.parts.append([chunk.name])

    def choose(self) -> Facts:
        """Multiple choice, subject by subject; the seconds that it took."""
        seconds: Counter[str] = Counter()
        questions = pq.read_table(self.tokens / "mmlu.parquet")
        for subject in tqdm(questions["subject"].unique().to_pylist(), desc="mmlu", leave=False):
            name = f"mmlu-{subject}"
            asked = questions.filter(pc.equal(questions["subject"], subject)).to_pylist()
            seconds.update(self.done.part(name, partial(items.choose, self.runtime, asked), self.runtime.gpu_clock))
            self.parts.append([name])
        return {"mmlu_seconds": dict(seconds)} if seconds else {}

    def answer_prompts(self) -> None:
        """The user's own prompts."""
        self.done.part("prompts", partial(items.answer_prompts, self.runtime, self.tokens, self.answering))
        self.parts.append(["prompts"])

    def write(self, cost: Facts) -> None:
        """The outputs, at the end and whole; what was kept of an unfinished evaluation goes."""
        items.write(self.variant.items, self.done, self.parts)
        runtime = self.runtime
        cost = cost | {"size_mb": runtime.size_mb, "device": runtime.device, "runtime": runtime.name}
        files.write_json(self.variant.cost, cost | {"hardware": files.run_info()["hardware"]})
        self.done.remove()
