"""One evaluation for both runtimes: likelihoods, divergence from the reference, answers, multiple choice, cost.

What is measured here is the same code and the same token ids for transformers and llama.cpp; only the Runtime differs.
"""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer
from tqdm import tqdm

from tradeoffs import files, kld
from tradeoffs.errors import UserError
from tradeoffs.memory import peak_memory_mb
from tradeoffs.params import Cost
from tradeoffs.runtime import Runtime, Scores, Target

SPLITS = ("test", "seen")

# What `evaluate` takes from params.yaml, for the READS of every stage that calls it.
READS = (
    "evaluate.splits",
    "evaluate.max_new_tokens",
    "evaluate.batch_tokens",
    "evaluate.kld_top_k",
    "evaluate.cost",
)

# One row per item. Sums, not means, so that any subset can be averaged over its tokens.
ITEMS = pa.schema(
    [
        ("split", pa.string()),  # test | seen | mmlu
        ("item", pa.string()),
        ("subject", pa.string()),
        ("tokens", pa.int32()),  # scored tokens
        ("log_likelihood", pa.float64()),  # nats, sum over the scored tokens
        ("correct_tokens", pa.int32()),  # scored tokens that are the argmax
        ("bytes", pa.int32()),  # UTF-8 bytes of the scored text
        ("kld", pa.float64()),  # nats, sum over the scored tokens
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
    tokens: Path,
    cfg: SimpleNamespace,
    reference: Path | None = None,
    keep_reference: Path | None = None,
) -> tuple[list[dict], dict]:
    """Everything that one variant is asked: rows of ITEMS, and what it cost.

    `reference` is the folder of the as-trained model's top-k log-probabilities to compare with; with `keep_reference`
    this variant *is* the reference and writes them there.
    """
    info = files.read_json(tokens / "info.json")
    tokenizer = Tokenizer.from_file(str(tokens / "tokenizer.json"))
    splits = {split: files.read_table(tokens / f"{split}.parquet")[: getattr(cfg.splits, split)] for split in SPLITS}
    questions = files.read_table(tokens / "mmlu.parquet")
    # Half of a context for the prompt at most: what decodes after it must fit too.
    sample = np.asarray(splits["test"][0]["ids"], np.int32)
    runtime.decode(sample[: runtime.context // 2], 2)  # warm-up: first calls build plans and touch memory

    rows, seconds = [], 0.0
    for split, items in splits.items():
        begun = time.perf_counter()
        rows += score_split(runtime, split, items, cfg.kld_top_k, reference, keep_reference)
        seconds += time.perf_counter() - begun
    cost: dict[str, Any] = {"eval_samples_per_second": len(rows) / seconds}
    if info["kind"] == "instruction":
        answer(runtime, rows, splits, cfg.max_new_tokens, info["stop_ids"], tokenizer)
        cost |= latency(runtime, rows, splits["test"], cfg, info["stop_ids"])
    if questions:
        wall, cpu, gpu = time.perf_counter(), time.process_time(), runtime.gpu_clock()
        rows += multiple_choice(runtime, questions)
        cost["mmlu_seconds"] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if gpu is not None:
            cost["mmlu_seconds"]["gpu"] = gpu()
    cost |= speed(runtime, sample, cfg.cost)
    cost |= {
        "size_mb": runtime.size_mb,
        "peak_memory_mb": peak_memory_mb(),
        "device": runtime.device,
        "runtime": runtime.name,
        "hardware": files.run_info()["hardware"],
    }
    gpu_memory = runtime.peak_gpu_memory_mb()
    if gpu_memory is not None:
        cost["peak_gpu_memory_mb"] = gpu_memory
    return rows, cost


def score_split(
    runtime: Runtime, split: str, items: list[dict], top_k: int, reference: Path | None, keep_reference: Path | None
) -> list[dict]:
    """Likelihood of each item's scored tokens, with divergence from the reference where there is one."""
    targets = [Target(np.asarray(i["ids"], np.int32), np.asarray(i["scored"], bool)) for i in items]
    known = kld.load(reference / f"{split}.safetensors", targets) if reference else []
    targets = [replace(t, at=k.ids) for t, k in zip(targets, known, strict=True)] if known else targets
    scores = runtime.score(targets, top_k if keep_reference else 0)
    if keep_reference:
        kld.save(keep_reference / f"{split}.safetensors", targets, scores)
    rows = []
    for index, (item, target, score) in enumerate(zip(items, targets, scores, strict=True)):
        require_finite(score.logprob, f"{split} item {item['id']}")
        row = {
            "split": split,
            "item": item["id"],
            "tokens": len(score.logprob),
            "log_likelihood": float(score.logprob.astype(np.float64).sum()),
            "correct_tokens": int((score.argmax == target.ids[target.scored]).sum()),
            "bytes": item["bytes"],
        }
        if known:
            row |= compare(known[index], score)
        rows.append(row)
    return rows


def require_finite(logprobs: np.ndarray, where: str) -> None:
    """Raises UserError if a log-probability is NaN or infinite: no mean over the others would be this model's."""
    if not np.isfinite(logprobs).all():
        raise UserError(
            f"{where}: a log-probability is not a finite number; the weights or the arithmetic of this format overflow "
            "(a reference_dtype of float16 does with many models; bfloat16 and float32 do not)"
        )


def compare(reference: kld.TopK, score: Scores) -> dict:
    if score.at_logprob is None or score.tail is None:
        raise ValueError("these scores hold no log-probabilities at the reference's ids")
    divergence = kld.kl_divergence(reference, score.at_logprob, score.tail)
    return {"kld": float(divergence.sum()), "same_top": int((score.argmax == reference.ids[:, 0]).sum())}


def answer(
    runtime: Runtime, rows: list[dict], splits: dict, limit: int, stop_ids: list[int], tokenizer: Tokenizer
) -> None:
    """Adds each item's greedy answer to its row; the rows are those of the splits, in order."""
    items = [item for split in splits.values() for item in split]
    prompts = [np.asarray(item["ids"][: item["prompt_tokens"]], np.int32) for item in items]
    for row, item, ids in zip(rows, items, runtime.generate(prompts, limit, stop_ids), strict=True):
        row["prompt"], row["answer"] = item["prompt"], item["answer"]
        row["generated"] = tokenizer.decode(ids, skip_special_tokens=True).strip()
        row["generated_tokens"] = len(ids)


def multiple_choice(runtime: Runtime, questions: list[dict]) -> list[dict]:
    """The most likely option letter after `Answer:`, subject by subject, since a subject shares its examples."""
    rows = []
    subjects = list(dict.fromkeys(question["subject"] for question in questions))
    for subject in tqdm(subjects, desc="mmlu", leave=False):
        asked = [question for question in questions if question["subject"] == subject]
        logprobs = runtime.choose(
            [np.asarray(q["ids"], np.int32) for q in asked], [np.asarray(q["options"], np.int32) for q in asked]
        )
        for question, options in zip(asked, logprobs, strict=True):
            require_finite(options, f"{subject} question {question['id']}")
            rows.append(
                {
                    "split": "mmlu",
                    "item": question["id"],
                    "subject": subject,
                    "chosen": int(options.argmax()),
                    "correct_option": question["answer"],
                    "option_logprobs": options.tolist(),
                }
            )
    return rows


def latency(runtime: Runtime, rows: list[dict], items: list[dict], cfg: SimpleNamespace, stop_ids: list[int]) -> dict:
    """Batch 1: time to first token and to the end of the answer, over the first prompts of `test`."""
    items = items[: cfg.cost.latency_prompts]
    for row, item in zip(rows, items, strict=False):
        prompt = np.asarray(item["ids"][: item["prompt_tokens"]], np.int32)
        _, row["ttft_seconds"], row["latency_seconds"] = runtime.stream(prompt, cfg.max_new_tokens, stop_ids)
    whole = [row["latency_seconds"] for row in rows[: len(items)]]
    return {
        "ttft_seconds": float(np.median([row["ttft_seconds"] for row in rows[: len(items)]])),
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
