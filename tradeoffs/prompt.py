"""What a row of a data set becomes for a model: its text in the prompt template, token by token, and what is scored.

    python -m tradeoffs.prompt demo demo                       the first test row
    python -m tradeoffs.prompt demo demo --split train --row 20
    python -m tradeoffs.prompt demo demo --split mmlu            the first multiple-choice question

The template is the one that params.yaml gives the model now, so one can be tried before anything runs; tokenizer and
rows are those that `base` and `prepare` left. A bar stands between two tokens, "\\n" before a line break, "..." for a
token that is a part of a character.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from tradeoffs import params
from tradeoffs.base import prompts
from tradeoffs.common import cells, files
from tradeoffs.common.examples import APART
from tradeoffs.common.texts import harmless
from tradeoffs.models import checkpoints
from tradeoffs.plumbing import cli, terminal
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources.multiple_choice import LETTERS
from tradeoffs.tokenize import chat, questions, tables, windows
from tradeoffs.tokenize.turns import UnsplitError

SPLITS = ("train", "seen", "valid", "test")
MMLU = "mmlu"
BAR, PART = "│", "..."


@dataclass(frozen=True)
class Reads:
    tokenize: params.Tokenize
    max_new_tokens: Annotated[int, "evaluate.max_new_tokens"]
    mmlu: Annotated[params.Mmlu, "evaluate.mmlu"]
    templates: dict[str, str]
    model: Annotated[params.Model, "models.{model}"]
    dataset: Annotated[params.Dataset, "datasets.{dataset}"]


def loaded(cfg: Reads, model: str) -> tuple[Any, list[str]]:
    """The model's tokenizer with the template that params.yaml gives it now, and what there is to say of that.

    Raises UserError if `base` has not made the model, or made it with another template than its own, which is asked
    for now.
    """
    checkpoint, prompt = cells.base(model), cfg.model.prompt
    checkpoints.require(checkpoint, "chat_template.jinja")
    tokenizer = checkpoints.load_tokenizer(checkpoint, str(checkpoint))
    made = (checkpoint / "chat_template.jinja").read_text(encoding="utf-8")
    if prompt == "own":
        if files.read_json(checkpoint / "run_info.json").get("prompt") != "own":
            raise UserError(f"{checkpoint}: was made with another prompt than its own; run `dvc repro base@{model}`")
        tokenizer.chat_template = made
    else:
        given, where = cfg.templates.get(prompt, ""), f"models.{model}.prompt"
        bos = prompts.lacks_bos(tokenizer, prompt, given)
        tokenizer.chat_template = prompts.chat_template(prompt, None, set(tokenizer.get_vocab()), bos, where, given)
    named = f"templates.{prompt} of params.yaml" if prompt in cfg.templates else prompt
    notes = [f"template: {named}"]
    if tokenizer.chat_template != made:
        notes.append(f"note: {checkpoint} was made with another template; `dvc repro` makes it, and what follows, anew")
    return tokenizer, notes


def example_of(dataset: str, split: str, row: int) -> tuple[dict, int]:
    """A prepared row, counted from 1, and how many there are. Raises UserError if there is no such row."""
    path = cells.prepared(dataset) / f"{split}.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: missing; run `dvc repro prepare@{dataset}`")
    rows = [one for one in tables.read(path) if split != MMLU or one["split"] == "test"]
    if row > len(rows):
        hint = "" if rows else f"; another --split may have some ({', '.join((*SPLITS, MMLU))})"
        raise UserError(f"--row {row}: {path} has {len(rows)} rows{hint}")
    return rows[row - 1], len(rows)


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """What each token adds to the text, special tokens written out; PART for one that ends within a character."""
    found, reached = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        whole = text.startswith(reached) and not text[len(reached) :].endswith("\ufffd")
        found.append(text[len(reached) :] if whole else PART)
        reached = text if whole else reached
    return found


def runs(ids: list[int], scored: list[bool], tokenizer: Any) -> Iterator[tuple[bool, list[str]]]:
    """Tokens that stand together and are scored, or are not, one such run after the other."""
    for counts, run in groupby(zip(scored, pieces(tokenizer, ids), strict=True), key=lambda one: one[0]):
        yield counts, [piece for _, piece in run]


def block(label: str, tokens: list[str]) -> Iterator[str]:
    """Tokens below what they are; each line of their text on one of its own."""
    yield f"{label}, {len(tokens)} token{'s' if len(tokens) != 1 else ''}"
    text = BAR.join(harmless(token).replace("\t", "\\t").replace("\n", "\\n\n") for token in tokens)
    yield from (f"    {line}" for line in text.removesuffix("\n").split("\n"))


def conversation(tokenizer: Any, example: dict, source: Path, stops: list[int], apart: bool) -> tuple[list[str], int]:
    """Lines for a question and its answer, or a conversation, of a pair for the rejected answer too; and how many
    tokens the longer one has."""
    row = one_row(tokenizer, example, source, stops, apart)
    found, longest = list(runs(row["ids"], row["scored"], tokenizer)), len(row["ids"])
    lines: list[str] = []
    for number, (scored, tokens) in enumerate(found, 1):
        begins = "; generation begins here" if scored and number == len(found) else ""
        lines += block(f"{'answer, scored' if scored else 'prompt, read only'}{begins}", tokens)
    if "rejected" in example:
        row = one_row(tokenizer, {**example, "answer": example["rejected"]}, source, stops, apart)
        *_, (_, tokens) = runs(row["ids"], row["scored"], tokenizer)
        lines += block("rejected answer, which methods with a preference stage learn from", tokens)
        longest = max(longest, len(row["ids"]))
    return lines, longest


def one_row(tokenizer: Any, example: dict, source: Path, stops: list[int], apart: bool) -> dict[str, Any]:
    (row,) = chat.instruction_rows(tokenizer, [example], sys.maxsize, stops, source, apart)
    return row


def document(tokenizer: Any, example: dict, window: int) -> list[str]:
    """Lines for the first window of a text."""
    rows = list(windows.text_rows(windows.documents(tokenizer, [example], "text"), window))
    lines = [f"{len(rows)} windows of at most {window} tokens; the first:"]
    for scored, tokens in runs(rows[0]["ids"], rows[0]["scored"], tokenizer) if rows else ():
        lines += block("scored" if scored else "read only", tokens)
    return [*lines, "to train, documents are joined, with the end of sequence behind each, and then cut"]


def multiple_choice(tokenizer: Any, dataset: str, example: dict, shots: int) -> list[str]:
    """Lines for a question as it is asked, and what each letter is; however long it is."""
    asked = tables.read(cells.prepared(dataset) / f"{MMLU}.jsonl")
    shown = [one for one in asked if one["subject"] == example["subject"] and one["split"] == "dev"]
    (row,) = questions.mmlu_rows(tokenizer, [*shown, example], shots, 1, sys.maxsize)
    lines = list(block("prompt, read only; no template is around it", pieces(tokenizer, row["ids"])))
    letters = zip(LETTERS, row["stems"], row["options"], strict=True)
    named = [f"{letter}: {' '.join(map(str, (*stem, option)))}" for letter, stem, option in letters]
    return [*lines, f"then the most likely of: {', '.join(named)} (token ids); right is {LETTERS[row['answer']]}"]


def not_split(tokenizer: Any, dataset: str, stops: list[int]) -> str | None:
    """Where text does not split between a prompt and its answer, if anywhere in the data set.

    Raises UserError where `tokenize` would.
    """
    try:
        for split in SPLITS:
            source = cells.prepared(dataset) / f"{split}.jsonl"
            for examples in (tables.read(source), rejected(tables.read(source))):
                for _ in chat.instruction_rows(tokenizer, examples, sys.maxsize, stops, source):
                    pass
    except UnsplitError as unsplit:
        return str(unsplit)
    return None


def known_apart(pair: cells.Pair, template: str) -> bool | None:
    """Whether `tokenize` has found that text does not split; None where it has not run with this template."""
    info, made = pair.tokens / "info.json", cells.base(pair.model) / "chat_template.jinja"
    as_made = made.read_text(encoding="utf-8") == template
    return "answers" in files.read_json(info).get(APART, ()) if as_made and info.is_file() else None


def rejected(examples: Iterable[dict]) -> Iterator[dict]:
    yield from ({**one, "answer": one["rejected"]} for one in examples if "rejected" in one)


def answered(
    tokenizer: Any, dataset: str, split: str, example: dict, stops: list[int], limits: Reads, apart: bool | None
) -> Iterator[str]:
    """Lines for a row that has an answer, and what there is to say of the data set as a whole; `apart`: known_apart."""
    source = cells.prepared(dataset) / f"{split}.jsonl"
    where, problem = None, None
    if apart is None:
        try:
            where = not_split(tokenizer, dataset, stops)
        except UserError as error:  # of another row, as this one's stops the command
            problem = str(error)
    try:
        lines, longest = conversation(tokenizer, example, source, stops, apart=bool(apart or where))
    except UnsplitError:
        lines, longest = conversation(tokenizer, example, source, stops, apart=True)
    yield from lines
    ends = ", ".join(f"{tokenizer.convert_ids_to_tokens(token)} ({token})" for token in stops)
    yield f"generation ends at {harmless(ends)}, or after {limits.max_new_tokens} tokens"
    if longest > limits.tokenize.max_length:
        yield f"note: {longest} tokens are more than tokenize.max_length ({limits.tokenize.max_length}) allows"
    if apart or where:
        yield "note: in this tokenizer text does not split between a prompt and its answer: in all rows they are"
        yield "  tokenised apart" + (f"; first met at {harmless(where)}" if where else "")
    if problem:
        yield f"note: `tokenize` stops at another row: {harmless(problem)}"


def main(model: str, dataset: str, split: str | None, row: int) -> None:
    cfg = params.load_settings(Reads, now=True, model=model, dataset=dataset)
    split = split or (MMLU if cfg.dataset.kind == "questions" else "test")
    tokenizer, notes = loaded(cfg, model)
    example, rows = example_of(dataset, split, row)
    lines = [f"{cells.Pair(model, dataset)}, {split}, row {row} of {rows}", *notes, ""]
    if split == MMLU:
        lines += multiple_choice(tokenizer, dataset, example, cfg.mmlu.shots)
    elif cfg.dataset.kind == "text":
        lines += document(tokenizer, example, cfg.tokenize.window)
    else:
        stops = chat.stop_ids(tokenizer, cells.base(model))
        apart = known_apart(cells.Pair(model, dataset), tokenizer.chat_template)
        lines += answered(tokenizer, dataset, split, example, stops, cfg, apart)
    terminal.page(lines)


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("model", metavar="MODEL", help="a name of models in params.yaml, which `base` has made")
    parser.add_argument("dataset", metavar="DATASET", help="a name of datasets, which `prepare` has made")
    parser.add_argument("--split", choices=(*SPLITS, MMLU), help="of the data set; by default test, if it has one")
    parser.add_argument("--row", type=cli.count, default=1, metavar="N", help="of the split, from 1 on")
    cli.command(main, parser)
