"""A finished run without any model: items, cost, training and prepared files of a run list, random but seeded."""

import json
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import fake_devices
import numpy as np
import pyarrow as pa
import pytest
import quick_yaml
import yaml
from sketches import sketched

from stages import aggregate, score
from stages.copying import COPIED
from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Variant, variants
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.formats.names import QUANTS
from tradeoffs.params import reading
from tradeoffs.report import page
from tradeoffs.results.results import Results

REPO = Path(__file__).parents[1]
SIZE = {"trained": 30.0, "bf16": 7.3, "int8": 4.9, "nf4": 3.9, "f16": 7.3, "q8_0": 4.0, "q4_k_m": 2.6, "q4_0": 2.3}
SPEED = {"trained": 60, "bf16": 70, "int8": 20, "nf4": 35, "f16": 480, "q8_0": 620, "q4_k_m": 700, "q4_0": 760}
SIZE |= {"float32": 14.6, "fp16": 7.3}
SPEED |= {"float32": 40, "fp16": 30}
DAMAGE = {"int8": 0.03, "nf4": 0.1, "q8_0": 0.01, "q4_k_m": 0.06, "q4_0": 0.12}
SKILL = {"base": 0.1, "full": 0.85, "lora": 0.8, "lora_8bit": 0.79, "qlora": 0.75, "adalora": 0.7, "vblora": 0.55}
SKILL |= {"prompt_tuning": 0.4, "lora_dpo": 0.82}
# Methods that exist as trained only; no other format of them was made.
UNMERGEABLE = {"prompt_tuning": "it trains vectors that are read beside the text"}
NO_GGUF: dict[str, str] = {}  # models that llama.cpp cannot run, and why
SEED = 0.03  # standard deviation of skill between seeds
LOST = {"base": 0.0, "full": 0.4, "prompt_tuning": 0.05}  # nats per token on general text; others 0.2
PAIRED = ("lora_dpo",)
# The second one holds what Markdown, HTML and a table would take for their own.
TEXT = "stories"
# What tokenizers make of a text: bytes per token, tokens in a window, and whether a first token is put before it.
TOKENIZERS = {"demo": (4.0, 16, True), "stories260k": (2.5, 16, False)}
DROPPED = {
    "empty": 1,
    "duplicates": 12,
    "duplicate_examples": ["What is a bond?"],
    "near_duplicates": 3,
    "near_duplicate_examples": [{"dropped": "What is *the* bond? " + 60 * "Yes. ", "like": "What is a | bond?"}],
    "near_duplicates_of_valid": 2,
    "near_duplicates_within": 7,
    "near_duplicates_within_examples": [{"dropped": "Name a fund.", "like": "Name one fund."}],
}
SUBJECTS = {"rates": 0.4, "interest": 0.3, "inflation": 0.2, "definitions": 0.1}  # and their part of the time
PROMPTS = ("What does liquidity mean?", "Is `a|b` <b>more</b>\nthan *c*?")
MERGED_ONTO = {"lora_8bit": "trained_base", "qlora": "original_base"}


def finished(
    folder: Path,
    items: int = 20,
    stages: Sequence[ModuleType] = (score, aggregate),
    painted: bool = False,
    **run: list[str],
) -> Results:
    """A run of these lists in `folder`, otherwise by the project's params.yaml, gone through `stages`; its results.

    Pictures are sketches unless they shall be `painted`.
    """
    with pytest.MonkeyPatch.context() as patch, nullcontext() if painted else sketched():
        params_file(folder, REPO / "params.yaml", **run)
        patch.chdir(folder)
        cfg = params.load_all()
        write(folder, cfg.run, items=items, questions=5)
        for stage in stages:
            stage.main()
        return read()


def read() -> Results:
    """The results of the run in the working directory."""
    cfg = params.load_all()
    return Results(cfg.run, cfg.seed, cfg.evaluate.bootstrap, cfg.decide)


def report(folder: Path) -> str:
    """All pages of the report in `folder`, one after the other, the front page first, which names the others."""
    front = (folder / f"report/{page.FRONT}.md").read_text(encoding="utf-8")
    named = [name for name in page.PAGES if f"]({name}.md)" in front]
    assert {"methods", "formats", "data", "reading"} <= set(named), "every run has these"
    assert {path.stem for path in folder.glob("report/*.md")} == {page.FRONT, "summary", *named}
    return "\n".join([front, *((folder / f"report/{name}.md").read_text(encoding="utf-8") for name in named)])


def params_file(folder: Path, source: Path, **run: list[str]) -> None:
    """params.yaml of `source` with a second model, two more data sets, other run lists and few resamples."""
    raw = yaml.load(source.read_text(encoding="utf-8"), Loader=reading.Loader)
    raw["run"] |= run
    raw["methods"]["lora_dpo"] = raw["methods"]["lora"]  # what its training left is made up in any case
    raw["evaluate"]["bootstrap"] = 200
    text = "data/raw/stories.txt"
    raw["models"]["stories260k"] = {"path": "models/raw/stories260k", "prompt": "plain", "general": {"path": text}}
    shares = {"test_share": 0.15, "near_duplicate": 0.9, "seen": 100, "valid": 100}
    raw["datasets"]["instructions"] = {
        "path": "data/raw/instructions.json",
        "kind": "instruction",
        "columns": {"instruction": "instruction", "input": "input", "answer": "output"},
        **shares,
    }
    raw["datasets"][TEXT] = {"path": text, "kind": "text", **shares, "near_duplicate": 0.8, "valid": 50}
    raw["decide"]["metric"] = "auto"  # as text and answers are both among the data sets
    files.write_text(folder / "params.yaml", quick_yaml.dump(raw))


def write(
    folder: Path,
    run,
    items: int = 60,
    questions: int = 20,
    kind: str = "instruction",
    prompts: tuple[str, ...] = PROMPTS,
) -> None:
    """Everything that `score` and `aggregate` read for this run list, under `folder`.

    `kind` is that of all data sets but the one called TEXT, which is text. Of a text `items` are the documents.
    """
    kinds = {dataset: "text" if dataset == TEXT else kind for dataset in run.datasets}
    for variant in variants(run):
        if variant.method in UNMERGEABLE and variant.format != TRAINED:
            files.write_table(folder / f"data/items/{variant}.parquet", [], ITEMS)
            files.write_json(folder / f"data/facts/{variant}.json", {"unmergeable": UNMERGEABLE[variant.method]})
            continue
        if variant.model in NO_GGUF and variant.format in QUANTS:
            files.write_table(folder / f"data/items/{variant}.parquet", [], ITEMS)
            files.write_json(folder / f"data/facts/{variant}.json", {"no_gguf": NO_GGUF[variant.model]})
            continue
        rows = item_rows(variant, items, questions, kinds[variant.dataset], prompts)
        files.write_table(folder / f"data/items/{variant}.parquet", rows, ITEMS.with_metadata(seconds(variant)))
        files.write_json(folder / f"data/facts/{variant}.json", facts(variant, kinds[variant.dataset]))
        if variant.format == TRAINED:
            write_trainings(folder, run.seeds, variant, items, questions, kinds[variant.dataset])
    texts = [dataset for dataset, named in kinds.items() if named == "text"]
    files.write_json(folder / "data/cost.json", fake_devices.on_each(cost(run, items, texts), run.devices))
    for dataset in run.datasets:
        first = item_rows(Variant(run.models[0], dataset, "base", TRAINED), items, 0, kinds[dataset], ())
        files.write_table(folder / f"data/copying/{dataset}.parquet", *copying(first))
        info = {
            "kind": kinds[dataset],
            "source": "generated" if dataset == "demo" else f"data/raw/{dataset}.json",
            "counts": {"read": 5800, "train": 5000, "seen": 200, "valid": 200, "test": 600},
            "dropped": DROPPED,
        }
        if dataset == "demo":
            info["mmlu"] = {"source": "generated"}
        files.write_json(folder / f"data/prepared/{dataset}/info.json", info)
        for model in run.models:
            files.write_json(folder / f"data/lengths/{model}-{dataset}.json", lengths(model, dataset))


def write_trainings(folder: Path, seeds: list[int], variant: Variant, items: int, questions: int, kind: str) -> None:
    """What all trainings of a cell took, and the items of the further ones."""
    for seed in seeds:
        files.write_json(folder / variant.cell.training(seed).facts, training(variant.method))
    for further in variant.cell.further(seeds):
        rows = [] if variant.method == "base" else item_rows(further, items, questions, kind, ())
        files.write_table(folder / further.items, rows, ITEMS)


def item_rows(variant: Variant, items: int, questions: int, kind: str, prompts: tuple[str, ...]) -> list[dict]:
    luck = np.random.default_rng([ord(letter) for letter in variant.dataset])  # the same items for every variant
    noise = np.random.default_rng([ord(letter) for letter in str(variant)])
    of_seed = 0.0 if variant.seed is None else SEED * float(np.random.default_rng(variant.seed).normal())
    skill = SKILL[variant.method] + of_seed - DAMAGE.get(variant.format, 0.0) * SKILL[variant.method]
    rows = []
    for split, bonus in (("test", 0.0), ("seen", 0.05)):
        for index in range(items):
            tokens, hard = int(luck.integers(4, 20)), luck.random()
            numbers = [f"{luck.integers(1, 999)}" for _ in range(3)]
            if kind == "text":
                rows += windows(variant, f"{split}{index:04}", split, 12 * tokens, hard, skill, noise)
                continue
            answer = f"The interest is {numbers[0]} dollars after {numbers[1]} years, not {numbers[2]}."
            right = hard + noise.normal(0, 0.03) < skill + bonus
            row = {
                "split": split,
                "item": f"{split}{index:04}",
                "tokens": tokens,
                "log_likelihood": -tokens
                * float(max(0.05, 1.6 + hard / 2 - 1.3 * skill - bonus + noise.normal(0, 0.02))),
                "correct_tokens": round(tokens * min(1.0, 0.4 + skill / 2)),
                "bytes": tokens * 4,
            }
            if variant.format != TRAINED:
                loss = DAMAGE.get(variant.format, 0.002)
                row |= {"kld": tokens * loss * (0.3 + hard / 3), "same_top": tokens - int(hard < 4 * loss)}
                row |= {"kld_tail": 0.1 * row["kld"], "kld_variance": (0.02 * row["kld"]) ** 2}
            wrong = ["", "It grows.", f"The rate is {numbers[2]} percent."][int(hard * 97) % 3]
            row |= {"prompt": f"Question {index}?", "answer": answer, "generated": answer if right else wrong}
            rows.append(row | {"generated_tokens": 12, "answer_tokens": 12, "seconds": 6 / SPEED[variant.format]})
    text, moved = (
        np.random.default_rng([ord(letter) for letter in of]) for of in (variant.model, f"general {variant}")
    )
    for index in range(12 if variant.format == TRAINED and variant.model == "demo" else 0):
        tokens, hard = int(text.integers(20, 60)), text.random()
        nats = tokens * (0.5 + hard + LOST.get(variant.method, 0.2) + moved.normal(0, 0.02))
        row = {"split": "general", "item": f"general{index:02}-0", "document": f"general{index:02}"}
        row |= {"tokens": tokens, "log_likelihood": -nats, "correct_tokens": tokens // 2, "bytes": tokens * 4}
        rows.append(row)
    # As with real ones: not every data set comes with multiple-choice questions.
    for subject in () if variant.dataset in ("instructions", TEXT) else SUBJECTS:
        for index in range(questions):
            correct, hard = int(luck.integers(0, 4)), luck.random()
            chosen = correct if hard + noise.normal(0, 0.05) < 0.25 + skill / 2 else (correct + 1) % 4
            row = {"split": "mmlu", "item": f"{subject}{index:03}", "subject": subject, "chosen": chosen}
            took = 400 / SPEED[variant.format] * SUBJECTS[subject] / questions
            row |= {"correct_option": correct, "option_logprobs": [-1.0, -2.0, -3.0, -4.0], "seconds": took}
            rows.append(row)
    for index, prompt in enumerate(prompts):
        says = f"{variant.method} | {variant.format}\n<i>says</i> so" if index else "It is *cash* at hand."
        row = {"split": "prompt", "item": f"prompt{index}", "prompt": prompt, "generated": says}
        rows.append(row | {"generated_tokens": 9, "latency_seconds": 0.25, "ttft_seconds": 0.05})
    return rows


def copying(rows: list[dict]) -> tuple[list[dict], pa.Schema]:
    """What copying answers to the test items of a variant: every fourth question right."""
    found = [
        {key: row[key] for key in ("split", "item", "prompt", "answer")}
        | {"generated": row["answer"] if number % 4 == 0 else "The interest is 3 dollars.", "similarity": 0.9}
        | {"example": f"train{number:04}", "question": f"Another | question {number}?"}
        for number, row in enumerate(row for row in rows if row["split"] == "test" and "answer" in row)
    ]
    return found, COPIED.with_metadata({"searched": "4000", "training": "5000"})


def windows(
    variant: Variant, document: str, split: str, size: int, hard: float, skill: float, noise: np.random.Generator
) -> list[dict]:
    """A document of `size` bytes as this model's tokenizer cuts it; the first token of a window is not scored."""
    width, window, first = TOKENIZERS[variant.model]
    tokens, rows = round(size / width) + first, []
    own = 0.0 if variant.model == "demo" else -0.6  # nats per byte: the other model has learned from such texts
    for number, start in enumerate(range(0, tokens, window)):
        scored = min(window, tokens - start) - 1
        if not scored:
            continue
        loss = max(0.05, (1.5 + own) * (1.2 - skill) + hard / 5 + noise.normal(0, 0.02))
        row = {"split": split, "item": f"{document}-{number}", "document": document, "tokens": scored}
        row |= {"log_likelihood": -loss * scored * width, "correct_tokens": scored // 2, "bytes": round(scored * width)}
        if variant.format != TRAINED:
            row |= {"kld": 0.01 * scored, "kld_tail": 0.001, "kld_variance": 1e-8, "same_top": scored}
        rows.append(row)
    return rows


def lengths(model: str, dataset: str) -> dict:
    """Numbers of tokens per example, as tokenize counts them."""
    luck = np.random.default_rng([ord(letter) for letter in dataset])
    found, edges = {}, [0, 8, 16, 32, 64, 128, 256]
    for split, count in {"train": 5000, "seen": 200, "valid": 200, "test": 600}.items():
        counted = np.minimum(luck.lognormal(3.6, 0.5, count) * 4 / TOKENIZERS[model][0], 250).astype(int)
        found[split] = {"edges": edges, "counts": np.histogram(counted, edges)[0].tolist()}
        found[split] |= {"longest": int(counted.max()), "median": float(np.median(counted))}
    return found


def shapes(variant: Variant) -> str:
    """Merged models of one base are of one shape in each format; as trained, adapters differ and `full` is the base."""
    kind = variant.method if variant.format == TRAINED and variant.method != "full" else "base"
    return f"{variant.model} {kind} {variant.format}"


def seconds(variant: Variant) -> dict[str, str]:
    """What multiple choice took, where it is asked."""
    speed, asked = SPEED[variant.format], variant.dataset not in ("instructions", TEXT)
    whole = {"wall": 400 / speed, "cpu": 800 / speed} if asked else {}
    parts = {subject: {clock: took * part for clock, took in whole.items()} for subject, part in SUBJECTS.items()}
    return {"mmlu_seconds": json.dumps(whole), "subject_seconds": json.dumps(parts if asked else {})}


def facts(variant: Variant, kind: str) -> dict:
    return {
        "size_mb": SIZE[variant.format],
        "shapes": shapes(variant),
        **({} if kind == "text" else {"max_new_tokens": 48}),
        **({"merged_onto": MERGED_ONTO[variant.method]} if variant.method in MERGED_ONTO else {}),
        "device": "cpu",
        "runtime": "llama.cpp" if SPEED[variant.format] > 100 else "transformers",
    }


def cost(run: params.Run, items: int, texts: Collection[str]) -> dict:
    """data/cost.json of a run list, in which data sets in `texts` have no prompts."""
    things: dict[tuple[str, str], list[Variant]] = {}
    for variant in variants(run):
        if variant.method not in UNMERGEABLE or variant.format == TRAINED:
            things.setdefault((str(variant.pair), shapes(variant)), []).append(variant)
    return {
        "hardware": {"processor": "Abacus", "machine": "wood", "cores": 2},
        "busy": 0.05,
        "things": [
            {
                "shapes": form,
                "members": [str(member) for member in members],
                "prompts": [f"test{n:04}" for n in range(min(items, 5))] if members[0].dataset not in texts else [],
                "rounds": [cost_round(members[0], number, members[0].dataset in texts) for number in range(5)],
            }
            for (pair, form), members in things.items()
        ],
    }


def cost_round(variant: Variant, number: int, is_text: bool) -> dict:
    noise = np.random.default_rng([ord(letter) for letter in f"cost {variant} {number}"])
    speed = SPEED[variant.format] * float(noise.normal(1, 0.03))
    # The largest format leaves no room for sixteen at a time.
    gains = {"4": 3.1} if variant.format == TRAINED else {"4": 3.1, "16": 6.5}
    memory = 10 * SIZE[variant.format] * float(noise.normal(1, 0.01))
    prompts = {"prompts_ttft_seconds": [3 / speed + 0.001 * n for n in range(5)]}
    return ({} if is_text else prompts) | {
        "member": str(variant),
        "load_seconds": 0.4,
        "prefill_tokens_per_second": 9 * speed,
        "decode_tokens_per_second": speed,
        "eval_samples_per_second": speed / 3,
        "model_memory_mb": memory,
        "peak_memory_mb": 600 + memory - (400 if SPEED[variant.format] > 100 else 0),
        "batch_sweep": {size: gain * speed for size, gain in gains.items()},
        "device": "cpu",
        "waited": 0.5 if number == 2 else 0.001,
    }


def training(method: str) -> dict:
    if method == "base":
        return {"total_params": 3_600_000}
    noise = np.random.default_rng(len(method))
    trainable = {"full": 3_600_000, "vblora": 24_000}.get(method, 260_000)
    curve = [
        {
            "step": step,
            "loss": 2.2 * 0.99**step * (2 - SKILL[method]) + 0.2,
            "token_accuracy": 0.5 + step / 1000,
            "lr": 0.002,
            "tokens_per_second": 3000.0 if step == 10 else 9500.0 + step,
            "utilisation": 0.2,
        }
        for step in range(10, 241, 10)
    ]
    margins = [float(margin) for margin in noise.normal(0.8, 1.0, 40)]
    points = [(step, step / 40) for step in range(10, 41, 10)]
    pairs = {
        "reward_margins": margins,
        "preference_curve": [
            {"step": step, "loss": 0.7 - 0.3 * x, "reward_accuracy": 0.5 + 0.4 * x, "reward_margin": x, "lr": 1e-4}
            for step, x in points
        ],
    }
    return {
        "trainable_params": trainable,
        "total_params": 3_600_000,
        "adapter_mb": trainable * 4e-6,
        "train_seconds": 25.0 * (1 + SKILL[method]),
        "train_tokens_per_second": 9000.0,
        "peak_memory_mb": 900.0 + trainable / 1e4,
        "train_loss": curve[-1]["loss"],
        "valid_loss": curve[-1]["loss"] + 0.1,
        **({"adalora_rank_budget": 84, "adalora_rank_final": 84} if method == "adalora" else {}),
        "curve": curve,
        **(pairs if method in PAIRED else {}),
    }
