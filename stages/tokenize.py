"""Token ids and masks, made once: training and both runtimes see the very same tokens.

IN   metrics/settings/pairs/<model>-<dataset>.json    data/prepared/<dataset>/    data/general/<model>.jsonl
     models/base/<model>/ (its tokenizer and chat template)
OUT  data/tokens/<model>-<dataset>/    train, seen, valid, test, pairs, mmlu, prompts (parquet), tokenizer.json,
                                       info.json
     data/lengths/<model>-<dataset>.json    how long the examples of each split are, in this model's tokens
     python -m stages.tokenize --model demo --dataset demo
"""

from dataclasses import dataclass
from typing import Annotated, Any

from transformers import AutoConfig, AutoTokenizer

from tradeoffs import params
from tradeoffs.common import cells, examples, files
from tradeoffs.plumbing import cli, clock
from tradeoffs.tokenize import chat, questions, tables, writing
from tradeoffs.tokenize.tables import PROMPTS, QUESTIONS


@dataclass(frozen=True)
class Reads:
    mmlu: Annotated[params.Mmlu, "evaluate.mmlu"]


@dataclass(frozen=True)
class Settings:
    tokenize: params.Tokenize
    dataset: Annotated[params.Dataset, "datasets.{dataset}"]


def main(model: str, dataset: str) -> None:
    mmlu, pair = params.load(Reads).mmlu, cells.Pair(model, dataset)
    cfg = params.load_settings(Settings, model=model, dataset=dataset)
    prepared, checkpoint = cells.prepared(dataset), cells.base(model)
    with clock.loading():
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).get_text_config()
    context, stops = config.max_position_embeddings, chat.stop_ids(tokenizer, checkpoint)
    kind, window, longest = cfg.dataset.kind, *(min(n, context) for n in (cfg.tokenize.window, cfg.tokenize.max_length))

    sources = {split: prepared / f"{split}.jsonl" for split in ("train", "seen", "valid", "test")}
    work = writing.Work(tokenizer, kind, sources, cells.general(model), window, longest, stops)
    multiple_choice = files.read_jsonl(prepared / "mmlu.jsonl")
    asked = questions.mmlu_rows(tokenizer, multiple_choice, mmlu.shots, mmlu.questions, context)
    own = cfg.dataset.prompts or []
    prompts = chat.prompt_rows(tokenizer, own, kind, context, f"datasets.{dataset}.prompts")

    with files.new_folder(pair.tokens) as out:
        rows, tokens, lengths, unsplit = writing.write(work, out)
        lengths |= {"mmlu": [len(row["ids"]) for row in asked]} if kind == "questions" and asked else {}
        files.write_table(out / "mmlu.parquet", asked, QUESTIONS)
        files.write_table(out / "prompts.parquet", prompts, PROMPTS)
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
        info = {
            "kind": "text" if kind == "text" else "instruction",  # of what follows nobody asks more
            "stop_ids": stops,
            "pad_id": chat.pad_id(tokenizer),
            "context": context,
            "rows": rows | {"mmlu": len(asked), "prompts": len(prompts)},
            "tokens": tokens,
            "mmlu_cut": sum(row["cut"] for row in asked),
        }
        letters = any(row["apart"] for row in asked)
        apart = [name for name, found in (("answers", unsplit), ("letters", letters)) if found]
        # Only where it is so: elsewhere all is tokenised together.
        info |= {examples.APART: apart} if apart else {}
        files.write_json(out / "info.json", info)
    files.write_json(pair.lengths, tables.length_histograms(lengths) | ({examples.APART: apart} if apart else {}))
    print(f"{pair}: {info['rows']} rows, {info['tokens']} tokens")
    _print_notes(info, str(unsplit) if unsplit else None)


def _print_notes(info: dict[str, Any], unsplit: str | None) -> None:
    if info["mmlu_cut"]:
        print(
            f"note: {info['mmlu_cut']} of {info['rows']['mmlu']} multiple-choice prompts are longer than the context "
            f"of {info['context']} tokens; their end was kept (a lower evaluate.mmlu.shots makes them shorter)"
        )
    for what in examples.tokenised_apart(info):
        print(f"note: in this tokenizer text does not split between {what}: in all rows they are tokenised apart")
    if unsplit:
        print(f"  first met at {unsplit}")


if __name__ == "__main__":
    cli.run(main)
