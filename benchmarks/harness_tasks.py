"""Tasks of all kinds of lm-evaluation-harness on local files: real questions and texts, in the form of known tasks."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import assets, mmlu_tasks
from tradeoffs.common import files

SUBJECTS = ["anatomy", "global_facts", "management", "us_foreign_policy"]
CHOICE = {
    "output_type": "multiple_choice",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}
FIRST_WORD = {"function": "regex", "regex_pattern": "(\\w+)"}
ANSWER = {
    "output_type": "generate_until",
    "doc_to_target": "{{output}}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def write(folder: Path, each: int) -> list[str]:
    """Writes tasks of at most so many items each, and what they read; their names."""
    paragraphs, wishes = _paragraphs(), _wishes()
    questions = [row for row in mmlu_tasks.questions(SUBJECTS) if row["split"] == "test"][: 2 * each]
    examples = [row for row in mmlu_tasks.questions(SUBJECTS) if row["split"] == "dev"]
    made: dict[str, tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]] = {
        "as_arc_easy": (
            CHOICE
            | {
                "doc_to_text": "Question: {{question}}\nAnswer:",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{answer}}",
            },
            {"test": questions},
        ),
        "as_arc_challenge": (
            CHOICE
            | {
                "doc_to_text": "Question: {{question}}\nAnswer:",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{answer}}",
                "num_fewshot": 5,
                "fewshot_split": "dev",
                "fewshot_config": {"sampler": "first_n"},
            },
            {"dev": examples, "test": questions[:each]},
        ),
        "as_hellaswag": (
            CHOICE | {"doc_to_text": "{{ctx}}", "doc_to_choice": "endings", "doc_to_target": "label"},
            {"test": _endings(paragraphs, each)},
        ),
        "as_lambada": (
            {
                "output_type": "loglikelihood",
                "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
                "doc_to_target": "{{' '+text.split(' ')[-1]}}",
                "metric_list": [
                    {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
                    {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
                ],
            },
            {"test": [{"text": _cut(text, 60)} for text in paragraphs[:each]]},
        ),
        "as_wikitext": (
            {
                "output_type": "loglikelihood_rolling",
                "doc_to_text": "",
                "doc_to_target": "{{text}}",
                "metric_list": [
                    {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
                    {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
                ],
            },
            {"test": [{"text": text} for text in paragraphs[:each]]},
        ),
        "as_gsm8k": (
            ANSWER
            | {
                "doc_to_text": "Question: {{instruction}} {{input}}\nAnswer:",
                "num_fewshot": 5,
                "fewshot_split": "train",
                "fewshot_config": {"sampler": "first_n"},
                "generation_kwargs": {"until": ["Question:", "\n"], "do_sample": False, "max_gen_toks": 32},
                "filter_list": [{"name": "first", "filter": [FIRST_WORD, {"function": "take_first"}]}],
            },
            {"train": wishes[:5], "test": wishes[5 : 5 + each]},
        ),
        "as_ifeval": (
            ANSWER
            | {
                "doc_to_text": "{{instruction}} {{input}}",
                "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 48},
            },
            {"test": wishes[100 : 100 + each]},
        ),
    }
    for name, (task, splits) in made.items():
        data = {}
        for split, rows in splits.items():
            data[split] = str(folder / f"{name}-{split}.jsonl")
            files.write_jsonl(data[split], rows)
        whole = {"task": name, "dataset_path": "json", "test_split": "test", "metadata": {"version": 1.0}}
        whole["dataset_kwargs"] = {"data_files": data, "cache_dir": str(folder / "cache")}
        files.write_text(folder / f"{name}.yaml", json.dumps(whole | task))  # JSON is YAML
    return list(made)


def _paragraphs() -> list[str]:
    text = assets.find("data/wikitext2/wikitext2_train_5k.txt").read_text(encoding="utf-8")
    found = [line.strip() for line in text.splitlines()]
    return [line for line in found if len(line) > 400 and not line.startswith("=")]


def _cut(text: str, words: int) -> str:
    """The first words of a text, up to the last one that is a word."""
    some = text.split(" ")[:words]
    while len(some) > 2 and not re.fullmatch(r"\w+", some[-1]):
        some.pop()
    return " ".join(some)


def _endings(paragraphs: list[str], each: int) -> list[dict[str, Any]]:
    """The beginning of a paragraph, how it goes on, and how three others do."""
    rows = []
    for number in range(each):
        words = [paragraphs[(number + 7 * other) % len(paragraphs)].split(" ") for other in range(4)]
        endings = [" ".join(some[40:65]) for some in words]
        right = number % 4
        endings[0], endings[right] = endings[right], endings[0]
        rows.append({"ctx": " ".join(words[0][:40]), "endings": endings, "label": right})
    return rows


def _wishes() -> list[dict[str, Any]]:
    found = files.read_json(assets.find("data/instructions/instruction-data.json"))
    return [{name: row[name] for name in ("instruction", "input", "output")} for row in found]
