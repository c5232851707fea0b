"""Makes one dataset ready: read or generated, cleaned, split by content, de-duplicated.

IN   datasets.<dataset> in params.yaml; for `path` that file; for `mmlu` that folder, or the hub
OUT  data/prepared/<dataset>/   train, seen, valid, test, mmlu (jsonl), info.json
     python -m stages.prepare --dataset demo
"""

from pathlib import Path
from typing import Any

from tradeoffs import cli, demo_text, duplicates, files, hub_mmlu, params, records, splits
from tradeoffs.errors import UserError
from tradeoffs.splits import Examples

READS = ("seed", "datasets.{dataset}")
SHOWN = 5  # dropped examples named in info.json


def main(dataset: str) -> None:
    cfg = params.load(READS, dataset=dataset)
    wanted, where = cfg.dataset, f"datasets.{dataset}"
    examples, source = _read(wanted, cfg.seed, where)
    differing, equal = splits.without_equal_answers(examples)
    unique, empty, repeated = splits.without_duplicates(differing)
    kept, rest = splits.split(unique, wanted.test_share)
    rest, near = _unlike(kept, rest, wanted)
    # In the order of a hash, so that any first part is a random sample, of which more rows move none: of `train` also
    # when the training budget ends within it, then with `seen` at its head; of `test` when only some are evaluated.
    # `valid` is the end of that order: what is trained on first, and `seen`, stay what they were without it.
    test, rest = sorted(kept, key=splits.order), sorted(rest, key=splits.order)
    _check_sizes(where, wanted, examples, rest, test)
    valid = rest[-wanted.valid :]
    train, near_valid = _unlike(valid, rest[: -wanted.valid], wanted)
    if len(train) < wanted.seen:
        raise UserError(
            f"{where}.seen: {wanted.seen} asked for, train has only {len(train)} rows; lower it or add rows"
        )
    seen = train[: wanted.seen]
    mmlu, mmlu_source = _mmlu(wanted, cfg.seed, where)
    dropped = {
        "empty": empty,
        "duplicates": len(repeated),
        "near_duplicates": len(near),
        "duplicate_examples": repeated[:SHOWN],
        "near_duplicates_of_valid": len(near_valid),
        "near_duplicate_examples": near[:SHOWN],
    }
    if wanted.kind == "preference":
        dropped["equal_answers"] = equal
    made = {"train": train, "seen": seen, "valid": valid, "test": test}
    counts = {"read": len(examples)} | {name: len(found) for name, found in made.items()}
    counts |= {f"mmlu_{split}": sum(row["split"] == split for row in mmlu) for split in ("dev", "test")}
    subjects = list(dict.fromkeys(row["subject"] for row in mmlu))
    with files.new_folder(f"data/prepared/{dataset}") as folder:
        for name, rows in {**made, "mmlu": mmlu}.items():
            files.write_jsonl(folder / f"{name}.jsonl", rows)
        info = {"kind": wanted.kind, **source, "counts": counts, "subjects": subjects, "dropped": dropped}
        info |= {"mmlu": mmlu_source} if mmlu_source else {}
        files.write_json(folder / "info.json", info)
    for path in filter(None, (wanted.path, wanted.mmlu and wanted.mmlu.path)):
        files.note_if_unwatched(path, "data/raw", f"prepare@{dataset}")
    lost = f"{empty} empty, {len(repeated)} duplicates, {len(near)} near-duplicates of test examples"
    lost += f", {len(near_valid)} of valid ones" + (f", {equal} pairs of equal answers" if equal else "")
    print(f"{dataset}: {counts}, dropped {lost}")


def _read(wanted: params.Dataset, seed: int, where: str) -> tuple[Examples, dict[str, str]]:
    """Examples with their ids in source order, and what info.json says about the source."""
    if wanted.generate:
        pairs = demo_text.questions(wanted.generate.questions, seed)
        examples = [{"prompt": prompt, "answer": answer} for prompt, answer in pairs]
        source = {"source": "generated"}
    else:
        examples = records.read(Path(str(wanted.path)), wanted.columns)
        source = {"source": str(wanted.path), "sha256": files.sha256(str(wanted.path))}
    return [{"id": files.content_id(*example.values()), **example} for example in examples], source


def _unlike(kept: Examples, rest: Examples, wanted: params.Dataset) -> tuple[Examples, list[dict[str, str]]]:
    """`rest` without its near-duplicates of `kept`, and those: what was dropped, and what it is like."""
    near = duplicates.near_duplicates(
        [splits.key(k) for k in kept],
        [splits.key(r) for r in rest],
        wanted.near_duplicate,
        same_numbers=wanted.kind != "text",
    )
    dropped = [{"dropped": splits.key(rest[index]), "like": splits.key(kept[match])} for index, match in near.items()]
    return [row for index, row in enumerate(rest) if index not in near], dropped


def _check_sizes(where: str, wanted: params.Dataset, examples: Examples, rest: Examples, test: Examples) -> None:
    for name, rows in (("test", test), ("train", rest)):
        if not rows:
            raise UserError(
                f"{where}: {name} is empty: {len(examples)} rows, test_share {wanted.test_share:g}; "
                "give more rows or another test_share"
            )
    if len(rest) <= wanted.valid:
        raise UserError(
            f"{where}.valid: {wanted.valid} asked for, beside test there are only {len(rest)} rows, and training needs "
            "some too; lower it or add rows"
        )


def _mmlu(wanted: params.Dataset, seed: int, where: str) -> tuple[list[dict[str, Any]], dict[str, str] | None]:
    """The multiple-choice questions with their ids, and what info.json says about their source; None without any."""
    source: dict[str, str] | None = None
    if wanted.mmlu and wanted.mmlu.hub:
        rows, commit = hub_mmlu.read(wanted.mmlu.hub, wanted.mmlu.revision, wanted.mmlu.subjects, f"{where}.mmlu")
        source = {"source": wanted.mmlu.hub, "commit": commit}
        if wanted.mmlu.revision != commit:
            print(
                f"note: {where}.mmlu.revision: {wanted.mmlu.revision or 'main'} of {wanted.mmlu.hub} is commit "
                f"{commit} today; to keep these questions, set revision: {commit}"
            )
    elif wanted.mmlu:
        rows = records.read_mmlu(Path(str(wanted.mmlu.path)), wanted.mmlu.subjects, f"{where}.mmlu")
        source = {"source": str(wanted.mmlu.path)}
    elif wanted.generate:
        rows, source = _exams(wanted.generate, seed, where), {"source": "generated"}
    else:
        rows = []
    ids = [files.content_id(row["subject"], row["question"], *row["choices"]) for row in rows]
    return [{"id": id, **row} for id, row in zip(ids, rows, strict=True)], source


def _exams(wanted: params.GeneratedDataset, seed: int, where: str) -> list[dict[str, Any]]:
    topics = list(demo_text.TOPICS)
    if wanted.topics > len(topics):
        known = f"there are {len(topics)}: {', '.join(topics)}"
        raise UserError(f"{where}.generate.topics: {wanted.topics} asked for, {known}")
    return [
        {
            "subject": topic,
            "split": "dev" if number < demo_text.DEV_QUESTIONS else "test",
            "question": choice.question,
            "choices": list(choice.choices),
            "answer": choice.answer,
        }
        for topic in topics[: wanted.topics]
        for number, choice in enumerate(demo_text.exam(topic, wanted.topic_questions, seed))
    ]


if __name__ == "__main__":
    cli.run(main)
