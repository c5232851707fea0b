"""One evaluation for both runtimes: likelihoods, divergence from the reference, answers, multiple choice, cost.

What is measured here is the same code and the same token ids for transformers and llama.cpp; only the Runtime differs.
"""

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer
from tqdm import tqdm

from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.common.memory import peak_memory_mb
from tradeoffs.common.unfinished import Unfinished
from tradeoffs.evaluate import kld
from tradeoffs.evaluate.choices import by_question
from tradeoffs.evaluate.runtime import Runtime, Scores, Target
from tradeoffs.params import Cost, Splits
from tradeoffs.plumbing.errors import UserError

SPLITS = ("test", "seen")
GENERAL = "general"  # text of the base's own kind: scored of the model as trained alone, and not answered
CHUNK = 512  # items that are scored, answered and stored together


@dataclass(frozen=True)
class Reads:
    """What an evaluation reads of params.yaml, in whatever stage."""

    splits: Annotated[Splits, "evaluate.splits"]
    max_new_tokens: Annotated[int, "evaluate.max_new_tokens"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]
    kld_top_k: Annotated[int, "evaluate.kld_top_k"]
    kld_tail_samples: Annotated[int, "evaluate.kld_tail_samples"]
    cost: Annotated[Cost, "evaluate.cost"]


# One row per item, of a text one per window. Sums, not means, so that any subset can be averaged over its tokens.
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
        ("generated_tokens", pa.int32()),
        ("latency_seconds", pa.float64()),  # of those answered one at a time
        ("ttft_seconds", pa.float64()),
        ("chosen", pa.int32()),
        ("correct_option", pa.int32()),
        ("option_logprobs", pa.list_(pa.float32())),
    ]
)


def evaluate(
    runtime: Runtime,
    variant: Variant,
    inputs: Sequence[Path],
    tokens: Path,
    cfg: Reads,
    cost: dict[str, Any],
    reference: Path | None = None,
    keep_reference: Path | None = None,
) -> None:
    """Everything that one variant is asked, into data/items/<variant>.parquet, and what it cost, into data/cost/.

    `inputs` are the files that `runtime` was made of; `cost` holds what is known of its cost already. `reference` is
    the folder of the as-trained model's distributions to compare with; with `keep_reference` this variant *is* the
    reference and writes them there. An evaluation that was killed goes on after the parts that it had finished. Items
    go through in chunks, so memory does not grow with their number.
    """
    watched = [*inputs, tokens, *([reference] if reference else [])]
    done = Unfinished(str(variant), ITEMS, watched, cfg, runtime.name, runtime.device)
    info = files.read_json(tokens / "info.json")
    tokenizer, stops = Tokenizer.from_file(str(tokens / "tokenizer.json")), info["stop_ids"]
    answers, texts = info["kind"] != "text", {GENERAL, *(SPLITS if info["kind"] == "text" else ())}
    first = next(items[0] for _, _, items in _chunks(tokens, cfg.splits, SPLITS, texts, most=1))
    # Half of a context for the prompt at most: what decodes after it must fit too.
    sample = np.asarray(first["ids"], np.int32)
    runtime.decode(sample[: runtime.context // 2], 2)  # warm-up: first calls build plans and touch memory

    cost = cost | speed(runtime, sample, cfg.cost)
    if answers:
        done.part("latency", partial(latency, runtime, tokens, cfg, stops))
        cost |= latency_summary(done.read("latency"))
    # Before anything is batched: the memory of a batch says how much there was, not how much a format needs.
    cost |= {"peak_memory_mb": peak_memory_mb(), **runtime.gpu_memory()}
    cost |= batch_sweep(runtime, sample, cfg.cost, cost["spread"])

    chunks: list[list[str]] = []  # names of parts whose rows belong together
    scored: set[tuple[str, str]] = set()  # a document of many windows is one
    seconds = 0.0
    for split, number, items in _chunks(tokens, cfg.splits, SPLITS, texts):
        name = f"{split}-{number:05}"
        known = reference / f"{name}.safetensors" if reference else None
        keep = done.folder / "reference" / f"{name}.safetensors" if keep_reference else None
        seconds += done.part(name, partial(score_items, runtime, split, items, cfg, known, keep))["wall"]
        scored.update((split, item["document"] or item["id"]) for item in items)
        chunks.append([name])
        if answers:
            done.part(f"{name}-answers", partial(answer_items, runtime, items, cfg.max_new_tokens, stops, tokenizer))
            chunks[-1].append(f"{name}-answers")
    cost["eval_samples_per_second"] = len(scored) / seconds
    for split, number, items in _chunks(tokens, cfg.splits, (GENERAL,), texts) if keep_reference else ():
        name = f"{split}-{number:05}"
        done.part(name, partial(score_items, runtime, split, items, cfg, None, None))
        chunks.append([name])

    mmlu_seconds: Counter[str] = Counter()
    questions = pq.read_table(tokens / "mmlu.parquet")
    for subject in tqdm(questions["subject"].unique().to_pylist(), desc="mmlu", leave=False):
        asked = questions.filter(pc.equal(questions["subject"], subject)).to_pylist()
        mmlu_seconds.update(done.part(f"mmlu-{subject}", partial(multiple_choice, runtime, asked), runtime.gpu_clock))
        chunks.append([f"mmlu-{subject}"])
    if mmlu_seconds:
        cost["mmlu_seconds"] = dict(mmlu_seconds)
    done.part("prompts", partial(prompts, runtime, tokens, cfg.max_new_tokens, stops, tokenizer))
    chunks.append(["prompts"])

    if keep_reference:
        with files.new_folder(keep_reference) as folder:
            shutil.copytree(done.folder / "reference", folder, dirs_exist_ok=True)
    _write_items(variant, done, chunks)
    cost |= {"size_mb": runtime.size_mb, "device": runtime.device, "runtime": runtime.name}
    files.write_json(variant.cost, cost | {"hardware": files.run_info()["hardware"]})
    done.remove()


def _write_items(variant: Variant, done: Unfinished, chunks: list[list[str]]) -> None:
    """Puts the parts together, a chunk at a time."""
    timed = {row["item"]: row for row in done.read("latency")} if done.has("latency") else {}
    with (
        files.new_file(variant.items) as path,
        pq.ParquetWriter(path, ITEMS, compression="zstd") as to,
    ):
        for names in chunks:
            to.write_table(pa.Table.from_pylist(_joined([done.read(name) for name in names], timed), ITEMS))


def _chunks(
    tokens: Path, counts: Splits, splits: Sequence[str], texts: Collection[str] = (), most: int | None = None
) -> Iterator[tuple[str, int, list[dict]]]:
    """Split, number and rows of each chunk of the items that are evaluated, in their order.

    Of the splits in `texts`, whose rows are windows `<document>-<number>`, the limits count documents, so that models
    with different tokenizers are asked the same ones; their rows get the `document`, those of others None.
    """
    for split in splits:
        limit = getattr(counts, split)
        taken: set[str] = set()
        with pq.ParquetFile(tokens / f"{split}.parquet") as file:
            for number, batch in enumerate(file.iter_batches(most or CHUNK)):
                rows: list[dict] = []
                for row in batch.to_pylist():
                    document = row["id"].rpartition("-")[0] if split in texts else None
                    taken.add(document or row["id"])
                    if len(taken) > limit:
                        break
                    rows.append({**row, "document": document})
                if rows:
                    yield split, number, rows
                if len(taken) > limit:
                    break


def _joined(parts: list[list[dict]], timed: dict[str, dict]) -> list[dict]:
    """Rows of parts about the same items as one row per item, with the latency of those that were timed."""
    rows = []
    for same in zip(*parts, strict=True):
        row = {key: value for part in same for key, value in part.items() if value is not None}
        if row["split"] == "test" and row["item"] in timed:
            row |= {key: timed[row["item"]][key] for key in ("ttft_seconds", "latency_seconds")}
        rows.append(row)
    return rows


def score_items(
    runtime: Runtime, split: str, items: list[dict], cfg: Reads, known: Path | None, keep: Path | None
) -> list[dict]:
    """Likelihood of each item's scored tokens, and the divergence from the reference in file `known` if there is one.

    With `keep` these are the reference, and go into that file.
    """
    targets = [Target(np.asarray(i["ids"], np.int32), np.asarray(i["scored"], bool)) for i in items]
    references = kld.load(known, targets) if known else []
    if references:
        targets = [replace(t, at=r.ids, samples=r.sample_ids) for t, r in zip(targets, references, strict=True)]
    asked = (cfg.kld_top_k, cfg.kld_tail_samples) if keep else (0, 0)
    scores = runtime.score(targets, *asked)
    if keep:
        kld.save(keep, targets, scores)
    rows = []
    for index, (item, target, score) in enumerate(zip(items, targets, scores, strict=True)):
        require_finite(score.logprob, f"{split} item {item['id']}")
        row = {
            "split": split,
            "item": item["id"],
            "document": item["document"],
            "tokens": len(score.logprob),
            "log_likelihood": float(score.logprob.astype(np.float64).sum()),
            "correct_tokens": int((score.argmax == target.true).sum()),
            "bytes": item["bytes"],
        }
        if references:
            row |= compare(references[index], score, f"{split} item {item['id']}")
        rows.append(row)
    return rows


def require_finite(logprobs: np.ndarray, where: str) -> None:
    """Raises UserError if a log-probability is NaN or infinite: no mean over the others would be this model's."""
    if not np.isfinite(logprobs).all():
        raise UserError(
            f"{where}: a log-probability is not a finite number; the weights or the arithmetic of this format overflow "
            "(a reference_dtype of float16 does with many models; bfloat16 and float32 do not)"
        )


def compare(reference: kld.Reference, score: Scores, where: str) -> dict:
    found = kld.kl_divergence(reference, score)
    require_finite(found.total, where)
    return {
        "kld": float(found.total.sum()),
        "kld_tail": float(found.tail.sum()),
        "kld_variance": float(found.variance.sum()),
        "same_top": int((score.argmax == reference.ids[:, 0]).sum()),
    }


def answer_items(
    runtime: Runtime, items: list[dict], limit: int, stop_ids: list[int], tokenizer: Tokenizer
) -> list[dict]:
    """Each item's greedy answer, batched."""
    found = runtime.generate([_prompt(item) for item in items], limit, stop_ids)
    return [
        {
            "prompt": item["prompt"],
            "answer": item["answer"],
            "generated": text(tokenizer, ids),
            "generated_tokens": len(ids),
        }
        for item, ids in zip(items, found, strict=True)
    ]


def text(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


def _prompt(item: dict) -> np.ndarray:
    return np.asarray(item["ids"][: item["prompt_tokens"]], np.int32)


def multiple_choice(runtime: Runtime, asked: list[dict]) -> list[dict]:
    """The most likely option letter after `Answer:` of each question; the questions are of one subject."""
    rows = []
    for question, logprobs in zip(asked, by_question(runtime, asked), strict=True):
        require_finite(logprobs, f"{question['subject']} question {question['id']}")
        rows.append(
            {
                "split": "mmlu",
                "item": question["id"],
                "subject": question["subject"],
                "chosen": int(logprobs.argmax()),
                "correct_option": question["answer"],
                "option_logprobs": logprobs.tolist(),
            }
        )
    return rows


def prompts(runtime: Runtime, tokens: Path, limit: int, stop_ids: list[int], tokenizer: Tokenizer) -> list[dict]:
    """The user's own prompts, answered one at a time; an answer ends with the context at the latest."""
    rows = []
    for item in files.read_table(tokens / "prompts.parquet"):
        room = min(limit, runtime.context - len(item["ids"]))
        ids, first, whole = runtime.stream(np.asarray(item["ids"], np.int32), room, stop_ids)
        rows.append(
            {
                "split": "prompt",
                "item": item["id"],
                "prompt": item["prompt"],
                "generated": text(tokenizer, ids),
                "generated_tokens": len(ids),
                "ttft_seconds": first,
                "latency_seconds": whole,
            }
        )
    return rows


def latency(runtime: Runtime, tokens: Path, cfg: Reads, stop_ids: list[int]) -> list[dict]:
    """Batch 1: seconds to the first token and to the end of the answer, over the first prompts of `test`."""
    rows = []
    counts = replace(cfg.splits, test=min(cfg.cost.latency_prompts, cfg.splits.test))
    for _, _, items in _chunks(tokens, counts, SPLITS[:1]):
        for item in items:
            _, first, whole = runtime.stream(_prompt(item), cfg.max_new_tokens, stop_ids)
            rows.append({"item": item["id"], "ttft_seconds": first, "latency_seconds": whole})
    return rows


def latency_summary(rows: list[dict]) -> dict[str, float]:
    whole = [row["latency_seconds"] for row in rows]
    return {
        "ttft_seconds": float(np.median([row["ttft_seconds"] for row in rows])),
        "latency_p50_seconds": float(np.percentile(whole, 50)),
        "latency_p95_seconds": float(np.percentile(whole, 95)),
    }


def speed(runtime: Runtime, sample: np.ndarray, cfg: Cost) -> dict:
    """Prefill and decode apart, batch 1: medians over the repetitions, and the repetitions themselves as spread."""
    ids = np.resize(sample, min(cfg.prefill_tokens, runtime.context - cfg.decode_tokens))
    runtime.prefill(ids)  # warm-up at this length
    prefill = [len(ids) / runtime.prefill(ids) for _ in range(cfg.repetitions)]
    decode = [cfg.decode_tokens / runtime.decode(ids, cfg.decode_tokens) for _ in range(cfg.repetitions)]
    return {
        "prefill_tokens_per_second": float(np.median(prefill)),
        "decode_tokens_per_second": float(np.median(decode)),
        "spread": {"prefill_tokens_per_second": prefill, "decode_tokens_per_second": decode},
    }


def batch_sweep(runtime: Runtime, sample: np.ndarray, cfg: Cost, spread: dict) -> dict:
    """`batch_sweep`: decode speed of all sequences of a batch together, by its size; medians, every value in `spread`.

    The sequences begin with as many tokens as are decoded. A size that does not fit the memory is left out.
    """
    ids = np.resize(sample, min(cfg.decode_tokens, runtime.context - cfg.decode_tokens))
    found: dict[str, float] = {}
    spread["batch_sweep"] = {}
    for size in cfg.batch_sizes:
        try:
            runtime.decode(ids, 1, size)  # warm-up at this size
            seconds = [runtime.decode(ids, cfg.decode_tokens, size) for _ in range(cfg.repetitions)]
        except UserError as error:
            print(f"note: no decode speed of {size} sequences: {error}")
            break
        speeds = [size * cfg.decode_tokens / passed for passed in seconds]
        spread["batch_sweep"][str(size)] = speeds
        found[str(size)] = float(np.median(speeds))
    return {"batch_sweep": found}
