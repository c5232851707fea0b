"""Each preset of experiments/ on small stand-ins, and the tables of docs/write-ups.md, which are made of such runs.

    python tests/write_ups.py        runs all of them, in some minutes, and fills the page

What a preset asks for is taken: its methods, formats, evaluation and decision, and the names of its models and data
sets. Behind those names stand models drawn at random and texts made here, and the budget is a moment's. So the tables
have the columns and rows that the preset gives anywhere, and numbers that say nothing of any model.
"""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir
from importlib import import_module
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import quick_yaml  # noqa: E402

from tradeoffs import preset as presets  # noqa: E402
from tradeoffs.common import files  # noqa: E402

PAGE = ROOT / "docs/write-ups.md"
FOLDER = ROOT / "experiments"
LEFT_OUT = ("publish",)  # writes the README
# Over the preset: enough of everything to have every number.
BUDGET: dict[str, Any] = {
    "launch": {"report_to": []},
    "tokenize": {"window": 64},
    "train": {"batch_size": 4, "warmup_steps": 2, "log_every": 4, "save_every": 20},
    "evaluate": {
        "splits": {"test": 8, "seen": 4, "general": 4},
        "max_new_tokens": 6,
        "bootstrap": 50,
        "mmlu": {"shots": 1, "questions": 4},
        "cost": {
            "rounds": 2,
            "latency_prompts": 2,
            "prefill_tokens": 16,
            "decode_tokens": 4,
            "batch_sizes": [2],
            "scored_sequences": 4,
            "repetitions": 2,
        },
    },
}
GRID = ("tinystories", "news")  # of the nine data sets of the grid
WORDS = """
bank loan rate bond fund tax year price share profit cat river cloud song stone garden lamp winter paper bridge
doctor fever heart blood bone star field light energy wave python list loop class value return print while range
"""


class Column(NamedTuple):
    """What a write-up calls a number, what metrics/summary.csv calls it, and what it is written with.

    `on_gpu`: what stands there in its place where a row has it.
    """

    theirs: str
    ours: str
    unit: str = ""
    on_gpu: str = ""


class Table(NamedTuple):
    """One of a write-up, of a file of rows: a variant each, of these formats alone where some are named."""

    columns: Sequence[Column]
    formats: Sequence[str] = ()
    source: str = "metrics/summary.csv"


class Cut(NamedTuple):
    """A table as it stands on a page of the report, by how its first line begins."""

    page: str
    begins: str


TABLES: dict[str, Sequence[Table | Cut]] = {
    "lora_variants": (
        Table(
            (
                Column("Trainable Params", "trainable_params"),
                Column("Model Size", "size_mb", "MB"),
                Column("Eval Loss", "test_loss"),
                Column("Perplexity", "test_perplexity"),
                Column("Mean Token Accuracy", "test_token_accuracy"),
                Column("Eval Samples/sec", "eval_samples_per_second"),
                Column("Inference Speed (tokens/sec)", "decode_tokens_per_second"),
                Column("GPU Memory", "peak_gpu_memory_mb", "MB"),
                Column("BLEU, not computed there", "test_bleu"),
                Column("ROUGE, not computed there", "test_rouge_l"),
            ),
        ),
    ),
    "gguf_against_bf16": (
        Table(
            (
                Column("Precision", "format"),
                Column("Tok/s", "decode_tokens_per_second"),
                Column("Latency (s)", "latency_p50_seconds"),
                Column("VRAM (MB)", "peak_gpu_memory_mb"),
                Column("not there", "model_memory_mb", "MB"),
                Column("Cosine Similarity", "cosine_to_base"),
                Column("not there", "test_cosine"),
                Column("not there", "test_f1"),
                Column("not there", "kld"),
            ),
        ),
        Table(
            (
                Column("Prompt", "prompt"),
                Column("Tok/s", "tokens_per_second"),
                Column("Latency (s)", "latency_seconds"),
                Column("VRAM (MB), above the weights", "answer_gpu_mb"),
                Column("Cosine Similarity", "cosine_to_base"),
            ),
            formats=("fp16", "int8", "q4_0"),
            source="report/prompts.csv",
        ),
    ),
    "grid": (
        Table(
            (
                Column("Val PPL", "test_perplexity"),
                Column("not there", "test_bits_per_byte"),
                Column("training tokens/sec", "train_tokens_per_second"),
                Column("training time (s)", "train_seconds"),
                Column("trainable parameters", "trainable_params"),
            ),
        ),
        Cut("report/report.md", "| data set | by | best model"),
    ),
    "mmlu": (
        Table(
            (
                Column("accuracy", "mmlu_accuracy"),
                *(Column(name.replace("_", " "), f"mmlu_{name}") for name in ("astronomy", "business_ethics")),
                Column("Time Taken", "mmlu_wall_seconds", "s"),
                Column("CPU time", "mmlu_cpu_seconds", "s"),
                Column("GPU time", "mmlu_gpu_seconds", "s"),
            ),
        ),
        Cut("report/grid.md", "| subject |"),
    ),
    "finance_methods": (
        Table(
            (
                Column("Peak Memory", "train_peak_memory_mb", "MB", on_gpu="train_peak_gpu_memory_reserved_mb"),
                Column("Training Time", "train_seconds", "s"),
                Column("Adapter Size", "adapter_mb", "MB"),
                Column("F1 Test", "test_f1"),
                Column("F1 Eval", "seen_f1"),
                Column("Cosine Sim Test", "test_cosine"),
                Column("Cosine Sim Eval", "seen_cosine"),
                Column("BERT Score Test", "test_bertscore"),
                Column("BERT Score Eval", "seen_bertscore"),
                Column("Avg Inference Time", "latency_mean_seconds", "s"),
                Column("not there", "latency_p50_seconds", "s"),
                Column("not there", "latency_p95_seconds", "s"),
                Column("Memory Used", "model_memory_mb", "MB"),
            ),
            formats=("trained",),
        ),
    ),
}


def run(name: str, folder: Path) -> None:
    """Fills the empty `folder` with a project, and runs in it what the preset says, every step in this process."""
    with chdir(folder):
        shutil.copy(ROOT / "params.yaml", ".")
        for words in (("init", "-q"), ("add", "params.yaml"), (*WHO, "commit", "-q", "-m", "the project's")):
            subprocess.run(["git", *words], check=True)
        presets.main(FOLDER / f"{name}.yaml", write=True)
        raw = quick_yaml.load(Path("params.yaml").read_text(encoding="utf-8"))
        if name == "grid":
            raw["run"]["datasets"] = list(GRID)
        raw["run"]["devices"] = ["auto"]  # no preset waits for a GPU here
        _stand_in(raw)
        files.write_text("params.yaml", quick_yaml.dump(presets.merged(raw, BUDGET)))
        for stage, values in steps(raw):
            import_module(f"stages.{stage}").main(**values)


WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org")


def steps(raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every step of dvc.yaml in its order: a stage, and the values of its matrix."""
    stages = quick_yaml.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage, block in stages.items():
        if stage not in LEFT_OUT:
            lists = {key: _at(raw, place) for key, place in block.get("matrix", {}).items()}
            for values in product(*lists.values()):
                yield stage, dict(zip(lists, values, strict=True))


def _at(raw: Any, place: str) -> Any:
    for part in place.removeprefix("${").removesuffix("}").split("."):
        raw = raw[part]
    return raw


# --- stand-ins


def _stand_in(raw: dict[str, Any]) -> None:
    """Puts local models and files behind the names of the run list, and makes them."""
    for name in raw["run"]["models"]:
        entry = raw["models"][name]
        for key in ("hub", "revision", "gated", "tokenize"):
            entry.pop(key, None)
        entry |= {"path": f"models/raw/{name}", "train": {"steps": 20, "lr": 0.005}}
        make_model(name, Path(entry["path"]))
    for number, name in enumerate(raw["run"]["datasets"]):
        entry = raw["datasets"][name]
        for key in ("hub", "revision", "config", "splits", "rows"):
            entry.pop(key, None)
        if "columns" in entry:
            entry |= {"path": f"data/raw/{name}.jsonl", "test_share": 0.3, "seen": 5, "valid": 5}
            files.write_jsonl(entry["path"], _rows(60, seed=number))
        if "mmlu" in entry:
            subjects = entry["mmlu"].get("subjects", ["anatomy", "astronomy"])  # all 57 take long
            entry["mmlu"] = {"path": f"data/raw/mmlu-{name}", "subjects": subjects}
            _make_exam(Path(entry["mmlu"]["path"]), subjects)


def make_model(name: str, folder: Path) -> None:
    """A checkpoint of random weights: two layers of 256, in the named model's own architecture where that matters.

    All have the same kind of tokenizer, of different sizes, so that they cut a text each in its own way.
    """
    import torch
    from tiny_gguf import VOCABULARY, make_checkpoint
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    words = WORDS.split()[: 10 * (len(name) % 4)]
    spread = 0.04 + 0.005 * (sum(map(ord, name)) % 8)  # or two of the same size would be one
    make_checkpoint(folder, words, num_key_value_heads=4, initializer_range=spread)
    vocabulary = VOCABULARY + len(words)
    torch.manual_seed(0)
    special = {"bos_token_id": 1, "eos_token_id": 2}
    if "gpt2" in name:
        shape = {"n_layer": 2, "n_embd": 256, "n_head": 4, "n_positions": 512}
        GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **shape, **special)).save_pretrained(folder)
    elif "pythia" in name:
        shape = {"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
        config = GPTNeoXConfig(vocab_size=vocabulary, max_position_embeddings=512, **shape, **special)
        GPTNeoXForCausalLM(config).save_pretrained(folder)


def _rows(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Under the names of columns that data sets of the catalogue have."""
    random, words = Random(seed), WORDS.split()
    for _ in range(count):
        one, two = (" ".join(random.choices(words, k=12)) for _ in range(2))
        text = f"{one}. {two}."
        yield {
            **{"instruction": f"What is {one[:30]}?", "input": "", "output": f"It is {two[:20]}."},
            **{"text": text, "content": text},
            **{"title": one[:20], "abstract": text, "page_title": one[:20], "page_text": text},
            **{"prompt": one, "story": text},
        }


def _make_exam(folder: Path, subjects: Sequence[str]) -> None:
    for subject in subjects:
        for split, count in (("dev", 1), ("test", 4)):
            lines = (f"Which is {n} of {subject}?,{n},{n + 1},{n + 2},{n + 3},A\n" for n in range(count))
            files.write_text(folder / split / f"{subject}_{split}.csv", "".join(lines))


# --- the page


def tables(name: str, folder: Path) -> str:
    """The Markdown of all tables of a write-up, from what its preset left in `folder`."""
    return "\n\n".join(
        _cut(table, folder) if isinstance(table, Cut) else _table(table, folder) for table in TABLES[name]
    )


def _cut(table: Cut, folder: Path) -> str:
    text = (folder / table.page).read_text(encoding="utf-8")
    return table.begins + text.split(f"\n{table.begins}", 1)[1].split("\n\n")[0]


def _table(table: Table, folder: Path) -> str:
    with (folder / table.source).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [row for row in rows if not table.formats or row["format"] in table.formats]
    head = ["variant", *(f"{column.theirs}<br>{_ours(column)}" for column in table.columns)]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * len(table.columns)}"]
    for row in shown:
        cells = [_cell(row, column) for column in table.columns]
        lines.append(f"| `{row['variant']}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ours(column: Column) -> str:
    return f"`{column.ours}`" + (f", on a GPU `{column.on_gpu}`" if column.on_gpu else "")


def _cell(row: dict[str, str], column: Column) -> str:
    name = column.on_gpu if row.get(column.on_gpu) else column.ours
    value, low, high = (row.get(f"{name}{end}", "") for end in ("", "_low", "_high"))
    try:
        text = _short(value) + (f" [{_short(low)}, {_short(high)}]" if low and high else "")
    except ValueError:  # no number
        return value
    return f"{text} {column.unit}" if column.unit else text


def _short(number: str) -> str:
    value = float(number)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def filled(page: str, name: str, text: str) -> str:
    """The page with this text between the marks of a write-up."""
    begin, end = (f"<!-- {name}:{mark} -->" for mark in ("begin", "end"))
    before, rest = page.split(f"{begin}\n")
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def shown(page: str, name: str) -> str:
    """What stands between the marks."""
    return page.split(f"<!-- {name}:begin -->\n")[1].split(f"\n<!-- {name}:end -->")[0]


def main(names: Sequence[str]) -> None:
    # Models this small only make threads wait for each other.
    os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "RAYON_NUM_THREADS": "1"}
    for name in names or TABLES:
        with TemporaryDirectory() as folder:
            run(name, Path(folder))
            PAGE.write_text(
                filled(PAGE.read_text(encoding="utf-8"), name, tables(name, Path(folder))), encoding="utf-8"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
