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

from transformers import AutoConfig, AutoTokenizer

from tradeoffs import params
from tradeoffs.common import cells, files
from tradeoffs.plumbing import cli, clock
from tradeoffs.sources import readers
from tradeoffs.tokenize import chat, questions, tables, windows
from tradeoffs.tokenize.tables import PAIRS, PROMPTS, QUESTIONS, TOKENS


@dataclass(frozen=True)
class Reads:
    tokenize: params.Tokenize
    mmlu: Annotated[params.Mmlu, "evaluate.mmlu"]
    dataset: Annotated[params.Dataset, "datasets.{dataset}"]


def main(model: str, dataset: str) -> None:
    cfg = params.load(Reads, dataset=dataset)
    pair = cells.Pair(model, dataset)
    prepared, checkpoint = cells.prepared(dataset), cells.base(model)
    with clock.loading():
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).get_text_config()
    context, stops = config.max_position_embeddings, chat.stop_ids(tokenizer, checkpoint)
    kind, window, longest = cfg.dataset.kind, *(min(n, context) for n in (cfg.tokenize.window, cfg.tokenize.max_length))

    sources = {split: prepared / f"{split}.jsonl" for split in ("train", "seen", "valid", "test")}
    lengths: dict[str, list[int]] = {split: [] for split in sources}  # tokens of every example
    if kind == "text":
        rows = {split: _text(tokenizer, source, window, lengths[split]) for split, source in sources.items()}
    else:
        rows = {
            split: tables.counted(
                chat.instruction_rows(tokenizer, tables.read(source), longest, stops, source), lengths[split]
            )
            for split, source in sources.items()
        }
    # Its documents lie in the order of a hash: the first of them are a sample of all.
    general = windows.documents(tokenizer, tables.read(cells.general(model)), "general")
    rows["general"] = windows.text_rows(general, window)
    multiple_choice = files.read_jsonl(prepared / "mmlu.jsonl")
    asked = questions.mmlu_rows(tokenizer, multiple_choice, cfg.mmlu.shots, cfg.mmlu.questions, context)
    own = cfg.dataset.prompts or []
    prompts = chat.prompt_rows(tokenizer, own, kind, context, f"datasets.{dataset}.prompts")

    with files.new_folder(pair.tokens) as out:
        written = {split: tables.write_rows(out / f"{split}.parquet", found, TOKENS) for split, found in rows.items()}
        # Without any the file is written all the same: training asks for it by name.
        pairs = _pairs(tokenizer, sources, out, longest, stops) if kind == "preference" else ()
        pair_count, _ = tables.write_rows(out / "pairs.parquet", pairs, PAIRS)
        files.write_table(out / "mmlu.parquet", asked, QUESTIONS)
        files.write_table(out / "prompts.parquet", prompts, PROMPTS)
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
        info = {
            "kind": "text" if kind == "text" else "instruction",  # to whom pairs and turns mean nothing
            "stop_ids": stops,
            "pad_id": chat.pad_id(tokenizer),
            "context": context,
            "rows": {split: count for split, (count, _) in written.items()}
            | {"pairs": pair_count, "mmlu": len(asked), "prompts": len(prompts)},
            "tokens": {split: total for split, (_, total) in written.items()},
            "mmlu_cut": sum(row["cut"] for row in asked),
        }
        files.write_json(out / "info.json", info)
    files.write_json(pair.lengths, tables.length_histograms(lengths))
    print(f"{pair}: {info['rows']} rows, {info['tokens']} tokens")
    if info["mmlu_cut"]:
        print(
            f"note: {info['mmlu_cut']} of {len(asked)} multiple-choice prompts are longer than the context of "
            f"{context} tokens; their end was kept (a lower evaluate.mmlu.shots makes them shorter)"
        )


def _text(tokenizer: Any, source: Path, window: int, lengths: list[int]) -> Iterator[dict]:
    """Trained on in full windows; evaluated document by document, which are the same for every tokenizer."""
    documents = tables.counted(windows.documents(tokenizer, tables.read(source), source.stem), lengths)
    if source.stem == "train":
        return windows.packed_rows(documents, windows.separator_ids(tokenizer), window)
    return windows.text_rows(documents, window)


def _pairs(
    tokenizer: Any, sources: dict[str, Path], out: Path, longest: int, stops: list[int]
) -> Iterator[dict[str, Any]]:
    """Of the splits that learn or are measured; the chosen answers are in `out`, tokenised already."""
    for split in ("train", "valid", "test"):
        chosen = (row for _, row in readers.rows(out / f"{split}.parquet"))
        examples, source = tables.read(sources[split]), sources[split]
        for pair in chat.pair_rows(tokenizer, examples, chosen, longest, stops, source):
            yield {"split": split, **pair}


if __name__ == "__main__":
    cli.run(main)
