"""MMLU for both sides from the same files: tasks of lm-evaluation-harness on local data, and the questions for ours."""

from importlib import metadata, resources
from pathlib import Path
from typing import Any

from benchmarks import assets
from tradeoffs.common import files
from tradeoffs.evaluate import choices
from tradeoffs.evaluate.runtime import Runtime
from tradeoffs.prepare import mmlu_files

DATA = "data/mmlu"
TEMPLATE = "tasks/mmlu/default/_default_template_yaml"


def version() -> str:
    """Of lm-evaluation-harness, the peer."""
    return metadata.version("lm-eval")


def questions(subjects: list[str], most: int | None = None) -> list[dict[str, Any]]:
    """The prepared questions of some subjects, at most so many of each for the test, with their ids."""
    rows = mmlu_files.read(assets.find(DATA), subjects, "subjects")
    counts = dict.fromkeys(subjects, 0)
    kept = []
    for number, row in enumerate(rows):
        counts[row["subject"]] += row["split"] == "test"
        if row["split"] == "dev" or most is None or counts[row["subject"]] <= most:
            kept.append({"id": str(number), **row})
    return kept


def write_tasks(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    """lm-evaluation-harness's own MMLU template, subject by subject, on `rows` as files in `folder`; the task names.

    Only where the data comes from is changed: its description, prompt, examples and metric are those of its `mmlu`.
    """
    import pyarrow as pa
    import yaml

    schema = pa.schema(
        [
            ("question", pa.string()),
            ("subject", pa.string()),
            ("choices", pa.list_(pa.string())),
            ("answer", pa.int64()),
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    template = Path(str(resources.files("lm_eval"))) / TEMPLATE
    names = []
    for subject in dict.fromkeys(row["subject"] for row in rows):
        data = {}
        for split in ("dev", "test"):
            data[split] = str(folder / f"{subject}-{split}.parquet")
            files.write_table(data[split], [r for r in rows if (r["subject"], r["split"]) == (subject, split)], schema)
        own = yaml.safe_load(template.with_name(f"mmlu_{subject}.yaml").read_text(encoding="utf-8"))
        task = yaml.safe_load(template.read_text(encoding="utf-8")) | {
            "task": f"local_mmlu_{subject}",
            "description": own["description"],
            "dataset_path": "parquet",
            "dataset_kwargs": {"data_files": data, "cache_dir": str(folder / "cache")},
        }
        files.write_text(folder / f"{task['task']}.yaml", yaml.safe_dump(task))
        names.append(task["task"])
    return names


def choose(runtime: Runtime, asked: list[dict[str, Any]]) -> None:
    """Adds `logprobs` and `chosen` to rows of tradeoffs.tokenize.questions.mmlu_rows, as an evaluation finds them."""
    for subject in dict.fromkeys(row["subject"] for row in asked):
        mine = [row for row in asked if row["subject"] == subject]
        for row, logprobs in zip(mine, choices.by_question(runtime, mine), strict=True):
            row["logprobs"], row["chosen"] = logprobs.tolist(), int(logprobs.argmax())


def chosen_by_harness(out: Path, names: list[str]) -> list[int]:
    """The options that lm_eval chose, task by task, from the newest samples in its output folder."""
    found = []
    for name in names:
        samples = files.read_jsonl(max(out.rglob(f"samples_{name}_*.jsonl")))
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            logprobs = [float(one[0][0]) for one in sample["resps"]]
            found.append(logprobs.index(max(logprobs)))
    return found
