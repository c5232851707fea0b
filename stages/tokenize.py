"""Token ids and masks, made once: training and both runtimes see the very same tokens.

IN   data/prepared/<dataset>/    models/base/<model>/ (its tokenizer and chat template)    data/general/<model>.jsonl
OUT  data/tokens/<model>-<dataset>/    train, seen, valid, test, pairs, mmlu, prompts (parquet), tokenizer.json,
                                       info.json
     python -m stages.tokenize --model demo --dataset demo
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import AutoConfig, AutoTokenizer

from tradeoffs import cli, clock, files, params, tokens

READS = ("tokenize", "evaluate.mmlu", "evaluate.prompts", "datasets.{dataset}")

TOKENS = pa.schema(
    [
        ("id", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("scored", pa.list_(pa.bool_())),  # same length: whether this token's log-probability counts
        ("prompt_tokens", pa.int32()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("bytes", pa.int32()),  # UTF-8 bytes of the scored text
    ]
)
PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),  # train, valid or test
        *((f"{part}_ids", pa.list_(pa.int32())) for part in ("prompt", "chosen", "rejected")),
    ]
)
QUESTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("subject", pa.string()),
        ("ids", pa.list_(pa.int32())),  # the few-shot prompt up to where the letter comes; its end, if it was cut
        ("options", pa.list_(pa.int32())),  # the token id of each of the four letters, its last one
        (
            "stems",
            pa.list_(pa.list_(pa.int32())),
        ),  # the token ids before it, where letters take different numbers of them
        ("cut", pa.bool_()),  # whether the prompt lost its beginning to fit the context
        ("answer", pa.int32()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
    ]
)
PROMPTS = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("ids", pa.list_(pa.int32()))])


def main(model: str, dataset: str) -> None:
    cfg = params.load(READS, model=model, dataset=dataset)
    prepared, checkpoint = Path("data/prepared", dataset), Path("models/base", model)
    with clock.loading():
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).get_text_config()
    context, stops = config.max_position_embeddings, tokens.stop_ids(tokenizer, checkpoint)

    rows: dict[str, list[dict]] = {}
    pairs: list[dict] = []  # without any the file is written all the same: training asks for it by name
    for split in ("train", "seen", "valid", "test"):
        source = prepared / f"{split}.jsonl"
        examples = files.read_jsonl(source)
        if cfg.dataset.kind == "text":
            rows[split] = tokens.text_rows(tokenizer, examples, min(cfg.tokenize.window, context))
            continue
        longest = min(cfg.tokenize.max_length, context)
        rows[split] = tokens.instruction_rows(tokenizer, examples, longest, stops, source)
        if cfg.dataset.kind == "preference" and split != "seen":
            found = tokens.pair_rows(tokenizer, examples, rows[split], longest, stops, source)
            pairs += [{"split": split, **pair} for pair in found]
    general = tokens.text_rows(
        tokenizer, files.read_jsonl(f"data/general/{model}.jsonl"), min(cfg.tokenize.window, context)
    )
    # Not one document after the other: some of the windows are then a sample of all of them.
    rows["general"] = sorted(general, key=lambda row: files.content_id(row["id"]))
    questions = files.read_jsonl(prepared / "mmlu.jsonl")
    asked = tokens.mmlu_rows(tokenizer, questions, cfg.mmlu.shots, cfg.mmlu.questions, context)
    prompts = tokens.prompt_rows(tokenizer, cfg.prompts, cfg.dataset.kind, context)

    with files.new_folder(f"data/tokens/{model}-{dataset}") as out:
        for split, found in rows.items():
            files.write_table(out / f"{split}.parquet", found, TOKENS)
        files.write_table(out / "pairs.parquet", pairs, PAIRS)
        files.write_table(out / "mmlu.parquet", asked, QUESTIONS)
        files.write_table(out / "prompts.parquet", prompts, PROMPTS)
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
        info = {
            "kind": "text" if cfg.dataset.kind == "text" else "instruction",  # to whom pairs mean nothing
            "stop_ids": stops,
            "pad_id": tokens.pad_id(tokenizer),
            "context": context,
            "rows": {split: len(found) for split, found in rows.items()}
            | {"pairs": len(pairs), "mmlu": len(asked), "prompts": len(prompts)},
            "tokens": {split: sum(len(row["ids"]) for row in found) for split, found in rows.items()},
            "mmlu_cut": sum(row["cut"] for row in asked),
        }
        files.write_json(out / "info.json", info)
    print(f"{model}-{dataset}: {info['rows']} rows, {info['tokens']} tokens")
    if info["mmlu_cut"]:
        print(
            f"note: {info['mmlu_cut']} of {len(asked)} multiple-choice prompts are longer than the context of "
            f"{context} tokens; their end was kept (a lower evaluate.mmlu.shots makes them shorter)"
        )


if __name__ == "__main__":
    cli.run(main)
