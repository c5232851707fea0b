"""Token ids and masks, made once: training and both runtimes see the very same tokens.

IN   data/prepared/<dataset>/    models/base/<model>/ (its tokenizer and chat template)
OUT  data/tokens/<model>-<dataset>/    train, seen, test, mmlu, prompts (parquet), tokenizer.json, info.json
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

    rows = {}
    for split in ("train", "seen", "test"):
        examples = files.read_jsonl(prepared / f"{split}.jsonl")
        if cfg.dataset.kind == "instruction":
            longest = min(cfg.tokenize.max_length, context)
            rows[split] = tokens.instruction_rows(tokenizer, examples, longest, stops, prepared / f"{split}.jsonl")
        else:
            rows[split] = tokens.text_rows(tokenizer, examples, min(cfg.tokenize.window, context))
    questions = files.read_jsonl(prepared / "mmlu.jsonl")
    asked = tokens.mmlu_rows(tokenizer, questions, cfg.mmlu.shots, cfg.mmlu.questions, context)
    prompts = tokens.prompt_rows(tokenizer, cfg.prompts, cfg.dataset.kind, context)

    with files.new_folder(f"data/tokens/{model}-{dataset}") as out:
        for split, found in rows.items():
            files.write_table(out / f"{split}.parquet", found, TOKENS)
        files.write_table(out / "mmlu.parquet", asked, QUESTIONS)
        files.write_table(out / "prompts.parquet", prompts, PROMPTS)
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
        info = {
            "kind": cfg.dataset.kind,
            "stop_ids": stops,
            "pad_id": tokens.pad_id(tokenizer),
            "context": context,
            "rows": {split: len(found) for split, found in rows.items()}
            | {"mmlu": len(asked), "prompts": len(prompts)},
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
