"""The items of an evaluation: which are asked, and the row that each leaves."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from tradeoffs.common import files
from tradeoffs.common.unfinished import Unfinished
from tradeoffs.evaluate import kld
from tradeoffs.evaluate.choices import by_question
from tradeoffs.evaluate.runtime import Runtime, Scores, Target
from tradeoffs.params import Splits
from tradeoffs.plumbing.errors import UserError

SPLITS = ("test", "seen")
GENERAL = "general"  # text of the base's own kind: scored of the model as trained alone, and not answered
CHUNK = 512  # items that are scored, answered and stored together

Row = dict[str, Any]
# One row per item, of a text one per window. Sums, not means, so that any subset can be averaged over its tokens.
# Beside the rows, as metadata: `mmlu_seconds`, JSON by clock, and `subject_seconds`, the same of each subject: times
# are no facts, which must not move by themselves.
ITEMS = pa.schema(
    [
        ("split", pa.string()),  # test | seen | general | mmlu | prompt
        ("item", pa.string()),
        ("document", pa.string()),  # of a window of a text: what it was cut from, the same for every tokenizer
        ("subject", pa.string()),
        ("tokens", pa.int32()),  # scored tokens
        ("log_likelihood", pa.float64()),  # nats, sum over the scored tokens
        ("correct_tokens", pa.int32()),  # scored tokens that are the argmax
        ("bytes", pa.int32()),  # UTF-8 bytes of the scored text
        ("kld", pa.float64()),  # nats, sum over the scored tokens
        ("kld_tail", pa.float64()),  # ... the part of it that is estimated from tokens drawn from the tail
        ("kld_variance", pa.float64()),  # ... its variance from that drawing, nats squared
        ("same_top", pa.int32()),  # scored tokens whose argmax is the reference's
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("generated", pa.string()),
        ("generated_tokens", pa.int32()),  # without the token that ends it; as many as there may be: it was cut
        ("answer_tokens", pa.int32()),  # of the expected answer, counted in the same way
        ("latency_seconds", pa.float64()),  # of the user's prompts, which are answered one at a time
        ("ttft_seconds", pa.float64()),
        ("answer_gpu_mb", pa.float64()),  # ... the peak of the GPU's memory above the weights; null on a CPU
        ("chosen", pa.int32()),
        ("correct_option", pa.int32()),
        ("option_logprobs", pa.list_(pa.float32())),
        ("seconds", pa.float64()),  # of an answer to an item, or a choice: its share of the batches that it was in
    ]
)


class Chunk(NamedTuple):
    """Consecutive items of a split, rows of the tokens of a pair, each with its `document`."""

    split: str
    number: int
    items: list[Row]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05}"


def chunks(
    tokens: Path, counts: Splits, splits: Sequence[str], texts: Collection[str] = (), most: int | None = None
) -> Iterator[Chunk]:
    """The items that are evaluated, in their order, at most CHUNK (or `most`) at a time.

    Of the splits in `texts`, whose rows are windows `<document>-<number>`, the limits count documents, so that models
    with different tokenizers are asked the same ones; their rows get the `document`, those of others None.
    """
    for split in splits:
        limit = getattr(counts, split)
        taken: set[str] = set()
        with pq.ParquetFile(tokens / f"{split}.parquet") as file:
            for number, batch in enumerate(file.iter_batches(most or CHUNK)):
                rows: list[Row] = []
                for row in batch.to_pylist():
                    document = row["id"].rpartition("-")[0] if split in texts else None
                    taken.add(document or row["id"])
                    if len(taken) > limit:
                        break
                    rows.append({**row, "document": document})
                if rows:
                    yield Chunk(split, number, rows)
                if len(taken) > limit:
                    break


def score(runtime: Runtime, chunk: Chunk) -> list[Row]:
    """Likelihood of each item's scored tokens."""
    targets = _targets(chunk)
    return list(_likelihoods(chunk, targets, runtime.score(targets)))


def score_reference(runtime: Runtime, chunk: Chunk, folder: Path, top_k: int, tail_samples: int) -> list[Row]:
    """The same, and what is kept of the distributions goes into a file in `folder`, for `score_against`."""
    targets = _targets(chunk)
    scores = runtime.score(targets, top_k, tail_samples)
    kld.save(folder / f"{chunk.name}.safetensors", targets, scores)
    return list(_likelihoods(chunk, targets, scores))


def score_against(runtime: Runtime, chunk: Chunk, folder: Path) -> list[Row]:
    """The same, and the divergence from the reference in `folder`."""
    targets = _targets(chunk)
    references = kld.load(folder / f"{chunk.name}.safetensors", targets)
    asked = [replace(t, at=r.ids, samples=r.sample_ids) for t, r in zip(targets, references, strict=True)]
    scores = runtime.score(asked)
    return [
        row | compare(reference, found, f"{chunk.split} item {row['item']}")
        for row, reference, found in zip(_likelihoods(chunk, targets, scores), references, scores, strict=True)
    ]


def _targets(chunk: Chunk) -> list[Target]:
    return [Target(np.asarray(i["ids"], np.int32), np.asarray(i["scored"], bool)) for i in chunk.items]


def _likelihoods(chunk: Chunk, targets: Sequence[Target], scores: Sequence[Scores]) -> Iterator[Row]:
    for item, target, found in zip(chunk.items, targets, scores, strict=True):
        require_finite(found.logprob, f"{chunk.split} item {item['id']}")
        yield {
            "split": chunk.split,
            "item": item["id"],
            "document": item["document"],
            "tokens": len(found.logprob),
            "log_likelihood": float(found.logprob.astype(np.float64).sum()),
            "correct_tokens": int((found.argmax == target.true).sum()),
            "bytes": item["bytes"],
        }


def require_finite(logprobs: np.ndarray, where: str) -> None:
    """Raises UserError if a log-probability is NaN or infinite: no mean over the others would be this model's."""
    if not np.isfinite(logprobs).all():
        raise UserError(
            f"{where}: a log-probability is not a finite number; the weights or the arithmetic of this format overflow "
            "(a reference_dtype of float16 does with many models; bfloat16 and float32 do not)"
        )


def compare(reference: kld.Reference, scores: Scores, where: str) -> dict[str, Any]:
    """What a row says of the divergence from the reference. Raises UserError where it is no number."""
    found = kld.kl_divergence(reference, scores)
    require_finite(found.total, where)
    return {
        "kld": float(found.total.sum()),
        "kld_tail": float(found.tail.sum()),
        "kld_variance": float(found.variance.sum()),
        "same_top": int((scores.argmax == reference.ids[:, 0]).sum()),
    }


@dataclass(frozen=True)
class Answering:
    """How answers are made: at most `limit` tokens, ended before one of `stop_ids`, and read by `tokenizer`."""

    limit: int
    stop_ids: list[int]
    tokenizer: Tokenizer

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def prompt(item: Row) -> np.ndarray:
    """The token ids of an item before its answer; int32 (length,)."""
    return np.asarray(item["ids"][: item["prompt_tokens"]], np.int32)


def answer(runtime: Runtime, chunk: Chunk, answering: Answering) -> list[Row]:
    """Each item's greedy answer, batched."""
    found = runtime.generate([prompt(item) for item in chunk.items], answering.limit, answering.stop_ids)
    return [
        {
            "prompt": item["prompt"],
            "answer": item["answer"],
            "generated": answering.text(ids),
            "generated_tokens": len(ids),
            "answer_tokens": len(item["ids"]) - item["prompt_tokens"] - 1,
            "seconds": took,
        }
        for item, ids, took in zip(chunk.items, found, runtime.seconds.tolist(), strict=True)
    ]


def answer_prompts(runtime: Runtime, tokens: Path, answering: Answering) -> list[Row]:
    """The user's own prompts, answered one at a time; an answer ends with the context at the latest."""
    rows = []
    for item in files.read_table(tokens / "prompts.parquet"):
        room = min(answering.limit, runtime.context - len(item["ids"]))
        ids, first, whole = runtime.stream(np.asarray(item["ids"], np.int32), room, answering.stop_ids)
        rows.append(
            {
                "split": "prompt",
                "item": item["id"],
                "prompt": item["prompt"],
                "generated": answering.text(ids),
                "generated_tokens": len(ids),
                "ttft_seconds": first,
                "latency_seconds": whole,
                "answer_gpu_mb": runtime.answer_gpu_mb,
            }
        )
    return rows


def choose(runtime: Runtime, questions: list[Row]) -> list[Row]:
    """The most likely option letter after `Answer:` of each question; the questions are of one subject."""
    rows = []
    seconds = np.zeros(len(questions))
    found = by_question(runtime, questions, seconds)
    for question, logprobs, took in zip(questions, found, seconds.tolist(), strict=True):
        require_finite(logprobs, f"{question['subject']} question {question['id']}")
        rows.append(
            {
                "split": "mmlu",
                "item": question["id"],
                "subject": question["subject"],
                "chosen": int(logprobs.argmax()),
                "correct_option": question["answer"],
                "option_logprobs": logprobs.tolist(),
                "seconds": took,
            }
        )
    return rows


def write(path: Path, done: Unfinished, parts: list[list[str]], beside: dict[str, str] | None = None) -> None:
    """Puts the finished parts together, a chunk at a time; `parts` are names of those whose rows belong together.

    What goes `beside` the rows is the table's metadata.
    """
    schema = ITEMS.with_metadata(beside)
    with files.new_file(path) as target, pq.ParquetWriter(target, schema, compression="zstd") as to:
        for names in parts:
            to.write_table(pa.Table.from_pylist(_joined([done.read(name) for name in names]), ITEMS))


def _joined(parts: list[list[Row]]) -> list[Row]:
    """Rows of parts about the same items as one row per item."""
    return [
        {key: value for part in same for key, value in part.items() if value is not None}
        for same in zip(*parts, strict=True)
    ]
