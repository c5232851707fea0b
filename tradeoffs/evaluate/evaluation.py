"""One evaluation for both runtimes: likelihoods, divergence from the reference, answers, multiple choice.

What is measured here is the same code and the same token ids for transformers and llama.cpp; only the Runtime differs.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer
from tqdm import tqdm

from tradeoffs.common import files
from tradeoffs.common.cells import Cell, Variant
from tradeoffs.common.unfinished import Unfinished
from tradeoffs.evaluate import items
from tradeoffs.evaluate.items import GENERAL, ITEMS, SPLITS, Answering, Chunk, Row, chunks
from tradeoffs.evaluate.runtime import Runtime
from tradeoffs.params import Splits
from tradeoffs.plumbing import clock
from tradeoffs.plumbing.asked import print_while_running

Loaded = TypeVar("Loaded", bound=Runtime)
Facts = dict[str, Any]
ASKED = "asked.json"  # in the folder of a reference: how it was asked
SUBJECT = "mmlu-"  # and a subject's name: a part of an evaluation


@dataclass(frozen=True)
class Reads:
    """How variants are asked."""

    splits: Annotated[Splits, "evaluate.splits"]
    max_new_tokens: Annotated[int, "evaluate.max_new_tokens"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]
    kld_top_k: Annotated[int, "evaluate.kld_top_k"]
    kld_tail_samples: Annotated[int, "evaluate.kld_tail_samples"]


def as_of_reference(cell: Cell) -> Reads:
    """How the reference of a cell was asked. Every other format is asked in that way, so only the reference's own stage
    reads it of params.yaml."""
    found = files.read_facts(cell.reference / ASKED)
    return Reads(**found | {"splits": Splits(**found["splits"])})


def load(variant: Variant, make: Callable[[], Loaded]) -> Loaded:
    """The runtime that `make` loads."""
    with clock.loading():
        runtime = make()
    print(f"{variant} on {runtime.device}")
    return runtime


def evaluate_reference(
    runtime: Runtime, variant: Variant, inputs: Sequence[Path], cfg: Reads, known: Facts
) -> Unfinished:
    """All that the model as it left training is asked, into data/items/ and data/facts/, and its distributions, which
    those of all other formats are held against, into data/reference/.

    It alone is also asked about general text. `inputs` are the files that `runtime` was made of; `known` are
    further facts about it. An evaluation that was killed goes on after the parts that it had finished, and after all of
    them as long as nobody removes what is returned.
    """
    asked = _Evaluation(runtime, variant, inputs, cfg)
    kept = asked.done.folder / "reference"
    asked.score_and_answer(
        lambda chunk: items.score_reference(runtime, chunk, kept, cfg.kld_top_k, cfg.kld_tail_samples)
    )
    asked.score_general()
    asked.choose()
    asked.answer_prompts()
    asked_as = asdict(cfg)  # of the stage, with what it alone reads
    with files.new_folder(variant.cell.reference) as folder:
        if kept.is_dir():  # not where multiple choice is all that is asked
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        files.write_json(folder / ASKED, {field.name: asked_as[field.name] for field in fields(Reads)})
    asked.write(known)
    return asked.done


def evaluate_further(runtime: Runtime, variant: Variant, inputs: Sequence[Path], cfg: Reads, path: Path) -> Unfinished:
    """The same items of a further training of a cell, into `path`; nothing is held against it, so its distributions are
    not kept, and no prompt of the user is asked.
    """
    asked = _Evaluation(runtime, variant, inputs, cfg)
    asked.score_and_answer(partial(items.score, runtime))
    asked.score_general()
    asked.choose()
    items.write(path, asked.done, asked.parts)
    return asked.done


def evaluate_format(runtime: Runtime, variant: Variant, inputs: Sequence[Path], cfg: Reads, known: Facts) -> None:
    """The same for any other format, with its divergence from the reference of its cell, by whose settings it is
    asked (`as_of_reference`)."""
    reference = variant.cell.reference
    asked = _Evaluation(runtime, variant, [*inputs, reference], cfg)
    asked.score_and_answer(lambda chunk: items.score_against(runtime, chunk, reference))
    asked.choose()
    asked.answer_prompts()
    asked.write(known)
    asked.done.remove()


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
        self.seconds: Counter[str] = Counter()  # of multiple choice, by clock

    def score_and_answer(self, score: Callable[[Chunk], list[Row]]) -> None:
        """Every item of test and seen."""
        for chunk in chunks(self.tokens, self.cfg.splits, SPLITS, self.texts):
            self.done.part(chunk.name, partial(score, chunk))
            self.parts.append([chunk.name])
            if self.answers:
                name = f"{chunk.name}-answers"
                self.done.part(name, partial(items.answer, self.runtime, chunk, self.answering))
                self.parts[-1].append(name)

    def score_general(self) -> None:
        """Text of the base's own kind, by which forgetting is measured."""
        for chunk in chunks(self.tokens, self.cfg.splits, (GENERAL,), self.texts):
            self.done.part(chunk.name, partial(items.score, self.runtime, chunk))
            self.parts.append([chunk.name])

    def choose(self) -> None:
        """Multiple choice, subject by subject."""
        questions = pq.read_table(self.tokens / "mmlu.parquet")
        for subject in tqdm(questions["subject"].unique().to_pylist(), desc="mmlu", leave=False):
            name = f"{SUBJECT}{subject}"
            asked = questions.filter(pc.equal(questions["subject"], subject)).to_pylist()
            choose, new = partial(items.choose, self.runtime, asked), not self.done.has(name)
            self.seconds.update(self.done.part(name, choose, self.runtime.gpu_clock))
            if new:
                print_while_running(str(self.variant), asked, self.done.read(name))
            self.parts.append([name])

    def answer_prompts(self) -> None:
        """The user's own prompts."""
        self.done.part("prompts", partial(items.answer_prompts, self.runtime, self.tokens, self.answering))
        self.parts.append(["prompts"])

    def write(self, known: Facts) -> None:
        """The outputs, at the end and whole. The facts hold no times: they are the same whenever it is evaluated."""
        subjects = [name for names in self.parts for name in names if name.startswith(SUBJECT)]
        of_subjects = {name.removeprefix(SUBJECT): self.done.seconds(name) for name in subjects}
        times = {"mmlu_seconds": json.dumps(self.seconds), "subject_seconds": json.dumps(of_subjects)}
        items.write(self.variant.items, self.done, self.parts, times)
        runtime = self.runtime
        weights = {"size_mb": runtime.size_mb, "shapes": runtime.shapes}
        made_by = {"device": runtime.device, "runtime": runtime.name, "hardware": files.run_info()["hardware"]}
        weights |= {"max_new_tokens": self.answering.limit} if self.answers else {}
        files.write_json(self.variant.facts, known | weights | made_by)
