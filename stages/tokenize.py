"""Token ids and masks, made once: training and both runtimes see the very same tokens.

IN   data/prepared/<dataset>/    models/base/<model>/ (its tokenizer and chat template)    data/general/<model>.jsonl
OUT  data/tokens/<model>-<dataset>/    train, seen, valid, test, pairs, mmlu, prompts (parquet), tokenizer.json,
                                       info.json
     data/lengths/<model>-<dataset>.json    how long the examples of each split are, in this model's tokens
     python -m stages.tokenize --model demo --dataset demo
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from transformers import AutoConfig, AutoTokenizer

from tradeoffs import params
from tradeoffs.common import cells, files
from tradeoffs.plumbing import cli, clock
from tradeoffs.sources import readers
from tradeoffs.tokenize import tokens

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


@dataclass(frozen=True)
class Reads:
    tokenize: params.Tokenize
    mmlu: Annotated[params.Mmlu, "evaluate.mmlu"]
    prompts: Annotated[list[str], "evaluate.prompts"]
    dataset: Annotated[params.Dataset, "datasets.{dataset}"]


def main(model: str, dataset: str) -> None:
    cfg = params.load(Reads, model=model, dataset=dataset)
    pair = cells.Pair(model, dataset)
    prepared, checkpoint = cells.prepared(dataset), cells.base(model)
    with clock.loading():
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).get_text_config()
    context, stops = config.max_position_embeddings, tokens.stop_ids(tokenizer, checkpoint)

    kind, window, longest = cfg.dataset.kind, *(min(n, context) for n in (cfg.tokenize.window, cfg.tokenize.max_length))

    sources = {split: prepared / f"{split}.jsonl" for split in ("train", "seen", "valid", "test")}
    lengths: dict[str, list[int]] = {split: [] for split in sources}  # tokens of every example
    if kind == "text":
        rows = {split: _text(tokenizer, source, window, lengths[split]) for split, source in sources.items()}
    else:
        rows = {
            split: tokens.counted(
                tokens.instruction_rows(tokenizer, tokens.read(source), longest, stops, source), lengths[split]
            )
            for split, source in sources.items()
        }
    # Its documents lie in the order of a hash: the first of them are a sample of all.
    general = tokens.documents(tokenizer, tokens.read(cells.general(model)), "general")
    rows["general"] = tokens.text_rows(general, window)
    questions = files.read_jsonl(prepared / "mmlu.jsonl")
    asked = tokens.mmlu_rows(tokenizer, questions, cfg.mmlu.shots, cfg.mmlu.questions, context)
    prompts = tokens.prompt_rows(tokenizer, cfg.prompts, kind, context)

    with files.new_folder(pair.tokens) as out:
        written = {split: tokens.write_rows(out / f"{split}.parquet", found, TOKENS) for split, found in rows.items()}
        pairs = (  # without any the file is written all the same: training asks for it by name
            {"split": split, **pair}
            for split in (("train", "valid", "test") if kind == "preference" else ())
            for examples, chosen in [(tokens.read(sources[split]), _written(out / f"{split}.parquet"))]
            for pair in tokens.pair_rows(tokenizer, examples, chosen, longest, stops, sources[split])
        )
        pair_count, _ = tokens.write_rows(out / "pairs.parquet", pairs, PAIRS)
        files.write_table(out / "mmlu.parquet", asked, QUESTIONS)
        files.write_table(out / "prompts.parquet", prompts, PROMPTS)
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
        info = {
            "kind": "text" if kind == "text" else "instruction",  # to whom pairs and turns mean nothing
            "stop_ids": stops,
            "pad_id": tokens.pad_id(tokenizer),
            "context": context,
            "rows": {split: count for split, (count, _) in written.items()}
            | {"pairs": pair_count, "mmlu": len(asked), "prompts": len(prompts)},
            "tokens": {split: total for split, (_, total) in written.items()},
            "mmlu_cut": sum(row["cut"] for row in asked),
        }
        files.write_json(out / "info.json", info)
    files.write_json(pair.lengths, tokens.length_histograms(lengths))
    print(f"{pair}: {info['rows']} rows, {info['tokens']} tokens")
    if info["mmlu_cut"]:
        print(
            f"note: {info['mmlu_cut']} of {len(asked)} multiple-choice prompts are longer than the context of "
            f"{context} tokens; their end was kept (a lower evaluate.mmlu.shots makes them shorter)"
        )


def _written(path: Path) -> Iterator[dict]:
    """The rows of a table, read as they are needed."""
    return (row for _, row in readers.rows(path))


def _text(tokenizer: Any, source: Path, window: int, lengths: list[int]) -> Iterator[dict]:
    """Trained on in full windows; evaluated document by document, which are the same for every tokenizer."""
    documents = tokens.counted(tokens.documents(tokenizer, tokens.read(source), source.stem), lengths)
    if source.stem == "train":
        return tokens.packed_rows(documents, tokens.separator_ids(tokenizer), window)
    return tokens.text_rows(documents, window)


if __name__ == "__main__":
    cli.run(main)
