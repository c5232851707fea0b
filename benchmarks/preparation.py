"""Preparation of many rows: time, memory, and how many of the near-duplicates that were planted are found.

    python -m benchmarks.preparation [--quick]

Writes a JSONL file of instruction rows of random words, and runs the stage `prepare` on it as the pipeline does. There
is no peer: the bounds are absolute. A quick run takes 20,000 rows instead of 1,000,000.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from benchmarks import common
from benchmarks.common import ROOT, SCRATCH
from tradeoffs.common import cells, files
from tradeoffs.plumbing.errors import UserError

WORKSPACE = SCRATCH / "preparation"
ROWS = 1_000_000
PLANTED = 0.04  # share of the rows that are near-duplicates of another one
ENTRY: dict[str, Any] = {
    "path": "rows.jsonl",
    "kind": "instruction",
    "columns": {"instruction": "instruction", "answer": "output"},
    "test_share": 0.05,
    "near_duplicate": 0.8,
    "seen": 100,
    "valid": 1000,
}
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
OPENINGS = (
    "Explain in simple words what is meant by",
    "Write a short paragraph that begins with",
    "Summarise the following text in one sentence:",
    "Translate into plain English and keep the tone of",
    "List three reasons why one would doubt that",
    "Give an example of",
    "What would an expert say about",
    "Correct the spelling and the grammar of this sentence:",
)
# Long texts of one form that differ in their numbers alone are different questions: they have to stay.
SUMS = (
    "A bakery in a small town sells every loaf of its bread for {} cents and bakes {} loaves on a day like this one. "
    "How many cents does it take in on that day if nothing is left over in the evening?",
    "You put {} dollars into an account that pays {} percent of simple interest a year and take out nothing before the "
    "year ends. How much interest has the bank then paid to you in all?",
    "A train leaves the station at a speed of {} metres an hour and has to cover a distance of {} metres without any "
    "stop. After how many minutes does it arrive?",
)
Row = dict[str, str]


def main(arguments: Namespace) -> None:
    count = ROWS // 50 if arguments.quick else ROWS
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    WORKSPACE.mkdir(parents=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["datasets"]["many"] = ENTRY
    files.write_text(WORKSPACE / "params.yaml", yaml.safe_dump(params))
    planted = write_rows(count)
    megabytes = (WORKSPACE / ENTRY["path"]).stat().st_size / 1e6
    print(f"{count} rows, {megabytes:.0f} MB, of which {len(planted)} are near-duplicates", flush=True)
    wall, cpu, peak = run_stage()
    agreement, by_kind = compare(planted)
    shutil.rmtree(WORKSPACE)
    common.write(
        "preparation",
        wall,
        None,
        agreement | {"peak_mb": peak},
        quick=arguments.quick,
        at_least={"found": 0.99},
        at_most={"others_dropped": 0.001, "peak_mb": 3000, "ours_seconds": 600},
        stages=["prepare"],
        cpu_seconds=cpu,
        rows=count,
        megabytes=megabytes,
        by_kind=by_kind,
        compared="instruction rows of random words, and questions of one form that differ in their numbers; planted: "
        "copies with a changed word, with an added sentence, in other case and punctuation, in other space; a pair is "
        "found where not both are kept (in test, or in valid, both are by rule: those do not count); peak as the "
        "kernel reports it for the one process that there is",
    )


def write_rows(count: int) -> list[tuple[str, str, str]]:
    """Writes the rows in random order; (kind, id of the row, id of its copy) of the planted ones."""
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(30_000)]
    weights = [1 / rank for rank in range(2, len(vocabulary) + 2)]  # Zipf's law
    drawn: Iterator[str] = iter(
        ()
    )  # of a text's words some at a time: to draw them one by one would take most of the time

    def words(length: int) -> str:
        nonlocal drawn
        found = [word for word, _ in zip(drawn, range(length), strict=False)]
        if len(found) < length:
            drawn = iter(rng.choices(vocabulary, weights, k=1_000_000))
            return words(length)
        return " ".join(found)

    def changed_word(row: Row) -> Row:
        found = row["instruction"].split()
        found[rng.randrange(len(found))] = "entirely"
        return row | {"instruction": " ".join(found)}

    kinds: dict[str, Callable[[Row], Row]] = {
        "changed_word": changed_word,
        "added_sentence": lambda row: row | {"instruction": row["instruction"] + f" Please {words(2)}."},
        "case_and_punctuation": lambda row: {key: text.upper() + " !" for key, text in row.items()},
        "space": lambda row: row | {"instruction": "  " + row["instruction"].replace(" ", "\n ", 3)},
    }
    copies = round(count * PLANTED)
    rows: list[Row] = []
    for number in range(count - copies):
        if number >= copies and number % 10 == 0:
            a, b = divmod(number, 997)
            row = {"instruction": rng.choice(SUMS).format(a + 2, b + 3), "output": f"It is {(a + 2) * (b + 3)}."}
        else:  # the first ones, which are copied, are so long that a changed word leaves them as similar as it takes
            length = rng.randint(40, 80) if number < copies else rng.randint(6, 80)
            text = f"{rng.choice(OPENINGS)} {words(length // 2)}. {words(length - length // 2).capitalize()}?"
            row = {"instruction": text, "output": words(rng.randint(5, 60)).capitalize() + "."}
        rows.append(row)
    planted = []
    for number, row in enumerate(rows[:copies]):
        kind = list(kinds)[number % len(kinds)]
        copy = kinds[kind](row)
        rows.append(copy)
        planted.append((kind, id_of(row), id_of(copy)))
    rng.shuffle(rows)
    files.write_jsonl(WORKSPACE / ENTRY["path"], rows)
    return planted


def id_of(row: Row) -> str:
    """As the stage makes it: of the texts as they are read, without the space around them."""
    return files.content_id(row["instruction"].strip(), row["output"].strip())


def run_stage() -> tuple[float, float, float]:
    """Seconds on the clock, seconds of processor time and most resident memory in 1e6 bytes of the stage."""
    command = [sys.executable, "-m", "stages.prepare", "--dataset", "many"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=WORKSPACE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise UserError(f"{common.shown(command)}: exit code {process.returncode}")
    peak = files.read_jsonl(WORKSPACE / ".scratch/times.jsonl")[-1]["peak_mb"]
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, peak


def compare(planted: list[tuple[str, str, str]]) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of the planted near-duplicates that were found and of the others that were dropped; and found by kind."""
    prepared = WORKSPACE / cells.prepared("many")
    split_of: dict[str, str] = {}
    for split in ("train", "valid", "test"):
        with (prepared / f"{split}.jsonl").open(encoding="utf-8") as file:
            split_of.update((json.loads(line)["id"], split) for line in file)
    pairs, found, lost = Counter[str](), Counter[str](), 0
    for kind, row, copy in planted:
        splits = [split_of.get(row), split_of.get(copy)]
        lost += splits == [None, None]
        if splits not in (["test", "test"], ["valid", "valid"]):
            pairs[kind] += 1
            found[kind] += None in splits
    read = files.read_json(prepared / "info.json")["counts"]["read"]
    gone = read - len(split_of) - sum(found.values()) + lost  # of a pair that is lost whole, one should have stayed
    agreement = {"found": sum(found.values()) / sum(pairs.values()), "others_dropped": gone / (read - len(planted))}
    return agreement, {kind: found[kind] / pairs[kind] for kind in pairs}


if __name__ == "__main__":
    common.run(main)
