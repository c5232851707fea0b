"""Text metrics of every generated answer of every variant, in one process, so that the models are loaded once.

An answer to one of the user's prompts has no expected answer: only `cosine_to_base` is scored, all else is null.

The answers that were copied from training questions are scored in the same way, as if a variant had given them.

IN   data/items/<variant>.parquet    data/seeds/<cell>/<seed>.parquet    data/copying/<dataset>.parquet
     data/prepared/<dataset>/info.json
OUT  data/scores.parquet (one row per variant or further training, split and item; a column per metric of
     tradeoffs.metrics.answers)
     python -m stages.score
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa

from tradeoffs import metrics, params
from tradeoffs.common import files
from tradeoffs.common.cells import SCORES, TRAINED, Copied, Variant, cells, prepared, variants
from tradeoffs.metrics import embeddings
from tradeoffs.metrics.answers import exact_match_of
from tradeoffs.metrics.embeddings import DIGITS
from tradeoffs.plumbing import cli, clock


@dataclass(frozen=True)
class Reads:
    run: params.Run
    embedding: Annotated[str, "evaluate.embedding"]


def main() -> None:
    cfg = params.load(Reads)
    wanted, copied = variants(cfg.run), [Copied(dataset) for dataset in cfg.run.datasets]
    files.remove_leftovers([variant.items for variant in wanted])
    files.remove_leftovers([cell.seeds for cell in cells(cfg.run)])
    files.remove_leftovers([floor.items for floor in copied])
    wanted += [variant for cell in cells(cfg.run) for variant in cell.further(cfg.run.seeds)]
    judged: list[Variant | Copied] = [*wanted, *copied]
    answers = {one: read_answers(one) for one in judged}
    patterns = {dataset: answer_pattern(dataset) for dataset in cfg.run.datasets}
    # Formats of one model often answer alike: each pair of texts is scored once.
    everything = [row for rows in answers.values() for row in rows]
    pairs = list(dict.fromkeys((r["generated"], r["answer"]) for r in everything if r["answer"] is not None))
    unexpected = dict.fromkeys(row["generated"] for row in everything if row["answer"] is None)
    different = len(pairs) + len(unexpected)
    print(f"{len(everything)} answers of {len(wanted)} variants and of copying, {different} different")
    if not everything:  # text data sets have nothing to answer but prompts
        files.write_table(SCORES, [], schema())
        return

    with clock.loading():
        embedder = embeddings.load_embedder(cfg.embedding)
    print(f"BERTScore and cosine by {cfg.embedding} on {embedder.device}")
    # An answer that nothing was expected of is paired with itself, for its embedding.
    bertscores, vectors = embeddings.similarities(embedder, [*pairs, *((text, text) for text in unexpected)])
    scored = {pair: score_pair(*pair, vectors) for pair in pairs}
    for pair, bertscore in zip(pairs, bertscores.tolist(), strict=False):
        scored[pair]["bertscore"] = round(bertscore, DIGITS)

    table = []
    for variant, rows in answers.items():
        base = answers.get(Variant(variant.model, variant.dataset, "base", TRAINED), [])
        pattern = patterns[variant.dataset]
        base_answers = {(row["split"], row["item"]): row["generated"] for row in base}
        for row in rows:
            found = {"variant": str(variant), "split": row["split"], "item": row["item"]}
            if row["answer"] is not None:
                found |= scored[row["generated"], row["answer"]]
                if pattern:
                    found["exact_match"] = exact_match_of(pattern, row["generated"], row["answer"])
            if (key := (row["split"], row["item"])) in base_answers:
                found["cosine_to_base"] = cosine(vectors, row["generated"], base_answers[key])
            table.append(found)
    files.write_table(SCORES, table, schema().with_metadata({"embedding": cfg.embedding}))


def schema() -> pa.Schema:
    """Columns of data/scores.parquet: a number for each metric of answers, then those that need a list of counts."""
    scored = metrics.scored()
    names = [(name, pa.string()) for name in ("variant", "split", "item")]
    single = [(metric.column, pa.float64()) for metric in scored if not metric.many]
    return pa.schema(names + single + [(metric.column, pa.list_(pa.int32())) for metric in scored if metric.many])


def read_answers(one: Variant | Copied) -> list[dict]:
    files.must_exist(one.items)
    rows = files.read_table(one.items, ["split", "item", "answer", "generated"])
    return [row for row in rows if row["generated"] is not None]


def answer_pattern(dataset: str) -> str | None:
    """What finds in an answer all that exact match compares; None where that is the whole answer."""
    return files.read_json(prepared(dataset) / "info.json").get("answer_pattern")


def score_pair(answer: str, expected: str, vectors: dict[str, np.ndarray]) -> dict:
    found: dict = {metric.column: metric.score(answer, expected) for metric in metrics.scored() if metric.score}
    return found | {"cosine": cosine(vectors, answer, expected)}


def cosine(vectors: dict[str, np.ndarray], one: str, other: str) -> float:
    return round(float(vectors[one] @ vectors[other]), DIGITS)


if __name__ == "__main__":
    cli.run(main)
